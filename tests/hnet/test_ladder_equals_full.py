"""A two-stage model on a ladder against one that computes every slot, at boundary rates from one chunk to all bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hnet
from layers.ladder import LadderConfig
from layers.paths import flatten, rebuild
from tests.hnet.tiny import ONE_STAGE, TWO_STAGE, branch, build
from tests.layers.common import equations
from text.batch import Batch

ROWS, LENGTH = 3, 48
FRACTIONS = (0.25, 0.5, 1.0)
RUNGS = LadderConfig(FRACTIONS).rungs(LENGTH)


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


def loss(model, batch):
  output = model(batch)
  return jnp.sum(output.nll) / batch.scored.sum() + 0.03 * output.aux_losses['ratio'], output


@pytest.fixture(scope='module', params=[1, ROWS], ids=['all rows at once', 'rows in groups'])
def ladder(request):
  return build(TWO_STAGE, ladder={'fractions': FRACTIONS, 'row_groups': request.param})


@pytest.fixture(scope='module')
def full():
  """The same parameters."""
  return build(TWO_STAGE, ladder={'fractions': (1.0,)})


value_and_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))


CASES = [(LENGTH, 1, 1), (LENGTH, -1, -1), (40, -1, 1), (24, -1, -1), (16, 1, 1), (8, 1, -1), (0, 1, 1), (0, -1, -1)]


def test_every_rate_gives_the_same_outputs_and_gradients(ladder, full):
  rungs, rates = set(), set()
  for repeated, *signs in CASES:
    batch = text(repeated)
    (_, ours), gradients = value_and_gradient(turned(ladder, signs), batch)
    (_, theirs), expected = value_and_gradient(turned(full, signs), batch)
    for p in theirs.boundary_probabilities:
      assert not np.any(np.abs(p - 0.5) < 1e-4), 'choose another text: rounding could decide a boundary'
    for b, other in zip(ours.segmentations, theirs.segmentations, strict=True):
      np.testing.assert_array_equal(b, other)
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=2e-5)
    np.testing.assert_allclose(ours.nll, theirs.nll, atol=2e-5)
    for name, value in ours.metrics.items():
      if not name.startswith('ladder_fill'):
        np.testing.assert_allclose(value, theirs.metrics[name], rtol=1e-5)
    expected = flatten(expected)
    for path, gradient in flatten(gradients).items():
      tolerance = 1e-4 * np.abs(expected[path]).max() + 1e-6
      np.testing.assert_allclose(gradient, expected[path], atol=tolerance, err_msg=path)
    for stage, b in enumerate(theirs.segmentations):
      needed = [next(rung for rung in RUNGS if rung >= count) for count in b.sum(1)]
      rungs.add((stage, max(needed)))
      fill = b.sum() / (sum(needed) if ladder.config.ladder.row_groups > 1 else ROWS * max(needed))
      np.testing.assert_allclose(ours.metrics[f'ladder_fill_{stage + 1}'], fill, rtol=1e-6)
    rates.add(round(float(theirs.metrics['boundary_rate_0']), 2))
  assert rungs == {(stage, rung) for stage in (0, 1) for rung in RUNGS}
  assert min(rates) < 0.05 and max(rates) == 1.0


def test_switches_stand_side_by_side(ladder, full):
  """Encoder, decoder and main network of the inner stages, forward and backward; none inside another."""
  program = jax.make_jaxpr(jax.grad(loss, has_aux=True))(ladder, text(0))
  assert [depth for name, depth in equations(program.jaxpr) if name == 'cond'] == [0] * 6
  alone = jax.make_jaxpr(jax.grad(loss, has_aux=True))(full, text(0))
  assert not any(name == 'cond' for name, _ in equations(alone.jaxpr))


CAPACITY = 16


@pytest.fixture(scope='module')
def forms():
  """Programs of a model of one stage: with room for every chunk, and with CAPACITY chunks a row at most."""
  whole = build(ONE_STAGE, ladder={'fractions': (1.0,)})
  config = hnet.parse(branch(ONE_STAGE, ladder={'fractions': (0.2, 0.3)}))
  assert config.ladder.rungs(LENGTH)[-1] == CAPACITY
  hard = rebuild(jax.eval_shape(lambda: hnet.build(config, rngs=nnx.Rngs(0))), flatten(whole))
  return jax.jit(lambda batch: whole(batch)), jax.jit(lambda batch: hard(batch))


class TestHardCapacity:
  """A ladder that ends below 1: chunks beyond its largest rung are dropped, counted, and nothing else changes."""

  def test_the_first_chunks_of_a_row_are_kept_and_the_others_counted(self, forms):
    full, hard = (form(text(0)) for form in forms)
    wanted = np.asarray(full.segmentations[0])
    kept = wanted & (np.cumsum(wanted, 1) <= CAPACITY)
    assert wanted.sum(1).max() > CAPACITY
    np.testing.assert_array_equal(hard.segmentations[0], kept)
    assert hard.metrics['dropped_boundaries_0'] == wanted.sum() - kept.sum()
    assert 'dropped_boundaries_0' not in full.metrics
    first = np.argmax(wanted & ~kept, axis=1)
    for row, end in enumerate(first):
      np.testing.assert_allclose(hard.logits[row, : end or None], full.logits[row, : end or None], atol=1e-5)
    assert np.isfinite(hard.logits).all()

  def test_nothing_changes_while_the_chunks_fit(self, forms):
    full, hard = (form(text(40)) for form in forms)
    assert hard.metrics['dropped_boundaries_0'] == 0
    np.testing.assert_allclose(hard.logits, full.logits, atol=1e-5)

  def test_a_document_without_room_reads_nothing_of_the_one_before(self, forms):
    batch = text(0)
    ids = np.where(np.arange(LENGTH) < 40, 1, 2).astype(np.int32) * np.ones((ROWS, 1), np.int32)
    other = batch.bytes.copy()
    other[:, :40] = np.random.default_rng(1).integers(0, 256, (ROWS, 40))
    outputs = [forms[1](Batch(data, ids)) for data in (batch.bytes, other)]
    for output in outputs:
      assert (output.segmentations[0].sum(1) == CAPACITY).all() and not output.segmentations[0][:, 40:].any()
    np.testing.assert_allclose(outputs[0].logits[:, 40:], outputs[1].logits[:, 40:], atol=1e-6)
