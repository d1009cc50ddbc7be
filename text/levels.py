"""Levels of bytes by AU-Net's rules (arXiv 2506.14761; lingua, apps/aunet/data/regex_cutting.py).

A byte of level v is the last one of a character that the strategies 1 to v keep: one that ends a unit of strategy v, or
begins one. Where several strategies have a character, the last of them counts.

strategy  which characters
wordG     the white space behind every G-th word of those that one white space alone parts, and the first character of
          up to three digits, of up to three characters that are neither letters, digits nor white space, and of white
          space up to its last end of line, but for ends of line right behind such characters
wordG@A-B as wordG, of whose groups only those whose number, from 0 on, A or B divides
pretok    the first character of a token of a common pretokenizer: up to 16 letters with a space before, up to three
          digits, up to three other characters with a space before and ends of line behind, runs of white space
punct     the first digit of every group of three, counted from the last, and what wordG has of the rest

Whether a character has a level may depend on later ones: on whether an end of line comes behind white space (wordG), on
whether something but white space does (pretok), on how many digits follow (punct). The published masks take this from
the whole text. What is made here by default is what the text up to a byte says of it, as the published code does when
it generates; it differs from the published mask there alone.

Letters, digits and white space are Unicode's, as this Python knows it (the published code's `regex` is newer). Marks,
\\p{M}, are neither. Bytes that are not UTF-8 count as letters and have level 0; the published code puts U+FFFD there,
which shifts what follows.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

MOST = 3  # strategies of a model
_STRATEGY = re.compile(r'word([1-9]\d{0,3})(?:@([1-9]\d{0,3}(?:-[1-9]\d{0,3})*))?|pretok|punct')
_LETTER, _DIGIT, _NUMBER, _OTHER, _SPACE, _BLANK, _LINE = range(7)  # _SPACE: U+0020, _BLANK: other white space
_WHITE = [0x09, 0x0B, 0x0C, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]


def check(strategies: Sequence[str]) -> tuple[str, ...]:
  """Those that are not '', in order; ValueError with one sentence for none, a gap, and one that is not known."""
  given = tuple(filter(None, strategies))
  if not given or list(strategies[: len(given)]) != list(given):
    raise ValueError(f'levels {", ".join(map(repr, strategies))}: name the first, and none behind one that is missing')
  for strategy in given:
    if not _STRATEGY.fullmatch(strategy):
      raise ValueError(f"level '{strategy}' is not known: write wordG, such as word1 or word2, pretok or punct")
  return given


def reach(strategies: Sequence[str]) -> str:
  """Where the levels of what follows stop to depend on what came before: 'white space', 'blank' (two white spaces in a
  row, which end a group of words) or 'text' (nowhere).
  """
  words = [match for match in map(_STRATEGY.fullmatch, strategies) if match[1]]
  if any(match[2] and '1' not in match[2].split('-') for match in words):
    return 'text'
  return 'blank' if any(match[1] != '1' for match in words) else 'white space'


def levels(content: bytes, strategies: Sequence[str], published: bool = False) -> np.ndarray:
  """[bytes] int8 of a text, 0 where no strategy has a boundary; published: as the whole text decides."""
  characters = content.decode('utf-8', 'surrogateescape')
  codes = np.frombuffer(characters.encode('utf-32-le', 'surrogatepass'), '<u4')
  is_byte = (codes >= 0xDC80) & (codes <= 0xDCFF)  # of no character
  sizes = 1 + ((codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)) * ~is_byte
  kinds = _kinds()[codes]
  found = np.zeros(len(codes), np.int8)
  for index, strategy in enumerate(strategies):
    found[_boundaries(kinds, strategy, published)] = index + 1
  values = np.zeros(len(content), np.int8)
  values[np.cumsum(sizes) - 1] = np.where(is_byte, 0, found)
  return values


@functools.cache
def _kinds() -> np.ndarray:
  """Of every character, one of the kinds above."""
  by_category = {'L': _LETTER, 'N': _NUMBER}
  table = np.array([by_category.get(unicodedata.category(chr(code))[0], _OTHER) for code in range(0x110000)], np.int8)
  table[[code for code in range(0x110000) if chr(code).isdecimal()]] = _DIGIT
  table[_WHITE], table[0x20], table[[0x0A, 0x0D]], table[0xDC80:0xDD00] = _BLANK, _SPACE, _LINE, _LETTER
  return table


def _boundaries(kinds: np.ndarray, strategy: str, published: bool) -> np.ndarray:
  """[characters] bool."""
  if not len(kinds):
    return np.zeros(0, bool)
  white, other, line = kinds >= _SPACE, kinds == _OTHER, kinds == _LINE
  behind_other = line & _before(other, _offsets(kinds))  # ends of line that belong to what stands before them
  run = white & ~behind_other
  first = run & ~_before(run)
  if strategy == 'pretok':
    last_line = line & run  # a token of white space ends with the last end of line, or with the text
    if published:
      ends_run = run & ~_after(run)
      rest = run & ~_later(last_line, run)
      is_last = ends_run & rest & (np.arange(len(run)) < len(run) - 1)
      blank = first | (rest & _before(last_line)) | is_last
    else:
      blank = first | (run & ~line & _before(last_line))
    letters, others = kinds == _LETTER, other
    joins = _before(kinds == _SPACE)  # a space belongs to the letters or other characters behind it
    of = lambda where, most: where & (_offsets(where) % most == 0) & ~(joins & (_offsets(where) == 0))
    number = (kinds == _DIGIT) | (kinds == _NUMBER)
    return blank | of(letters, 16) | of(others, 3) | (number & (_offsets(number) % 3 == 0))
  has_line = first & (_later(line, run) if published else line)
  found = has_line | (other & (_offsets(other) % 3 == 0))
  if strategy == 'punct':
    digit = kinds == _DIGIT
    offset = _offsets(digit)
    to_end = _offsets(digit[::-1])[::-1]
    return found | (digit & ((offset == 0) | ((to_end % 3 == 2) & published)))
  number = (kinds == _DIGIT) | (kinds == _NUMBER)
  size, numbers = _STRATEGY.fullmatch(strategy).groups()
  ends = white & _before(~white)
  count = np.cumsum(ends)
  count -= np.maximum.accumulate(np.where(white & _before(white), count, 0))  # words since two white spaces in a row
  ends &= count % int(size) == 0
  if numbers:
    number_of = np.cumsum(ends) - 1
    ends &= np.any([number_of % int(divisor) == 0 for divisor in numbers.split('-')], 0)
  return found | ends | (number & (_offsets(number) % 3 == 0))


def _before(where: np.ndarray, back: np.ndarray | None = None) -> np.ndarray:
  """[characters] bool, of the character before, or of that before the `back` ones before; False at the beginning."""
  padded = np.append(False, where)
  return padded[:-1] if back is None else padded[np.arange(len(where)) - back]


def _after(where: np.ndarray) -> np.ndarray:
  return np.append(where[1:], False)


def _offsets(values: np.ndarray) -> np.ndarray:
  """How many equal values stand right before each."""
  index = np.arange(len(values))
  return index - np.maximum.accumulate(np.where(np.append(True, values[1:] != values[:-1]), index, 0))


def _later(where: np.ndarray, run: np.ndarray) -> np.ndarray:
  """Where the same run of `run` has one of `where`, here or later."""
  there = np.maximum.accumulate(np.where(where | ~run, np.arange(len(run), 0, -1), 0)[::-1])[::-1]
  next_ = len(run) - there  # the next place of `where`, or behind the run
  return run & np.append(where & run, False)[next_]
