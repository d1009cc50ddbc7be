"""Capacities that hold the chunks against room for every byte, in two stages and at any boundary rate; others as well,
and what a fixed capacity drops.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hnet
from layers.paths import flatten, rebuild
from tests.hnet.tiny import ONE_STAGE, TWO_STAGE, branch, build
from text.batch import Batch

ROWS, LENGTH = 3, 48


def text(repeated):
  """Rows with two documents and padding, of which the first `repeated` bytes are one byte and the rest are random.

  Equal bytes give nearly equal encoder states: with W_q = W_k no boundary, with W_q = -W_k a boundary at each.
  """
  data = np.random.default_rng(0).integers(0, 256, (ROWS, LENGTH)).astype(np.uint8)
  data[:, :repeated] = ord('a')
  ids = np.ones((ROWS, LENGTH), np.int32)
  ids[1, 30:], ids[2, 20:] = 2, 0
  return Batch(data, ids)


def turned(model, signs):
  """The model with W_k = sign * W_q at every stage."""
  flat = dict(flatten(model))
  for stage, sign in enumerate(signs):
    path = 'backbone.' + 'inner.' * stage + 'boundary.'
    flat[f'{path}key.kernel'] = sign * flat[f'{path}query.kernel']
  return rebuild(model, flat)


@functools.partial(jax.jit, static_argnames='capacities')
def value_and_gradient(model, batch, capacities=None):
  def loss(model):
    output = model(batch, capacities=capacities)
    return jnp.sum(output.nll) / batch.scored.sum() + 0.03 * output.aux_losses['ratio'], output

  (_, output), gradient = jax.value_and_grad(loss, has_aux=True)(model)
  return output, gradient


# Repeated bytes, signs, chunks of the fullest row of each level.
CASES = [
  (LENGTH, (1, 1), (2, 2)),
  (LENGTH, (-1, -1), (48, 48)),
  (40, (-1, 1), (48, 4)),
  (24, (-1, -1), (44, 42)),
  (16, (1, 1), (11, 6)),
  (8, (1, -1), (18, 11)),
  (0, (1, 1), (24, 14)),
  (0, (-1, -1), (31, 25)),
]
CAPACITIES = [(2, 2), (48, 4), (24, 14)]  # each a program: they just fit one case, fit some, and do not fit others


@pytest.fixture(scope='module')
def model():
  return build(TWO_STAGE)


@pytest.fixture(scope='module')
def whole(model):
  """of(case) -> (model, batch, its output and gradient with room for every byte)."""

  @functools.cache
  def of(case):
    repeated, signs, _ = CASES[case]
    arguments = turned(model, signs), text(repeated)
    return *arguments, *jax.device_get(value_and_gradient(*arguments))

  return of


@pytest.mark.parametrize('case', range(len(CASES)))
def test_needed_are_the_chunks_of_the_fullest_row(whole, case):
  output = whole(case)[2]
  assert tuple(map(int, output.needed)) == CASES[case][2]
  for level, (b, p) in enumerate(zip(output.segmentations, output.boundary_probabilities, strict=True)):
    assert output.needed[level] == b.sum(1).max()
    assert output.stage_metrics[level]['fill'] == pytest.approx(b.sum() / ROWS / LENGTH)
    assert not np.any(np.abs(p - 0.5) < 1e-4), 'choose another text: rounding could decide a boundary'
  assert not any('dropped_boundaries' in metrics for metrics in output.stage_metrics)


@pytest.mark.parametrize('capacities', CAPACITIES)
def test_capacities_that_fit_change_nothing_and_others_say_so_without_harm(whole, capacities):
  fitted = []
  for case, (_, _, needed) in enumerate(CASES):
    model, batch, expected, gradients = whole(case)
    ours, found = jax.device_get(value_and_gradient(model, batch, capacities=capacities))
    over = [level for level in (0, 1) if needed[level] > capacities[level]]
    known = over[0] + 1 if over else 2  # chunks inside the first level that overflows are others
    assert tuple(map(int, ours.needed))[:known] == needed[:known]
    assert np.isfinite(ours.nll).all() and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    if over:
      continue
    fitted.append(needed)
    for b, other in zip(ours.segmentations, expected.segmentations, strict=True):
      np.testing.assert_array_equal(b, other)
    np.testing.assert_allclose(ours.logits, expected.logits, atol=2e-5)
    np.testing.assert_allclose(ours.nll, expected.nll, atol=2e-5)
    for metrics, other, capacity in zip(ours.stage_metrics, expected.stage_metrics, capacities, strict=True):
      for name, value in metrics.items():
        share = LENGTH / capacity if name == 'fill' else 1
        np.testing.assert_allclose(value, share * other[name], rtol=1e-5, err_msg=name)
    gradients = flatten(gradients)
    for path, gradient in flatten(found).items():
      tolerance = 1e-4 * np.abs(gradients[path]).max() + 1e-6
      np.testing.assert_allclose(gradient, gradients[path], atol=tolerance, err_msg=path)
  assert capacities in fitted and len(fitted) < len(CASES)


class TestFixedCapacity:
  """Chunks beyond a share of the row's bytes are dropped, counted, and nothing else changes."""

  MOST = 15  # 0.3 of 48 bytes, rounded up

  @pytest.fixture(scope='class')
  @classmethod
  def forms(cls):
    full = build(ONE_STAGE)
    config = hnet.parse(branch(ONE_STAGE, fixed_capacity=[0.3]))
    hard = rebuild(jax.eval_shape(lambda: hnet.build(config, rngs=nnx.Rngs(0))), flatten(full))
    return jax.jit(lambda batch: full(batch)), jax.jit(lambda batch: hard(batch, capacities=(cls.MOST,)))

  def test_the_first_chunks_of_a_row_are_kept_and_the_others_counted(self, forms):
    full, hard = (form(text(0)) for form in forms)
    wanted = np.asarray(full.segmentations[0])
    kept = wanted & (np.cumsum(wanted, 1) <= self.MOST)
    assert wanted.sum(1).max() > self.MOST and hard.needed == (self.MOST,)
    np.testing.assert_array_equal(hard.segmentations[0], kept)
    assert hard.stage_metrics[0]['dropped_boundaries'] == wanted.sum() - kept.sum()
    assert 'dropped_boundaries' not in full.stage_metrics[0]
    first = np.argmax(wanted & ~kept, axis=1)
    for row, end in enumerate(first):
      np.testing.assert_allclose(hard.logits[row, : end or None], full.logits[row, : end or None], atol=1e-5)
    assert np.isfinite(hard.logits).all()

  def test_nothing_changes_while_the_chunks_fit(self, forms):
    full, hard = (form(text(40)) for form in forms)
    assert hard.stage_metrics[0]['dropped_boundaries'] == 0 and hard.needed == full.needed
    np.testing.assert_allclose(hard.logits, full.logits, atol=1e-5)

  def test_a_document_without_room_reads_nothing_of_the_one_before(self, forms):
    batch = text(0)
    ids = np.where(np.arange(LENGTH) < 40, 1, 2).astype(np.int32) * np.ones((ROWS, 1), np.int32)
    other = batch.bytes.copy()
    other[:, :40] = np.random.default_rng(1).integers(0, 256, (ROWS, 40))
    outputs = [forms[1](Batch(data, ids)) for data in (batch.bytes, other)]
    for output in outputs:
      assert (output.segmentations[0].sum(1) == self.MOST).all() and not output.segmentations[0][:, 40:].any()
    np.testing.assert_allclose(outputs[0].logits[:, 40:], outputs[1].logits[:, 40:], atol=1e-6)

  def test_every_stage_has_its_own_share_of_the_bytes_and_gradients_are_numbers(self, model, whole):
    hard = hnet.parse(branch(TWO_STAGE, fixed_capacity=[None, 0.2]))
    hard = rebuild(jax.eval_shape(lambda: hnet.build(hard, rngs=nnx.Rngs(0))), flatten(whole(6)[0]))
    output, gradient = jax.device_get(value_and_gradient(hard, text(0), capacities=CAPACITIES[-1]))
    assert tuple(map(int, output.needed)) == (CASES[6][2][0], 10)  # 0.2 of 48 bytes, not of the chunks outside
    outer, inner = output.stage_metrics
    dropped = whole(6)[2].segmentations[1].sum() - output.segmentations[1].sum()
    assert inner['dropped_boundaries'] == dropped > 0 and 'dropped_boundaries' not in outer
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))

  def test_where_a_pool_reads_what_stands_before_a_document_begins_without_a_chunk(self):
    """So the limit counts one chunk less a document, and a document that comes too late reads nothing of another."""
    parts = {'boundary': 'stride(2)', 'pool': 'latent(heads=2)', 'unpool': 'cross(heads=2)'}
    run = jax.jit(lambda model, batch: model(batch))
    full, hard = (build(ONE_STAGE, chunking=parts, fixed_capacity=limit) for limit in (None, [0.3]))
    batch = text(0)
    ids = np.where(np.arange(LENGTH) < 36, 1, 2).astype(np.int32) * np.ones((ROWS, 1), np.int32)
    batch = Batch(batch.bytes, ids)
    wanted, output = (run(model, batch) for model in (full, hard))
    assert int(wanted.needed[0]) == LENGTH // 2 - 2 and int(output.needed[0]) == self.MOST
    assert output.stage_metrics[0]['dropped_boundaries'] == ROWS * (LENGTH // 2 - 2 - self.MOST)
    np.testing.assert_array_equal(np.flatnonzero(output.segmentations[0][0]), [*range(0, 2 * self.MOST + 1, 2), 36])
    end = 2 * (self.MOST + 1)  # where the first chunk that is dropped would start
    np.testing.assert_allclose(output.logits[:, :end], wanted.logits[:, :end], atol=1e-5)
    other = batch.bytes.copy()
    other[:, :36] = np.random.default_rng(1).integers(0, 256, (ROWS, 36))
    np.testing.assert_allclose(run(hard, Batch(other, ids)).logits[:, 36:], output.logits[:, 36:], atol=1e-6)
