"""Rows with marks: every unit of a document is paid for once and whole, wherever rows and contexts cut it."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import text
from tests.text import tiny_subwords
from text import MemoryCorpus, marks, packing, units, words
from text import rows as rows_lib

SPLITTERS = (
  'hat(max_bytes=8)',
  'hat(max_bytes=64)',
  'whitespace(max_bytes=16)',
  'uax29(max_bytes=64)',
  'fixed(size=3)',
)
HAT = {'words': 'hat'}
DOCUMENTS = st.lists(tiny_subwords.WORDS, min_size=1, max_size=5)


@pytest.fixture(scope='module')
def subwords(tmp_path_factory):
  return f'subword(file={tiny_subwords.write(tmp_path_factory.mktemp("rows") / "subwords.json")})'


@pytest.fixture(scope='module', params=['char(limit=0x110000)', 'subword'])
def spelling(request, subwords):
  return units.parse(subwords if request.param == 'subword' else request.param)


def units_of(document, splitter, spelling):
  """[(id, its symbols)] of a document from its first byte to EOS; symbol 0 is BOS."""
  found, at = [], 1
  for word in words.parse(splitter).words(document):
    for index in spelling(word):
      found.append((index, range(at, at + len(spelling.table[index]))))
      at += len(spelling.table[index])
  return [*found, (text.EOS, range(at, at + 1))]


def in_place(pieces):
  """(document, start, first_scored, stop, its place in the rows) of each piece."""
  for row, group in itertools.groupby(zip(*map(np.ndarray.tolist, pieces), strict=True), lambda piece: piece[0]):
    at = 0
    for _, document, start, stop, first_scored in group:
      yield document, start, first_scored, stop, (row, slice(at, at + stop - start))
      at += stop - start


class Units:
  """Collects what rows pay for, and checks where units stand."""

  def __init__(self, documents, splitter, spelling):
    self.units = [units_of(document, splitter, spelling) for document in documents]
    self.paid = [[] for _ in documents]

  def read(self, pieces, batch):
    assert (batch.marks['units'][batch.segment_ids == 0] == -1).all()
    for number, start, first_scored, stop, place in in_place(pieces):
      expected = np.where(np.arange(start, stop) == 0, text.BOS, -1)
      paid = []
      for index, symbols in self.units[number]:
        is_context = symbols[0] < first_scored  # paid for before, or in no row if it is BOS
        here = [at for at in symbols if start <= at < (first_scored if is_context else stop)]
        if here:
          expected[here[-1] - start] = index
          paid += [index] * (not is_context)
      np.testing.assert_array_equal(batch.marks['units'][place], expected)
      self.paid[number].append((first_scored, paid))

  def assert_all_are_paid_once(self):
    for found, expected in zip(self.paid, self.units, strict=True):
      assert [index for _, ids in sorted(found) for index in ids] == [index for index, _ in expected]


@settings(deadline=None, max_examples=60)
@given(documents=DOCUMENTS, splitter=st.sampled_from(SPLITTERS), seq_len=st.integers(2, 70), data=st.data())
def test_evaluation_pays_for_every_unit_once(spelling, documents, splitter, seq_len, data):
  context = data.draw(st.none() | st.integers(1, seq_len - 1))
  specs = {'words': splitter, 'units': spelling.name}
  found, of_bytes, lasts = Units(documents, splitter, spelling), [[] for _ in documents], 0
  for rows in rows_lib.evaluation_batches(
    MemoryCorpus(documents), marks=specs, seq_len=seq_len, batch_size=3, context=context
  ):
    found.read(rows.pieces, rows.batch)
    place_N, is_last_N, count_P = rows.bytes_of_units(spelling.sizes)
    ids_N, lasts = rows.batch.marks['units'].reshape(-1)[place_N].tolist(), lasts + is_last_N.sum()
    for document, count in zip(rows.pieces.document.tolist(), count_P.tolist(), strict=True):
      of_bytes[document] += ids_N[:count]
      del ids_N[:count]
    assert not ids_N
  found.assert_all_are_paid_once()
  for ids, expected in zip(of_bytes, found.units, strict=True):
    assert ids == [index for index, symbols in expected for _ in symbols]
  assert lasts == sum(map(len, found.units))


@settings(deadline=None, max_examples=60)
@given(
  documents=DOCUMENTS,
  splitter=st.sampled_from(SPLITTERS),
  seq_len=st.integers(2, 70),
  seed=st.integers(0, 9),
  far=st.booleans(),
)
def test_an_epoch_of_training_pays_for_every_unit_once(spelling, documents, splitter, seq_len, seed, far):
  if far and seq_len > 8:  # more bytes before a cut than are looked at; in text with words it makes no difference
    documents = [*documents, tiny_subwords.TEXT * 2]
  corpus, found = MemoryCorpus(documents), Units(documents, splitter, spelling)
  plan = packing.training_plan(corpus.lengths, seq_len, seed, 0)
  for first in range(0, len(plan), 7):
    pieces = plan.pieces(np.arange(first, min(first + 7, len(plan))))
    found.read(pieces, rows_lib.training_batch(corpus, pieces, 7, seq_len, {'words': splitter, 'units': spelling.name}))
  found.assert_all_are_paid_once()


@pytest.mark.parametrize('seq_len', [16, 65, 256])
def test_training_pays_for_every_byte_once_where_no_word_ends_for_long(subwords, seq_len):
  """The cap may fall at other places than in the document, and so may units; no byte is lost or paid for twice."""
  document, spelling = b'ACGTTGCA' * 300 + tiny_subwords.TEXT.replace(b' ', b'')[:700], units.parse(subwords)
  corpus = MemoryCorpus([document])
  plan = packing.training_plan(corpus.lengths, seq_len, 0, 0)
  pieces = plan.pieces(np.arange(len(plan)))
  batch = rows_lib.training_batch(
    corpus, pieces, len(plan), seq_len, {'words': 'whitespace(max_bytes=48)', 'units': subwords}
  )
  paid = {first: batch.marks['units'][place][first - start :] for _, start, first, _, place in in_place(pieces)}
  ids = [index for first in sorted(paid) for index in paid[first] if index >= 0]
  assert b''.join(spelling.table[index] for index in ids) == document + b'\xff'


@settings(deadline=None, max_examples=30)
@given(documents=DOCUMENTS, splitter=st.sampled_from(SPLITTERS), seq_len=st.integers(2, 40), data=st.data())
def test_words_in_evaluation_are_those_of_the_documents(documents, splitter, seq_len, data):
  context = data.draw(st.none() | st.integers(1, seq_len - 1))
  for rows in rows_lib.evaluation_batches(
    MemoryCorpus(documents), marks={'words': splitter}, seq_len=seq_len, batch_size=2, context=context
  ):
    assert 'units' not in rows.batch.marks and not rows.batch.marks['words'][rows.batch.segment_ids == 0].any()
    for number, start, _, stop, place in in_place(rows.pieces):
      document = documents[number]
      begin = np.array([0, 1, *(1 + words.parse(splitter)(document)).tolist()])  # BOS, words, EOS
      expected = np.isin(np.arange(start, stop), begin)
      expected[0] = True
      np.testing.assert_array_equal(rows.batch.marks['words'][place], expected)


def test_bytes_254_and_255_of_raw_data_are_no_words_of_their_own_where_rows_are_cut(subwords):
  corpus = MemoryCorpus([b'a\xff' * 20, b'a\xfe' * 20])
  assert words.parse('hat').words(b'a\xff' * 20) == [b'a\xff' * 20]
  plan = packing.training_plan(corpus.lengths, 8, 0, 0)
  of_training = plan.pieces(np.arange(len(plan)))
  trained = rows_lib.training_batch(corpus, of_training, len(plan), 8, HAT)
  (rows,) = rows_lib.evaluation_batches(corpus, marks=HAT, seq_len=8, batch_size=20)
  for pieces, batch in (of_training, trained), (rows.pieces, rows.batch):
    for _, start, _, stop, place in in_place(pieces):
      expected = [at in (0, 1, 41) or at == start for at in range(start, stop)]
      assert batch.marks['words'][place].tolist() == expected


def test_the_words_of_a_row_that_is_marked_alone_are_those_of_its_own_bytes():
  """For models that read no units training looks at nothing but the row."""
  corpus = MemoryCorpus([tiny_subwords.TEXT, b'', b'x y'])
  plan = packing.training_plan(corpus.lengths, 32, 0, 0)
  pieces = plan.pieces(np.arange(len(plan)))
  batch = rows_lib.training_batch(corpus, pieces, len(plan), 32, HAT)
  alone = marks.mark(dataclasses.replace(batch, marks={}), HAT)
  np.testing.assert_array_equal(batch.marks['words'], alone.marks['words'])
  assert rows_lib.training_batch(corpus, pieces, len(plan), 32).marks == {}


def test_a_long_document_is_read_and_split_once_whatever_its_words(monkeypatch):
  monkeypatch.setattr(rows_lib, 'CHUNK', 64)
  pushed = []
  push = words.Stream.push
  monkeypatch.setattr(words.Stream, 'push', lambda self, more: pushed.append(self.size + len(more)) or push(self, more))
  for document in (tiny_subwords.TEXT * 4, b'x' * 5000):  # many words, and one that only the cap cuts
    pushed.clear()
    batches = rows_lib.evaluation_batches(MemoryCorpus([document]), marks=HAT, seq_len=16, batch_size=8)
    starts = [rows.batch.marks['words'][rows.batch.text_and_ends(rows.scored_BxL)[0]] for rows in batches]
    begin = np.flatnonzero(np.concatenate(starts)).tolist()
    assert begin == [0, *words.parse('hat')(document)[:-1].tolist()]
    assert sum(pushed) < 4 * len(document)
