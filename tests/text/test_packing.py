"""The plan: every byte and every EOS scored once, whatever the lengths; evaluation rows; the stream of epochs."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import text
from text import packing
from text.corpus import MemoryCorpus

LENGTHS = st.lists(st.integers(1, 40) | st.integers(1, 3), min_size=1, max_size=30)


def corpus_of(lengths):
  """Documents over all byte values, 0, 254 and 255 among them."""
  rng = np.random.default_rng(len(lengths))
  return MemoryCorpus([rng.choice(np.array([0, 97, 254, 255], np.uint8), length).tobytes() for length in lengths])


class Piece(NamedTuple):
  document: int
  start: int
  stop: int
  first_scored: int


def rows_of(plan, rows=None):
  """The pieces of each row, as a list of lists."""
  indices = np.arange(len(plan)) if rows is None else np.array(rows, int)
  found = [[] for _ in indices]
  for row, *piece in zip(*(array.tolist() for array in plan.pieces(indices)), strict=True):
    found[row].append(Piece(*piece))
  return found


def symbols(document):
  return [text.BOS, *document, text.EOS]


def check_rows(corpus, plan, seq_len):
  """Rows obey the format, and each byte and EOS of the corpus is scored exactly once."""
  counts = [np.zeros(length + 2, int) for length in corpus.lengths]
  rows, pieces = rows_of(plan), plan.pieces(np.arange(len(plan)))
  batch = packing.materialise(corpus, pieces, len(plan), seq_len)
  scored_BxL = packing.scored(pieces, len(plan), seq_len)
  text_BxL, eos_BxL = batch.text_and_ends(scored_BxL)
  for row, pieces in enumerate(rows):
    expected, segment_ids, scored, is_bos, is_eos = [], [], [], [], []
    assert pieces
    for segment, piece in enumerate(pieces, 1):
      document = symbols(corpus[piece.document])
      assert piece.stop - piece.start >= 2 and piece.start < piece.first_scored < piece.stop <= len(document)
      assert segment == 1 or piece.start == 0  # only the first piece of a row continues a document
      expected += document[piece.start : piece.stop]  # so the first symbol is the one before the first scored one
      segment_ids += [segment] * (piece.stop - piece.start)
      scored += [symbol >= piece.first_scored for symbol in range(piece.start, piece.stop)]
      is_bos += [symbol == 0 for symbol in range(piece.start, piece.stop)]
      is_eos += [symbol == len(document) - 1 for symbol in range(piece.start, piece.stop)]
      counts[piece.document][piece.first_scored : piece.stop] += 1
    used = len(expected)
    assert used <= seq_len
    np.testing.assert_array_equal(batch.bytes[row], np.pad(expected, (0, seq_len - used)))
    np.testing.assert_array_equal(batch.segment_ids[row], np.pad(segment_ids, (0, seq_len - used)))
    np.testing.assert_array_equal(scored_BxL[row], np.pad(scored, (0, seq_len - used)))
    np.testing.assert_array_equal(batch.eos[row], np.pad(is_eos, (0, seq_len - used)))
    np.testing.assert_array_equal(eos_BxL[row], np.pad(is_eos, (0, seq_len - used)))
    np.testing.assert_array_equal(text_BxL[row], np.pad(np.greater(scored, is_eos), (0, seq_len - used)))
    np.testing.assert_array_equal(batch.bos[row], np.pad(is_bos, (0, seq_len - used)))
  for count in counts:
    np.testing.assert_array_equal(count, [0] + [1] * (len(count) - 1))
  return batch, scored_BxL


@settings(deadline=None, max_examples=150)
@given(LENGTHS, st.integers(2, 50), st.integers(0, 2**40), st.integers(0, 5))
def test_an_epoch_scores_every_byte_and_every_eos_once(lengths, seq_len, seed, epoch):
  corpus = corpus_of(lengths)
  plan = packing.training_plan(corpus.lengths, seq_len, seed, epoch)
  batch, scored_BxL = check_rows(corpus, plan, seq_len)
  np.testing.assert_array_equal(scored_BxL, batch.scored)  # the loss of training needs no other mask
  padded = (batch.segment_ids == 0).sum(1)
  assert (padded > 1).sum() <= 1  # only the row that ends the epoch, and a lone symbol elsewhere


@settings(deadline=None, max_examples=100)
@given(LENGTHS, st.integers(2, 50), st.data())
def test_evaluation_rows_score_everything_once_with_the_context_that_is_asked_for(lengths, seq_len, data):
  corpus = corpus_of(lengths)
  context = data.draw(st.integers(1, seq_len - 1))
  plan = packing.evaluation_rows(corpus.lengths, seq_len, context)
  batch, scored_BxL = check_rows(corpus, plan, seq_len)
  assert not (scored_BxL & ~batch.scored).any()
  for pieces in rows_of(plan):
    assert [piece.document for piece in pieces] == sorted(piece.document for piece in pieces)
    for piece in pieces:
      assert piece.first_scored - piece.start == min(context, piece.first_scored)


def greedy_starts(lengths, seq_len):
  """Where rows begin, one row after the other: the specification of the jumps in packing."""
  starts = np.concatenate([[0], np.cumsum(np.array(lengths) + 2)])
  rows = [0]
  while rows[-1] + seq_len < starts[-1]:
    end = rows[-1] + seq_len
    rows.append(end if end in starts else end - 1)
  return rows


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 300) | st.integers(1, 3), min_size=1, max_size=60), st.integers(2, 70))
def test_row_starts_equal_those_of_the_loop_over_rows(lengths, seq_len):
  starts_N = packing._starts(np.array(lengths))
  np.testing.assert_array_equal(packing._row_starts(starts_N, seq_len), greedy_starts(lengths, seq_len))
  evaluation = packing.evaluation_rows(np.array(lengths), seq_len, context=1)
  np.testing.assert_array_equal(evaluation._row_starts, greedy_starts(lengths, seq_len))


def test_raw_bytes_254_and_255_are_scored_and_are_not_an_eos():
  corpus = MemoryCorpus([b'\xff\xfe\xff'])
  plan = packing.evaluation_rows(corpus.lengths, 8)
  pieces = plan.pieces(np.array([0]))
  batch = packing.materialise(corpus, pieces, 1, 8)
  scored_BxL = packing.scored(pieces, 1, 8)
  np.testing.assert_array_equal(batch.bytes, [[254, 255, 254, 255, 255, 0, 0, 0]])
  np.testing.assert_array_equal(scored_BxL, [[0, 1, 1, 1, 1, 0, 0, 0]])
  np.testing.assert_array_equal(batch.eos, [[0, 0, 0, 0, 1, 0, 0, 0]])


def test_rows_without_pieces_are_padding():
  corpus = MemoryCorpus([b'a'])
  pieces = packing.evaluation_rows(corpus.lengths, 4).pieces(np.array([0]))
  batch = packing.materialise(corpus, pieces, 3, 4)
  scored_BxL = packing.scored(pieces, 3, 4)
  assert batch.segment_ids[0].any() and not batch.segment_ids[1:].any() and not batch.bytes[1:].any()
  assert not scored_BxL[1:].any() and not batch.eos[1:].any()


def test_epochs_and_seeds_differ_and_the_same_ones_are_equal():
  lengths_N = np.arange(1, 200)
  rows = lambda seed, epoch: rows_of(packing.training_plan(lengths_N, 32, seed, epoch), range(20))
  assert rows(0, 0) == rows(0, 0)
  assert rows(0, 0) != rows(0, 1) and rows(0, 0) != rows(1, 0) and rows(0, 1) != rows(1, 0)


def test_the_order_is_pinned():
  assert packing.permutation(8, 0, 0, 0).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]  # equal on every machine and numpy


def test_rows_of_an_epoch_are_not_in_the_order_of_the_text():
  starts = [pieces[0].start for pieces in rows_of(packing.training_plan(np.array([10_000]), 64, 0, 0), range(20))]
  assert starts != sorted(starts)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(2, 12), st.lists(st.integers(0, 200)))
def test_a_row_of_the_stream_is_found_in_any_order(lengths, seq_len, rows):
  lengths_N = np.array(lengths)
  plans = [packing.training_plan(lengths_N, seq_len, 3, epoch) for epoch in range(210)]
  expected = [(epoch, row) for epoch, plan in enumerate(plans) for row in range(len(plan))]
  stream = packing.RowStream(lengths_N, seq_len, 3)
  for row in rows:
    epoch, local = expected[row]
    assert stream.locate(row) == (epoch, local)
    assert rows_of(stream, [row]) == rows_of(plans[epoch], [local])
  stretch = range(min(rows, default=0), min(rows, default=0) + 9)  # may hold the ends of several epochs
  assert rows_of(stream, stretch) == [
    rows_of(plans[epoch], [local])[0] for epoch, local in map(expected.__getitem__, stretch)
  ]


@pytest.mark.parametrize('parts', [1, 2, 7])
def test_the_parts_of_a_permutation_make_the_whole_one(parts, monkeypatch):
  monkeypatch.setattr(packing, 'DRAWS', 64)  # drawn in pieces, as a large one is
  pieces = [packing._part_of_permutation(1000, part, parts, 3, 1, 0) for part in range(parts)]
  whole = np.argsort(np.random.Philox(np.random.SeedSequence((3, 1, 0))).random_raw(1000), kind='stable')
  np.testing.assert_array_equal(np.concatenate(pieces), whole)


@settings(deadline=None, max_examples=30)
@given(LENGTHS, st.integers(2, 50), st.integers(1, 8))
def test_an_epoch_in_parts_scores_everything_once(lengths, seq_len, parts):
  corpus = corpus_of(lengths)
  stream = packing.RowStream(corpus.lengths, seq_len, 0, parts)
  plans = [stream.plan(part) for part in range(parts)]
  rows = rows_of(stream, range(sum(map(len, plans))))
  scored = sorted((piece.document, at) for row in rows for piece in row for at in range(piece.first_scored, piece.stop))
  assert scored == [(document, at) for document, length in enumerate(lengths) for at in range(1, length + 2)]
  assert stream.locate(len(rows)) == (next(p for p in range(parts, 2 * parts) if len(stream.plan(p))), 0)


def test_parts_keep_both_documents_and_rows_bounded():
  parts = lambda lengths, seq_len: packing.number_of_parts(np.array(lengths), seq_len, largest=100)
  assert parts([5] * 100, 16) == 1 and parts([5] * 301, 16) == 4
  assert parts([10_000] * 50, 11) == 50 and parts([1_000_000], 11) == 1


@pytest.mark.parametrize('lengths, seq_len, message', [([], 8, 'no document to pack'), ([3], 1, 'seq_len=1 must be')])
def test_what_cannot_be_packed_is_refused(lengths, seq_len, message):
  with pytest.raises(ValueError, match=message):
    packing.training_plan(np.array(lengths, int), seq_len, 0, 0)
  with pytest.raises(ValueError, match=message):
    packing.evaluation_rows(np.array(lengths, int), seq_len, 1)


@pytest.mark.parametrize('context', [0, 8])
def test_a_context_without_room_for_new_symbols_is_refused(context):
  with pytest.raises(ValueError, match=f'context={context} must be from 1 to seq_len - 1 = 7'):
    packing.evaluation_rows(np.array([3]), 8, context)
