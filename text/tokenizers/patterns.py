"""Where a tokenizer cuts before it makes tokens: regular expressions of the `tokenizers` library, on any bytes."""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from text import words

_SUFFIXES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
_SPACES = r'\s*[\r\n]+|\s+(?!\S)|\s+'
# Each with a space before it at most. gpt2, gpt4 (cl100k), gpt4o (o200k): those of the published tokenizers.
PATTERNS = {
  'gpt2': r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
  'gpt4': rf'{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}',
  'gpt4o': rf'[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIXES}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIXES}?'
  rf'|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}',
  'lines': r'[^\n]*\n+|[^\n]+',
  'none': '',
}
_ALONE = re.compile('([\udc80-\udcff])')  # bytes that are not UTF-8, as 'surrogateescape' has them


def of(name: str) -> str:
  """The expression of a name, or the one that it is. Raises ValueError for one that the library cannot express."""
  if name in PATTERNS:
    return PATTERNS[name]
  known = f'one of {", ".join(PATTERNS)}, or an expression in quotes'
  if (kind := name.partition('(')[0]) in words.DEFAULTS:
    raise ValueError(
      f"pattern '{name}': the words of {kind} are no regular expression, as a tokenizer needs: use {known}"
    )
  if name.isidentifier():
    raise ValueError(f"pattern '{name}' is not known: use {known}")
  _split(name)
  return name


def _split(expression: str) -> Any:
  """The pre-tokenizer of the library that cuts at every match and between them."""
  from tokenizers import Regex, pre_tokenizers

  try:
    return pre_tokenizers.Split(Regex(expression), 'isolated')
  except Exception as error:  # it raises nothing more special
    raise ValueError(f"pattern '{expression:.80}' is no expression of the tokenizers library ({error})") from None


def pre_tokenizer(expression: str) -> Any:
  """That of the library for tokenizers of bytes: it cuts as the expression says, '' nowhere."""
  from tokenizers import pre_tokenizers

  letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  return pre_tokenizers.Sequence([_split(expression), letters]) if expression else letters


def texts(document: bytes) -> list[str]:
  """Its stretches of UTF-8, without what is none."""
  return _ALONE.split(document.decode('utf-8', 'surrogateescape'))[::2]


@functools.cache
def cutter(expression: str) -> Callable[[bytes], list[bytes]]:
  """document -> its pretokens; a byte that is not UTF-8 is one of its own."""
  split = _split(expression) if expression else None

  def cut(document: bytes) -> list[bytes]:
    found = []
    for place, part in enumerate(_ALONE.split(document.decode('utf-8', 'surrogateescape'))):
      if place % 2 or (part and split is None):
        found.append(part.encode('utf-8', 'surrogateescape'))
      elif part:
        found += [piece.encode() for piece, _ in split.pre_tokenize_str(part)]
    return found

  return cut


def counted(documents: Iterable[bytes], expression: str) -> Counter[bytes]:
  """Different pretokens of documents with their counts, in the order in which they come."""
  counts, cut = Counter(), cutter(expression)
  for document in documents:
    counts.update(cut(document))
  return counts
