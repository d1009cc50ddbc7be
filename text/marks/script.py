"""Marks of scripts, by Unicode's names of characters."""

import dataclasses
import functools
import unicodedata

import numpy as np

from text.marks.kind import Kind, Specs
from text.specification import arguments

# As the first word of Unicode's name of a character has them; unicodedata knows no property Script.
SCRIPTS = (
  'LATIN', 'GREEK', 'CYRILLIC', 'ARMENIAN', 'HEBREW', 'ARABIC', 'DEVANAGARI', 'BENGALI', 'TAMIL', 'THAI', 'GEORGIAN',
  'HANGUL', 'HIRAGANA', 'KATAKANA', 'CJK', 'DIGIT',
)  # fmt: skip


class Script(Kind):
  """1 + the place in SCRIPTS of the character that ends here, or else up to three bytes before; 0 if it has none.

  So the mark of a byte that only begins a character is not that of this character, which later bytes decide.
  """

  BACK = 6

  def of(self, content: bytes) -> np.ndarray:
    """[bytes] int8."""
    codes, sizes = characters(content)
    is_byte = (codes >= 0xDC80) & (codes <= 0xDCFF)  # of no character
    at_end = np.full(3 + len(content), -1, np.int8)
    at_end[2 + np.cumsum(sizes)[~is_byte]] = scripts()[codes[~is_byte]]
    values = at_end[3:]
    for back in (1, 2, 3):
      values = np.where(values < 0, at_end[3 - back : len(at_end) - back], values)
    return np.maximum(values, 0)


@dataclasses.dataclass(frozen=True)
class OnlyScripts(Script):
  """The same of text in a few scripts, 'only_scripts(of=latin+cyrillic)': others are refused, but for digits."""

  wanted: str

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'OnlyScripts':
    del others
    wanted = arguments(spec, 'mark', {'only_scripts': {'of': ''}})[1]['of']
    for name in wanted.split('+'):
      if name.upper() not in SCRIPTS or name != name.lower():
        raise ValueError(f"mark '{spec}': '{name}' is no script: use {', '.join(SCRIPTS).lower()}")
    return cls(wanted)

  def of(self, content: bytes) -> np.ndarray:
    values = super().of(content)
    for value in np.unique(values[values > 0]).tolist():
      if (name := SCRIPTS[value - 1]) != 'DIGIT' and name.lower() not in self.wanted.split('+'):
        raise ValueError(
          f'the text has characters of the script {name.lower()}, and the model is for {self.wanted}: add it to its '
          'scripts, or name one in `others` that stands for it'
        )
    return values


def characters(content: bytes) -> tuple[np.ndarray, np.ndarray]:
  """(codes, sizes in bytes) of the characters of a text; a byte of none has 0xDC00 and its value for a code, which no
  character has.
  """
  codes = np.frombuffer(content.decode('utf-8', 'surrogateescape').encode('utf-32-le', 'surrogatepass'), '<u4')
  is_byte = (codes >= 0xDC80) & (codes <= 0xDCFF)
  return codes, 1 + ((codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)) * ~is_byte


@functools.cache
def scripts() -> np.ndarray:
  """1 + the place in SCRIPTS of every code of Unicode, 0 if it has none: [0x110000] int8."""
  places = {name: 1 + place for place, name in enumerate(SCRIPTS)}
  return np.array([places.get(unicodedata.name(chr(c), '').split(' ')[0], 0) for c in range(0x110000)], np.int8)
