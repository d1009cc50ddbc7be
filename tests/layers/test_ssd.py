"""The state-space recurrence in matrix form against a loop in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.ssd import ssd
from layers.ssd import flops, ssd_step
from tests.layers.common import random, segment_ids

HEADS, SIZE, STATE = 2, 3, 4


def loop(x, dt, a, b, c, ids):
  """(y, final state) of the recurrence, float64."""
  x, dt, a, b, c = (np.asarray(v, np.float64) for v in (x, dt, a, b, c))
  y, final = np.zeros(x.shape), np.zeros((len(x), HEADS, SIZE, STATE))
  for row in range(len(x)):
    state = final[row]
    for t in range(x.shape[1]):
      if t and ids[row, t] != ids[row, t - 1]:
        state[:] = 0
      state *= np.exp(dt[row, t] * a)[:, None, None]
      state += dt[row, t][:, None, None] * x[row, t][:, :, None] * b[row, t]
      y[row, t] = state @ c[row, t]
  return y, final


def inputs(length, rows=3, longest=1.0):
  x, b, c = random(rows, length, HEADS, SIZE), random(rows, length, STATE, seed=1), random(rows, length, STATE, seed=2)
  dt = np.exp(np.random.default_rng(3).uniform(np.log(1e-3), np.log(longest), (rows, length, HEADS)))
  dt = dt.astype(np.float32)
  return x, dt, np.array([-0.5, -16.0], np.float32), b, c


def documents(length):
  third = length // 3
  return segment_ids([length], [third, length - third], [1] * third + [length - 2 * third])


@pytest.mark.parametrize('length, tile', [(1, 8), (7, 8), (8, 8), (9, 8), (37, 8), (37, 5), (40, 64)])
def test_matrix_form_equals_the_recurrence(length, tile):
  ids = documents(length)
  arguments = inputs(length)
  y, state = jax.jit(lambda *v: ssd(*v, tile))(*arguments, ids)
  expected_y, expected_state = loop(*arguments, ids)
  np.testing.assert_allclose(y, expected_y, atol=2e-5, rtol=2e-5)
  assert state.dtype == np.float32
  whole = ids[:, -1] > 0  # a padded row's state after the padding is nobody's
  np.testing.assert_allclose(np.asarray(state)[whole], expected_state[whole], atol=2e-5, rtol=2e-5)


def test_states_that_vanish_at_once_do_not_overflow():
  arguments, ids = inputs(40, longest=20.0), documents(40)
  run = lambda v: ssd(*v, ids, 40)[0]
  y, gradient = jax.jit(lambda v: (run(v), jax.grad(lambda v: jnp.sum(run(v)))(v)))(arguments)
  # Decays inside a tile are differences of a prefix sum, which reaches thousands here.
  expected = loop(*arguments, ids)[0]
  np.testing.assert_allclose(y, expected, atol=1e-4 * np.abs(expected).max())
  assert all(np.isfinite(v).all() for v in gradient)


@pytest.mark.parametrize('tile', [4, 16])
def test_gradients_equal_those_of_the_recurrence(tile):
  length, ids = 13, documents(13)
  arguments, weight = inputs(length), random(3, length, HEADS, SIZE, seed=4)

  def by_steps(x, dt, a, b, c):
    state, outputs = jnp.zeros((3, HEADS, SIZE, STATE)), []
    for t in range(length):
      same = ids[:, t] == ids[:, max(t - 1, 0)]
      y, state = ssd_step(state * same[:, None, None, None], x[:, t], dt[:, t], a, b[:, t], c[:, t])
      outputs.append(y)
    return jnp.stack(outputs, 1)

  total = lambda fn: jax.jit(jax.grad(lambda v: jnp.sum(fn(*v) * weight)))(arguments)
  ours, expected = total(lambda *v: ssd(*v, ids, tile)[0]), total(by_steps)
  for name, a, b in zip(('x', 'dt', 'A', 'B', 'C'), ours, expected, strict=True):
    assert np.isfinite(a).all()
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max(), err_msg=name)


def test_a_time_step_of_zero_keeps_the_state():
  x, dt, a, b, c = inputs(12)
  ids = np.ones((3, 12), np.int32)
  still = np.where(np.arange(12)[:, None] < 7, dt, 0).astype(np.float32)
  run = jax.jit(lambda *v: ssd(*v, 8)[1])
  state, expected = run(x, still, a, b, c, ids), run(x[:, :7], dt[:, :7], a, b[:, :7], c[:, :7], ids[:, :7])
  np.testing.assert_allclose(state, expected, atol=1e-5)
  _, kept = ssd_step(state, x[:, 0], jnp.zeros((3, HEADS)), a, b[:, 0], c[:, 0])
  np.testing.assert_array_equal(kept, state)


def test_bfloat16_inputs_stay_near_the_recurrence():
  low = lambda v: jnp.asarray(v, jnp.bfloat16)
  x, dt, a, b, c = inputs(37)
  ids = documents(37)
  y, state = jax.jit(lambda *v: ssd(*v, 8))(low(x), dt, a, low(b), low(c), ids)
  assert y.dtype == jnp.bfloat16 and state.dtype == jnp.float32
  expected, _ = loop(low(x).astype(np.float32), dt, a, low(b).astype(np.float32), low(c).astype(np.float32), ids)
  error = np.abs(np.asarray(y, np.float32) - expected)
  assert error.max() < 0.02 * np.abs(expected).max()


def test_flops_follow_the_paper():
  assert flops(10, 128, 16) == 10 * 6 * 128 * 16
