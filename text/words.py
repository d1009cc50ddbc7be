"""Words of a text, by rule: splitters from bytes to word ends. Where words begin in a batch: `text.marks`.

A specification names a splitter: 'hat(max_bytes=64)', 'whitespace(max_bytes=32)', 'uax29(max_bytes=64)' or
'fixed(size=8)'. Words laid end to end are the text, whatever its bytes; none is longer than max_bytes. A longer word is
cut as the library of HAT does it: before the character that does not fit, and within a character only if that alone is
too long. Bytes that are not UTF-8 count as letters; those that begin a character and break off stay together.

Words stream: more text never changes the words before it but the last. What the end of the text leaves open, such as
the first bytes of a character, stays in the last word. One exception: where the cap of 'uax29' falls among marks or an
unfinished character behind a mark such as the apostrophe of "don't", the word before it may change as well.
"""

import codecs
import dataclasses
import functools
import itertools
import re
from typing import Any

import numpy as np

from text.specification import arguments, canonical


def hat(characters: str) -> np.ndarray:
  """Where the words of HAT's library end, in characters (Neitemeier et al. 2025, arXiv:2501.10322, appendix C).

  They are those of hat_splitter but for two cases in which it looks at a later character to end a word: digits around a
  fraction slash (U+2044) are words of their own, and a space does not join a word that begins with white space.
  """
  return _ends([word for piece in _HAT_CUT.split(characters) for word in _hat_splitter().split(piece)])


def whitespace(characters: str) -> np.ndarray:
  """Where runs of white space (Unicode's) end, in characters: they belong to the word before (HAT, main paper)."""
  return np.array([match.end() for match in _SPACED.finditer(characters)], np.int64)


def uax29(characters: str) -> np.ndarray:
  """Where the words of Unicode Standard Annex 29 end, in characters."""
  return _ends(_word_bounds(characters))


# Both libraries are imported when a rule first needs them, so that models of bytes do without.
@functools.cache
def _hat_splitter() -> Any:
  from hat_splitter import HATSplitter

  return HATSplitter()


def _word_bounds(characters: str) -> list[str]:
  from unicode_segmentation_rs import split_word_bounds

  return split_word_bounds(characters)


RULES = {'hat': hat, 'whitespace': whitespace, 'uax29': uax29}
_LONGEST = 2**16
DEFAULTS = {**{kind: {'max_bytes': 64} for kind in RULES}, 'fixed': {'size': 8}}
_HAT_CUT = re.compile('(?<= )(?=[\t\xa0\u2007\u202f])|(?<=[^ ])(?=\u2044)')
_SPACED = re.compile(r'[\S\x1c-\x1f]+[^\S\x1c-\x1f]*|[^\S\x1c-\x1f]+')  # Python's \s has four characters more
LETTER = 'ª'  # of no case, so that it joins words in every rule
_MARKERS = {0xD800 + size: size for size in (1, 2, 3)}  # surrogates, which UTF-8 never spells: invalid bytes, by number
_MARKER = re.compile('[\ud801-\ud803]')


@dataclasses.dataclass(frozen=True)
class Splitter:
  """A parsed specification; `splitter(document)` are the ends of its words in bytes, int64 and rising.

  name: with all arguments, equal where the words are equal. limit: the most bytes of a word.
  """

  name: str
  kind: str
  limit: int

  @property
  def causal(self) -> bool:
    """Whether a character and what precedes it decide if it begins a word; 'uax29' looks ahead."""
    return self.kind != 'uax29'

  def __call__(self, document: bytes) -> np.ndarray:
    return self.cap(*self.uncapped(document))

  def words(self, document: bytes) -> list[bytes]:
    """The words themselves."""
    return [document[start:end] for start, end in itertools.pairwise([0, *self(document).tolist()])]

  def uncapped(self, document: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(ends of the words as if they could have any length, ends of the characters), in bytes."""
    if self.kind == 'fixed':
      ends = np.minimum(np.arange(self.limit, len(document) + self.limit, self.limit), len(document))
      return ends, ends
    characters, sizes = _decode(document)
    ends = RULES[self.kind](characters)
    if self.kind == 'uax29' and _is_open(characters, ends):
      ends = np.delete(ends, -2)
    character_ends = np.cumsum(sizes)
    if document:  # its last word has the bytes of an unfinished character, too
      ends = np.append(character_ends[ends[:-1] - 1], len(document))
    return ends, character_ends

  def cap(self, ends: np.ndarray, character_ends: np.ndarray, start: int = 0) -> np.ndarray:
    """The ends of words that follow each other from `start` on, and of the parts of those above the limit."""
    starts = np.append(start, ends[:-1])
    cuts = [ends]
    for word in np.flatnonzero(ends - starts > self.limit):
      cuts.append(_cuts(int(starts[word]), int(ends[word]), character_ends, self.limit))
    return np.sort(np.concatenate(cuts)) if len(cuts) > 1 else ends


@functools.cache
def parse(spec: str) -> Splitter:
  """The splitter that a specification names. Raises ValueError for an unknown one and a limit below 1."""
  kind, values = arguments(spec, 'splitter', DEFAULTS)
  ((key, limit),) = values.items()
  if limit < 1:
    raise ValueError(f"splitter '{spec}': {key}={limit} must be at least 1, words have bytes")
  if limit > _LONGEST:
    raise ValueError(f"splitter '{spec:.99}': {key} must be at most {_LONGEST}: models have room for the longest word")
  return Splitter(canonical(kind, values), kind, limit)


class Stream:
  """The words of a text whose bytes come one after the other: those that `splitter` finds in the whole text.

  Where a word of any length ends, splitting anew from its beginning finds the same words, but not everywhere: a mark
  behind a full stop may belong to the next word. So the word before the open one is kept, too. Where the limit cuts a
  word, the rest cannot be split on its own: the word is kept from its beginning.
  """

  def __init__(self, splitter: Splitter):
    self._splitter = splitter
    self._text, self._start, self._done = b'', 0, 0  # the open word from _start on; of it, up to _done was given

  @property
  def open(self) -> bytes:
    """The bytes that no closed word holds."""
    return self._text[self._done :]

  @property
  def size(self) -> int:
    """Bytes that the next push splits again."""
    return len(self._text)

  def push(self, more: bytes) -> list[bytes]:
    """The words that `more` closes."""
    self._text += more
    ends, character_ends = self._splitter.uncapped(self._text)
    ends = ends[ends > self._start]
    final = ends[:-1]
    if self._splitter.causal:  # else what follows may still move the parts of the open word
      final = self._splitter.cap(ends, character_ends, self._start)[:-1]
    elif len(final):
      final = self._splitter.cap(final, character_ends, self._start)
    words = self._take(final)
    if len(ends) > 1:
      keep = int(ends[-3]) if len(ends) > 2 else self._start
      self._text, self._start, self._done = self._text[keep:], int(ends[-2]) - keep, self._done - keep
    return words

  def close(self) -> list[bytes]:
    """The words that are left where the text ends."""
    ends, character_ends = self._splitter.uncapped(self._text)
    return self._take(self._splitter.cap(ends[ends > self._start], character_ends, self._start))

  def _take(self, ends: np.ndarray) -> list[bytes]:
    borders = [self._done, *ends[ends > self._done].tolist()]
    self._done = borders[-1]
    return [self._text[start:end] for start, end in itertools.pairwise(borders)]


def ended(splitter: Splitter, document: bytes) -> np.ndarray:
  """[bytes] bool: with this byte of a document it is known that a word has ended before it, whatever follows. Words are
  those of the splitter, of any length; the end of the document says nothing.

  It is the last byte of the character that begins the next word. Where this is no character but bytes that break off,
  it is the byte behind them; where 'uax29' waits for what follows a mark, as in "don'", what ends its waiting.
  """
  values = np.zeros(len(document) + 1, bool)  # and a place for what is never known
  if splitter.kind == 'fixed' or not document:
    values[splitter.limit : -1 : splitter.limit] = True
    return values[:-1]
  characters, sizes = _decode(document)
  character_ends = np.cumsum(sizes)
  starts = RULES[splitter.kind](characters)[:-1]
  known = starts.copy()
  if splitter.kind == 'uax29':
    for word, (before, start) in enumerate(itertools.pairwise([0, *starts.tolist()])):
      last = start
      while last < len(characters) and not characters[last].isalnum():
        if not _is_open(characters[before : last + 1], np.array([start - before, last + 1 - before])):
          break
        last += 1
      known[word] = last
  for character in known.tolist():
    if character == len(characters):
      continue
    begin = int(character_ends[character - 1]) if character else 0
    end = int(character_ends[character])
    # a byte of ASCII or the last one of a character settles it, bytes that might have gone on do not
    is_settled = (end - begin == 1 and document[begin] < 0x80) or _is_settled(document[begin:end])
    values[end - 1 if is_settled else end] = True
  return values[:-1]


def _is_settled(sequence: bytes) -> bool:
  """Whether more bytes could not change what these are."""
  return codecs.utf_8_decode(sequence, 'text.words', False)[1] == len(sequence)


def _as_marker(error: UnicodeDecodeError) -> tuple[str, int]:
  # Python holds back the first two bytes of an encoded surrogate like an unfinished character: so they are one, too
  is_surrogate = b'\xed\xa0' <= error.object[error.start : error.start + 2] <= b'\xed\xbf'
  size = 2 if is_surrogate else error.end - error.start
  return chr(0xD800 + size), error.start + size


codecs.register_error('text.words', _as_marker)


def _ends(words: list[str]) -> np.ndarray:
  return np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))


def _decode(document: bytes) -> tuple[str, np.ndarray]:
  """(characters, their sizes in bytes); an unfinished character at the end has a size and is not among them."""
  if document.isascii():
    return document.decode('ascii'), np.ones(len(document), np.int64)
  try:
    characters, used = codecs.utf_8_decode(document, 'strict', False)
  except UnicodeDecodeError:
    characters, used = codecs.utf_8_decode(document, 'text.words', False)
  codes = np.frombuffer(characters.encode('utf-32-le', 'surrogatepass'), '<u4')
  sizes = 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF).astype(np.int64)
  for marker, size in _MARKERS.items():
    sizes[codes == marker] = size
  return _MARKER.sub(LETTER, characters), sizes if used == len(document) else np.append(sizes, len(document) - used)


def _is_open(characters: str, ends: np.ndarray) -> bool:
  """Whether the last two words would be one if a letter or a digit followed, as in "don'" and "3."."""
  if len(ends) < 2:
    return False
  start, border = int(ends[-3]) if len(ends) > 2 else 0, int(ends[-2])
  return any(start + len(_word_bounds(characters[start:] + probe)[0]) > border for probe in 'א0')


def _cuts(start: int, end: int, character_ends: np.ndarray, limit: int) -> np.ndarray:
  """Where a word from `start` to `end` is cut so that no part is above the limit."""
  cuts = []
  while start < end:
    fits = int(np.searchsorted(character_ends, start + limit, 'right'))  # characters that end within the limit
    stop = int(character_ends[fits - 1]) if fits else start
    start = min(stop if stop > start else start + limit, end)
    cuts.append(start)
  return np.array(cuts[:-1], np.int64)
