"""Pools, each against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hnet import parts
from hnet.parts import Sizes
from layers.paths import flatten
from tests.hnet.parts.common import EMIT, IDS, LENGTH, ROWS, SIZES, STARTS, build, chunks_of, cut_of, level_of
from tests.layers.common import random


@pytest.mark.parametrize('widen', ['learned', 'zeros'])
def test_first_is_the_state_where_a_chunk_starts(widen):
  pool, e = build('pool', f'first(widen={widen})'), random(ROWS, LENGTH, SIZES.width)
  assert set(flatten(pool)) == ({'pad'} if widen == 'learned' else set())
  run = jax.jit(lambda e, cut, capacity: pool(e, cut, level_of(IDS).cut(cut.emit, capacity)), static_argnums=2)
  for capacity in (LENGTH, 7):
    assert EMIT.sum(1).max() <= 7
    g = run(e, cut_of(), capacity)
    assert g.shape == (ROWS, capacity, SIZES.inner)
    for row, (starts, _) in enumerate(chunks_of(EMIT, IDS)):
      narrow = g[row, : len(starts), : SIZES.width] if widen == 'learned' else g[row, : len(starts), -SIZES.width :]
      extra = g[row, : len(starts), SIZES.width :] if widen == 'learned' else g[row, : len(starts), : -SIZES.width]
      np.testing.assert_array_equal(narrow, e[row, starts])
      np.testing.assert_array_equal(extra, np.broadcast_to(pool.pad[...] if widen == 'learned' else 0, extra.shape))
  equal = parts.parse('pool', f'first(widen={widen})').build(Sizes(8, 8), rngs=nnx.Rngs(0))
  assert not flatten(equal)
  np.testing.assert_array_equal(equal.step(e[:, 0], cut_of(), None, None)[0], e[:, 0])


def test_first_is_widened_by_a_norm_and_a_map_or_by_channels_mixed_with_the_next():
  e, emit = random(ROWS, LENGTH, SIZES.width), np.asarray(EMIT)
  states = [np.float64(e[row, starts]) for row, (starts, _) in enumerate(chunks_of(EMIT, IDS))]
  linear, mixed = (
    build('pool', 'first(linear)'),
    parts.parse('pool', 'first(mixed)').build(Sizes(8, 24), rngs=nnx.Rngs(0)),
  )
  for pool in (linear, mixed):
    found = pool(e, cut_of(emit), level_of(IDS).cut(emit))
    for row, x in enumerate(states):
      if pool is linear:
        normed = x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-5) * np.float64(pool.norm.scale[...])
        expected = normed @ np.float64(pool.map.kernel[...])
      else:
        weights = np.arange(1, 4) / 3
        expected = (x[..., None] * weights + np.roll(x, 1, -1)[..., None] * (1 - weights)).reshape(len(x), -1)
      np.testing.assert_allclose(found[row, : len(x)], expected, atol=1e-5)
      np.testing.assert_array_equal(found[row, len(x) :], 0)
  with pytest.raises(ValueError, match='pool first: widen=mixed needs 12 channels to be a multiple of 8'):
    build('pool', 'first(mixed)')


@pytest.mark.parametrize('size', [1, 2, 6])
def test_concat_joins_the_slots_from_the_last_start_up_to_a_chunk(size):
  pool, e, emit = build('pool', f'concat({size})'), random(ROWS, LENGTH, SIZES.width), EMIT & ~STARTS
  found, kernel = pool(e, cut_of(emit), level_of(IDS).cut(emit, 7)), np.float64(pool.map.kernel[...])
  for row in range(ROWS):
    starts = np.flatnonzero(emit[row])
    for slot, start in enumerate(starts):
      begin = max(np.flatnonzero(IDS[row] == IDS[row, start])[0], start - size, *starts[:slot], 0)
      slots = np.zeros((size, SIZES.width))
      slots[size - (start - begin) :] = e[row, begin:start]
      np.testing.assert_allclose(found[row, slot], slots.ravel() @ kernel, atol=1e-5)
    np.testing.assert_array_equal(found[row, len(starts) :], 0)


def softmax(scores):
  """Over the first axis, float64."""
  weights = np.exp(scores - scores.max(0))
  return weights / weights.sum(0)


def turned(x, index):
  """Channels i and i + K/2 of every head turned by index · 100^(-2i/K): [H, K] -> [H, K], float64."""
  half = x.shape[-1] // 2
  angle = index * 100.0 ** (-np.arange(half) / half)
  a, b = x[:, :half], x[:, half:]
  return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


def test_latent_attends_to_the_slots_from_the_chunk_before_up_to_its_own():
  pool, e = build('pool', 'latent(heads=2,kv_heads=1,rotary_base=100)'), random(ROWS, LENGTH, SIZES.width)
  emit, capacity, size = EMIT & ~STARTS, 7, SIZES.inner // 2
  found = jax.jit(lambda e: pool(e, cut_of(emit), level_of(IDS).cut(emit, capacity)))(e)
  kernel = {name: np.float64(getattr(pool, name).kernel[...]) for name in ('query', 'key_value', 'out')}
  query = (np.float64(pool.latent_1x1xD[0, 0]) @ kernel['query']).reshape(2, size)
  chunks = 0
  for row in range(ROWS):
    starts = np.flatnonzero(emit[row])
    for slot, start in enumerate(starts):
      begin = np.flatnonzero(IDS[row] == IDS[row, start])[0]
      inside = [s for s in starts if begin < s < start]
      read = range(max([begin, *inside]), start)
      key, value = np.split(np.float64(e[row, read]) @ kernel['key_value'], 2, -1)
      q = turned(query, len(inside))
      scores = np.stack([q @ turned(k[None], t - begin)[0] for k, t in zip(key, read, strict=True)]) / size**0.5
      mixed = np.einsum('th,tk->hk', softmax(scores), value).ravel()
      np.testing.assert_allclose(found[row, slot], mixed @ kernel['out'], atol=1e-5)
      chunks += 1
    np.testing.assert_array_equal(found[row, len(starts) :], 0)
  assert chunks > ROWS


@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.integers(0, 2**20), st.sets(st.sampled_from(['max', 'mean', 'min']), min_size=1))
def test_reduce_is_what_each_chunk_says_slot_by_slot_with_its_gradient(seed, kinds):
  """Values among few, so that several slots have the largest and share its gradient."""
  rng = np.random.default_rng(seed)
  emit = (STARTS | (rng.random(IDS.shape) < 0.4)) & (IDS > 0)
  e = jnp.asarray(rng.integers(-2, 3, (ROWS, LENGTH, SIZES.width)), jnp.float32)
  pool = build('pool', f'reduce({"+".join(kinds)})')
  cotangent = random(ROWS, LENGTH, SIZES.inner)
  found, slope = reduced(pool, e, emit, cotangent)
  expected, slope_of = np.zeros((ROWS, LENGTH, SIZES.inner)), np.zeros(e.shape)
  leaves = {path: np.float64(leaf) for path, leaf in flatten(pool).items()}
  for row, chunk, slots in closed(emit):
    x = np.float64(e[row, slots])
    of = {'mean': x.mean(0), 'min': x.min(0), 'max': x.max(0)}
    share = {
      'mean': np.full(x.shape, 1 / len(x)),
      'min': (x == x.min(0)) / (x == x.min(0)).sum(0),
      'max': (x == x.max(0)) / (x == x.max(0)).sum(0),
    }
    chosen = [kind for kind in ('mean', 'min', 'max') if kind in kinds]
    expected[row, chunk] = np.concatenate([of[kind] for kind in chosen]) @ leaves['widen.kernel']
    back = np.split(leaves['widen.kernel'] @ np.float64(cotangent[row, chunk]), len(chosen))
    slope_of[row, slots] = sum(share[kind] * part for kind, part in zip(chosen, back, strict=True))
  np.testing.assert_allclose(found, expected, atol=1e-5)
  np.testing.assert_allclose(slope, slope_of, atol=1e-5)


@jax.jit
def reduced(pool, e, emit, cotangent):
  """(what the pool gives, the slope of its product with the cotangent)."""
  run = lambda e: pool(e, cut_of(emit, emit), level_of(IDS).cut(emit))
  return run(e), jax.grad(lambda e: jnp.sum(run(e) * cotangent))(e)


def closed(emit):
  """(row, number of the chunk in its row, its slots), of chunks that end where they emit."""
  for row in range(ROWS):
    first = count = 0
    for t in range(LENGTH):
      first = t if STARTS[row, t] else first
      if emit[row, t]:
        yield row, count, list(range(first, t + 1))
        first, count = t + 1, count + 1


@pytest.mark.parametrize('of', ['', 'sum', 'max+max'])
def test_what_reduce_does_not_know_is_named(of):
  with pytest.raises(ValueError, match='must be one or several of mean, min, max, with . between'):
    build('pool', f'reduce(of={of})')
