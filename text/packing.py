"""The plan that packs documents into rows of equal length: every byte and every EOS is scored once.

Document d has lengths[d] + 2 symbols: 0 is BOS, 1..n its bytes, n + 1 EOS. The documents of a plan are laid end to end
and cut into rows. A document that a row cuts continues in the next row, which begins with symbols before the cut as
context that is not scored; a row ends early, with padding, rather than with a lone symbol, which could score nothing.

An epoch is one plan, or for a large corpus several, its parts: random sets of documents (so small next to the corpus
that order within them is as good as order over all), each planned when its first row is asked for. Memory is that of
one part, whatever the size of the corpus; the time to plan an epoch grows with its documents and rows
(`python -m benchmarks.input_pipeline --plan` measures it).
"""

from typing import NamedTuple

import numpy as np

from text.batch import BOS, EOS, Batch
from text.corpus import Corpus

PART = 2**22  # documents, and rows, of a part; about half a gigabyte while it is planned
DRAWS = 2**22  # random numbers made at a time


class Pieces(NamedTuple):
  """Parts of documents in rows: int64 arrays of equal length, ordered by row and in each row from left to right.

  Symbols [start, stop) of a document; those from first_scored on are scored here, the rest is context.
  """

  row: np.ndarray
  document: np.ndarray
  start: np.ndarray
  stop: np.ndarray
  first_scored: np.ndarray


class Plan:
  """Rows of seq_len symbols with random access."""

  def __init__(self, documents_N, starts_N, row_starts_R, row_order_R, seq_len: int):
    self._documents = documents_N  # in the order in which they are laid end to end
    self._starts = starts_N  # where each begins, and the end of all: one more than documents
    self._row_starts = row_starts_R
    self._row_order = row_order_R
    self._seq_len = seq_len

  def __len__(self) -> int:
    return len(self._row_order)

  def pieces(self, rows_B: np.ndarray) -> Pieces:
    """What stands in these rows; `row` counts from 0 as they are given. Raises IndexError past the end."""
    index_B = self._row_order[rows_B]
    begin_B = self._row_starts[index_B]
    end_B = np.minimum(begin_B + self._seq_len, self._starts[-1])
    scored_before_B = np.where(index_B > 0, self._row_starts[index_B - 1] + self._seq_len, 0)
    first_B = np.searchsorted(self._starts, begin_B, 'right') - 1
    last_B = np.searchsorted(self._starts, end_B - 1)  # a document of which only the BOS would fit is not in the row
    counts_B = last_B - first_B
    row = np.repeat(np.arange(len(index_B)), counts_B)
    place = np.arange(len(row)) + np.repeat(first_B - np.cumsum(counts_B) + counts_B, counts_B)
    origin = self._starts[place]
    start = np.maximum(begin_B[row] - origin, 0)
    stop = np.minimum(end_B[row], self._starts[place + 1]) - origin
    first_scored = np.maximum(scored_before_B[row] - origin, start + 1)
    return Pieces(row, self._documents[place], start, stop, first_scored)


def training_plan(
  lengths_N: np.ndarray, seq_len: int, seed: int, epoch: int, part: int = 0, parts: int = 1, number: int = 0
) -> Plan:
  """One part of an epoch: its documents in an order drawn from (seed, epoch), packed, and the rows shuffled again.

  number: of the corpus in a mixture, since each is drawn in another order. A continuation has one symbol of context.
  Raises ValueError for no documents or seq_len < 2.
  """
  _check(lengths_N, seq_len)
  corpus = (number,) if number else ()
  documents_N = _part_of_permutation(len(lengths_N), part, parts, seed, epoch, 0, *corpus)
  starts_N = _starts(lengths_N[documents_N])
  row_starts_R = _row_starts(starts_N, seq_len)
  row_order_R = permutation(len(row_starts_R), seed, epoch, 1 + part, *corpus)
  return Plan(documents_N, starts_N, row_starts_R, row_order_R, seq_len)


def number_of_parts(lengths_N: np.ndarray, seq_len: int, largest: int = PART) -> int:
  """How many parts an epoch has: none holds (on average) more than `largest` documents or rows."""
  rows = int(lengths_N.sum(dtype=np.int64)) // (seq_len - 1)
  return max(1, min(len(lengths_N), -(-max(len(lengths_N), rows) // largest)))


def evaluation_rows(lengths_N: np.ndarray, seq_len: int, context: int | None = None) -> Plan:
  """Every document once, in order, for evaluation; a continuation repeats the `context` symbols before it, unscored.

  context: from 1 (as in training) to seq_len - 1 (one new symbol per row); half a row where None. Fewer are repeated
  where the document has fewer. Raises ValueError for no documents, seq_len < 2 or another context.
  """
  context = seq_len // 2 if context is None else context
  _check(lengths_N, seq_len)
  starts_N = _starts(lengths_N)
  if not 1 <= context < seq_len:
    raise ValueError(f'context={context} must be from 1 to seq_len - 1 = {seq_len - 1}: choose a shorter context')
  row_starts = [0]
  while (end := row_starts[-1] + seq_len) < starts_N[-1]:
    origin = int(starts_N[np.searchsorted(starts_N, end, 'right') - 1])  # of the document that holds symbol `end`
    row_starts.append(end - min(context, end - origin))
  return Plan(np.arange(len(lengths_N)), starts_N, np.array(row_starts), np.arange(len(row_starts)), seq_len)


def _check(lengths_N: np.ndarray, seq_len: int) -> None:
  if len(lengths_N) == 0:
    raise ValueError('there is no document to pack: the corpus is empty')
  if seq_len < 2:
    raise ValueError(f'seq_len={seq_len} must be at least 2: the first symbol of a row is context for the next')


def _starts(lengths_N: np.ndarray) -> np.ndarray:
  return np.concatenate([[0], np.cumsum(lengths_N + np.int64(2))]).astype(np.int64)


def _row_starts(starts_N: np.ndarray, seq_len: int) -> np.ndarray:
  """Where each row begins: one symbol before the end of the last row, or at that end where a document ends there too.

  Between two such ends the rows are seq_len - 1 apart, so the next one is the next document start with a known
  remainder: the loop runs once for each of these (about documents / seq_len), not over documents or rows.
  """
  stride, total = seq_len - 1, int(starts_N[-1])
  if not total:
    return np.zeros(0, np.int64)  # a part that no document fell into
  borders = starts_N[1:-1]
  keys = np.sort(borders % stride * total + borders)  # by remainder, then by place
  anchors = [0]
  while (end := anchors[-1] + seq_len) < total:
    remainder = end % stride
    place = np.searchsorted(keys, remainder * total + end)
    if place == len(keys) or keys[place] // total != remainder:
      break
    anchors.append(int(keys[place] % total))
  anchors = np.array(anchors)
  rows = -((anchors + 1 - np.append(anchors[1:], total)) // stride)  # rounded up: from each anchor to the next
  before = np.cumsum(rows) - rows
  return np.repeat(anchors - before * stride, rows) + np.arange(rows.sum()) * stride


def permutation(size: int, *key: int) -> np.ndarray:
  """A permutation drawn from `key`; from raw bits, since numpy keeps those equal between its versions."""
  return _part_of_permutation(size, 0, 1, *key)


def _part_of_permutation(size: int, part: int, parts: int, *key: int) -> np.ndarray:
  """A stretch of the permutation: what drew a number in the part-th of `parts` equal ranges, in the order of the
  numbers. All parts one after the other are the whole permutation, and need memory for one of them.
  """
  draws = np.random.Philox(np.random.SeedSequence(key))
  low, high = (np.uint64(min((2**64 * border) // parts, 2**64 - 1)) for border in (part, part + 1))
  is_last = part == parts - 1
  chosen, numbers = [], []
  for start in range(0, size, DRAWS):
    drawn = draws.random_raw(min(DRAWS, size - start))
    if parts > 1:
      inside = np.flatnonzero((drawn >= low) & ((drawn < high) | is_last))
      chosen.append(inside + start)
      drawn = drawn[inside]
    numbers.append(drawn)
  order = np.argsort(np.concatenate(numbers), kind='stable') if size else np.zeros(0, np.int64)
  return np.concatenate(chosen)[order] if chosen else order


class RowStream:
  """The rows of epoch 0, then of epoch 1, and so on without end: a position in the data is one integer.

  Made for rows that are asked for in rising order: it keeps one plan at a time.
  """

  def __init__(self, lengths_N: np.ndarray, seq_len: int, seed: int, parts: int | None = None, number: int = 0):
    """parts: of an epoch; None: as many as the size of the corpus asks for. number: of the corpus in a mixture.

    Raises ValueError as `training_plan`.
    """
    _check(lengths_N, seq_len)
    self._lengths, self._seq_len, self._seed, self._number = lengths_N, seq_len, seed, number
    self._parts = parts or number_of_parts(lengths_N, seq_len)
    self._ends: list[int] = []  # rows in the stream up to the end of each part; epochs differ by a few rows
    self._index, self._plan = -1, None

  def locate(self, row: int) -> tuple[int, int]:
    """(plan, row of the plan) of a row of the stream; plan p is part p % parts of epoch p // parts."""
    while not self._ends or self._ends[-1] <= row:
      self._ends.append((self._ends[-1] if self._ends else 0) + len(self.plan(len(self._ends))))
    index = int(np.searchsorted(self._ends, row, 'right'))
    return index, row - (self._ends[index - 1] if index else 0)

  def plan(self, index: int) -> Plan:
    """The plan of that number."""
    if index != self._index:
      epoch, part = divmod(index, self._parts)
      self._plan = None  # frees the memory of the old one first
      self._plan = training_plan(self._lengths, self._seq_len, self._seed, epoch, part, self._parts, self._number)
      self._index = index
    return self._plan

  def pieces(self, rows_B: np.ndarray) -> Pieces:
    """What stands in these rows of the stream, which must rise; `row` counts from 0 as they are given."""
    parts, done = [], 0
    while done < len(rows_B):
      index, row = self.locate(int(rows_B[done]))
      until = int(np.searchsorted(rows_B, self._ends[index]))  # the rest is in other plans
      pieces = self.plan(index).pieces(rows_B[done:until] - (rows_B[done] - row))
      parts.append(pieces._replace(row=pieces.row + done))
      done = until
    return parts[0] if len(parts) == 1 else Pieces(*map(np.concatenate, zip(*parts, strict=True)))


def materialise(corpus: Corpus, pieces: Pieces, rows: int, seq_len: int) -> Batch:
  """`rows` rows of seq_len symbols, numpy, padded at the right."""
  sizes, begin = pieces.stop - pieces.start, _begin(pieces, seq_len)
  used_B = np.bincount(pieces.row, sizes, rows).astype(np.int64)
  pieces_before_B = np.searchsorted(pieces.row, np.arange(rows))
  segment = np.arange(len(sizes)) - pieces_before_B[pieces.row] + 1
  ends_B = np.append(pieces_before_B[1:], len(sizes))
  segment_ids = np.repeat(np.insert(segment, ends_B, 0), np.insert(sizes, ends_B, seq_len - used_B)).astype(np.int32)

  has_eos = pieces.stop == corpus.lengths[pieces.document] + 2
  bos, eos = begin[pieces.start == 0], (begin + sizes)[has_eos] - 1
  is_text = segment_ids != 0
  is_text[bos] = is_text[eos] = False
  first, last = np.maximum(pieces.start - 1, 0), np.minimum(pieces.stop - 1, corpus.lengths[pieces.document])
  raw = map(corpus.read, pieces.document.tolist(), first.tolist(), last.tolist())
  symbols = np.zeros(rows * seq_len, np.uint8)
  symbols[is_text] = np.frombuffer(b''.join(raw), np.uint8)
  symbols[bos], symbols[eos] = BOS, EOS
  specials = (segment_ids != 0) & ~is_text
  symbols, segment_ids, specials = (x.reshape(rows, seq_len) for x in (symbols, segment_ids, specials))
  return Batch(symbols, segment_ids, specials=specials)


def scored(pieces: Pieces, rows: int, seq_len: int) -> np.ndarray:
  """The positions to count of the rows that `materialise` makes, [B, L] bool: all of batch.scored but for the repeated
  context of evaluation rows.
  """
  begin = _begin(pieces, seq_len)
  change = np.zeros(rows * seq_len + 1, np.int8)
  change[begin + pieces.first_scored - pieces.start] += 1
  # Never where another piece begins to be scored: its first symbol is context.
  change[begin + pieces.stop - pieces.start] -= 1
  return np.cumsum(change[:-1], dtype=np.int8).astype(bool).reshape(rows, seq_len)


def _begin(pieces: Pieces, seq_len: int) -> np.ndarray:
  """Where each piece begins in the rows laid end to end."""
  ends = np.cumsum(pieces.stop - pieces.start)
  before = np.append(0, ends)[np.searchsorted(pieces.row, pieces.row)]  # in the rows above
  return np.append(0, ends[:-1]) - before + pieces.row * seq_len
