"""Marks by rules over a text: words that have ended, AU-Net's levels, regular expressions."""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from text import levels as levels_lib
from text import pattern as pattern_lib
from text import words as words_lib
from text.marks.kind import Document, Kind, Specs
from text.specification import arguments

_BLANK, _DARK = rb'[\t-\r ]', rb'[!-~\xc3-\xdf\xe0\xe4-\xf4]'  # white space, and bytes that begin nothing of the kind


class _Since(Kind):
  """A rule that begins anew behind what ANCHOR matches, if all of that stands before; else the text is read from its
  beginning. So a piece costs what lies between.
  """

  ANCHOR: re.Pattern[bytes]
  DTYPE, EMPTY = np.bool_, False

  def since(self, read: Callable[[int, int], bytes], begin: int) -> int:
    size = 256
    while True:
      first = max(begin - size, 0)
      found = [match.end() for match in self.ANCHOR.finditer(read(first, begin))]
      if found or not first:
        return first + found[-1] if found else 0
      size *= 4


@dataclasses.dataclass(frozen=True)
class Ended(_Since):
  """With this byte it is known that a word has ended before it, 'ended(hat)', 'ended(whitespace)' or 'ended(uax29)':
  most often the last byte of the character that begins the next word. Words have any length.
  """

  splitter: words_lib.Splitter

  ANCHOR = re.compile(rb'(?=\n' + _DARK + rb')')

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Ended':
    del others
    kind = arguments(spec, 'mark', {'ended': {'by': 'hat'}})[1]['by']
    if kind not in words_lib.RULES:
      raise ValueError(f"mark '{spec}': by is one of {', '.join(words_lib.RULES)}")
    return cls(words_lib.parse(kind))

  def of(self, content: bytes) -> np.ndarray:
    return words_lib.ended(self.splitter, content)


@dataclasses.dataclass(frozen=True)
class Levels(_Since):
  """Levels of `text.levels` by one, two or three strategies: 'levels(word1,word2)'. BOS and EOS have 0.

  They are what the text up to a byte says. published=true: those that the published code trains with, for comparison
  with it; they depend on later bytes (text/levels.py says where), so a model that reads them must say leaks=true, too.
  Decoding knows no later bytes, and takes what the text up to a byte says in either case.
  """

  strategies: tuple[str, ...]
  published: bool
  leaks: bool

  DTYPE, EMPTY = np.int8, 0
  OPTIONS = {'one': 'word1', 'two': '', 'three': '', 'published': False, 'leaks': False}  # noqa: RUF012
  remedy = 'leave out published=true, or write leaks=true for a model that is told where a line or a number goes on'

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Levels':
    del others
    *strategies, published, leaks = arguments(spec, 'mark', {'levels': cls.OPTIONS})[1].values()
    return cls(levels_lib.check(strategies), published, leaks)

  @property
  def lookahead(self) -> int:
    """How much white space or how many digits follow."""
    return 64 if self.published else 0

  @property
  def ANCHOR(self) -> re.Pattern[bytes]:
    """A white space, or two, and what is none."""
    return _ANCHORS[levels_lib.reach(self.strategies)]

  def of(self, content: bytes) -> np.ndarray:
    return levels_lib.levels(content, self.strategies, self.published)

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    if not self.published:
      return super().of_piece(document, start, stop, first_scored)
    values = np.zeros(document.length + 2, np.int8)  # of the whole document, as the published code does it
    values[1:-1] = self.of(document.read(0, document.length))
    return values[start:stop]


_ANCHORS = {
  'white space': re.compile(rb'(?=' + _BLANK + _DARK + rb')'),
  'blank': re.compile(_BLANK + rb'(?=' + _BLANK + _DARK + rb')'),
  'text': re.compile(rb'(?!)'),
}


@dataclasses.dataclass(frozen=True)
class Regex(_Since):
  """The last byte of a match's last or first character: 'regex("[,.;] ")', 'regex(pattern=\\s+,at=start)'; see
  `text.pattern`. Lines are searched one by one.

  A model that reads it is refused where later bytes change what a byte is, as they do for '\\s+' at its end; random
  texts and their prefixes are tried, and the sentence has one. leaks=true: the model is told all the same.
  """

  pattern: str
  at: str
  leaks: bool

  ANCHOR = re.compile(rb'\n')

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Regex':
    del others
    _, values = arguments(spec, 'mark', {'regex': {'pattern': ' ', 'at': 'end', 'leaks': False}})
    if values['at'] not in pattern_lib.SIDES:
      raise ValueError(f"mark '{spec}': at is one of {', '.join(pattern_lib.SIDES)}")
    pattern_lib.parse(values['pattern'])
    return cls(**values)

  @property
  def lookahead(self) -> int:
    """As far as random prefixes show."""
    return 64 if pattern_lib.leak(self.pattern, self.at) else 0

  @property
  def remedy(self) -> str:
    """With an example."""
    example = pattern_lib.leak(self.pattern, self.at)
    return f'{example}, but not at its own end, so mark what one character decides, or write leaks=true'

  def of(self, content: bytes) -> np.ndarray:
    return pattern_lib.matches(pattern_lib.parse(self.pattern), self.at, content)
