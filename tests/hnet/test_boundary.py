"""Boundary predictors against their definitions, in parallel and one position at a time."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hnet import boundary
from tests.layers.common import random, segment_ids

WIDTH = 8


def predictor(spec):
  module = boundary.make(spec, WIDTH, rngs=nnx.Rngs(0))
  if spec == 'cosine':
    module.query.kernel = nnx.Param(random(WIDTH, WIDTH))
    module.key.kernel = nnx.Param(random(WIDTH, WIDTH, seed=1))
  return module


def probabilities(spec, text, states=None, ids=None):
  """One row of bytes -> [L]."""
  data = np.frombuffer(text, np.uint8)[None]
  states = random(1, data.shape[1], WIDTH) if states is None else states
  ids = np.ones(data.shape, np.int32) if ids is None else ids
  return np.asarray(jax.jit(predictor(spec))(states, ids, data))[0]


def test_cosine_compares_the_query_before_with_the_key_here():
  states, ids = random(2, 9, WIDTH), segment_ids([9], [4, 3])
  module = predictor('cosine')
  p = np.asarray(jax.jit(module)(states, ids, np.zeros((2, 9), np.uint8)))
  q, k = (states.astype(np.float64) @ np.asarray(w.kernel[...], np.float64) for w in (module.query, module.key))
  for row in range(2):
    for t in range(9):
      if t == 0 or ids[row, t] != ids[row, t - 1]:
        assert p[row, t] == (ids[row, t] > 0)
      else:
        a, b = q[row, t - 1], k[row, t]
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        np.testing.assert_allclose(p[row, t], (1 - cosine) / 2 * (ids[row, t] > 0), atol=1e-6)


def test_a_fresh_cosine_predictor_sees_no_boundary_between_equal_states():
  module = jax.jit(boundary.make('cosine', WIDTH, rngs=nnx.Rngs(0)))
  same = np.broadcast_to(random(1, 1, WIDTH), (1, 5, WIDTH))
  ids, data = np.ones((1, 5), np.int32), np.zeros((1, 5), np.uint8)
  np.testing.assert_allclose(module(same, ids, data), [[1, 0, 0, 0, 0]], atol=1e-6)
  opposite = same * np.array([1, -1, 1, -1, 1])[None, :, None]
  np.testing.assert_allclose(module(opposite.astype(np.float32), ids, data), np.ones((1, 5)), atol=1e-6)


def test_cosine_is_float32_and_finite_whatever_it_reads():
  module = jax.jit(predictor('cosine'))
  states = random(1, 6, WIDTH)
  ids, data = np.ones((1, 6), np.int32), np.zeros((1, 6), np.uint8)
  low = jnp.asarray(states, jnp.bfloat16)
  p = module(low, ids, data)
  assert p.dtype == jnp.float32
  np.testing.assert_allclose(p, module(low.astype(jnp.float32), ids, data), atol=1e-7)
  zeros = jnp.zeros((1, 6, WIDTH))
  total = lambda states: jnp.sum(module(states, ids, data))
  assert np.isfinite(module(zeros, ids, data)).all() and np.isfinite(jax.grad(total)(zeros)).all()


def starts(text):
  """Where the space rule of SpaceByte puts its global blocks, byte by byte; the first byte always opens a chunk."""
  word = lambda byte: chr(byte).isalnum() if byte < 0x80 else byte < 0xC0
  return [t == 0 or (not word(byte) and word(text[t - 1])) for t, byte in enumerate(text)]


space_row = jax.jit(lambda data: boundary.SpaceLike()(None, jnp.ones((1, 24), jnp.int32), data[None])[0])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(min_size=1) | st.text(st.characters(codec='utf-8'), min_size=1).map(str.encode))
def test_space_equals_the_rule_on_any_bytes(text):
  text = (24 * text)[:24]
  np.testing.assert_array_equal(space_row(np.frombuffer(text, np.uint8)), np.array(starts(text), np.float32))


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
  p = probabilities('space', text)
  begins = [*np.flatnonzero(p), len(text)]
  assert [text[a:b] for a, b in itertools.pairwise(begins)] == chunks


def test_every_document_opens_a_chunk_and_ignores_the_one_before():
  ids = segment_ids([3, 4])
  np.testing.assert_array_equal(probabilities('space', b'ab  x y', ids=ids), [1, 0, 1, 1, 0, 1, 0])
  np.testing.assert_array_equal(probabilities('stride:3', b'abcdefg', ids=ids), [1, 0, 0, 1, 0, 0, 1])


@pytest.mark.parametrize('stride', [1, 2, 8])
def test_stride_counts_from_the_start_of_a_document(stride):
  p = probabilities(f'stride:{stride}', bytes(20))
  np.testing.assert_array_equal(p, np.arange(20) % stride == 0)


@pytest.mark.parametrize('spec', ['cosine', 'space', 'stride:3'])
def test_steps_equal_the_parallel_form_and_rows_wait_for_their_turn(spec):
  module = predictor(spec)
  rng = np.random.default_rng(0)
  states, data = random(4, 10, WIDTH), rng.choice(np.frombuffer(b'ab ,\xc3\xa9', np.uint8), (4, 10))
  expected = np.asarray(jax.jit(module)(states, np.ones((4, 10), np.int32), data))
  length = np.array([0, 1, 3, 6])
  state, step = module.last_state(states, data, length), jax.jit(module.step)
  assert jax.tree.structure(state) == jax.tree.structure(module.init_state(4))
  while (length < 10).any():
    unread, here = length < 10, np.minimum(length, 9)
    active = unread & (rng.random(4) < 0.6)
    p, state = step(states[range(4), here], data[range(4), here], active, state)
    np.testing.assert_allclose(np.asarray(p)[unread], expected[range(4), here][unread], atol=1e-6)
    length = length + active


@pytest.mark.parametrize(
  'spec, parsed',
  [
    ('cosine', ('cosine', 0)),
    ('space', ('space', 0)),
    ('stride:6', ('stride', 6)),
    (f'stride:{2**31 - 1}', ('stride', 2**31 - 1)),
  ],
)
def test_specifications(spec, parsed):
  assert boundary.parse(spec) == parsed


REFUSED = [
  '',
  'stride',
  'stride:',
  'stride:0',
  'stride:-1',
  'stride:1.5',
  f'stride:{2**31}',
  'space:3',
  'words',
  None,
  6,
]


@pytest.mark.parametrize('spec', REFUSED)
def test_other_specifications_are_refused(spec):
  with pytest.raises(ValueError, match="boundary .*: write 'cosine', 'space', or 'stride:N'"):
    boundary.parse(spec)
