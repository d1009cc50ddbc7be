"""Tokenizers that no tokenizer.json can express: rules.json, a vocabulary and what is done with it, in order."""

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from text import units
from text.tokenizers import patterns
from text.tokenizers.tokenizer import Tokenizer

BYTES = tuple(map(units.unwritten, sorted(units.alphabet())))  # in the order of ids that the `tokenizers` library has
_KEPT_WORDS = 2**16  # whose ids are remembered


def content(kind: str, pattern: str, vocabulary: Iterable[bytes], **settings: Any) -> dict[str, Any]:
  """What a rules.json holds; the vocabulary is that of ids from 256 on."""
  vocabulary = [units.written(token) for token in (*BYTES, *vocabulary)]
  return {'rules_version': 1, 'kind': kind, 'pattern': pattern, **settings, 'vocabulary': vocabulary}


def is_rules(content: bytes) -> bool:
  """Whether a file begins as a rules.json does."""
  return content.lstrip()[1:40].lstrip().startswith(b'"rules_version"')


def written(events: Iterable[tuple]) -> list[list[str]]:
  """Events on tokens, (what, token, …), for `content`."""
  return [[what, *map(units.written, tokens)] for what, *tokens in events]


def read(events: Iterable[Sequence[str]]) -> list[list]:
  """The inverse of `written`."""
  return [[what, *map(units.unwritten, tokens)] for what, *tokens in events]


class Rules(Tokenizer):
  """A tokenizer of what `content` returns. A subclass has `_word`.

  Raises ValueError with a phrase where the rules are damaged.
  """

  def __init__(self, settings: dict[str, Any], path: str = ''):
    try:
      vocabulary = list(map(units.unwritten, settings['vocabulary']))
      special = settings.get('special_tokens', [])
      self._cutter = patterns.cutter(settings['pattern'])
      self._read(settings)
    except (KeyError, TypeError, AttributeError) as error:
      raise ValueError(f'is damaged ({error!r}): make it again') from None
    if tuple(vocabulary[:256]) != BYTES or len(set(vocabulary)) < len(vocabulary) or b'' in vocabulary:
      raise ValueError('is damaged, since its vocabulary is not the 256 bytes and different tokens: make it again')
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    super().__init__(settings['kind'], path, digest, [*vocabulary, *(b'' for _ in special)])
    self._ids = {token: index for index, token in enumerate(vocabulary)}
    self._spell = functools.lru_cache(_KEPT_WORDS)(self._ids_of)

  def _read(self, settings: dict[str, Any]) -> None:
    """Keeps what `_word` needs."""

  def _word(self, word: bytes) -> Sequence[bytes]:
    """The tokens of a pretoken."""
    raise NotImplementedError

  def _ids_of(self, word: bytes) -> tuple[int, ...]:
    return tuple(map(self._ids.__getitem__, self._word(word)))

  def _cut(self, document: bytes, with_ends: bool = False) -> tuple[list[int], list[int]]:
    ids, ends, at = [], [], 0
    for word in self._cutter(document):
      ids += self._spell(word)
      at += len(word)
      ends.append(at)
    return ids, ends
