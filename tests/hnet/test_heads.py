"""Several heads of a stage against a loop over models of one head."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hnet
from layers.contract import EVAL, Context
from layers.paths import flatten, rebuild
from tests.hnet.tiny import ONE_STAGE, branch, build
from text.batch import Batch

HEADS = 3
BATCH = Batch(np.random.default_rng(0).integers(0, 256, (4, 40)).astype(np.uint8), np.ones((4, 40), np.int32))


def alone(model, head):
  """The model of one head that shares all but the boundary."""
  one = build(ONE_STAGE)
  flat = {path.replace(f'.heads.{head}.', '.'): leaf for path, leaf in flatten(model).items()}
  return rebuild(one, {path: leaf for path, leaf in flat.items() if '.heads.' not in path})


def test_heads_are_cut_apart_and_meet_in_their_mean():
  model = build(ONE_STAGE, heads=HEADS)
  level = model._level(BATCH)
  x, stage = model._embed(jnp.asarray(BATCH.bytes), ()), model.backbone
  e = stage.encoder(x, level.segment_ids_BxC)
  found = []
  for head in range(HEADS):
    one = alone(model, head).backbone
    cut, segments = one._cut(e, level, EVAL)
    z, _ = one.inner(one.pool(e, cut, segments), segments.inner, (), EVAL)
    found.append((cut.emit, one.combine(e, cut, functools.partial(one.unpool, z, cut, segments))[0]))
  expected = model._head(stage.decoder(sum(y for _, y in found) / HEADS, level.segment_ids_BxC))
  output = model(BATCH)
  np.testing.assert_allclose(output.logits, expected, atol=1e-5)
  np.testing.assert_array_equal(output.segmentations[0], found[0][0])
  assert len({np.asarray(emit).tobytes() for emit, _ in found}) == HEADS
  assert output.needed[0] == max(int(emit.sum(1).max()) for emit, _ in found)
  rate = np.mean([emit for emit, _ in found])
  assert output.stage_metrics[0]['boundary_rate'] == pytest.approx(rate, rel=1e-6)
  assert output.stage_metrics[0]['bytes_per_chunk'] == pytest.approx(1 / rate, rel=1e-6)


def test_equal_heads_are_one_head():
  model = build(ONE_STAGE, heads=2)
  flat = flatten(model)
  same = rebuild(model, {path: flat[path.replace('.heads.1.', '.heads.0.')] for path in flat})
  np.testing.assert_allclose(same(BATCH).logits, alone(model, 0)(BATCH).logits, atol=1e-5)


def test_fresh_heads_differ_and_draw_for_themselves():
  model = hnet.build(hnet.parse(branch(ONE_STAGE, heads=2, chunking='dynamic_pooling')), rngs=nnx.Rngs(0))
  flat = flatten(hnet.build(hnet.parse(branch(ONE_STAGE, heads=2)), rngs=nnx.Rngs(0)))
  kernels = [flat[f'backbone.boundary.heads.{head}.query.kernel'] for head in range(2)]
  np.testing.assert_array_equal(kernels[0], np.eye(32))
  assert 0.1 < float(jnp.std(kernels[1] - kernels[0])) < 0.3
  path = 'backbone.boundary.heads.{}.'
  same = flatten(model)
  same = rebuild(model, {name: same[name.replace(path.format(1), path.format(0))] for name in same})
  _, decisions = jax.jit(
    lambda model: model.backbone(
      model._embed(jnp.asarray(BATCH.bytes), ()), model._level(BATCH), (40,), Context(jax.random.key(0))
    )
  )(same)
  emit = np.asarray(decisions[0].cut.emit).reshape(4, 2, 40)
  assert (emit[:, 0] != emit[:, 1]).any()


def test_what_is_inside_costs_once_for_each_head():
  one, three = (hnet.parse(branch(ONE_STAGE, heads=heads)) for heads in (1, 3))
  cost = [hnet.build(config, rngs=nnx.Rngs(0)).flops_per_byte(64, [4.0]) for config in (one, three)]
  for name in cost[0]:
    assert cost[1][name] == pytest.approx(cost[0][name] * (3 if name in ('main', 'chunking_0') else 1))


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'heads': 0}, 'heads'),
    ({'heads': 2, 'chunking': 'hnet_pool(3)'}, r'heads 2: boundary stride\(size=3\) has nothing that differs'),
    ({'heads': 2, 'chunking': 'bolmo_chunker'}, 'reads ahead'),
    ({'heads': 2, 'chunking': {'unpool': 'cross(heads=2)', 'combine': 'through'}}, 'one head'),
  ],
)
def test_heads_that_cannot_be_are_one_sentence(changes, words):
  with pytest.raises(ValueError, match=words) as error:
    hnet.parse(branch(ONE_STAGE, **changes))
  assert '\n' not in str(error.value)


def test_a_model_of_one_stage_has_no_heads():
  with pytest.raises(ValueError, match=r'model\.heads 2.*nothing is cut'):
    hnet.parse(branch(['T1'], heads=2))
