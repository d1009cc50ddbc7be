"""Rows of documents as models read them: symbols and their marks (text.marks).

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

Tokens (the mark 'tokens') are those of the whole document in rows for evaluation. In rows for training they are those
of its stretches of STRETCH bytes: a document that is longer has one cut more in so many bytes.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from text import marks as marks_lib
from text import words as words_lib
from text.batch import Batch
from text.corpus import Corpus
from text.packing import Pieces, evaluation_rows, materialise, scored

CHUNK = 2**16  # bytes of a document that are split at a time
STRETCH = 2**16  # bytes of a document that a tokenizer reads at a time for rows of training
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
      units = self.batch.marks['units'].reshape(-1)
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
  corpus: Corpus,
  *,
  seq_len: int,
  batch_size: int,
  marks: Mapping[str, str] | None = None,
  context: int | None = None,
  last_is_cut: bool = False,
  later: int = 0,
) -> Iterator[Rows]:
  """Every document once, in order: batches of batch_size rows of seq_len symbols, the last one padded with empty rows.

  marks: name -> specification, as models state them (text.marks). context: as for `text.packing.evaluation_rows`.
  last_is_cut: the last document is the beginning of a longer one, so no EOS follows it. later: symbols (0 or 1) that
  rows which continue a document leave out of their context, to begin so much later; what is scored then has less of it,
  and may have none. Raises ValueError as `evaluation_rows` and for marks that are not known.
  """
  kinds = marks_lib.parse(marks or {})
  plan, unfinished = evaluation_rows(corpus.lengths, seq_len, context), len(corpus) - 1 if last_is_cut else -1
  whole = functools.lru_cache(1)(functools.partial(_Whole, corpus))
  document = lambda number, row: whole(number)
  for first in range(0, len(plan), batch_size):
    pieces = plan.pieces(np.arange(first, min(first + batch_size, len(plan))))
    last = np.where(pieces.document == unfinished, corpus.lengths[unfinished] + 1, pieces.stop)
    start = np.where(pieces.start > 0, pieces.start + later, 0)
    first_scored = np.maximum(pieces.first_scored, start + 1)
    pieces = pieces._replace(start=start, stop=np.minimum(pieces.stop, last), first_scored=first_scored)
    batch = _marked(materialise(corpus, pieces, batch_size, seq_len), pieces, kinds, document)
    yield Rows(batch, pieces, scored(pieces, batch_size, seq_len))


def training_batch(
  corpus: Corpus,
  pieces: Pieces,
  rows: int,
  seq_len: int,
  marks: Mapping[str, str] | None = None,
  keys: Sequence[tuple[int, ...]] = (),
) -> Batch:
  """What `text.packing.materialise` makes, with marks, name -> specification; keys: of each row, for what they draw."""
  batch = materialise(corpus, pieces, rows, seq_len)
  document = lambda number, row: _Anywhere(corpus, number, (*(keys[row] if keys else ()), number))
  return _marked(batch, pieces, marks_lib.parse(marks or {}), document)


def _marked(
  batch: Batch, pieces: Pieces, kinds: Mapping[str, marks_lib.Kind], document: Callable[[int, int], marks_lib.Document]
) -> Batch:
  if not kinds:
    return batch
  sizes, length = pieces.stop - pieces.start, batch.bytes.shape[1]
  before = np.append(0, np.cumsum(sizes))[np.searchsorted(pieces.row, pieces.row)]
  places = np.cumsum(sizes) - sizes - before + pieces.row * length
  placed = zip(*map(np.ndarray.tolist, (places, *pieces)), strict=True)
  of_documents = ((place, document(number, row), *piece) for place, row, number, *piece in placed)
  return dataclasses.replace(batch, marks=marks_lib.of_pieces(kinds, of_documents, batch.bytes.shape))


class _Anywhere(marks_lib.Document):
  """A document of which pieces are asked for in any order."""

  def __init__(self, corpus: Corpus, number: int, key: tuple[int, ...] = ()):
    self.length, self._corpus, self._number, self.key = int(corpus.lengths[number]), corpus, number, key

  def read(self, begin: int, end: int) -> bytes:
    return self._corpus.read(self._number, begin, end)

  def words(self, splitter: words_lib.Splitter, begin: int, end: int, exact: bool) -> tuple[int, list[bytes]]:
    return _words_between(self, begin, end, splitter) if exact else super().words(splitter, begin, end, exact)

  def stretches(self, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    for at in range(begin - begin % STRETCH, end, STRETCH):
      yield at, self.read(at, min(at + STRETCH, self.length))


class _Whole(_Anywhere):
  """A document of which pieces are asked for from its beginning on: read and split once, in chunks."""

  def __init__(self, corpus: Corpus, number: int):
    super().__init__(corpus, number)
    self._found: dict[words_lib.Splitter, _Found] = {}

  def words(self, splitter: words_lib.Splitter, begin: int, end: int, exact: bool) -> tuple[int, list[bytes]]:
    del exact  # they are, always
    return self._found.setdefault(splitter, _Found(self, splitter)).between(begin, end)

  def stretches(self, begin: int, end: int) -> list[tuple[int, bytes]]:
    del begin, end
    return [(0, self._content)]

  @functools.cached_property
  def _content(self) -> bytes:
    return self.read(0, self.length)


class _Found:
  """The words of a document that were found and may be asked for again."""

  def __init__(self, document: marks_lib.Document, splitter: words_lib.Splitter):
    self._document, self._stream = document, words_lib.Stream(splitter)
    self._read = 0  # bytes
    self._begin, self._words, self._ends = 0, [], np.zeros(0, np.int64)

  def between(self, begin: int, end: int) -> tuple[int, list[bytes]]:
    """As `Document.words`; begin never falls."""
    while (self._ends[-1] if self._words else self._begin) < min(end, self._document.length):
      self._drop(begin)
      size = max(CHUNK, self._stream.size)  # a word without an end is split again with every chunk
      more = self._document.read(self._read, min(self._read + size, self._document.length))
      self._read += len(more)
      closed = self._stream.push(more)
      if self._read == self._document.length:
        closed += self._stream.close()
      self._words += closed
      self._ends = self._begin + np.cumsum(np.fromiter(map(len, self._words), np.int64, len(self._words)))
    first, last = np.searchsorted(self._ends, (begin, end - 1), 'right').tolist()
    return int(self._ends[first - 1]) if first else self._begin, self._words[first : last + 1]

  def _drop(self, byte: int) -> None:
    """Forgets the words that end at or before a byte."""
    if first := int(np.searchsorted(self._ends, byte, 'right')):
      self._begin, self._words, self._ends = int(self._ends[first - 1]), self._words[first:], self._ends[first:]


def _words_between(
  document: marks_lib.Document, begin: int, end: int, splitter: words_lib.Splitter
) -> tuple[int, list[bytes]]:
  """(where the first of them begins, the words) that hold bytes [begin, end), of which the first is context."""
  origin, at, found = begin, begin, []
  if begin:
    origin, word = _word_before(document, begin + 1, splitter)
    at, found = origin + len(word), [word]
  last, word = (end, b'') if end == document.length else _word_before(document, end, splitter)
  if at < last:
    stretch = document.read(at, min(last + LOOKAHEAD, document.length))
    ends = splitter(stretch)
    borders = [0, *ends[ends < last - at].tolist(), last - at]
    found += [stretch[start:stop] for start, stop in itertools.pairwise(borders)]
    at = last
  if at < end:
    found.append(word[at - last :])
  return origin, found


def _word_before(document: marks_lib.Document, cut: int, splitter: words_lib.Splitter) -> tuple[int, bytes]:
  """(where it begins, the word) that has the byte before `cut`; the same for any row, since only the cut decides."""
  step = max(LOOKBACK, splitter.limit)
  first = max((cut // step - 1) * step, 0)
  if splitter.kind == 'fixed':
    first -= first % splitter.limit
  stretch = document.read(first, min(cut + splitter.limit + LOOKAHEAD, document.length))
  ends = splitter(stretch)
  word = int(np.searchsorted(ends, cut - 1 - first, 'right'))
  begin = int(ends[word - 1]) if word else 0
  return first + begin, stretch[begin : int(ends[word])]
