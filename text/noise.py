"""Noise on text: each perturbation is a pure function of a document and random bits.

A character is one that the bytes spell in UTF-8. A byte that belongs to none is kept as it is, in its place among the
characters; bytes that become neighbours may then spell one. A perturbation that would leave nothing of a document
leaves it unchanged: no document vanishes.

`antspeak`, `drop`, `random_case`, `repeat` and `upper_case` are the five noises of the robustness table of H-Net (Hwang
et al. 2025, arXiv:2507.07955), which takes them from BLT (Pagnoni et al. 2024, arXiv:2412.09871, section 6.1).
`permute_in_words`, `replace_in_words` and `delete_in_words` take a tenth of the characters of each word, as HAT does
(Neitemeier et al. 2025, arXiv:2501.10322; its fourth, all capitals, is `upper_case`). `misspell` puts in the errors
that people make. What the papers do not fix is fixed here, where each function says so. Both papers disturb prompts
and answers of multiple-choice questions; here it is documents, so that bits per byte can be compared.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from text import gold
from text import infill as infill_lib
from text.specification import arguments, canonical
from text.stored import open_gold

_INVALID = 0xDC80  # surrogateescape: byte 0x80 + i outside of UTF-8 is this code point + i, up to 0xDCFF
_WORD = re.compile(r'[^\s\udc80-\udcff]+')
SPELLED = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


# --- all over the text


def antspeak(document: bytes, rng: np.random.Generator) -> bytes:
  """Upper case, with a space between neighbouring characters, a space among them too (BLT leaves that open)."""
  codes = _codes(upper_case(document, rng))
  valid = _is_valid(codes)
  return _bytes(np.insert(codes, 1 + np.flatnonzero(valid[1:] & valid[:-1]), ord(' ')), document)


def drop(document: bytes, rng: np.random.Generator, *, rate: float = 0.1) -> bytes:
  """Each character is removed with probability `rate` (BLT: 10 % of them, chosen at random)."""
  codes = _codes(document)
  return _bytes(codes[~(_uniform(rng, len(codes)) < rate) | ~_is_valid(codes)], document)


def random_case(document: bytes, rng: np.random.Generator) -> bytes:
  """Each character becomes upper or lower case, with probability 1/2 each (BLT: half of them each)."""
  text = _text(document)
  pairs = zip(text, (_uniform(rng, len(text)) < 0.5).tolist(), strict=True)
  return ''.join(c.upper() if up else c.lower() for c, up in pairs).encode('utf-8', 'surrogateescape')


def repeat(document: bytes, rng: np.random.Generator, *, rate: float = 0.2, most: int = 4) -> bytes:
  """Each character is, with probability `rate`, followed by 1 to `most` copies of itself, equally likely.

  So text becomes 1 + rate · (1 + most) / 2 times as long, 1.5 times with the defaults. BLT: 20 % of the characters are
  repeated up to four times; how often each is left open.
  """
  codes = _codes(document)
  chosen = (_uniform(rng, len(codes)) < rate) & _is_valid(codes)
  copies = 1 + (_uniform(rng, len(codes)) * most).astype(np.int64)
  return _bytes(np.repeat(codes, np.where(chosen, 1 + copies, 1)), document)


def upper_case(document: bytes, rng: np.random.Generator) -> bytes:
  """Every character in upper case, as Unicode's full mapping has it (ß becomes SS; scripts without case stay)."""
  return _text(document).upper().encode('utf-8', 'surrogateescape')


# --- within words: runs of characters without white space. HAT leaves open how a tenth of five characters is rounded:
# here every character of a word is chosen on its own, so that `rate` is a share of the characters of words, not of all.


def permute_in_words(document: bytes, rng: np.random.Generator, *, rate: float = 0.1) -> bytes:
  """Characters change places with another one of their word, any of them; a word of one stays.

  Each character begins an exchange with probability rate / 2, since an exchange moves two. So about `rate` of the
  characters of words of two and more move: 10 % at 0.1, 18 % at 0.2; some move twice, so 40 % at 0.5 and 50 to 70 % at
  1. Fewer change, as equal ones change places, too.
  """
  codes = _codes(document)
  word_W, first_W, size_W = _words(document)
  chosen, partner = _uniform(rng, len(codes)) < rate / 2, _uniform(rng, len(codes))
  for at, first, size in zip(*(column[chosen[word_W]].tolist() for column in (word_W, first_W, size_W)), strict=True):
    if size > 1:
      other = first + int(partner[at] * (size - 1))
      other += other >= at
      codes[at], codes[other] = codes[other], codes[at]
  return _bytes(codes, document)


def replace_in_words(document: bytes, rng: np.random.Generator, *, rate: float = 0.1) -> bytes:
  """Each character of a word, with probability `rate`, gives way to one that stands somewhere in the document's words.

  Drawn from the document, so that Chinese stays Chinese and DNA stays ACGT (HAT leaves the distribution open). It may
  be the same character again: of four letters that are equally frequent a quarter of the chosen do not change.
  """
  codes = _codes(document)
  word_W = _words(document)[0]
  at = word_W[_uniform(rng, len(word_W)) < rate]
  source = word_W[(_uniform(rng, len(at)) * len(word_W)).astype(np.int64)]
  replaced = codes.copy()
  replaced[at] = codes[source]
  return _bytes(replaced, document)


def delete_in_words(document: bytes, rng: np.random.Generator, *, rate: float = 0.1) -> bytes:
  """Each character of a word is removed with probability `rate`; unlike `drop` it leaves white space as it is."""
  codes = _codes(document)
  word_W = _words(document)[0]
  kept = np.ones(len(codes), bool)
  kept[word_W] = ~(_uniform(rng, len(word_W)) < rate)
  return _bytes(codes[kept], document)


def misspell(
  document: bytes, rng: np.random.Generator, *, rate: float = 0.1, pairs: Mapping[str, tuple[str, ...]]
) -> bytes:
  """Each word that has misspellings is, with probability `rate`, replaced by one of them, equally likely.

  Most words have none that are known, so a far smaller share of all words changes.
  pairs: right word in lower case -> its misspellings, as `misspellings` makes them. A word is a run of letters, with
  apostrophes or hyphens inside; 'Word' and 'WORD' keep their capitals. Right forms of several words are not looked for.
  """

  def replaced(match: re.Match) -> str:
    word = match.group()
    wrong = pairs.get(word.lower())
    if not wrong:
      return word
    chosen, which = _uniform(rng, 2).tolist()
    if chosen >= rate:
      return word
    new = wrong[int(which * len(wrong))]
    if word.isupper() and len(word) > 1:
      return new.upper()
    return new[:1].upper() + new[1:] if word[0].isupper() else new

  return SPELLED.sub(replaced, _text(document)).encode('utf-8', 'surrogateescape')


def misspellings(pairs: Iterable[tuple[bytes, ...]]) -> dict[str, tuple[str, ...]]:
  """(wrong, right) pairs, as units of the gold corpus 'misspellings', by right word. Raises ValueError for others."""
  found: dict[str, dict[str, None]] = {}
  for pair in pairs:
    if len(pair) != 2:
      raise ValueError(f'a misspelling is a pair of a wrong and a right word, got {len(pair)} units: {pair!r:.60}')
    wrong, right = (unit.decode('utf-8') for unit in pair)
    found.setdefault(right.lower(), {})[wrong] = None
  return {right: tuple(wrong) for right, wrong in found.items()}


# --- what is no noise, but a perturbation all the same


def infill(document: bytes, rng: np.random.Generator, *, rate: float = 0.5, suffix_first: float = 0.5) -> bytes:
  """With probability `rate` the document for filling in its middle (text/infill.py), cut at two characters, any two.

  suffix_first: the share of those that begin with the suffix. A document with one of the control bytes stays as it is.
  """
  chosen, order, *cuts = _uniform(rng, 4).tolist()
  if chosen >= rate or not infill_lib.is_free(document):
    return document
  ends = infill_lib.character_ends(document)
  first, second = (int(ends[int(cut * len(ends))]) for cut in cuts)
  return infill_lib.rearranged(document, (first, second), order < suffix_first)


# --- by name

_PERTURBATIONS: dict[str, tuple[Callable[..., bytes], dict[str, Any]]] = {
  'antspeak': (antspeak, {}),
  'drop': (drop, {'rate': 0.1}),
  'random_case': (random_case, {}),
  'repeat': (repeat, {'rate': 0.2, 'most': 4}),
  'upper_case': (upper_case, {}),
  'permute_in_words': (permute_in_words, {'rate': 0.1}),
  'replace_in_words': (replace_in_words, {'rate': 0.1}),
  'delete_in_words': (delete_in_words, {'rate': 0.1}),
  'misspell': (misspell, {'rate': 0.1}),
  'infill': (infill, {'rate': 0.5, 'suffix_first': 0.5}),
}


@dataclasses.dataclass(frozen=True)
class Noise:
  """A perturbation with its arguments: `noise(document, index)` draws from (seed, index) alone, on every machine.

  name: the perturbation with all its arguments; two noises of one name are equal. pairs: only for misspell; None reads
  the gold corpus 'misspellings', all its splits, once per process, when the first document comes.
  """

  name: str
  kind: str
  seed: int
  arguments: tuple[tuple[str, Any], ...]
  pairs: Mapping[str, tuple[str, ...]] | None = dataclasses.field(default=None, repr=False, hash=False)

  def __call__(self, document: bytes, index: int) -> bytes:
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, index))))
    more = {'pairs': gold_pairs() if self.pairs is None else self.pairs} if self.kind == 'misspell' else {}
    return _PERTURBATIONS[self.kind][0](document, rng, **dict(self.arguments), **more)


_MOST_COPIES = 1000


def parse(spec: str, *, pairs: Iterable[tuple[bytes, ...]] | None = None) -> Noise:
  """The noise that a string like 'drop(rate=0.1,seed=1)' names.

  pairs: (wrong, right) for misspell, instead of the gold corpus. Raises ValueError for an unknown name or argument and
  a value out of range, OSError where the gold corpus is needed and not there.
  """
  kind, values = arguments(spec, 'noise', {name: {**own, 'seed': 0} for name, (_, own) in _PERTURBATIONS.items()})
  for name in ('rate', 'suffix_first'):
    if not 0 <= values.get(name, 0) <= 1:
      raise ValueError(f"noise '{spec}': {name}={values[name]} must be from 0 to 1, it is a probability")
  for name, least in (('most', 1), ('seed', 0)):
    if values.get(name, least) < least:
      raise ValueError(f"noise '{spec}': {name}={values[name]} must be at least {least}")
  if values.get('most', 1) > _MOST_COPIES:
    raise ValueError(f"noise '{spec:.99}': 'most' must be at most {_MOST_COPIES}, text is held in memory")
  if kind == 'misspell' and pairs is None:
    open_gold('misspellings')  # that it is there is known now, its 10⁵ words are read where they are needed
  known = None if pairs is None else misspellings(pairs)
  return Noise(canonical(kind, values), kind, values.pop('seed'), tuple(values.items()), known)


# --- characters


def _text(document: bytes) -> str:
  return document.decode('utf-8', 'surrogateescape')


def _codes(document: bytes) -> np.ndarray:
  """Code points, uint32, to be changed at will; invalid bytes as surrogates, which UTF-8 never spells."""
  return np.frombuffer(_text(document).encode('utf-32-le', 'surrogatepass'), '<u4').copy()


def _bytes(codes: np.ndarray, otherwise: bytes) -> bytes:
  """The bytes of code points, or the document `otherwise` where none is left."""
  text = codes.astype('<u4').tobytes().decode('utf-32-le', 'surrogatepass')
  return text.encode('utf-8', 'surrogateescape') or otherwise


def _is_valid(codes: np.ndarray) -> np.ndarray:
  return (codes < _INVALID) | (codes > _INVALID + 0x7F)


def _words(document: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For each character of a word: its index, that of the word's first character, and the word's size; int64 [W]."""
  spans = np.array([match.span() for match in _WORD.finditer(_text(document))], np.int64).reshape(-1, 2)
  sizes = spans[:, 1] - spans[:, 0]
  first_W, size_W = np.repeat(spans[:, 0], sizes), np.repeat(sizes, sizes)
  before = np.repeat(np.cumsum(sizes) - sizes, sizes)
  return first_W + np.arange(len(first_W)) - before, first_W, size_W


def _uniform(rng: np.random.Generator, size: int) -> np.ndarray:
  """Uniform in [0, 1), float64 [size], from raw bits, since numpy keeps those equal between its versions."""
  return (rng.bit_generator.random_raw(size) >> np.uint64(11)) * 2.0**-53


@functools.cache
def gold_pairs() -> dict[str, tuple[str, ...]]:
  """`misspellings` of the gold corpus of that name, all its splits; OSError where it is not there."""
  splits = (open_gold('misspellings', split) for split in ('train', 'validation', 'test'))  # by hash: a word is in any
  return misspellings(gold.units(document) for split in splits for document in split)
