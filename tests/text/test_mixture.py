"""Mixtures: shares of rows, random access, what a checkpoint keeps of the text, and the sentence for bad weights."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import text
from text import MemoryCorpus, Mixture
from text.mixture import BLOCK, MixedRows, differences, is_reordered, parse_sources
from text.packing import RowStream, materialise

CORPORA = [
  MemoryCorpus([bytes([number]) * length for length in range(1, 40)], f'corpus {number}') for number in (1, 2, 3)
]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=3), st.integers(0, 100), st.data())
def test_every_block_has_the_shares_and_every_corpus_its_own_rows_in_order(weights, seed, data):
  rows = MixedRows(Mixture(CORPORA[: len(weights)], weights), 16, seed)
  first = data.draw(st.sampled_from([0, BLOCK, 5 * BLOCK]))
  located = list(zip(*(array.tolist() for array in rows.locate(np.arange(first, first + BLOCK))), strict=True))
  for corpus, weight in enumerate(weights):
    own = [row for owner, row in located if owner == corpus]
    assert abs(len(own) - BLOCK * weight / sum(weights)) < 1
    assert own == list(range(first // BLOCK * len(own), (first // BLOCK + 1) * len(own)))
  owners, own_rows = rows.locate(np.array([first + 7]))  # in any order
  assert (owners[0], own_rows[0]) == located[7]


def test_rows_are_those_of_the_corpora_and_their_order_depends_on_the_seed():
  mixture = Mixture(CORPORA[:2], (3.0, 1.0))
  rows = MixedRows(mixture, 16, 5)
  streams = [RowStream(corpus.lengths, 16, 5, number=number) for number, corpus in enumerate(CORPORA)]
  first = BLOCK - 100  # over the end of a block
  batch = rows.batch(first, 200)
  for row, (owner, own_row) in enumerate(zip(*rows.locate(np.arange(first, first + 200)), strict=True)):
    expected = materialise(CORPORA[owner], streams[owner].pieces(np.array([own_row])), 1, 16)
    np.testing.assert_array_equal(batch.bytes[row], expected.bytes[0])
    np.testing.assert_array_equal(batch.segment_ids[row], expected.segment_ids[0])
    np.testing.assert_array_equal(batch.specials[row], expected.specials[0])
  owners = lambda seed: MixedRows(mixture, 16, seed).locate(np.arange(100))[0].tolist()
  assert owners(0) != owners(1) and owners(2) == owners(2)


def test_batches_of_a_mixture_are_the_same_for_any_number_of_hosts_and_workers():
  mixture = Mixture(CORPORA, (1.0, 2.0, 3.0))
  take = lambda **kwargs: list(
    itertools.islice(text.pipeline(mixture, batch_size=4, seq_len=16, seed=0, start_row=4093, **kwargs), 6)
  )
  whole = np.concatenate([batch.bytes for batch in take()])
  halves = zip(take(host=0, hosts=2), take(host=1, hosts=2), strict=True)
  np.testing.assert_array_equal(np.concatenate([part.bytes for pair in halves for part in pair]), whole)
  np.testing.assert_array_equal(np.concatenate([batch.bytes for batch in take(workers=2)]), whole)


def test_a_mixture_of_one_is_its_corpus():
  alone, mixed = (
    next(text.pipeline(source, batch_size=4, seq_len=16, seed=0)) for source in (CORPORA[0], Mixture(CORPORA[:1]))
  )
  np.testing.assert_array_equal(alone.bytes, mixed.bytes)


def test_a_corpus_alone_has_the_order_that_it_always_had():
  digest = hashlib.sha256()
  for batch in itertools.islice(text.pipeline(Mixture(CORPORA[:1]), batch_size=4, seq_len=16, seed=7), 60):
    digest.update(batch.bytes.tobytes() + batch.segment_ids.tobytes())
  assert digest.hexdigest()[:16] == 'bd0a75cbc2b2fcad'  # runs resume where they were


def test_texts_of_equal_sizes_do_not_run_in_step():
  # A text and its noise, or translations of each other: in the same order, the same documents would meet in a batch.
  sizes = [20 + number % 7 for number in range(3000)]
  pair = Mixture([MemoryCorpus([letter * size for size in sizes]) for letter in (b'a', b'b')], (1.0, 1.0))
  rows = MixedRows(pair, 64, 0)
  places = [{}, {}]  # of each corpus: document -> row of the mixture
  for first in range(0, 2000, 100):
    owners, own_rows = rows.locate(np.arange(first, first + 100))
    for row, (owner, own_row) in enumerate(zip(owners.tolist(), own_rows.tolist(), strict=True), first):
      for document in rows._streams[owner].pieces(np.array([own_row])).document.tolist():
        places[owner].setdefault(document, row)
  distances = [abs(places[0][document] - places[1][document]) for document in places[0].keys() & places[1].keys()]
  assert len(distances) > 2000 and np.median(distances) > 300  # of independent orders: 0.29 of 2,000
  assert [entry['order'] for entry in pair.identity()] == [0, 1]


def test_shares_are_of_positions():
  short, long = MemoryCorpus([b's'] * 20_000), MemoryCorpus([b'l' * 200] * 600)
  batch = MixedRows(Mixture([short, long], (1.0, 1.0)), 32, 0).batch(0, BLOCK)
  of_short, of_long = (int((batch.bytes == ord(letter)).sum()) for letter in 'sl')
  assert (batch.segment_ids > 0).mean() > 0.99
  assert of_short / of_long == pytest.approx((1 / 3) / (200 / 202), rel=0.05)  # the rest is BOS and EOS


def test_a_mixture_of_one_order_is_told_from_one_of_several():
  new = Mixture(CORPORA[:2], (1.0, 1.0)).identity()
  old = [{key: value for key, value in entry.items() if key != 'order'} for entry in new]
  assert differences(old, new) == [] and is_reordered(old, new)
  assert not is_reordered(new, new) and not is_reordered(old[:1], new[:1])


def test_config_values_become_sources_with_weights():
  assert parse_sources('python_docs') == [('python_docs', 1.0)]
  assert parse_sources([['python_docs', 1], ('files:a', 0.5)]) == [('python_docs', 1.0), ('files:a', 0.5)]


@pytest.mark.parametrize(
  'source, message',
  [
    ((), r'a data source is a string or a list of \(source, weight\), got \(\)'),
    (('python_docs', 'files:a'), r'a data source is a string or a list of \(source, weight\)'),
    ((('a', 1.0), ('a', 2.0)), r"'a' stands twice in the mixture: give it once"),
    ((('a', -1.0), ('b', 2.0)), r"'a' has the weight -1\.0: weights are finite numbers from 0 on"),
    ((('a', '1'), ('b', 2.0)), r"'a' has the weight '1': weights are finite numbers"),
    ((('a', float('nan')), ('b', 2.0)), r"'a' has the weight nan: weights are finite"),
    ((('a', 0.0), ('b', 0)), r'all weights of the data sources are 0 \(a, b\): give at least one'),
    ((('a', 0.0), ('b', 1)), r"'a' has the weight 0\.0 of 1 and would never be drawn: leave it out"),
    ((('a', 1e-5), ('b', 1)), r"'a' has the weight 1e-05 of 1\.00001 and would never be drawn: raise it to 0\.000244"),
  ],
)
def test_bad_mixtures_are_refused(source, message):
  with pytest.raises(ValueError, match=message):
    parse_sources(source)


def test_differences_between_texts_are_named():
  identity = Mixture(CORPORA[:2], (1.0, 1.0)).identity()
  assert differences(identity, identity) == []
  other = MemoryCorpus([b'x' * length for length in range(1, 40)], 'corpus 2')
  less = MemoryCorpus([b'x'], 'corpus 2')
  changed = lambda corpora, weights=(1.0, 1.0): differences(identity, Mixture(corpora, weights).identity())
  assert changed([CORPORA[0], other]) == ["'corpus 2' has as many documents and bytes, but other ones"]
  assert changed([CORPORA[0], less]) == ["'corpus 2' had 39 documents then, 1 now, 780 bytes then, 1 now"]
  assert changed([CORPORA[0], CORPORA[2]]) == ["'corpus 2' is no longer there", "'corpus 3' is new"]
  assert changed(CORPORA[1::-1]) == ['the sources stand in another order']
  assert changed(CORPORA[:2], (1.0, 3.0))[0] == "'corpus 1' had 2048 rows then, 1024 now"
  moved = [entry | {'name': f'elsewhere/{entry["name"]}'} for entry in identity]
  assert differences(identity, moved) == []
  assert differences('0123', identity) == ['its record of the data is of another version of this code']
