"""The moving average over chunks, as stages use it, against a loop in float64 and against single steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hnet.smoothing import CLAMP, ema_step
from kernels.dechunk import dechunk
from tests.layers.common import random, segment_ids

WIDTH = 3


def ema(h, p, ids):
  """Every position is a chunk."""
  return dechunk(h, p, np.ones(p.shape, bool), ids)


def loop(h, p, ids):
  z = np.zeros(h.shape)
  for row in range(len(h)):
    last = np.zeros(WIDTH)
    for m in range(h.shape[1]):
      if m and ids[row, m] != ids[row, m - 1]:
        last = np.zeros(WIDTH)
      weight = np.clip(float(p[row, m]), CLAMP, 1 - CLAMP)
      last = z[row, m] = weight * h[row, m] + (1 - weight) * last
  return z


def probabilities(length, rows):
  """Rows of several kinds: boundaries near 1/2, forced ones, impossible ones, anything."""
  rng = np.random.default_rng(0)
  kinds = [
    rng.uniform(0.5, 0.6, length),
    np.ones(length),
    np.zeros(length),
    rng.uniform(0, 1, length),
    rng.choice([0.0, 1e-5, 0.5, 1 - 1e-6, 1.0], length),
  ]
  return np.stack([kinds[row % len(kinds)] for row in range(rows)]).astype(np.float32)


@pytest.mark.parametrize('length', [1, 5, 31, 32, 33, 70])
def test_tiles_equal_the_loop(length):
  third = length // 3
  ids = segment_ids([length], *[[third, length - third]] * 4, *[[1] * third + [length - 2 * third]] * 5)
  h, p = random(len(ids), length, WIDTH), probabilities(length, len(ids))
  z = jax.jit(ema)(h, p, ids)
  assert z.dtype == jnp.float32
  np.testing.assert_allclose(z, loop(h, p, ids) * (ids > 0)[..., None], atol=2e-6)


def test_gradients_equal_those_of_single_steps():
  length, ids = 11, segment_ids([11], [4, 7], [1, 1, 5], [11], [11])
  h, p = random(5, length, WIDTH), probabilities(length, 5)
  weight = random(5, length, WIDTH, seed=1) * (ids > 0)[..., None]

  def by_steps(h, p):
    last, outputs = jnp.zeros((5, WIDTH)), []
    for m in range(length):
      same = ids[:, m] == ids[:, max(m - 1, 0)]
      last = ema_step(h[:, m], p[:, m], last * same[:, None])
      outputs.append(last)
    return jnp.stack(outputs, 1)

  gradient = lambda fn: jax.jit(jax.grad(lambda h, p: jnp.sum(fn(h, p) * weight), (0, 1)))(h, p)
  ours = gradient(lambda h, p: ema(h, p, ids))
  for a, b in zip(ours, gradient(by_steps), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
  clamped = (p < CLAMP) | (p > 1 - CLAMP) | (ids == 0)
  assert clamped.any() and not np.any(np.asarray(ours[1])[clamped])


def test_the_first_chunk_is_clamped_too():
  h = np.full((1, 2, WIDTH), 1.0, np.float32)
  z = jax.jit(ema)(h, np.ones((1, 2), np.float32), np.ones((1, 2), np.int32))
  np.testing.assert_allclose(z[0, :, 0], [0.9999, 1 - 1e-8], rtol=1e-6)
