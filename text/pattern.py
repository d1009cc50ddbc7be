"""Where a regular expression matches in the lines of a text, and whether that can be said without later bytes."""

import functools
import random
import re

import numpy as np

SIDES = ('end', 'start')
_SAMPLES, _LONGEST = 3000, 12
_CHARACTERS = 'aBxé日🙂_07 \t.,\'"-()\n'


@functools.cache
def parse(pattern: str) -> re.Pattern[str]:
  """ValueError with one sentence for what Python's re cannot read."""
  try:
    return re.compile(pattern)
  except re.error as error:
    raise ValueError(f"regex '{pattern}': {error} (as in Python's module re; commas need quotes)") from None


def matches(pattern: re.Pattern[str], side: str, content: bytes) -> np.ndarray:
  """[bytes] bool: the last byte of the last ('end') or of the first character ('start') of every match.

  Each line, with the newline at its end, is searched by itself; empty matches are none. Bytes that are not UTF-8 are
  characters, but none that is marked, since a byte alone may be the beginning of a character.
  """
  values, begin = np.zeros(len(content), bool), 0
  for line in re.findall(b'[^\n]*\n|[^\n]+', content):
    characters = line.decode('utf-8', 'surrogateescape')
    sizes = [1 if '\udc80' <= c <= '\udcff' else len(c.encode('utf-8', 'surrogatepass')) for c in characters]
    ends = np.cumsum(sizes)
    places = [match.end() - 1 if side == 'end' else match.start() for match in pattern.finditer(characters) if match[0]]
    at = begin + ends - 1
    values[at[[place for place in places if not '\udc80' <= characters[place] <= '\udcff']]] = True
    begin += len(line)
  return values


@functools.cache
def leak(pattern: str, side: str) -> str:
  """An example of a text in which later bytes change what a byte's mark is, '' if random prefixes show none.

  Texts of characters of all kinds and of what stands in the pattern, every other one in the pattern's order; always the
  same.
  """
  compiled, rng = parse(pattern), random.Random(0)
  in_order = re.findall(r'\w+|[^\\()\[\]{}?*+|^$=!<]', pattern)
  pieces = [*_CHARACTERS, *pattern, *in_order]
  for sample in range(_SAMPLES):
    if sample % 2:
      few = rng.choices(pieces, k=rng.randint(1, 4))
      text = ''.join(rng.choices(few, k=rng.randint(2, _LONGEST))).encode()
    else:
      text = ''.join(piece if rng.random() < 0.8 else rng.choice(pieces) for piece in in_order[:_LONGEST]).encode()
    whole = matches(compiled, side, text)
    for size in range(1, len(text)):
      if matches(compiled, side, text[:size])[-1] != whole[size - 1]:
        before = 'is' if whole[size - 1] else 'is not'
        return f'the last byte of {text[:size].decode(errors="replace")!r} {before} marked in {text.decode()!r}'
  return ''
