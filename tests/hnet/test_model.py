"""What the whole model reports: metrics, losses under a schedule, and how it computes in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hnet
from hnet.parts.losses import ratio_loss
from layers.contract import Context
from layers.paths import flatten, rebuild
from tests.hnet.tiny import ONE_STAGE, TWO_STAGE, branch, build
from tests.layers.common import segment_ids
from text.batch import Batch

IDS = segment_ids([30, 18], [48], [25])
BATCH = Batch(np.random.default_rng(0).integers(0, 256, IDS.shape).astype(np.uint8), IDS)
REAL = IDS > 0


def with_config(model, layout, **changes):
  """The same parameters under another configuration."""
  config = hnet.parse(branch(layout, **changes))
  return rebuild(jax.eval_shape(lambda: hnet.build(config, rngs=nnx.Rngs(0))), flatten(model))


@pytest.fixture(scope='module')
def two_stage():
  """(model, output) with targets 2 and a ramp from 2 to 4."""
  model = build(TWO_STAGE, ratio_targets=[2.0, {'start': 2.0, 'end': 4.0, 'until': 0.5}])
  forward = jax.jit(lambda model, batch, context: model(batch, context=context))
  return model, forward


def test_metrics_are_what_they_are_called(two_stage):
  model, forward = two_stage
  output = forward(model, BATCH, Context(progress=jnp.float32(1.0)))
  outer, inner = (np.asarray(b).sum() for b in output.segmentations)
  assert output.metrics == {}
  for metrics, drawn, slots in zip(output.stage_metrics, (outer, inner), (REAL.sum(), outer), strict=True):
    assert metrics['boundary_rate'] == pytest.approx(drawn / slots, rel=1e-6)
    assert metrics['bytes_per_chunk'] == pytest.approx(REAL.sum() / drawn, rel=1e-6)
    assert metrics['fill'] == pytest.approx(drawn / 3 / 48, rel=1e-6)
    assert all(value.dtype == jnp.float32 and value.shape == () for value in metrics.values())
    assert set(metrics) == {'boundary_rate', 'bytes_per_chunk', 'fill', 'ratio_loss'}


def test_targets_follow_the_progress_in_one_program(two_stage):
  model, forward = two_stage
  outputs = [forward(model, BATCH, Context(progress=jnp.float32(progress))) for progress in (0.0, 0.25, 1.0)]
  assert forward._cache_size() == 1
  (outer_b, inner_b), (outer_p, inner_p) = outputs[0].segmentations, outputs[0].boundary_probabilities
  for output, target in zip(outputs, (2.0, 3.0, 4.0), strict=True):
    outer, inner = ratio_loss(outer_p, outer_b, REAL, 2.0), ratio_loss(inner_p, inner_b, outer_b, target)
    np.testing.assert_allclose(output.stage_metrics[0]['ratio_loss'], outer, rtol=1e-5)
    np.testing.assert_allclose(output.stage_metrics[1]['ratio_loss'], inner, rtol=1e-5)
    np.testing.assert_allclose(output.aux_losses['ratio'], outer + inner, rtol=1e-5)


def test_rates_of_documents_are_pulled_one_by_one():
  """Three documents of one row each: their mean loss is the loss of the batch in this scope, and not in the other."""
  model = build(ONE_STAGE, ratio_targets=3.0, ratio_scope='per_document')
  whole = Batch(BATCH.bytes, np.ones_like(IDS))
  output = jax.jit(lambda batch: model(batch))(whole)
  (p,), (b,) = output.boundary_probabilities, output.segmentations
  rows = [float(ratio_loss(p[row], b[row], np.ones(48, bool), 3.0)) for row in range(3)]
  np.testing.assert_allclose(output.aux_losses['ratio'], np.mean(rows), rtol=1e-5)
  assert abs(float(ratio_loss(p, b, np.ones((3, 48), bool), 3.0)) - np.mean(rows)) > 1e-4


def test_rules_have_no_auxiliary_loss():
  model = jax.eval_shape(lambda: hnet.build(hnet.parse(branch(ONE_STAGE, chunking='hnet_space')), rngs=nnx.Rngs(0)))
  output = jax.eval_shape(lambda model: model(BATCH), model)
  assert output.aux_losses == {} and set(output.stage_metrics[0]) == {'boundary_rate', 'bytes_per_chunk', 'fill'}
  flat = jax.eval_shape(lambda: hnet.build(hnet.parse(branch(['T1'])), rngs=nnx.Rngs(0)))
  output = jax.eval_shape(lambda model: model(BATCH), flat)
  assert output.aux_losses == output.metrics == {} and output.segmentations == output.stage_metrics == ()


def test_bfloat16_computes_nearly_the_same_and_decodes():
  layout, changes = ['m1', ['t1'], 't1'], {'chunking': 'hnet_pool(3)'}
  model = build(layout, **changes)
  low = with_config(model, layout, dtype='bfloat16', **changes)

  def loss(model):
    output = model(BATCH)
    return output.nll.sum(), output.logits

  expected = jax.jit(loss)(model)[1]
  gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(low)
  assert logits.dtype == jnp.float32
  assert np.abs(np.asarray(logits - expected))[REAL].max() < 0.05 * np.abs(expected).max()
  assert all(leaf.dtype == jnp.float32 and np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))

  @jax.jit
  def decode(model):
    cache = model.init_cache(3, 10)
    first, cache = model.prefill(jax.tree.map(lambda rows: rows[:, :6], BATCH), jnp.array([6, 6, 6]), cache)
    second, _ = model.step(BATCH.bytes[:, 6], cache)
    return jnp.stack([first, second], 1)

  np.testing.assert_allclose(decode(low), logits[:, 5:7], atol=0.05 * np.abs(expected).max())


def test_a_window_bounds_what_a_prompt_leaves_behind():
  """A window keeps its own number of keys whatever the length of the prompt."""
  model = build(['t1'], attn_cfg={'num_heads': 2, 'rotary_emb_dim': 8, 'window_size': 3})
  whole = Batch(BATCH.bytes, np.ones_like(IDS))
  cache = model.init_cache(3, 48)
  assert {leaf.shape[1] for leaf in jax.tree.leaves(cache.stages) if leaf.ndim > 1} == {4}
  logits, _ = jax.jit(model.prefill)(BATCH, jnp.array([48, 48, 48]), cache)
  np.testing.assert_allclose(logits, jax.jit(lambda batch: model(batch))(whole).logits[:, -1], atol=1e-5)
