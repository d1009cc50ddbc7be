"""The parts of a stage: each against its definition, one slot at a time against all at once, and what names them."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hnet import parts, systems
from hnet.parts import KINDS, Cut, Sizes
from hnet.parts.unpools import spread
from kernels.dechunk import CLAMP
from layers.chunks import Level
from layers.contract import EVAL
from layers.paths import flatten, rebuild
from tests.layers.common import random, segment_ids

SIZES = Sizes(8, 12, blocks=2)
IDS = segment_ids([12], [5, 4], [1, 3, 8], [2])
ROWS, LENGTH = IDS.shape
STARTS = np.diff(IDS, axis=1, prepend=0) * (IDS > 0) > 0
EMIT = (STARTS | (np.random.default_rng(0).random(IDS.shape) < 0.4)) & (IDS > 0)


def build(kind, spec):
  """The part, with parameters that do something."""
  part = parts.parse(kind, spec).build(SIZES, rngs=nnx.Rngs(0))
  shaken = {
    path: leaf + 0.3 * random(*leaf.shape, seed=index) for index, (path, leaf) in enumerate(flatten(part).items())
  }
  return rebuild(part, shaken)


def level_of(ids, text=None):
  """Bytes of documents; the text of all rows one after the other, or zeros."""
  data = np.zeros(ids.shape, np.uint8) if text is None else np.frombuffer(text, np.uint8).reshape(ids.shape)
  return Level.of_bytes(jnp.asarray(ids), {'bytes': jnp.asarray(data)})


def cut_of(emit=EMIT, p=None):
  """A cut with probabilities that agree with its emissions."""
  drawn = np.random.default_rng(1).random(emit.shape, np.float32)
  p = jnp.asarray(np.where(emit, 1 + drawn, drawn) / 2 if p is None else p, jnp.float32)
  return Cut(jnp.asarray(emit), p, p)


def chunks_of(emit, ids, limit=None):
  """Of each row: where its chunks start, and of each slot its chunk, -1 where it has none of its document."""
  result = []
  for row in range(len(ids)):
    starts = [t for t in range(ids.shape[1]) if emit[row, t]][:limit]
    last = [sum(start <= t for start in starts) - 1 for t in range(ids.shape[1])]
    own = [k if ids[row, t] and k >= 0 and ids[row, starts[k]] == ids[row, t] else -1 for t, k in enumerate(last)]
    result.append((starts, own))
  return result


# Boundaries


def probabilities(spec, text, states=None, ids=None):
  """One row of bytes -> [L]; emissions are what the probabilities say."""
  ids = np.ones((1, len(text)), np.int32) if ids is None else ids
  states = random(1, len(text), SIZES.width) if states is None else states
  cut = jax.jit(lambda e, level: build('boundary', spec)(e, level, EVAL))(states, level_of(ids, text))
  np.testing.assert_array_equal(cut.emit, (cut.p > 0.5) & (ids > 0))
  np.testing.assert_array_equal(cut.soft, cut.p)
  return np.where(ids > 0, cut.p, 0)[0]


def test_cosine_compares_the_query_before_with_the_key_here():
  states, ids = random(2, 9, SIZES.width), segment_ids([9], [4, 3])
  boundary = build('boundary', 'cosine')
  cut = jax.device_get(jax.jit(lambda e, level: boundary(e, level, EVAL))(states, level_of(ids)))
  q, k = (states.astype(np.float64) @ np.asarray(w.kernel[...], np.float64) for w in (boundary.query, boundary.key))
  for row in range(2):
    for t in range(9):
      if t == 0 or ids[row, t] != ids[row, t - 1]:
        assert cut.p[row, t] == cut.emit[row, t] == (ids[row, t] > 0)
      else:
        a, b = q[row, t - 1], k[row, t]
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        np.testing.assert_allclose(cut.p[row, t], (1 - cosine) / 2 * (ids[row, t] > 0), atol=1e-6)
  np.testing.assert_array_equal(cut.emit, (cut.p > 0.5) & (ids > 0))


cosine = jax.jit(lambda boundary, e: boundary(e, level_of(np.ones(e.shape[:2], np.int32)), EVAL))


def test_a_fresh_cosine_sees_no_boundary_between_equal_states():
  fresh = parts.parse('boundary', 'cosine').build(SIZES, rngs=nnx.Rngs(0))
  same = np.broadcast_to(random(1, 1, SIZES.width), (1, 6, SIZES.width))
  np.testing.assert_allclose(cosine(fresh, same).p, [[1, 0, 0, 0, 0, 0]], atol=1e-6)
  opposite = same * np.array([1, -1, 1, -1, 1, -1])[None, :, None]
  np.testing.assert_allclose(cosine(fresh, opposite.astype(np.float32)).p, np.ones((1, 6)), atol=1e-6)


def test_cosine_is_float32_and_finite_whatever_it_reads():
  boundary, low = build('boundary', 'cosine'), jnp.asarray(random(1, 6, SIZES.width), jnp.bfloat16)
  cut = cosine(boundary, low)
  assert cut.p.dtype == jnp.float32
  np.testing.assert_allclose(cut.p, cosine(boundary, low.astype(jnp.float32)).p, atol=1e-7)
  zeros = jnp.zeros((1, 6, SIZES.width))
  total = lambda e: jnp.sum(cosine(boundary, e).soft)
  assert np.isfinite(cosine(boundary, zeros).p).all() and np.isfinite(jax.grad(total)(zeros)).all()


def spaces(text):
  """Where the space rule of SpaceByte puts its global blocks, byte by byte; the first byte always opens a chunk."""
  word = lambda byte: chr(byte).isalnum() if byte < 0x80 else byte < 0xC0
  return [t == 0 or (not word(byte) and word(text[t - 1])) for t, byte in enumerate(text)]


space_row = jax.jit(lambda level: build('boundary', 'space')(None, level, EVAL).emit[0])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(min_size=1) | st.text(st.characters(codec='utf-8'), min_size=1).map(str.encode))
def test_space_equals_the_rule_on_any_bytes(text):
  text = (24 * text)[:24]
  np.testing.assert_array_equal(space_row(level_of(np.ones((1, 24), np.int32), text)), spaces(text))


@pytest.mark.parametrize(
  'text, chunks',
  [
    (b'the cat sat', [b'the', b' cat', b' sat']),
    (b'a,  b;c', [b'a', b',  b', b';c']),  # space-like bytes that follow one another start one chunk
    (b' x', [b' x']),
    (b'x\n\n\ty', [b'x', b'\n\n\ty']),
    (b'f(x)=1', [b'f', b'(x', b')=1']),
    (b'A9z', [b'A9z']),
    ('né'.encode(), [b'n', 'é'.encode()]),  # a leading byte is space-like
    ('日本'.encode(), ['日'.encode(), '本'.encode()]),
    (' 日'.encode(), [' 日'.encode()]),
    (b'\xfeword', [b'\xfeword']),
    (b'a\x80\xbfb \xc0', [b'a\x80\xbfb', b' \xc0']),  # continuation bytes are not, even alone
    (b'@[`{/:', [b'@[`{/:']),
  ],
)
def test_space_examples(text, chunks):
  padded = np.pad(np.ones((1, len(text)), np.int32), ((0, 0), (0, 24 - len(text))))
  emit = space_row(level_of(padded, text + bytes(24 - len(text))))
  begins = [*np.flatnonzero(emit), len(text)]
  assert [text[a:b] for a, b in itertools.pairwise(begins)] == chunks


def test_every_document_opens_a_chunk_and_ignores_the_one_before():
  ids = segment_ids([3, 4])
  np.testing.assert_array_equal(probabilities('space', b'ab  x y', ids=ids), [1, 0, 1, 1, 0, 1, 0])
  np.testing.assert_array_equal(probabilities('stride(3)', b'abcdefg', ids=ids), [1, 0, 0, 1, 0, 0, 1])


@pytest.mark.parametrize('size', [1, 2, 8])
def test_stride_counts_from_the_start_of_a_document(size):
  np.testing.assert_array_equal(probabilities(f'stride(size={size})', bytes(20)), np.arange(20) % size == 0)


def test_a_mark_starts_a_chunk_as_does_a_document():
  marks = np.random.default_rng(2).random(IDS.shape) < 0.4
  level = Level.of_bytes(jnp.asarray(IDS), {'bytes': jnp.zeros(IDS.shape), 'far': jnp.asarray(marks, jnp.int8)})
  cut = build('boundary', 'mark(far)')(None, level, EVAL)
  np.testing.assert_array_equal(cut.emit, (marks | STARTS) & (IDS > 0))
  np.testing.assert_array_equal(cut.p, cut.emit)


def test_a_rule_reads_the_byte_where_a_slot_starts_at_any_depth():
  text, every_other = b'a bc, e;fgh -3 x+-y.zz  ', np.arange(24)[None] % 2 == 0
  inner = jax.jit(lambda level: level.cut(every_other).inner)(level_of(np.ones((1, 24), np.int32), text))
  np.testing.assert_array_equal(space_row(inner), [*spaces(text[::2]), *[False] * 12])


# Pools


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


# Unpools


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


@pytest.mark.parametrize('narrow', ['first', 'last'])
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
    expected = naive(unpool, channels, np.asarray(cut.p), EMIT, IDS, limit)
    assert alone.dtype == joined.dtype == jnp.float32 and alone.shape == residual.shape
    np.testing.assert_allclose(alone, expected, atol=1e-6)
    np.testing.assert_allclose(joined, expected + residual, atol=1e-6)  # the scale is 1 forward, with slope 1
    np.testing.assert_allclose(of_scale, np.sum(expected * weight, -1), atol=1e-5)
    np.testing.assert_allclose(of_residual, weight, atol=1e-6)
  assert limit and any(-1 in own[: (ids > 0).sum()] for (_, own), ids in zip(chunks_of(EMIT, IDS, 3), IDS, strict=True))


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


# Combinations


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


# One slot at a time


SMALL = {'tfree_hat': 'tfree_hat(pool_heads=2,heads=2)'}  # systems whose default sizes are larger than SIZES
# What no system has by default, or no two parts of it together
MIXED = {
  'cosine_before': {'boundary': 'cosine', 'pool': 'latent(heads=3,kv_heads=1,qk_norm=head)', 'unpool': 'ema'},
  'stride_cross': {'boundary': 'stride(3)', 'pool': 'latent(heads=2,qk_norm=full)', 'unpool': 'cross(heads=1)'},
  'space_cross': {'boundary': 'space', 'unpool': 'cross(heads=4,kv_heads=2,layers=1)'},
}


def added_everywhere(y, inject):
  """What a combination gives the decoder, as one array."""
  return (
    y
    if inject is None
    else jnp.concatenate([y, *(inject(layer, y) for layer in range(SIZES.blocks) if inject(layer, y) is not None)], -1)
  )


@pytest.mark.parametrize('system', [*systems.SYSTEMS, *MIXED])
def test_steps_equal_all_slots_at_once_and_rows_wait_for_their_turn(system):
  """Every part of a published system, around a stage inside that looks at one chunk alone."""
  chosen = systems.parse(MIXED.get(system, SMALL.get(system, system)))
  boundary, pool, unpool, combine = (
    build(kind, chosen[kind].name) for kind in ('boundary', 'pool', 'unpool', 'combine')
  )
  rows, length = 4, 10
  rng = np.random.default_rng(0)
  e, data = random(rows, length, SIZES.width), rng.choice(np.frombuffer(b'ab ,\xc3\xa9', np.uint8), (rows, length))
  words = rng.random((rows, length)) < 0.4

  @jax.jit
  def at_once(count_B):
    """(what comes out, the caches behind so many slots)."""
    index_1xC = jnp.arange(length)[None]
    ids = (index_1xC < count_B[:, None]).astype(jnp.int32)
    level = Level.of_bytes(ids, {'bytes': jnp.asarray(data), 'words': jnp.asarray(words)})
    cut = boundary(e, level, EVAL)
    segments = level.cut(cut.emit & ~((pool.reads == 'before') & (index_1xC == 0)))
    cut = dataclasses.replace(cut, emit=segments.starts_BxC)
    z = jnp.tanh(pool(e, cut, segments))
    y = combine(e, cut, functools.partial(unpool, z, cut, segments))
    caches = boundary.after(e, cut, level), pool.after(e, cut, segments), unpool.after(z, cut, segments)
    return (cut.emit, cut.p, added_everywhere(*y)), caches

  @jax.jit
  def step(e_BxD, byte_B, word_B, active_B, caches):
    cut, of_boundary = boundary.step(e_BxD, {'bytes': byte_B, 'words': word_B}, active_B, caches[0])
    g, starts_B, of_pool = pool.step(e_BxD, cut, active_B, caches[1])
    cut = dataclasses.replace(cut, emit=starts_B)
    u, of_unpool = unpool.step(jnp.tanh(g), cut, caches[2])
    y = added_everywhere(*combine(e_BxD, cut, functools.partial(spread, u)))
    return (cut.emit, cut.p, y), (of_boundary, of_pool, of_unpool)

  expected = jax.device_get(at_once(np.full(rows, length))[0])
  count = np.array([0, 1, 3, 6])
  caches = at_once(count)[1]
  fresh = boundary.init_cache(rows), pool.init_cache(rows), unpool.init_cache(rows)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), caches) == jax.tree.map(lambda x: (x.shape, x.dtype), fresh)
  while (count < length).any():
    here, active = np.minimum(count, length - 1), (count < length) & (rng.random(rows) < 0.6)
    at = range(rows), here
    (emit, p, y), caches = step(e[at], data[at], words[at], active, caches)
    assert not emit[~active].any()
    for found, wanted in zip((emit, p, y), expected, strict=True):
      np.testing.assert_allclose(found[active], wanted[at][active], atol=1e-5)
    count = count + active


# Names


@pytest.mark.parametrize(
  'kind, spec, name, options',
  [
    ('boundary', 'cosine', 'cosine', {}),
    ('boundary', 'stride', 'stride(size=6)', {'size': 6}),
    ('boundary', 'stride(5)', 'stride(size=5)', {'size': 5}),
    ('boundary', ' stride ( size = 2147483647 ) ', 'stride(size=2147483647)', {'size': 2**31 - 1}),
    ('boundary', 'mark(by=script)', 'mark(name=words,by=script)', {'name': 'words', 'by': 'script'}),
    ('pool', 'first(zeros)', 'first(widen=zeros)', {'widen': 'zeros'}),
    ('unpool', 'repeat', 'repeat(narrow=first)', {'narrow': 'first'}),
    ('combine', 'sum', 'sum', {}),
    (
      'loss',
      'ratio(4)',
      'ratio(target=4.0,until=1.0,scope=)',
      {'target': 4.0, 'start': None, 'until': 1.0, 'scope': ''},
    ),
  ],
)
def test_specifications_are_names_with_options(kind, spec, name, options):
  part = parts.parse(kind, spec)
  assert (part.kind, part.name, dict(part.options)) == (kind, name, options)
  assert parts.parse(kind, part.name) == part and hash(parts.parse(kind, part.name)) == hash(part)


@pytest.mark.parametrize(
  'kind, spec, sentence',
  [
    ('boundary', '', "boundary '' is not known: use one of cosine, mark, space, stride"),
    ('boundary', 'words', "boundary 'words' is not known"),
    ('boundary', 'stride:6', "boundary 'stride:6' is not known"),
    ('boundary', 'stride(', "boundary 'stride\\(' is not known"),
    ('boundary', 'space(3)', "boundary 'space\\(3\\)' has no argument '3': space takes"),
    ('boundary', 'stride(step=3)', "has no argument 'step': stride takes size"),
    ('boundary', 'stride(1.5)', "size='1.5' is not a whole number"),
    ('boundary', 'stride(3,4)', "has no argument '4'"),
    ('boundary', 'stride(3,size=4)', 'gives an argument twice'),
    ('boundary', None, 'boundary None must be a specification such as'),
    ('boundary', 6, 'boundary 6 must be a specification'),
    ('pool', 'last', "pool 'last' is not known: use one of first"),
    ('unpool', 'sum', "unpool 'sum' is not known: use one of cross, ema, repeat, scatter"),
    ('combine', 'ema', "combine 'ema' is not known: use one of ste, sum, through"),
    (
      'loss',
      'ratio(goal=3)',
      "loss 'ratio\\(goal=3\\)' has no argument 'goal': ratio takes target, start, until, scope",
    ),
    ('loss', 'ratio(target=x)', "target='x' is not a number"),
  ],
)
def test_other_specifications_are_one_sentence(kind, spec, sentence):
  with pytest.raises(ValueError, match=sentence) as error:
    parts.parse(kind, spec)
  assert '\n' not in str(error.value)


def test_every_part_says_what_its_kind_has_to_say():
  for kind, classes in KINDS.items():
    for name, made in classes.items():
      assert isinstance(made.OPTIONS, dict) and made.__doc__, name
      if kind != 'loss':
        options = {**made.OPTIONS, **({'heads': 2} if 'heads' in made.OPTIONS else {})}
        few, more = (made.flops(SIZES, 1.0, chunks, **options) for chunks in (0.25, 0.5))
        assert 0 <= few <= more
  for boundary in KINDS['boundary'].values():
    assert boundary.lookahead == 0 and boundary.differentiable == boundary.learned
    assert boundary.emits in ('starts', 'ends')
    options = {key: value or key for key, value in boundary.OPTIONS.items()}
    assert boundary.chunk_size(**options) is None or not boundary.learned
  assert {pool.reads for pool in KINDS['pool'].values()} <= {'first', 'until', 'before'}
