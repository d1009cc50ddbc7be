"""PathPiece (Schmidt et al., EMNLP 2024, arXiv:2402.18376): the fewest tokens of a vocabulary that spell a pretoken.

Of several ways with as few tokens the one with the longest last token, then the longest before it, and so on. The
vocabulary is that of a BPE, or what is left of a larger one when those tokens are taken out, round by round, without
which the text would need the fewest tokens more.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from text.tokenizers import library, patterns, rules

START = ('bpe', 'ngrams')
_DROPPED = 0.2  # of the tokens in a round, at most


def shortest(word: bytes, tokens: Collection[bytes], length: int) -> tuple[list[int], list[int]]:
  """(the fewest tokens of at most `length` bytes that spell word[:e], bytes of the longest last one) for every e."""
  counts, last = [0], [0]
  for end in range(1, len(word) + 1):
    best, size = math.inf, 0
    for width in range(min(end, length), 0, -1):
      if counts[end - width] + 1 < best and (width == 1 or word[end - width : end] in tokens):
        best, size = counts[end - width] + 1, width
    counts.append(best)
    last.append(size)
  return counts, last


def spelled(word: bytes, last: list[int]) -> list[bytes]:
  """The tokens, by the last one of every beginning."""
  found, end = [], len(word)
  while end:
    found.append(word[end - last[end] : end])
    end -= last[end]
  return found[::-1]


def train(
  documents: Iterable[bytes], vocab_size: int, pattern: str, length: int, start: str, start_size: int
) -> dict[str, Any]:
  """The rules. start: what the larger vocabulary of start_size is, if there is one. Raises ValueError where the text
  has fewer tokens.
  """
  documents = list(documents)
  if length < 2:
    raise ValueError(f'pathpiece: length={length} must be at least 2: tokens have as many bytes')
  if start not in START:
    raise ValueError(f"pathpiece: start='{start}' is not known: use one of {', '.join(START)}")
  if start_size and start_size < vocab_size:
    raise ValueError(f'pathpiece: start_size={start_size} is below vocab_size={vocab_size}: tokens are only taken out')
  if start == 'ngrams' and not start_size:
    raise ValueError("pathpiece: start='ngrams' needs a start_size above vocab_size, such as four times as many")
  expression = patterns.of(pattern)
  counts = patterns.counted(documents, expression)
  size = start_size or vocab_size
  if start == 'bpe':
    vocabulary = library.tokens(library.bpe(documents, size, expression, length))
  else:
    vocabulary = _frequent(counts, size, length)
  left = top_down(counts, vocabulary, vocab_size - 256, length)
  return rules.content('pathpiece', expression, left, length=length)


def top_down(counts: Mapping[bytes, int], vocabulary: Iterable[bytes], size: int, length: int) -> list[bytes]:
  """The `size` tokens of more than one byte that are left, in their order."""
  tokens = dict.fromkeys(vocabulary)
  while len(tokens) > size:
    costs = increases(counts, tokens, length)
    cheapest = sorted(tokens, key=lambda token: (costs[token], token))
    for token in cheapest[: min(len(tokens) - size, math.ceil(_DROPPED * len(tokens)))]:
      del tokens[token]
  return list(tokens)


def increases(counts: Mapping[bytes, int], tokens: Collection[bytes], length: int) -> Counter[bytes]:
  """By how many tokens the text would grow without each token that it is spelled with (0 for others), an estimate.

  Each place of a token is looked at by itself: the way through it goes over an end inside the token, or over a longer
  token around it. A way on which the token stands at another place counts as one without it.
  """
  costs = Counter()
  for word, count in counts.items():
    forward, last = shortest(word, tokens, length)
    backward = shortest(word[::-1], {token[::-1] for token in _inside(word, tokens, length)}, length)[0][::-1]
    end = 0
    for token in spelled(word, last):
      begin, end = end, end + len(token)
      if len(token) > 1:
        ways = [forward[place] + backward[place] for place in range(begin + 1, end)]
        for left in range(max(0, end - length), begin + 1):
          for right in range(end, min(len(word), left + length) + 1):
            if (left, right) != (begin, end) and word[left:right] in tokens:
              ways.append(forward[left] + 1 + backward[right])
        costs[token] += count * (min(ways) - forward[-1])
  return costs


def _inside(word: bytes, tokens: Collection[bytes], length: int) -> set[bytes]:
  return {part for part in _parts(word, length) if part in tokens}


def _parts(word: bytes, length: int) -> Iterator[bytes]:
  for start in range(len(word)):
    for end in range(start + 2, min(len(word), start + length) + 1):
      yield word[start:end]


def _frequent(counts: Mapping[bytes, int], size: int, length: int) -> list[bytes]:
  """The most frequent parts of pretokens."""
  found = Counter()
  for word, count in counts.items():
    for part in _parts(word, length):
      found[part] += count
  several = sorted((-count, part) for part, count in found.items() if count > 1)
  if len(several) < size - 256:
    raise library.supported(size, 256 + len(several))
  return [part for _, part in several[: size - 256]]


class PathPiece(rules.Rules):
  """Its tokens: as few as the vocabulary allows in every pretoken."""

  def _read(self, settings: dict[str, Any]) -> None:
    self._length = int(settings['length'])

  def _word(self, word: bytes) -> list[bytes]:
    return spelled(word, shortest(word, self._ids, self._length)[1])
