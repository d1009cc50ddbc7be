"""Rows of documents as models read them: symbols, where words begin, and which units spell the words.

A unit stands at its last byte, where it is known and paid for. Rows cut documents anywhere, and so they cut units. One
that reaches over the end of a row stands there at the last of its bytes that the row has, and is paid for whole, as
what follows the text so far. In the next row it is context: it stands at the last of its bytes that is not scored, and
its bytes that are scored have no unit and cost nothing. So every unit of a document is paid for once, whole, in the row
that scores its first byte, and every byte is counted once, whatever the lengths of rows and contexts.

Rows for evaluation have the words and units of the whole document, which is read once, from its beginning on. Rows for
training are asked for in any order, and have the words of their own bytes. Where models read units, the word at a cut
is found from a place up to 2 * LOOKBACK bytes before it, for the row that ends there as for the one that begins there,
so that both know the same unit. In nearly all text that is the word of the document; in a longer stretch without an end
of a word but for the cap, the cap may fall elsewhere.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from text import units as units_lib
from text import words as words_lib
from text.batch import BOS, EOS, Batch
from text.corpus import Corpus
from text.packing import Pieces, evaluation_rows, materialise, scored

CHUNK = 2**16  # bytes of a document that are split at a time
LOOKBACK = 256  # bytes; words that may be longer raise it
LOOKAHEAD = 16  # bytes behind a word: that it ends may show in the next characters only


@dataclasses.dataclass(frozen=True)
class Rows:
  """batch: what a model reads, numpy. pieces: what stands in it. scored_BxL: see `text.packing.scored`."""

  batch: Batch
  pieces: Pieces
  scored_BxL: np.ndarray

  def bytes_of_units(self, sizes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(place_N, is_last_N, count_P): of the bytes (and EOS) whose units are scored in these rows, in reading order.

    sizes: bytes of every unit, None where units are bytes. place: of a byte's unit in the rows laid end to end.
    is_last: whether the byte is the last of its unit. count: how many there are of each piece. Bytes of a unit that is
    scored before a cut are here, also those behind the cut: all rows together have every byte of the documents once.
    """
    is_scored = self.scored_BxL.reshape(-1)
    if sizes is None:
      place_U = np.flatnonzero(is_scored)
      sizes_U = np.ones_like(place_U)
    else:
      units = self.batch.units.reshape(-1)
      place_U = np.flatnonzero(is_scored & (units >= 0))
      sizes_U = sizes[units[place_U]]
    place_N = np.repeat(place_U, sizes_U)
    is_last_N = np.zeros(len(place_N), bool)
    is_last_N[np.cumsum(sizes_U) - 1] = True
    row_N = place_N // self.scored_BxL.shape[1]
    first_P = np.searchsorted(self.pieces.row, np.arange(len(self.scored_BxL)))
    piece_N = first_P[row_N] + self.batch.segment_ids.reshape(-1)[place_N] - 1  # segments are a row's pieces
    return place_N, is_last_N, np.bincount(piece_N, minlength=len(self.pieces.row))


def evaluation_batches(
  corpus: Corpus, model: Any, *, seq_len: int, batch_size: int, context: int | None = None, last_is_cut: bool = False
) -> Iterator[Rows]:
  """Every document once, in order: batches of batch_size rows of seq_len symbols, the last one padded with empty rows.

  model: says what it reads beside bytes by `words` and `units`, if it has them. context: as for
  `text.packing.evaluation_rows`. last_is_cut: the last document is the beginning of a longer one, so no EOS follows it.
  Raises ValueError as `evaluation_rows`.
  """
  splitter, spelling = _parsed(getattr(model, 'words', None), getattr(model, 'units', None))
  plan, unfinished = evaluation_rows(corpus.lengths, seq_len, context), len(corpus) - 1 if last_is_cut else -1
  document = None
  for first in range(0, len(plan), batch_size):
    pieces = plan.pieces(np.arange(first, min(first + batch_size, len(plan))))
    last = np.where(pieces.document == unfinished, corpus.lengths[unfinished] + 1, pieces.stop)
    pieces = pieces._replace(stop=np.minimum(pieces.stop, last))
    batch = materialise(corpus, pieces, batch_size, seq_len)
    if splitter:
      found = []
      for number, start, stop in zip(*map(np.ndarray.tolist, pieces[1:4]), strict=True):
        if document is None or document.number != number:
          document = _Document(corpus, number, splitter, spelling)
        found.append(document.marks(start - 1, stop - 1))
      batch = _marked(batch, corpus, pieces, found, spelling)
    yield Rows(batch, pieces, scored(pieces, batch_size, seq_len))


def training_batch(
  corpus: Corpus, pieces: Pieces, rows: int, seq_len: int, words: str | None = None, units: str | None = None
) -> Batch:
  """What `text.packing.materialise` makes, with the marks of a splitter and of units (specifications, or None)."""
  batch = materialise(corpus, pieces, rows, seq_len)
  splitter, spelling = _parsed(words, units)
  if not splitter:
    return batch
  found = []
  for number, start, stop in zip(*map(np.ndarray.tolist, pieces[1:4]), strict=True):
    begin, end = max(start - 1, 0), min(stop - 1, int(corpus.lengths[number]))
    if spelling:
      found.append(_Marks.of(*_words_between(corpus, number, begin, end, splitter), spelling))
    else:
      found.append(_Marks(begin + np.append(0, splitter(corpus.read(number, begin, end))[:-1]), *_NO_UNITS))
  return _marked(batch, corpus, pieces, found, spelling)


@dataclasses.dataclass(frozen=True)
class _Marks:
  """Words and units of a stretch of a document, by bytes, rising.

  words_W: where words begin. units_U, sizes_U, ids_U: where units begin, their bytes and ids; empty without units.
  """

  words_W: np.ndarray
  units_U: np.ndarray
  sizes_U: np.ndarray
  ids_U: np.ndarray

  @staticmethod
  def of(begin: int, found: Sequence[bytes], spelling: units_lib.Units | None) -> '_Marks':
    """Of words laid end to end from byte `begin` on."""
    words_W = _starts(begin, np.fromiter(map(len, found), np.int64, len(found)))
    if not spelling:
      return _Marks(words_W, *_NO_UNITS)
    ids_U = np.fromiter(itertools.chain.from_iterable(map(spelling, found)), np.int32)
    sizes_U = spelling.sizes[ids_U]
    return _Marks(words_W, _starts(begin, sizes_U), sizes_U, ids_U)

  def then(self, more: '_Marks', byte: int) -> '_Marks':
    """These and more behind them, without words and units that another one follows before `byte`."""
    word, unit = (max(np.searchsorted(begin, byte, 'right') - 1, 0) for begin in (self.words_W, self.units_U))
    join = lambda name, first: np.concatenate([getattr(self, name)[first:], getattr(more, name)])
    return _Marks(join('words_W', word), *(join(name, unit) for name in ('units_U', 'sizes_U', 'ids_U')))


_NO_UNITS = (np.zeros(0, np.int32),) * 3


def _starts(begin: int, sizes: np.ndarray) -> np.ndarray:
  return begin + np.cumsum(sizes, dtype=np.int64) - sizes


class _Document:
  """The marks of a document, read and split in chunks from its beginning on."""

  def __init__(self, corpus: Corpus, number: int, splitter: words_lib.Splitter, spelling: units_lib.Units | None):
    self.number, self._corpus, self._spelling = number, corpus, spelling
    self._length, self._stream = int(corpus.lengths[number]), words_lib.Stream(splitter)
    self._read = self._split = 0  # bytes
    self._marks = _Marks.of(0, [], spelling)

  def marks(self, first: int, stop: int) -> _Marks:
    """Of all words that have one of the bytes [first, stop), and perhaps of more; first never falls."""
    while self._split < min(stop, self._length):
      size = max(CHUNK, self._stream.size)  # a word without an end is split again with every chunk
      more = self._corpus.read(self.number, self._read, min(self._read + size, self._length))
      self._read += len(more)
      closed = self._stream.push(more)
      if self._read == self._length:
        closed += self._stream.close()
      self._marks = self._marks.then(_Marks.of(self._split, closed, self._spelling), first)
      self._split += sum(map(len, closed))
    return self._marks


def _words_between(
  corpus: Corpus, document: int, begin: int, end: int, splitter: words_lib.Splitter
) -> tuple[int, list[bytes]]:
  """(where the first of them begins, the words) that hold bytes [begin, end), of which the first is context."""
  origin, at, found = begin, begin, []
  if begin:
    origin, word = _word_before(corpus, document, begin + 1, splitter)
    at, found = origin + len(word), [word]
  length = int(corpus.lengths[document])
  last, word = (end, b'') if end == length else _word_before(corpus, document, end, splitter)
  if at < last:
    stretch = corpus.read(document, at, min(last + LOOKAHEAD, length))
    ends = splitter(stretch)
    borders = [0, *ends[ends < last - at].tolist(), last - at]
    found += [stretch[start:stop] for start, stop in itertools.pairwise(borders)]
    at = last
  if at < end:
    found.append(word[at - last :])
  return origin, found


def _word_before(corpus: Corpus, document: int, cut: int, splitter: words_lib.Splitter) -> tuple[int, bytes]:
  """(where it begins, the word) that has the byte before `cut`; the same for any row, since only the cut decides."""
  step = max(LOOKBACK, splitter.limit)
  first = max((cut // step - 1) * step, 0)
  if splitter.kind == 'fixed':
    first -= first % splitter.limit
  stretch = corpus.read(document, first, min(cut + splitter.limit + LOOKAHEAD, int(corpus.lengths[document])))
  ends = splitter(stretch)
  word = int(np.searchsorted(ends, cut - 1 - first, 'right'))
  begin = int(ends[word - 1]) if word else 0
  return first + begin, stretch[begin : int(ends[word])]


def _marked(
  batch: Batch, corpus: Corpus, pieces: Pieces, found: Sequence[_Marks], spelling: units_lib.Units | None
) -> Batch:
  """The batch with the marks of its pieces in place."""
  starts, units = np.zeros(batch.bytes.size, bool), np.full(batch.bytes.size, -1, np.int32)
  sizes = pieces.stop - pieces.start
  length = batch.bytes.shape[1]
  before = np.append(0, np.cumsum(sizes))[np.searchsorted(pieces.row, pieces.row)]
  offsets = np.cumsum(sizes) - sizes - before + pieces.row * length - pieces.start  # + symbol: its place
  for offset, number, start, stop, first_scored, marks in zip(
    *map(np.ndarray.tolist, (offsets, *pieces[1:])), found, strict=True
  ):
    has_eos = stop == corpus.lengths[number] + 2
    word_W = marks.words_W + 1  # symbols: 0 is BOS
    starts[offset + word_W[(word_W > start) & (word_W < stop)]] = True
    starts[offset + start] = True
    starts[offset + stop - 1] |= has_eos
    if spelling:
      begin_U, end_U = marks.units_U + 1, marks.units_U + 1 + marks.sizes_U
      here_U = (begin_U < stop) & (end_U > start)
      border_U = np.where(begin_U < first_scored, first_scored, stop)
      units[offset + (np.minimum(end_U, border_U) - 1)[here_U]] = marks.ids_U[here_U]
      if not start:
        units[offset] = BOS
      if has_eos:
        units[offset + stop - 1] = EOS
  shape = batch.bytes.shape
  return dataclasses.replace(batch, word_starts=starts.reshape(shape), units=units.reshape(shape) if spelling else None)


def _parsed(words: str | None, units: str | None) -> tuple[words_lib.Splitter | None, units_lib.Units | None]:
  return words and words_lib.parse(words), units and units_lib.parse(units)
