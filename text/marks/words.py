"""Marks of words and of what they are made of."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from text import pieces as pieces_lib
from text import units as units_lib
from text import words as words_lib
from text.batch import BOS, EOS
from text.marks.kind import Document, Kind, Specs, kind_of
from text.specification import arguments


@dataclasses.dataclass(frozen=True)
class Words(Kind):
  """Where words begin. exact: other marks depend on the words at a row's borders, so they are looked for beyond it."""

  splitter: words_lib.Splitter
  exact: bool

  DTYPE, EMPTY = np.bool_, False

  @property
  def lookahead(self) -> int:
    """Whether a character begins a word is known with its last byte."""
    return 0 if self.splitter.kind == 'fixed' else 3

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Words':
    return cls(words_lib.parse(spec), any(kind_of(other) is Units for other in others.values()))

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    del first_scored
    begin, end = max(start - 1, 0), min(stop - 1, document.length)
    origin, found = document.words(self.splitter, begin, end, self.exact)
    word_W = _starts(origin + 1, np.fromiter(map(len, found), np.int64, len(found)))
    values = np.zeros(stop - start, bool)
    values[word_W[(word_W > start) & (word_W < stop)] - start] = True
    values[0] = True
    values[-1] |= stop == document.length + 2
    return values

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    """state: (where the splitter starts to read, where the last word begins for it).

    Starts that earlier calls said are False. As `text.words.Stream` does, since what the splitter makes of the open
    word may depend on the word before. A word that is cut for its length counts as one.
    """
    if not state[0]:
      state[:] = has_bos
    context, open_ = state.tolist()
    ends, characters = self.splitter.uncapped(row[context:])
    ends = ends[ends > open_ - context]
    starts = context + self.splitter.cap(ends, characters, open_ - context)[:-1]
    starts = np.concatenate([[0, has_bos], starts]) - (len(row) - count)
    values = np.zeros(count, bool)
    values[starts[(starts >= 0) & (starts < count)]] = True
    if len(ends) > 1:
      state[:] = context + int(ends[-3]) if len(ends) > 2 else open_, context + int(ends[-2])
    return values


@dataclasses.dataclass(frozen=True)
class Units(Kind):
  """Ids of the units that spell the words, each at its last byte; how rows cut them: `text.rows`."""

  units: units_lib.Units
  splitter: words_lib.Splitter

  DTYPE, EMPTY = np.int32, -1

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Units':
    units = units_lib.parse(spec)
    if kind_of(others.get('words', '')) is not Words:
      raise ValueError(f"mark '{spec}': units are parts of words, so name a splitter as the mark 'words', too")
    return cls(units, words_lib.parse(others['words']))

  @property
  def lookahead(self) -> int:
    """Those of a word depend on all of it."""
    return self.splitter.limit

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    begin, end = max(start - 1, 0), min(stop - 1, document.length)
    origin, found = document.words(self.splitter, begin, end, True)
    ids_U = np.fromiter(itertools.chain.from_iterable(map(self.units, found)), np.int32)
    sizes_U = self.units.sizes[ids_U]
    begin_U = _starts(origin + 1, sizes_U)
    end_U = begin_U + sizes_U
    here_U = (begin_U < stop) & (end_U > start)
    border_U = np.where(begin_U < first_scored, first_scored, stop)
    values = np.full(stop - start, -1, np.int32)
    values[(np.minimum(end_U, border_U) - 1 - start)[here_U]] = ids_U[here_U]
    if not start:
      values[0] = BOS
    if stop == document.length + 2:
      values[-1] = EOS
    return values

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    raise ValueError(f"mark '{self.units.name}': which unit ends at a byte is not known while its word goes on")


@dataclasses.dataclass(frozen=True)
class Pieces(Kind):
  """Whether a piece of a subword tokenizer ends here: a label, since the pieces of a word depend on all of it.

  pieces(file=PATH[,digest=HEX][,words=hat(max_bytes=64)][,spaces=next]): the tokenizer (text/pieces.py), and the
  splitter whose words it is used on. spaces: one ' ' that begins a word belongs to the 'next' piece, or 'closes' the
  one before, which then ends at the space and not at the letter before it (dynamic-pooling's labels).
  """

  sizes: Callable[[bytes], tuple[int, ...]]
  splitter: words_lib.Splitter
  closes: bool

  DTYPE, EMPTY = np.bool_, False

  @property
  def lookahead(self) -> int:
    """Those of a word depend on all of it."""
    return self.splitter.limit

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Pieces':
    del others
    defaults = {'file': '', 'words': 'hat(max_bytes=64)', 'digest': '', 'spaces': 'next'}
    values = arguments(spec, 'mark', {'pieces': defaults})[1]
    if values['spaces'] not in ('next', 'closes'):
      raise ValueError(f"mark '{spec}': spaces='{values['spaces']}' must be next or closes")
    if not values['file']:
      raise ValueError(f"mark '{spec}' names no file: write pieces(file=PATH); `python -m text.subwords` makes one")
    sizes = pieces_lib.parse(values['file'], values['digest'])
    return cls(sizes, words_lib.parse(values['words']), values['spaces'] == 'closes')

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    del first_scored
    begin, end = max(start - 1, 0), min(stop - 1, document.length)
    values = np.zeros(stop - start, bool)
    if end <= begin:
      return values
    origin, found = document.words(self.splitter, begin, end, True)
    sizes = np.fromiter(itertools.chain.from_iterable(map(self.sizes, found)), np.int64)
    ends = origin + np.cumsum(sizes)  # behind the last byte
    is_end = np.zeros(end - begin, bool)
    is_end[ends[(ends > begin) & (ends <= end)] - 1 - begin] = True
    if self.closes:
      is_space = np.frombuffer(document.read(begin, min(end + 1, document.length)) + b'.', np.uint8) == ord(' ')
      follows = np.append(begin > 0 and (origin == begin or begin in ends), is_end)[: len(is_end)]
      is_end = (is_end & ~is_space[1 : len(is_end) + 1]) | (follows & is_space[: len(is_end)])
    values[begin + 1 - start : end + 1 - start] = is_end
    return values

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    raise ValueError("mark 'pieces': which piece ends at a byte is not known while its word goes on")


def _starts(begin: int, sizes: np.ndarray) -> np.ndarray:
  return begin + np.cumsum(sizes, dtype=np.int64) - sizes
