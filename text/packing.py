"""The plan that packs documents into rows of equal length: every byte and every EOS is scored once.

Document d has lengths[d] + 2 symbols: 0 is BOS, 1..n its bytes, n + 1 EOS. The documents of a plan are laid end to end
and cut into rows. A document that a row cuts continues in the next row, which begins with symbols before the cut as
context that is not scored; a row ends early, with padding, rather than with a lone symbol, which could score nothing.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

import text
from text.batch import Batch
from text.sources import Corpus


@dataclasses.dataclass(frozen=True)
class Piece:
  """Symbols [start, stop) of a document in a row; those from first_scored on are scored here, the rest is context."""

  document: int
  start: int
  stop: int
  first_scored: int


class Plan:
  """Rows of seq_len symbols with random access: `plan.row(i)` is the list of pieces of row i, from left to right."""

  def __init__(self, documents_N, starts_N, row_starts_R, row_order_R, seq_len: int):
    self._documents = documents_N  # in the order in which they are laid end to end
    self._starts = starts_N  # where each begins, and the end of all: one more than documents
    self._row_starts = row_starts_R
    self._row_order = row_order_R
    self._seq_len = seq_len

  def __len__(self) -> int:
    return len(self._row_order)

  def row(self, index: int) -> list[Piece]:
    """The pieces of a row; raises IndexError past the end."""
    index = int(self._row_order[index])
    begin = int(self._row_starts[index])
    end = min(begin + self._seq_len, int(self._starts[-1]))
    scored_before = int(self._row_starts[index - 1]) + self._seq_len if index else 0
    first = int(np.searchsorted(self._starts, begin, 'right')) - 1
    last = int(np.searchsorted(self._starts, end - 1))  # a document of which only the BOS would fit is not in the row
    borders = self._starts[first : last + 1].tolist()
    pieces = []
    for document, origin, following in zip(
      self._documents[first:last].tolist(), borders[:-1], borders[1:], strict=True
    ):
      start = max(begin - origin, 0)
      first_scored = max(scored_before - origin, start + 1)
      pieces.append(Piece(document, start, min(end, following) - origin, first_scored))
    return pieces


def training_plan(lengths_N: np.ndarray, seq_len: int, seed: int, epoch: int) -> Plan:
  """One epoch: documents in an order drawn from (seed, epoch), packed, and the rows shuffled again.

  A continuation has one symbol of context. Raises ValueError for no documents or seq_len < 2.
  """
  documents_N = _permutation(len(lengths_N), seed, epoch, 0)
  starts_N = _starts(lengths_N[documents_N], seq_len)
  row_starts_R = _row_starts(starts_N, seq_len)
  return Plan(documents_N, starts_N, row_starts_R, _permutation(len(row_starts_R), seed, epoch, 1), seq_len)


def evaluation_rows(lengths_N: np.ndarray, seq_len: int, context: int | None = None) -> Plan:
  """Every document once, in order, for evaluation; a continuation repeats the `context` symbols before it, unscored.

  context: from 1 (as in training) to seq_len - 1 (one new symbol per row); half a row where None. Fewer are repeated
  where the document has fewer. Raises ValueError for no documents, seq_len < 2 or another context.
  """
  context = seq_len // 2 if context is None else context
  starts_N = _starts(lengths_N, seq_len)
  if not 1 <= context < seq_len:
    raise ValueError(f'context={context} must be from 1 to seq_len - 1 = {seq_len - 1}: choose a shorter context')
  row_starts = [0]
  while (end := row_starts[-1] + seq_len) < starts_N[-1]:
    origin = int(starts_N[np.searchsorted(starts_N, end, 'right') - 1])  # of the document that holds symbol `end`
    row_starts.append(end - min(context, end - origin))
  return Plan(np.arange(len(lengths_N)), starts_N, np.array(row_starts), np.arange(len(row_starts)), seq_len)


def _starts(lengths_N: np.ndarray, seq_len: int) -> np.ndarray:
  if len(lengths_N) == 0:
    raise ValueError('there is no document to pack: the corpus is empty')
  if seq_len < 2:
    raise ValueError(f'seq_len={seq_len} must be at least 2: the first symbol of a row is context for the next')
  return np.concatenate([[0], np.cumsum(lengths_N + 2)]).astype(np.int64)


def _row_starts(starts_N: np.ndarray, seq_len: int) -> np.ndarray:
  """Where each row begins: one symbol before the end of the last row, or at that end where a document ends there too.

  Between two such ends the rows are seq_len - 1 apart, so the next one is the next document start with a known
  remainder: the loop runs once for each of these (about documents / seq_len), not over documents or rows.
  """
  stride, total = seq_len - 1, int(starts_N[-1])
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


def _permutation(size: int, *key: int) -> np.ndarray:
  """A permutation drawn from `key`; from raw bits, since numpy keeps those equal between its versions."""
  bits = np.random.Philox(np.random.SeedSequence(key)).random_raw(size)
  return np.argsort(bits, kind='stable')


class RowStream:
  """The rows of epoch 0, then of epoch 1, and so on without end: a position in the data is one integer.

  Made for rows that are asked for in rising order: it keeps the plan of one epoch at a time.
  """

  def __init__(self, lengths_N: np.ndarray, seq_len: int, seed: int):
    self._lengths, self._seq_len, self._seed = lengths_N, seq_len, seed
    self._ends: list[int] = []  # rows in the stream up to the end of each epoch; epochs differ by a few rows
    self._epoch, self._plan = -1, None

  def locate(self, row: int) -> tuple[int, int]:
    """(epoch, row of its plan) of a row of the stream."""
    while not self._ends or self._ends[-1] <= row:
      self._ends.append((self._ends[-1] if self._ends else 0) + len(self.plan(len(self._ends))))
    epoch = int(np.searchsorted(self._ends, row, 'right'))
    return epoch, row - (self._ends[epoch - 1] if epoch else 0)

  def plan(self, epoch: int) -> Plan:
    if epoch != self._epoch:
      self._epoch, self._plan = epoch, training_plan(self._lengths, self._seq_len, self._seed, epoch)
    return self._plan

  def row(self, row: int) -> list[Piece]:
    epoch, row = self.locate(row)
    return self.plan(epoch).row(row)


def materialise(corpus: Corpus, rows: Sequence[Sequence[Piece]], seq_len: int) -> tuple[Batch, np.ndarray, np.ndarray]:
  """(batch, scored [B, L] bool, is_eos [B, L] bool), all numpy, from the pieces of B rows; no pieces: a row of padding.

  scored: the positions to count, all of batch.scored but for the repeated context of evaluation rows. is_eos: by
  position in the document, so a byte 255 of raw text is not taken for an EOS.
  """
  bytes_BxL = np.zeros((len(rows), seq_len), np.uint8)
  segment_ids_BxL = np.zeros((len(rows), seq_len), np.int32)
  scored_BxL, is_eos_BxL = (np.zeros((len(rows), seq_len), bool) for _ in range(2))
  for row, pieces in enumerate(rows):
    begin = 0
    for segment, piece in enumerate(pieces, 1):
      end = begin + piece.stop - piece.start
      length = int(corpus.lengths[piece.document])
      raw = corpus.read(piece.document, max(piece.start - 1, 0), min(piece.stop - 1, length))
      first_byte = begin + (piece.start == 0)
      bytes_BxL[row, first_byte : first_byte + len(raw)] = np.frombuffer(raw, np.uint8)
      if piece.start == 0:
        bytes_BxL[row, begin] = text.BOS
      if piece.stop == length + 2:
        bytes_BxL[row, end - 1] = text.EOS
        is_eos_BxL[row, end - 1] = True
      segment_ids_BxL[row, begin:end] = segment
      scored_BxL[row, begin + piece.first_scored - piece.start : end] = True
      begin = end
  return Batch(bytes_BxL, segment_ids_BxL), scored_BxL, is_eos_BxL
