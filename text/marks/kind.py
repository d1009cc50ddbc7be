"""What a kind of marks is, and the kinds by name; see `text.marks`."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from text import words as words_lib
from text.specification import arguments

Specs = Mapping[str, str]


class Document:
  """A text of which pieces are marked: its bytes are symbols 1 to `length`, between BOS and EOS. This one is in memory.

  A piece is a run of its symbols, [start, stop). Those before first_scored are context: what they show was paid for.
  key: what is drawn for a piece is drawn from this.
  """

  key: tuple[int, ...] = ()

  def __init__(self, content: bytes):
    self.length, self._content = len(content), content

  def read(self, begin: int, end: int) -> bytes:
    """The bytes [begin, end)."""
    return self._content[begin:end]

  def words(self, splitter: words_lib.Splitter, begin: int, end: int, exact: bool) -> tuple[int, list[bytes]]:
    """(where the first of them begins, the words) that have one of the bytes [begin, end), of which the first may be
    context. exact: pieces that meet at a cut find the same word there; else the words of these bytes alone will do.
    """
    del exact
    return begin, splitter.words(self.read(begin, end))

  def stretches(self, begin: int, end: int) -> Iterable[tuple[int, bytes]]:
    """(where it begins, a stretch of the text) for all that have one of the bytes [begin, end): what a tokenizer reads
    at a time, the same for all pieces.
    """
    del begin, end
    return [(0, self._content)]


class Kind:
  """Values of bytes by a rule. Those of this base follow from the byte and BACK bytes before it, by `of`; BOS and EOS
  get EMPTY.

  DTYPE, EMPTY: of an array of them, and its value in padding. lookahead: bytes behind a byte that decide on its mark,
  about; 0 where it can be known with the byte, as decoding in a model that reads it at every byte takes for granted.
  leaks: whether the user wants it at every byte all the same. remedy: what a model that reads it there does instead.
  """

  DTYPE: Any = np.int8
  EMPTY: Any = 0
  BACK = 0
  lookahead, leaks = 0, False
  remedy = (
    "use one that does not, such as 'fixed(size=8)' or 'ended(hat)', or the families tfree_hat and word_ar, which wait"
  )

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Kind':
    """From a specification; others: all of the model's. Raises ValueError with one sentence."""
    del others
    arguments(spec, 'mark', {name: {} for name, kind in KINDS.items() if kind is cls})
    return cls()

  def check_rows(self, seq_len: int) -> None:
    """ValueError where rows to be trained on are too short for it."""

  def of(self, content: bytes) -> np.ndarray:
    """[bytes] of a text."""
    raise NotImplementedError

  def since(self, read: Callable[[int, int], bytes], begin: int) -> int:
    """From which byte of a text `of` finds the values of bytes from `begin` on; read(a, b) gives the bytes [a, b)."""
    del read
    return max(begin - self.BACK, 0)

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    """[stop - start], of the symbols of a piece."""
    del first_scored
    begin, end = max(start - 1, 0), min(stop - 1, document.length)
    first, values = self.since(document.read, begin), np.full(stop - start, self.EMPTY, self.DTYPE)
    values[begin + 1 - start : end + 1 - start] = self.of(document.read(first, end))[begin - first :]
    return values

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    """[count] of the last symbols of a row that decoding has read so far, BOS included; EMPTY where it has fewer.

    state: [2] int32, 0 in a row's first call, to keep what makes the next one cheap.
    """
    del state
    values, size = np.full(count, self.EMPTY, self.DTYPE), min(count, len(row) - has_bos)
    if size:
      text = row[has_bos:]
      first = self.since(lambda begin, end: text[begin:end], len(text) - size)
      values[-size:] = self.of(text[first:])[-size:]
    return values


KINDS: dict[str, type[Kind]] = {}  # `text.marks` has them


def check_kinds(specs: Specs) -> None:
  """ValueError with one sentence for a kind that is not known; options and files are not looked at."""
  for name, spec in specs.items():
    if kind_of(spec) is None:
      raise ValueError(f"mark '{name}': '{spec}' is not known: use one of {', '.join(KINDS)}")


def parse(specs: Specs) -> dict[str, Kind]:
  """Name -> kind of the marks of a model; ValueError with one sentence for what is not known or does not fit."""
  check_kinds(specs)
  return {name: kind_of(spec).parse(spec, specs) for name, spec in specs.items()}


def kind_of(spec: Any) -> type[Kind] | None:
  """None for what names no kind."""
  name = re.match(r'\s*(\w*)', spec)[1] if isinstance(spec, str) else ''
  return KINDS.get(name)
