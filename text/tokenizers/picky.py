"""Picky BPE (Chizhov et al., EMNLP 2024, arXiv:2409.04599): BPE that takes out tokens which only led to longer ones.

Where it differs from the published code: pretokens of bytes in place of words of the 99.99 % most frequent characters.
"""

from collections.abc import Iterable
from typing import Any

from text.tokenizers import library, patterns, rules
from text.tokenizers.merging import Picked, Replay, Words


def train(documents: Iterable[bytes], vocab_size: int, pattern: str, threshold: float) -> dict[str, Any]:
  """The rules. Raises ValueError where the text has fewer tokens."""
  expression = patterns.of(pattern)
  words = Words(patterns.counted(documents, expression))
  picked = Picked(words, threshold)
  while len(picked.present) < vocab_size:
    _, pair = words.pairs.best()
    if pair is None or len(picked.events) > 50 * vocab_size:
      raise library.supported(vocab_size, len(picked.present))
    picked.merge(pair)
  return rules.content('picky', expression, picked.vocabulary(), events=rules.written(picked.events))


class Picky(rules.Rules):
  """Its tokens: events in order, each where it has something to do."""

  def _read(self, settings: dict[str, Any]) -> None:
    self._replay = Replay(rules.read(settings['events']))

  def _word(self, word: bytes) -> list[bytes]:
    return self._replay.states(word)[-1][1]
