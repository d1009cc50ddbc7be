"""Cross attention with queries against its definition, chunk by chunk; hashes of n-grams against whole numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hnet import parts
from hnet.parts import Sizes
from hnet.parts.attend import largest
from hnet.parts.inputs import PRIMES, hashed
from layers.paths import flatten, rebuild
from tests.hnet.parts.common import EMIT, IDS, LENGTH, ROWS, SIZES, STARTS, build, cut_of, level_of
from tests.layers.common import random
from text import BOS, EOS

CAPACITY = 7


def softmax(scores):
  """Over the first axis, float64."""
  weights = np.exp(scores - scores.max(0))
  return weights / weights.sum(0)


def normed(norm, x):
  return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + norm.epsilon) * np.float64(norm.scale[...])


def attended(attention, queries, read):
  """What each of the queries [Q, D] gets of [N, D], float64."""
  heads, size = attention.config.num_heads, attention.config.head
  kernel = {name: np.float64(getattr(attention, name).kernel[...]) for name in ('query', 'key_value', 'out')}
  key, value = np.split(normed(attention.key_norm, read) @ kernel['key_value'], 2, -1)
  q = (normed(attention.query_norm, queries) @ kernel['query']).reshape(-1, heads, size)
  key, value = key.reshape(-1, heads, size), value.reshape(-1, heads, size)
  weights = softmax(np.einsum('qhk,nhk->nqh', q, key) / size**0.5)
  return np.einsum('nqh,nhk->qhk', weights, value).reshape(len(q), -1) @ kernel['out']


def chunks_until(row):
  """(document, slots) of each chunk that ends in a row."""
  found, begin = [], 0
  for t in range(LENGTH):
    begin = t if STARTS[row, t] else begin
    if EMIT[row, t]:
      found.append((IDS[row, t], list(range(begin, t + 1))))
      begin = t + 1
  return found


@pytest.mark.parametrize(('window', 'longest', 'init', 'doubled'), [(1, 99, 'max', True), (3, 4, 'learned', False)])
def test_a_pools_queries_attend_to_the_slots_of_their_chunk_and_of_those_before_it(window, longest, init, doubled):
  options = f'queries=3,heads=2,init={init},window={window},longest={longest},doubled={str(doubled).lower()}'
  pool, e = build('pool', f'attend({options})'), random(ROWS, LENGTH, SIZES.width)
  found = jax.jit(lambda e: pool(e, cut_of(), level_of(IDS).cut(cut_of().emit, CAPACITY)))(e)
  for row in range(ROWS):
    chunks = chunks_until(row)
    for index, (document, slots) in enumerate(chunks):
      before = [chunk for of, chunk in chunks[max(index - window + 1, 0) : index] if of == document]
      read = np.float64(e[row, [*itertools.chain(*before, slots)][-longest:]])
      if init == 'max':
        queries = (np.float64(e[row, slots]).max(0) @ np.float64(pool.first.kernel[...])).reshape(3, -1)
      else:
        queries = np.float64(pool.first_QxD[...])
      vectors = (1 + doubled) * queries + attended(pool.attention, queries, read)
      wanted = vectors.ravel() @ np.float64(pool.widen.kernel[...])
      np.testing.assert_allclose(found[row, index], wanted, atol=2e-5)
    np.testing.assert_array_equal(found[row, len(chunks) :], 0)


def test_k_vectors_as_wide_as_the_stage_inside_are_not_projected():
  pool = parts.parse('pool', 'attend(queries=3,heads=2)').build(Sizes(8, 24), rngs=nnx.Rngs(0))
  assert not any('widen' in path for path in flatten(pool))


@pytest.mark.parametrize(('window', 'layers', 'doubled'), [(1, 0, True), (2, 1, False)])
def test_slots_attend_to_the_vectors_of_their_chunks(window, layers, doubled):
  unpool = build('unpool', f'attend(heads=2,layers={layers},window={window},doubled={str(doubled).lower()})')
  z, stream = random(ROWS, CAPACITY, SIZES.inner), random(ROWS, LENGTH, SIZES.width, seed=1)
  segments = level_of(IDS).cut(cut_of().emit, CAPACITY)
  inject = unpool(z, cut_of(), segments, None, None)
  for layer in range(SIZES.blocks):
    found = inject(layer, stream)
    if layers and layer >= layers:
      assert found is None
      continue
    for row in range(ROWS):
      for t in np.flatnonzero(IDS[row]):
        ends = np.flatnonzero(EMIT[row])
        near = [k for k, s in enumerate(ends) if s <= t and IDS[row, s] == IDS[row, t]][-window:]
        vectors = (np.float64(z[row, near]) @ np.float64(unpool.vectors.kernel[...])).reshape(-1, SIZES.width)
        wanted = attended(unpool.attentions[layer], np.float64(stream[row, t])[None], vectors)[0]
        np.testing.assert_allclose(found[row, t], wanted + doubled * stream[row, t], atol=2e-5)


def test_the_largest_of_a_chunk_shares_its_gradient_evenly():
  x = jnp.asarray([[[3.0], [3.0], [1.0], [-2.0], [9.0]]])
  chunk = jnp.asarray([[0, 0, 0, 1, 3]])
  value, pull = jax.vjp(lambda x: largest(x, chunk, 3), x)
  np.testing.assert_array_equal(value[0, :, 0], [3.0, -2.0, 0.0])
  np.testing.assert_array_equal(pull(jnp.asarray([[[4.0], [5.0], [6.0]]]))[0][0, :, 0], [2.0, 2.0, 0.0, 5.0, 0.0])


def naive_hash(ids, base, rows):
  """With integers of any size, made an int64."""
  total = sum(int(w) * base**i for i, w in enumerate(ids)) % 2**64
  return (total - 2**64 * (total >= 2**63)) % rows


@pytest.mark.parametrize('rows', [1, 61, 500_002, 2**24])
@pytest.mark.parametrize('base', PRIMES)
def test_hashes_are_those_of_integers_that_wrap_as_an_int64(base, rows):
  rng = np.random.default_rng(0)
  for size in (1, 3, 8, 20):
    ids = rng.integers(0, 260, (size, 50)).astype(np.int32)
    found = hashed([jnp.asarray(row) for row in ids], base, rows)
    for column in range(50):
      assert int(found[column]) == naive_hash(ids[:, column], base, rows)


def test_n_grams_stay_in_their_document_and_their_tables_are_summed():
  part = parts.parse('input', 'hash_ngrams(sizes=1+3,functions=2,rows=11)').build(Sizes(4, 4), rngs=nnx.Rngs(0))
  assert not flatten(part)['tables_TxVxD'].any()
  part = rebuild(part, {'tables_TxVxD': random(4, 11, 4)})
  data = np.array([[BOS, 5, 200, EOS, 5, 200, 7]], np.uint8)
  documents = np.array([[1, 1, 1, 1, 2, 2, 2]])
  ids = [1, 9, 204, 2, 9, 204, 11]
  found = part(jnp.asarray(data), jnp.asarray(documents))
  for t, begin in enumerate([0, 0, 0, 0, 4, 4, 4]):
    rows = [naive_hash(([0] * size + ids[begin : t + 1])[-size:], base, 11) for base in PRIMES[:2] for size in (1, 3)]
    np.testing.assert_allclose(found[0, t], sum(part.tables_TxVxD[n, row] for n, row in enumerate(rows)), rtol=1e-6)
  across = parts.parse('input', 'hash_ngrams(sizes=1+3,functions=2,rows=11,across=true)').build(
    Sizes(4, 4), rngs=nnx.Rngs(0)
  )
  across = rebuild(across, flatten(part))(jnp.asarray(data), jnp.asarray(documents))
  one = part(jnp.asarray(data), jnp.ones_like(documents))
  np.testing.assert_array_equal(across, one)


@pytest.mark.parametrize(
  ('kind', 'spec', 'sentence'),
  [
    ('input', 'hash_ngrams(sizes=3-)', "sizes '3-' must be rising numbers of bytes from 1 to 64, such as 3-8 or 3"),
    ('input', 'hash_ngrams(sizes=5+3)', "sizes '5\\+3' must be rising"),
    ('input', 'hash_ngrams(functions=12)', 'functions=12, but there are 11 bases'),
    ('input', 'hash_ngrams(rows=0)', 'rows 0 must be an integer of at least 1'),
    ('pool', 'attend(queries=0)', 'pool attend: queries 0 must be an integer of at least 1'),
    ('pool', 'attend(init=mean)', "init 'mean' is not one of max, learned"),
    ('pool', 'attend(heads=3)', 'pool attend: heads=3 does not divide the 8 channels'),
    ('unpool', 'attend(layers=3)', 'unpool attend: layers=3, but the decoder has 2 blocks'),
  ],
)
def test_options_that_cannot_be_are_one_sentence(kind, spec, sentence):
  with pytest.raises(ValueError, match=sentence) as error:
    build(kind, spec)
  assert '\n' not in str(error.value)
