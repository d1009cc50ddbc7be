"""The mean pool against a dense matrix of weights that carries the gradient to boundaries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hnet import parts
from hnet.parts import Cut, Sizes
from hnet.parts.mean import since
from layers.paths import flatten
from tests.hnet.parts.common import EMIT, IDS, LENGTH, ROWS, SIZES, STARTS, build, level_of
from tests.layers.common import random

CAPACITY = 8
E, SOFT = random(ROWS, LENGTH, SIZES.width), np.random.default_rng(3).random((ROWS, LENGTH)).astype(np.float32)
pooled = jax.jit(lambda pool, e, soft, emit, ids: _pooled(pool, e, soft, emit, ids))


def _pooled(pool, e, soft, emit, ids):
  segments = level_of(ids).cut(emit, CAPACITY)
  return pool(e, Cut(emit, soft, soft), segments)


def dense(e_LxD, soft_L, emit_L, null_D):
  """Of one document, published's way: 1 - (j - c_t) where the chunk j of t is c_t, over the sum of those of a chunk."""
  b_L = emit_L + soft_L - jax.lax.stop_gradient(soft_L)
  before_L = jnp.cumsum(b_L) - b_L
  chunk_M = jnp.arange(CAPACITY, dtype=jnp.float32)
  distance_LxM = chunk_M[None] - before_L[:, None]
  weight_LxM = jnp.where(jax.lax.stop_gradient(jnp.round(distance_LxM)) == 0, 1 - distance_LxM, 0)
  weight_LxM = weight_LxM / (weight_LxM.sum(0, keepdims=True) + 1e-9)
  g_MxD = jnp.einsum('lm,ld->md', weight_LxM, e_LxD, precision=jax.lax.Precision.HIGHEST).at[0].set(null_D)
  return jnp.where((chunk_M < emit_L.sum())[:, None], g_MxD, 0)


def documents():
  """(row, its slots) of every document."""
  return [(row, np.flatnonzero(IDS[row] == n)) for row in range(ROWS) for n in range(1, IDS[row].max() + 1)]


def test_values_and_gradients_are_those_of_the_dense_matrix_of_each_document():
  pool, cotangent = build('pool', 'mean(norm=none,widen=zeros)'), random(ROWS, CAPACITY, SIZES.inner, seed=7)
  pad = ((0, 0), (0, 0), (SIZES.inner - SIZES.width, 0))

  def ours(e, soft, pool):
    return jnp.sum(_pooled(pool, e, soft, EMIT, IDS) * cotangent)

  def theirs(e, soft, pool):
    total, null = 0.0, pool.null[...]
    for row, slots in documents():
      first = EMIT[row, : slots[0]].sum()
      g = dense(e[row, slots], soft[row, slots], jnp.asarray(EMIT[row, slots], jnp.float32), null)
      count = EMIT[row, slots].sum()
      total += jnp.sum(jnp.pad(g[None], pad)[0, :count] * cotangent[row, first : first + count])
    return total

  arguments = E, SOFT, pool
  values = [jax.jit(jax.value_and_grad(f, (0, 1, 2)))(*arguments) for f in (ours, theirs)]
  for found, wanted in zip(*map(jax.tree.leaves, values), strict=True):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
  of_soft = np.asarray(values[0][1][1])
  assert not of_soft[EMIT].any() and np.abs(of_soft[~EMIT & (IDS > 0)]).max() > 0.05  # ends hear nothing of it


def test_a_chunk_is_the_mean_of_the_slots_that_it_closes_normed_and_widened():
  for widen in ('learned', 'zeros', 'linear'):
    for null in ('learned', 'first'):
      pool = build('pool', f'mean(null={null},widen={widen})')
      found = np.asarray(pooled(pool, E, SOFT, EMIT, IDS))
      scale, bias = np.float64(pool.norm.scale[...]), np.float64(pool.norm.bias[...])
      for row in range(ROWS):
        ends = np.flatnonzero(EMIT[row])
        np.testing.assert_array_equal(found[row, len(ends) :], 0)
        for slot, end in enumerate(ends):
          begin = 0 if slot == 0 or STARTS[row, end] else ends[slot - 1] + 1
          x = np.float64(E[row, end if STARTS[row, end] else slice(begin, end + 1)]).reshape(-1, SIZES.width).mean(0)
          if STARTS[row, end] and null == 'learned':
            x = np.float64(pool.null[...])
          x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * scale + bias
          if widen == 'linear':
            x = x @ np.float64(pool.map.kernel[...])
          elif widen == 'zeros':
            x = np.concatenate([np.zeros(SIZES.inner - SIZES.width), x])
          else:
            x = np.concatenate([x, pool.pad[...]])
          np.testing.assert_allclose(found[row, slot], x, atol=2e-5)


def test_it_has_the_parameters_that_its_options_need():
  of = lambda spec, sizes=SIZES: set(flatten(parts.parse('pool', spec).build(sizes, rngs=nnx.Rngs(0))))
  assert of('mean') == {'norm.scale', 'norm.bias', 'null', 'pad'}
  assert of('mean(none,first,zeros)') == of('mean(none,first,linear)', Sizes(8, 8)) == set()
  assert of('mean(norm=none,widen=linear)') == {'null', 'map.kernel'}
  assert parts.parse('pool', 'mean(widen=linear)').flops(SIZES, 10.0, 3.0) == 2 * 3 * 8 * 12
  assert parts.parse('pool', 'mean').flops(SIZES, 10.0, 3.0) == 0


def test_sums_since_a_reset_equal_a_loop():
  rng = np.random.default_rng(1)
  values, resets = rng.random((3, 20)).astype(np.float32), rng.random((3, 20)) < 0.3
  resets[:, 0] = True
  expected = np.zeros_like(values)
  for row in range(3):
    for t in range(1, 20):
      expected[row, t] = 0 if resets[row, t] else expected[row, t - 1] + values[row, t - 1]
  np.testing.assert_allclose(jax.jit(since)(values, resets), expected, atol=1e-6)


@pytest.mark.parametrize(
  'spec, sentence',
  [
    ('mean(norm=rms)', "pool mean: norm 'rms' is not one of layer, none"),
    ('mean(null=zero)', "pool mean: null 'zero' is not one of learned, first"),
    ('mean(widen=copy)', "pool mean: widen 'copy' is not one of learned, zeros, linear"),
  ],
)
def test_options_that_cannot_be_are_one_sentence(spec, sentence):
  with pytest.raises(ValueError, match=sentence):
    parts.parse('pool', spec).build(SIZES, rngs=nnx.Rngs(0))
