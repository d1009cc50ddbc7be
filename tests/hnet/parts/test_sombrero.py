"""The sigmoid router, smoothing over slots, and the loss that wants boundaries where the next byte is hard."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hnet import parts
from hnet.parts.base import Predicted
from hnet.parts.losses import at_next_byte
from hnet.parts.sombrero import smoothed
from layers.chunks import Level
from layers.contract import EVAL
from tests.hnet.parts.common import EMIT, IDS, LENGTH, ROWS, SIZES, STARTS, build, cut_of, level_of
from tests.layers.common import random


def loop(x, p, emit):
  """x̄ slot by slot, float64; begun anew where a document starts."""
  result = np.zeros(x.shape)
  for row in range(ROWS):
    for t in range(LENGTH):
      c = 1.0 if STARTS[row, t] else p[row, t] if emit[row, t] else 1.0 - p[row, t]
      result[row, t] = c * x[row, t] + (0 if STARTS[row, t] else (1 - c) * result[row, t - 1])
  return result


def test_the_sigmoid_is_of_one_projection_and_certain_where_a_document_starts():
  part, e = build('boundary', 'sigmoid'), random(ROWS, LENGTH, SIZES.width)
  cut = part(jnp.asarray(e, jnp.float32), level_of(IDS), EVAL)
  logit = e.astype(np.float64) @ np.float64(part.gate.kernel[...])[:, 0] + np.float64(part.gate.bias[...])
  expected = np.where(STARTS, 1, 1 / (1 + np.exp(-logit))) * (IDS > 0)
  np.testing.assert_allclose(cut.p, expected, atol=1e-6)
  np.testing.assert_array_equal(cut.emit, expected > 0.5)
  assert cut.soft is cut.p and 0.2 < cut.emit[IDS > 0].mean() < 0.9


@pytest.mark.parametrize('dropped', [False, True])
def test_smoothing_equals_a_loop_also_where_a_limit_drops_chunks(dropped):
  x, cut = random(ROWS, LENGTH, SIZES.width), cut_of()
  emit = EMIT & ~(np.arange(LENGTH) > 4) if dropped else EMIT
  found = smoothed(x, dataclasses.replace(cut, emit=jnp.asarray(emit)), level_of(IDS))
  np.testing.assert_allclose(found[IDS > 0], loop(x, np.asarray(cut.p), emit)[IDS > 0], atol=1e-6)


def test_certainty_smooths_nothing():
  x, certain = random(ROWS, LENGTH, SIZES.width), cut_of(p=EMIT.astype(np.float32))
  np.testing.assert_array_equal(smoothed(x, certain, level_of(IDS))[IDS > 0], x[IDS > 0])


@pytest.mark.parametrize('dropped', [False, True])
def test_pool_and_unpool_smooth_what_the_plain_ones_take_and_give(dropped):
  level, cut, limit = level_of(IDS), cut_of(), 3 if dropped else None
  segments = level.cut(cut.emit, LENGTH, limit)
  cut = dataclasses.replace(cut, emit=segments.starts_BxC)
  e, z = random(ROWS, LENGTH, SIZES.width), random(ROWS, LENGTH, SIZES.inner, seed=1)
  scale, residual = random(ROWS, LENGTH, seed=2), random(ROWS, LENGTH, SIZES.width, seed=3)
  average = lambda x: loop(np.asarray(x), np.asarray(cut.p), np.asarray(cut.emit)).astype(np.float32)
  pool = build('pool', 'smoothed_first')(e, cut, segments)
  np.testing.assert_allclose(pool, build('pool', 'first')(average(e), cut, segments), atol=1e-6)
  u = build('unpool', 'repeat')(z, cut, segments, None, None)
  found = build('unpool', 'smoothed_repeat')(z, cut, segments, scale, residual)
  np.testing.assert_allclose(found[IDS > 0], (average(u) + residual)[IDS > 0], atol=1e-6)


def test_smoothing_tells_the_boundary_where_its_certainty_helps():
  x, weight = random(ROWS, LENGTH, SIZES.width), random(ROWS, LENGTH, SIZES.width, seed=1)
  cut, inside = cut_of(), (IDS > 0)[..., None]
  total = lambda soft: jnp.vdot(smoothed(x, dataclasses.replace(cut, soft=soft), level_of(IDS)), weight * inside)
  found, soft = jax.grad(total)(cut.soft), np.float64(cut.soft)
  for row, t in [(0, 3), (1, 6), (2, 9)]:
    by_hand = [
      np.vdot(
        loop(x, np.where(np.eye(LENGTH)[t] * np.eye(ROWS)[row][:, None], soft + step, soft), EMIT), weight * inside
      )
      for step in (1e-5, -1e-5)
    ]
    assert float(found[row, t]) == pytest.approx((by_hand[0] - by_hand[1]) / 2e-5, rel=1e-3)
  assert not np.any(np.asarray(found)[STARTS])


def predicted_of(ids, logits):
  """What a head says of zeros; every byte but a document's first is scored."""
  scored = (ids > 0) & (np.diff(ids, axis=1, prepend=0) == 0)
  log_p = jax.nn.log_softmax(logits)[:, :-1, 0]
  nll = jnp.where(scored, -jnp.pad(log_p, ((0, 0), (1, 0))), 0.0)
  return Predicted(logits, nll, jnp.asarray(scored), jnp.zeros(ids.shape, jnp.uint8))


def test_cab_pulls_probabilities_to_what_the_model_misses_of_the_next_byte_and_leaves_the_model_alone():
  logits, cut, loss = jnp.asarray(random(ROWS, LENGTH, 256)), cut_of(), parts.parse('loss', 'cab').loss()

  def value(p, logits):
    return loss(dataclasses.replace(cut, p=p), level_of(IDS), predicted_of(IDS, logits), EVAL)

  of_p, of_logits = jax.grad(value, (0, 1))(cut.p, logits)
  known = (IDS > 0) & (np.pad(IDS[:, 1:], ((0, 0), (0, 1))) == IDS)  # slots with another of their document behind them
  right = np.asarray(jax.nn.softmax(logits)[..., 0])
  np.testing.assert_allclose(of_p, np.where(known, -2 * (1 - right - cut.p) / known.sum(), 0), atol=1e-7)
  assert not np.any(of_logits)
  expected = np.mean((1 - right - np.asarray(cut.p))[known] ** 2)
  assert float(value(cut.p, logits)) == pytest.approx(expected, rel=1e-5)


def test_the_next_byte_of_a_slot_is_behind_the_byte_where_it_starts_at_any_depth():
  inner = level_of(IDS).cut(jnp.asarray(EMIT)).inner
  values = jnp.arange(1, 1 + ROWS * LENGTH).reshape(ROWS, LENGTH)
  found = at_next_byte(values, inner)
  for row in range(ROWS):
    starts = np.flatnonzero(EMIT[row])
    expected = [values[row, t + 1] if t + 1 < LENGTH else 0 for t in starts]
    np.testing.assert_array_equal(found[row], [*expected, *[0] * (LENGTH - len(starts))])
  assert isinstance(inner, Level)
