"""Marks of the tokens that a tokenizer makes of whole documents."""

import dataclasses
import itertools

import numpy as np

from text import stochastic_tokens
from text import tokens as tokens_lib
from text.batch import BOS, EOS
from text.marks.kind import Document, Kind, Specs
from text.specification import arguments

PAID = -2  # at a byte whose token was paid for in the row before


@dataclasses.dataclass(frozen=True)
class Tokens(Kind):
  """Ids of the tokens of the document, not of the row, each at its last byte; how rows cut them: `text.rows`.

  tokens(file=PATH[,digest=HEX][,bos=ID][,eos=ID][,stochastok=P][,dropout=P]): the tokenizer (text/tokens.py), and what
  stands at BOS and EOS (-1: `text.tokens.Tokens.special`). A byte that is scored and part of a token
  that was paid for before it has PAID in place of -1. stochastok, dropout: other tokens for the same bytes, drawn anew
  for every row of training (text/stochastic_tokens.py); what a row cuts keeps its canonical tokens, so that the rows on
  both sides of a cut know the same.
  """

  tokens: tokens_lib.Tokens
  bos: int
  eos: int
  stochastok: float
  dropout: float

  DTYPE, EMPTY = np.int32, -1
  lookahead = 2**30  # later text may decide on the tokens of any earlier

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Tokens':
    del others
    options = {'bos': -1, 'eos': -1, 'stochastok': 0.0, 'dropout': 0.0}
    values = arguments(spec, 'mark', {'tokens': tokens_lib.ARGUMENTS['tokens'] | options})[1]
    tokens = tokens_lib.parse(tokens_lib.in_file(values.pop('file'), values.pop('digest')))
    for name, byte in (('bos', BOS), ('eos', EOS)):
      if values[name] < 0:
        values[name] = tokens.special(byte)
    if values['dropout']:
      stochastic_tokens.merges(tokens)  # that it has them is known now
    return cls(tokens, **values)

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    values = np.full(stop - start, -1, np.int32)
    ids_U, end_U, open_P = self._between(document, max(start - 1, 0), min(stop - 1, document.length))
    if self.stochastok or self.dropout:
      ids_U, end_U = self._drawn(document, ids_U, end_U, open_P, first_scored, stop)
    is_paid_U = end_U - self.tokens.sizes_V[ids_U] < first_scored
    for end in end_U[is_paid_U & (end_U > first_scored)].tolist():
      values[first_scored - start : end - start] = PAID
    values[np.minimum(end_U, np.where(is_paid_U, first_scored, stop)) - 1 - start] = ids_U
    if not start:
      values[0] = self.bos
    if stop == document.length + 2:
      values[-1] = self.eos
    return values

  def check_rows(self, seq_len: int) -> None:
    if seq_len < (longest := int(self.tokens.sizes_V.max())):
      token = self.tokens.table[int(self.tokens.sizes_V.argmax())]
      raise ValueError(
        f"seq_len={seq_len}: '{self.tokens.file}' has a token of {longest} bytes, {token!r:.50}, and a row that lies "
        'inside one has nothing to be trained on: use longer rows'
      )

  def _between(self, document: Document, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids, where each ends, where what the tokenizer cuts before it merges ends), the latter two as symbols of the
    document, for the tokens that have one of the bytes [begin, end).
    """
    parts = [(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for origin, stretch in document.stretches(begin, end) if begin < end else ():
      read = self.tokens(stretch)
      first = np.searchsorted(read.ends_N, begin - origin, 'right')
      last = np.searchsorted(read.ends_N, end - 1 - origin, 'right') + 1
      here, cuts_P = slice(int(first), int(last)), read.cuts_P if self.dropout else parts[0][2]
      parts.append((read.ids_N[here], origin + 1 + read.ends_N[here], origin + 1 + cuts_P))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))

  def _drawn(self, document: Document, ids_U, end_U, cut_P, first_scored: int, stop: int):
    """The tokens with others for what lies between first_scored and stop."""
    draw, begin_U = stochastic_tokens.draws(*document.key), end_U - self.tokens.sizes_V[ids_U]
    low, high = first_scored, stop
    if self.dropout:  # of what is merged by itself
      inside = cut_P[(cut_P >= first_scored) & (cut_P <= stop)]
      low, high = (inside[0], inside[-1]) if len(inside) > 1 else (stop, stop)
    changes = np.flatnonzero((begin_U >= low) & (end_U <= high))
    if not len(changes):
      return ids_U, end_U
    first, last = int(changes[0]), int(changes[-1]) + 1
    if self.dropout:
      begin, end = int(begin_U[first]), int(end_U[last - 1])
      text, cuts = document.read(begin - 1, end - 1), inside[(inside >= begin) & (inside <= end)] - begin
      stretches = (text[a:b] for a, b in itertools.pairwise(np.unique(cuts).tolist()))
      new = [i for part in stretches for i in stochastic_tokens.dropped(part, self.tokens, self.dropout, draw)]
    else:
      of = stochastic_tokens.expansions(self.tokens)
      new = stochastic_tokens.stochastok(ids_U[first:last].tolist(), of, self.stochastok, draw)
    ids_U = np.concatenate([ids_U[:first], np.array(new, np.int32), ids_U[last:]])
    return ids_U, begin_U[0] + np.cumsum(self.tokens.sizes_V[ids_U], dtype=np.int64)

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    raise ValueError(f"mark '{self.tokens.name}': which token ends at a byte is not known while the text goes on")
