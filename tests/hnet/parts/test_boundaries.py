"""Boundaries, each against its definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hnet import parts
from layers.chunks import Level
from layers.contract import EVAL
from tests.hnet.parts.common import IDS, SIZES, STARTS, build, level_of
from tests.layers.common import random, segment_ids


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
