"""Tokens that spell a text byte for byte, or one sentence about the setting of a tokenizer.json that is in the way.

A score in bits per byte is of the text only if the tokens are: a tokenizer may cut a text short, normalise it, leave
characters out or write one token for all that it does not know. What each token spells is worked out here from its name
in the vocabulary (the alphabet of byte-level tokenizers; '▁' and '<0x0A>' of SentencePiece), since decoding may hide
the difference.

Switched off, since they are no part of the text: truncation, padding, dropout of merges, and the reading of names of
special tokens in a text as these tokens. A space that a tokenizer adds before the text is not counted as a byte of it.
"""

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from text import units

if TYPE_CHECKING:
  from tokenizers import Tokenizer

BYTE = re.compile('<0x([0-9A-F]{2})>')


def read(content: bytes, as_it_is: bool = False) -> 'Tokenizer':
  """A tokenizer.json without the settings above. Raises ValueError for one that is damaged.

  as_it_is: also without a space before the text and without NFC.
  """
  settings, _ = units.read_tokenizer(content)
  settings |= {'truncation': None, 'padding': None}
  if as_it_is:
    settings |= {key: _as_it_is(settings.get(key)) for key in ('normalizer', 'pre_tokenizer')}
  if settings['model'].get('dropout'):
    settings['model']['dropout'] = None
  _, tokenizer = units.read_tokenizer(json.dumps(settings).encode())
  tokenizer.encode_special_tokens = True
  return tokenizer


class Speller:
  """The tokens of texts, and what they spell."""

  def __init__(self, tokenizer: 'Tokenizer'):
    self._tokenizer = tokenizer
    settings = json.loads(tokenizer.to_str())
    self._model = {key: value for key, value in settings['model'].items() if key not in ('vocab', 'merges')}
    self._steps = {key: list(steps(settings[key])) for key in ('normalizer', 'pre_tokenizer', 'decoder')}
    everything = [(key, step) for key, steps in self._steps.items() for step in steps]
    self._is_bytes = any(step['type'] == 'ByteLevel' for _, step in everything)
    self.space = next(filter(None, itertools.starmap(_space, everything)), None)
    self._added = {token['id']: token for token in settings['added_tokens']}
    unknown = self._model.get('unk_token')
    self._unknown = self._model.get('unk_id') if unknown is None else tokenizer.token_to_id(unknown)
    self.spellings = functools.cache(self._spellings)

  def __call__(self, text: str) -> list[int]:
    """The ids of a text. Raises ValueError, a phrase on the tokenizer, where they do not spell it byte for byte."""
    try:
      ids = self._tokenizer.encode(text, add_special_tokens=False).ids
    except BaseException as error:  # as in units.read_tokenizer
      if isinstance(error, KeyboardInterrupt | SystemExit):
        raise
      raise ValueError(f'cannot read the text ({error!s:.100})') from None
    found = []
    for prefix in (b'', b' '):
      bytes_ = prefix + text.encode()
      count, at = self._match(ids, bytes_)
      if count == len(ids) and at == len(bytes_):
        return ids
      found.append((at - len(prefix), count))
    at, count = max(found)
    raise ValueError(self._reason(text, ids[count:], max(at, 0), ids[:count]))

  def _spellings(self, index: int) -> list[bytes]:
    """The bytes of a token: none of the unknown and of special ones, and two if its name is a text of its own as well
    as one in an alphabet.
    """
    name, added = self._tokenizer.id_to_token(index), self._added.get(index)
    if index == self._unknown:
      return []
    if self._model.get('byte_fallback') and (byte := BYTE.fullmatch(name)):
      return [bytes([int(byte[1], 16)])]
    if added and added['special']:
      return []
    as_text = [name.encode()] if added else []
    return [*as_text, units.unwritten(name) if self._is_bytes else name.replace(self.space or ' ', ' ').encode()]

  def _match(self, ids: list[int], bytes_: bytes) -> tuple[int, int]:
    """(how many of the first tokens spell the beginning of a text, how many bytes of it)."""
    at = 0
    for count, index in enumerate(ids):
      spelling = next((part for part in self.spellings(index) if part and bytes_.startswith(part, at)), None)
      if spelling is None:
        return count, at
      at += len(spelling)
    return len(ids), at

  def _reason(self, text: str, rest: list[int], at: int, before: list[int]) -> str:
    """Which setting is in the way, where tokens spell the text up to byte `at` and then do not."""
    behind = text.encode()[at:].decode('utf-8', 'ignore')
    where = f'at byte {at}, before {behind[:12]!r}'
    names = {key: ', '.join(step['type'] for step in steps) for key, steps in self._steps.items()}
    if rest and not self.spellings(rest[0]):
      kind = 'unknown' if rest[0] == self._unknown else 'special'
      return f'reads a part of the text as its {kind} token {self._tokenizer.id_to_token(rest[0])!r} ({where})'
    if self.space and behind.startswith(self.space):
      return f'writes {self.space!r} for a space, and the text has {self.space!r} itself ({where})'
    normalizer, splitter = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
    if normalizer and 'ByteLevel' not in names['normalizer']:
      written = normalizer.normalize_str(text)
      plain = written.replace(self.space, ' ') if self.space else written
      if plain not in (text, f' {text}'):
        return f'has a normalizer ({names["normalizer"]}) that changes the text ({where})'
    for index in [*before[-1:], *rest[:1]]:
      for side in ('lstrip', 'rstrip'):
        if self._added.get(index, {}).get(side):
          token = self._added[index]['content']
          return f'has an added token {token!r} with {side}, which takes in white space beside it ({where})'
    for key in ('continuing_subword_prefix', 'end_of_word_suffix'):
      if mark := self._model.get(key):
        return f'has {key} {mark!r}, which is not in the text ({where})'
    if splitter:
      written = normalizer.normalize_str(text) if normalizer else text
      if _has_gaps([span for _, span in splitter.pre_tokenize_str(written)], len(written)):
        return f'has a pre_tokenizer ({names["pre_tokenizer"]}) that leaves characters out ({where})'
      if rest and any(part.startswith(b' ') for part in self.spellings(rest[0])) and not behind.startswith(' '):
        return f'has a pre_tokenizer ({names["pre_tokenizer"]}) that adds spaces within the text ({where})'
    if behind and not self._tokenizer.encode(behind[0], add_special_tokens=False).ids:
      return f'has no token for {behind[0]!r} and leaves it out ({where})'
    spelled = b''.join(self.spellings(rest[0])[-1:]) if rest else b''
    return f'spells {spelled!r:.50} where the text goes on differently ({where})'


def steps(part: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
  """A normalizer, pre-tokenizer or decoder, or those in a sequence of them."""
  if part is None:
    return
  inner = [step for key in ('normalizers', 'pretokenizers', 'decoders') for step in part.get(key, [])]
  for step in inner:
    yield from steps(step)
  if not inner:
    yield part


def _as_it_is(part: dict[str, Any] | None) -> dict[str, Any] | None:
  """A normalizer or pre-tokenizer that adds no space before the text and keeps characters in the form they have."""
  if part is None or part['type'] in ('Prepend', 'NFC'):
    return None
  for key in ('normalizers', 'pretokenizers'):
    if key in part:
      inner = [step for step in map(_as_it_is, part[key]) if step]
      return {**part, key: inner} if inner else None
  if part['type'] == 'Metaspace':
    return {
      'type': 'Metaspace',
      'replacement': part['replacement'],
      'prepend_scheme': 'never',
      'split': part.get('split', True),
    }
  return {**part, 'add_prefix_space': False} if 'add_prefix_space' in part else part


def _space(key: str, step: Mapping[str, Any]) -> str | None:
  """What a step writes for a space."""
  if step['type'] == 'Metaspace':
    return step['replacement']
  if step['type'] != 'Replace' or 'String' not in step['pattern']:
    return None
  written, read = step['content'], step['pattern']['String']
  if key == 'decoder':
    written, read = read, written
  return written if read == ' ' else None


def _has_gaps(spans: list[tuple[int, int]], length: int) -> bool:
  """Whether some of `length` characters are in none of the spans, which follow each other."""
  return any(start > stop for (_, stop), (start, _) in itertools.pairwise([(0, 0), *spans, (length, length)]))
