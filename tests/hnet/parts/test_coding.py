"""The coding rate of ByteFlow: closed forms, and a threshold that becomes a quantile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hnet.parts.base import Cut
from hnet.parts.coding import CodingRate, Quantile, gain
from layers.contract import EVAL, Context
from tests.hnet.parts.common import IDS, SIZES, STARTS, build, level_of
from tests.layers.common import random

D, C = 6, 3.0


def gains(h_TxD, decay=1.0):
  """[T], one slot after the other, and A⁻¹ behind them."""
  state, found = (jnp.eye(D)[None], jnp.zeros(1, jnp.int32)), []
  for h_D in h_TxD:
    of_slot, state = gain(*state, jnp.asarray(h_D)[None], C, decay)
    found.append(float(of_slot[0]))
  return np.array(found), np.asarray(state[0][0])


def rate(h_TxD):
  return 0.5 * np.linalg.slogdet(np.eye(D) + C * h_TxD.T @ h_TxD)[1]


def test_gains_add_up_to_the_rate_which_is_that_of_the_gram_matrix():
  h = random(9, D).astype(np.float64)
  found, inverse = gains(h.astype(np.float32))
  assert found.sum() == pytest.approx(rate(h), rel=1e-5)
  assert rate(h) == pytest.approx(0.5 * np.linalg.slogdet(np.eye(9) + C * h @ h.T)[1])
  np.testing.assert_allclose(found, [rate(h[: t + 1]) - rate(h[:t]) for t in range(9)], atol=1e-5)
  np.testing.assert_allclose(inverse, np.linalg.inv(np.eye(D) + C * h.T @ h), atol=1e-5)


def test_orthonormal_slots_add_the_same_and_a_repeated_one_adds_less():
  rows, _ = np.linalg.qr(random(D, D))
  np.testing.assert_allclose(gains(rows)[0], 0.5 * np.log1p(C), rtol=1e-5)
  h = random(1, D)
  size = float(np.sum(h * h))
  assert gains(np.concatenate([h, h]))[0][1] == pytest.approx(0.5 * np.log((1 + 2 * C * size) / (1 + C * size)), 1e-5)


def test_with_a_decay_gains_do_not_vanish_and_the_matrix_stays_what_it_is():
  h = random(4000, D) / np.sqrt(D)
  states = lambda decay: jax.jit(
    lambda h: jax.lax.scan(lambda s, x: gain(*s, x[None], C, decay)[::-1], (jnp.eye(D)[None], jnp.zeros(1, int)), h)
  )(jnp.asarray(h))
  for decay, kept in ((1.0, False), (0.9, True)):
    (inverse, _), found = states(decay)
    assert (float(jnp.mean(found[-500:])) > 0.1) == kept
    assert np.linalg.eigvalsh(np.asarray(inverse[0])).min() > 0
  expected = np.eye(D)
  for t, x in enumerate(h.astype(np.float64)):
    expected = 0.9 * expected + C * np.outer(x, x)
    expected[t % D, t % D] += D * (1 - 0.9)
  np.testing.assert_allclose(inverse[0], np.linalg.inv(expected), atol=1e-5)


def test_a_slot_starts_a_chunk_where_its_gain_is_above_the_threshold_in_its_own_document():
  boundary, e = build('boundary', 'coding_rate(decay=0.9,epsilon=0.5)'), random(*IDS.shape, SIZES.width)
  run = jax.jit(lambda e, ids: boundary(e, level_of(ids), EVAL))
  cut = run(e, IDS)
  for row in range(len(IDS)):
    for document in range(1, IDS[row].max() + 1):
      at = IDS[row] == document
      size = at.sum()
      padded, ids = np.zeros_like(e), np.zeros_like(IDS)
      padded[0, :size], ids[0, :size] = e[row, at], 1
      alone = run(padded, ids)
      np.testing.assert_array_equal(cut.emit[row, at], alone.emit[0, :size])
      np.testing.assert_allclose(cut.more['above'][row, at], alone.more['above'][0, :size], atol=1e-5)
  np.testing.assert_array_equal(cut.emit, ((cut.more['above'] > 0) | STARTS) & (IDS > 0))
  assert not cut.emit[IDS == 0].any() and cut.emit[STARTS].all()
  np.testing.assert_array_equal(cut.emit[IDS > 0], cut.p[IDS > 0] > 0.5)
  larger = run(3 * e, IDS)
  np.testing.assert_allclose(larger.more['above'], cut.more['above'], atol=1e-5)


def test_the_threshold_becomes_the_quantile_that_gives_the_target_and_states_get_no_gradient():
  level, target = level_of(np.ones((8, 100), np.int32)), 4.0
  found = jnp.asarray(random(8, 100))
  forced = jnp.zeros((8, 100), bool).at[:, 0].set(True)
  loss = Quantile(target=target, start=None, until=1.0)

  def of(threshold):
    return loss(Cut(forced, found, found, {'above': found - threshold, 'forced': forced}), level, None, Context())

  slope, threshold = jax.jit(jax.grad(of)), 0.0
  for _ in range(300):
    threshold -= 0.3 * float(slope(threshold))
  starts = int(jnp.sum((found > threshold) | forced))
  assert 800 / starts == pytest.approx(target, rel=0.02)
  boundary = build('boundary', 'coding_rate')
  value = lambda e: jnp.sum(jnp.where(IDS > 0, boundary(e, level_of(IDS), EVAL).more['above'], 0.0))
  assert not np.any(jax.grad(value)(jnp.asarray(random(*IDS.shape, SIZES.width))))


@pytest.mark.parametrize('given', [{'decay': 0.2}, {'decay': 1.1}, {'epsilon': 0.0}])
def test_bad_options_are_one_sentence(given):
  with pytest.raises(ValueError, match='boundary coding_rate: decay=.* must be from 0.5 to 1, and epsilon=.* positive'):
    CodingRate(SIZES, rngs=None, **(CodingRate.OPTIONS | given))
