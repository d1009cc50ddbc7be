"""Unpools and combinations, each against its definition, and the gradients of smoothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hnet.parts import Cut
from hnet.parts.unpools import spread
from kernels.dechunk import CLAMP
from tests.hnet.parts.common import EMIT, IDS, LENGTH, ROWS, SIZES, STARTS, build, chunks_of, cut_of, level_of
from tests.layers.common import random, segment_ids


def naive(unpool, z, p, emit, ids, limit):
  """What each slot is given, float64."""
  u = np.zeros((*ids.shape, z.shape[-1]))
  for row, (starts, own) in enumerate(chunks_of(emit, ids, limit)):
    smoothed = []
    for chunk, start in enumerate(starts):
      weight = np.clip(np.float64(p[row, start]), CLAMP, 1 - CLAMP)
      fresh = not chunk or ids[row, start] != ids[row, starts[chunk - 1]]
      smoothed.append(weight * z[row, chunk] + (1 - weight) * (0 if fresh else smoothed[-1]))
    for t, chunk in enumerate(own):
      if chunk >= 0 and (unpool != 'scatter' or t in starts):
        u[row, t] = smoothed[chunk] if unpool == 'ema' else z[row, chunk]
  return u


@pytest.mark.parametrize('narrow', ['first', 'last', 'linear'])
@pytest.mark.parametrize('unpool', ['ema', 'repeat', 'scatter'])
def test_slots_get_what_the_definition_says_with_or_without_scale_and_residual(unpool, narrow):
  part, level, capacity = build('unpool', f'{unpool}(narrow={narrow})'), level_of(IDS), 9
  z, weight = random(ROWS, capacity, SIZES.inner), random(ROWS, LENGTH, SIZES.width, seed=1) * (IDS > 0)[..., None]
  scale, residual = random(ROWS, LENGTH, seed=2), random(ROWS, LENGTH, SIZES.width, seed=3)
  cut = cut_of()

  @functools.partial(jax.jit, static_argnames='limit')
  def run(z, scale, residual, limit):
    segments = level.cut(cut.emit, capacity, limit)
    cut_ = dataclasses.replace(cut, emit=segments.starts_BxC)
    loss = lambda scale, residual: jnp.vdot(part(z, cut_, segments, scale, residual), weight)
    gradients = jax.grad(loss, (0, 1))(scale, residual)
    return part(z, cut_, segments, None, None), part(z, cut_, segments, scale, residual), gradients

  for limit in (None, 3):  # behind which some documents have no chunk
    alone, joined, (of_scale, of_residual) = run(z, scale, residual, limit)
    channels = z[..., : SIZES.width] if narrow == 'first' else z[..., -SIZES.width :]
    channels = np.float64(z) @ np.float64(part.map.kernel[...]) if narrow == 'linear' else channels
    expected = naive(unpool, channels, np.asarray(cut.p), EMIT, IDS, limit)
    assert alone.dtype == joined.dtype == jnp.float32 and alone.shape == residual.shape
    np.testing.assert_allclose(alone, expected, atol=2e-6)
    np.testing.assert_allclose(joined, expected + residual, atol=2e-6)  # the scale is 1 forward, with slope 1
    np.testing.assert_allclose(of_scale, np.sum(expected * weight, -1), atol=1e-5)
    np.testing.assert_allclose(of_residual, weight, atol=1e-6)
  assert limit and any(-1 in own[: (ids > 0).sum()] for (_, own), ids in zip(chunks_of(EMIT, IDS, 3), IDS, strict=True))


def test_decayed_sums_chunks_and_lets_the_sure_ones_forget():
  """Its probability stands before the stage inside: the pool multiplies by it, and what comes back is not again."""
  level, cut, capacity = level_of(IDS), cut_of(), 9
  segments = level.cut(cut.emit, capacity)
  e, z, p = random(ROWS, LENGTH, SIZES.width, seed=1), random(ROWS, capacity, SIZES.inner), np.float64(cut.p)
  run = jax.jit(lambda z, p: build('unpool', 'decayed')(z, cut_of(p=p), segments, None, None))
  found, slope = run(z, cut.p), jax.grad(lambda p: run(z, p).sum())(cut.p)
  g = build('pool', 'weighted_first')(e, cut, segments)
  for row, (starts, own) in enumerate(chunks_of(EMIT, IDS)):
    sums = []
    for chunk, start in enumerate(starts):
      fresh = not chunk or IDS[row, start] != IDS[row, starts[chunk - 1]]
      left = 1 - np.clip(p[row, start], CLAMP, 1 - CLAMP)
      sums.append(z[row, chunk, : SIZES.width] + (0 if fresh else left * sums[-1]))
      np.testing.assert_allclose(g[row, chunk, : SIZES.width], e[row, start] * p[row, start], atol=1e-6)
      np.testing.assert_allclose(slope[row, start], 0, atol=1e-4) if fresh else None
    for t, chunk in enumerate(own):
      np.testing.assert_allclose(found[row, t], sums[chunk] if chunk >= 0 else 0, atol=1e-5)


def test_cross_adds_what_the_chunk_of_a_slot_says_to_the_first_blocks_of_the_decoder():
  part, emit, capacity = build('unpool', 'cross(heads=4,kv_heads=2,layers=1)'), EMIT & ~STARTS, 9
  z, stream = random(ROWS, capacity, SIZES.inner), random(ROWS, LENGTH, SIZES.width, seed=1)
  inject = part(z, cut_of(emit), level_of(IDS).cut(emit, capacity), None, None)
  (guide,) = part.guides
  norm = lambda p: np.float64(p) / np.sqrt(np.mean(np.square(p, dtype=np.float64)) + 1e-5) * guide.norm.scale[...]
  for row, (_, own) in enumerate(chunks_of(emit, IDS)):
    for t, chunk in enumerate(own):
      value = norm(z[row, chunk] if chunk >= 0 else part.first_E[...]) @ np.float64(guide.values.kernel[...])
      expected = np.repeat(value.reshape(2, 2), 2, 0).ravel() @ np.float64(guide.out.kernel[...])
      np.testing.assert_allclose(inject(0, stream)[row, t], expected, atol=1e-5)
  assert inject(1, stream) is None
  assert len(build('unpool', 'cross(heads=2)').guides) == SIZES.blocks


def test_gradients_of_smoothing_are_those_of_single_steps_and_clamped_probabilities_have_none():
  ids = segment_ids([11], [4, 7], [1, 1, 5], [11])
  every = ids > 0
  drawn = np.random.default_rng(0)
  p = np.stack([drawn.uniform(0.5, 0.6, 11), np.ones(11), drawn.uniform(0, 1, 11), drawn.choice([0, 1e-5, 0.5, 1], 11)])
  z, weight = random(4, 11, SIZES.inner), random(4, 11, SIZES.width, seed=1) * every[..., None]
  part, level = build('unpool', 'ema'), level_of(ids)

  def at_once(z, p):
    return part(z, cut_of(every, p), level.cut(every), None, None)

  def by_steps(z, p):
    def step(last, slot):
      z, p, every, is_new = slot
      return part.step(z, Cut(every, p, p), jnp.where(is_new[:, None], 0, last))[::-1]

    is_new = np.diff(ids, axis=1, prepend=0) != 0
    slots = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (z, p, jnp.asarray(every), jnp.asarray(is_new)))
    return jnp.moveaxis(jax.lax.scan(step, part.init_cache(4), slots)[1], 0, 1)

  gradient = lambda fn: jax.jit(jax.grad(lambda z, p: jnp.vdot(fn(z, p), weight), (0, 1)))(z, p.astype(np.float32))
  ours = gradient(at_once)
  for a, b in zip(ours, gradient(by_steps), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
  clamped = (p < CLAMP) | (p > 1 - CLAMP) | ~every
  assert clamped.any() and not np.any(np.asarray(ours[1])[clamped])
  first = jax.jit(at_once)(np.ones_like(z), np.ones_like(p))[0, :2, 0]
  np.testing.assert_allclose(first, [0.9999, 1 - 1e-8], rtol=1e-6)  # the first chunk is clamped, too


def test_straight_through_weighs_by_the_probability_of_what_was_decided():
  part, e, u = build('combine', 'ste'), random(ROWS, LENGTH, 8), random(ROWS, LENGTH, 8, seed=1)
  cut = cut_of()
  kernel, bias = part.residual.kernel[...], part.residual.bias[...]
  run = lambda soft: part(e, dataclasses.replace(cut, soft=soft), functools.partial(spread, u))[0]
  np.testing.assert_allclose(run(cut.soft), u + e @ np.asarray(kernel) + np.asarray(bias), atol=1e-5)
  weight = random(ROWS, LENGTH, 8, seed=2)
  slope = jax.grad(lambda soft: jnp.vdot(run(soft), weight))(cut.soft)
  np.testing.assert_allclose(slope, np.where(EMIT, 1, -1) * np.sum(u * weight, -1), atol=1e-5)
  low, injected = part(jnp.asarray(e, jnp.bfloat16), cut, functools.partial(spread, u))
  assert injected is None and low.dtype == jnp.bfloat16


def test_sum_adds_the_encoders_states():
  e, u = random(ROWS, LENGTH, 8), random(ROWS, LENGTH, 8, seed=1)
  y, injected = build('combine', 'sum')(e, cut_of(), functools.partial(spread, u))
  np.testing.assert_array_equal(y, u + e)
  assert injected is None


def test_through_passes_both_on():
  e, add = random(ROWS, LENGTH, 8), lambda layer, stream: stream
  assert build('combine', 'through')(e, cut_of(), functools.partial(spread, add)) == (e, add)
