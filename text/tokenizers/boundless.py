"""BoundlessBPE (Schmidt et al., COLM 2025, arXiv:2504.00178): BPE whose merges may join neighbouring pretokens.

Where it differs from the published code: a token that was taken out is out of the vocabulary, a pretoken that it was
joins no more until it is one token again, what a superword holds counts for nothing else, and, as in BPE, a pair whose
bytes are a token already becomes that token. Of equally frequent pairs the first tokens decide.
"""

import functools
import heapq
import itertools
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from text.tokenizers import library, patterns, rules
from text.tokenizers.merging import Pairs, Picked, Replay, Words, after

Times = tuple[tuple[float, float, bytes], ...]  # (from the end of one event, to another, the token)
_BETWEEN = frozenset(" _'’")


def joins(word: bytes) -> bool:
  """Whether a pretoken may join others: letters with their marks, spaces, _ and apostrophes, a letter not at its begin.

  The published expression: ^(?=.+\\p{L})(?:\\p{L}\\p{M}*|[ _'’])+$
  """
  try:
    kinds = [' ' if character in _BETWEEN else unicodedata.category(character)[0] for character in word.decode()]
  except UnicodeDecodeError:
    return False
  marks = all(before in 'LM' for before, kind in itertools.pairwise([' ', *kinds]) if kind == 'M')
  return 'L' in kinds[1:] and marks and set(kinds) <= set('LM ')


def train(
  documents: Iterable[bytes], vocab_size: int, pattern: str, threshold: float, superwords: bool
) -> dict[str, Any]:
  """The rules. Raises ValueError where the text has fewer tokens. superwords: False forbids them."""
  expression = patterns.of(pattern)
  cut = patterns.cutter(expression)
  texts = [cut(document) for document in documents]
  kinds = {word: kind for kind, word in enumerate(dict.fromkeys(itertools.chain.from_iterable(texts)))}
  counts = dict.fromkeys(kinds, 0)
  for word in itertools.chain.from_iterable(texts):
    counts[word] += 1
  words = Words(counts)
  picked = Picked(words, threshold, to_bytes=True)
  chain = Chain([[kinds[word] for word in text] for text in texts], [joins(word) for word in kinds], words)
  while len(picked.present) < vocab_size:
    (inside, pair), (between, neighbours) = words.pairs.best(), chain.pairs.best() if superwords else (0, None)
    if (pair is None and neighbours is None) or len(picked.events) > 50 * vocab_size:
      raise library.supported(vocab_size, len(picked.present))
    if inside > between:
      chain.unlock(picked.merge(pair, chain.superwords))
    else:
      new = chain.merge(neighbours)
      picked.present.add(new)
      picked.events.append(('super', *(words.names[token] for token in neighbours)))
  return rules.content('boundlessbpe', expression, picked.vocabulary(), events=rules.written(picked.events))


class Chain:
  """The pretokens of all documents in their order, and pairs of neighbours of which each is one token.

  superwords: tokens that were made of several.
  """

  def __init__(self, texts: list[list[int]], may_join: list[bool], words: Words):
    self._words, self._may_join = words, may_join
    self._kinds = [kind for text in texts for kind in [*text, -1]]  # -1 between documents
    self._next = list(range(1, len(self._kinds) + 1))
    self._before = list(range(-1, len(self._kinds) - 1))
    self._tokens = [-1] * len(self._kinds)  # -1 for what joins nothing
    self._places = defaultdict(list)
    for place, kind in enumerate(self._kinds):
      if kind >= 0 and may_join[kind]:
        self._places[kind].append(place)
    self._unlocked = {}
    self.pairs, self.superwords = Pairs(), set()

  def unlock(self, changed: Iterable[int]) -> None:
    """Takes note of which of the words that changed are one token."""
    for kind in sorted(set(changed)):
      tokens = self._words.tokens[kind]
      token = tokens[0] if len(tokens) == 1 and self._may_join[kind] else -1
      if token != self._unlocked.get(kind, -1):
        self._unlocked[kind] = token
        for place in self._places[kind]:
          if self._kinds[place] == kind:  # and no part of a superword
            self._set(place, token)

  def merge(self, pair: tuple[int, int]) -> int:
    """The token that a pair of neighbours becomes wherever it stands."""
    new = self._words.number(self._words.names[pair[0]] + self._words.names[pair[1]])
    self.superwords.add(new)
    for place in sorted(self.pairs.places[pair]):
      behind = self._next[place]
      if self._tokens[place] != pair[0] or behind >= len(self._tokens) or self._tokens[behind] != pair[1]:
        continue  # its first token went into the pair before
      for part in (place, behind):
        self._set(part, -1)
        if self._kinds[part] >= 0:
          self._words.drop(self._kinds[part])
        self._kinds[part] = -1
      self._next[place] = self._next[behind]
      if self._next[place] < len(self._before):
        self._before[self._next[place]] = place
      self._set(place, new)
    return new

  def _set(self, place: int, token: int) -> None:
    self._count(place, -1)
    self._tokens[place] = token
    self._count(place, +1)

  def _count(self, place: int, sign: int) -> None:
    before, behind = self._before[place], self._next[place]
    for left, right in ((before, place), (place, behind)):
      if left >= 0 and right < len(self._tokens) and self._tokens[left] >= 0 and self._tokens[right] >= 0:
        self.pairs.change((self._tokens[left], self._tokens[right]), left, sign, sign > 0)


class Boundless(rules.Rules):
  """Its tokens: events in order, each where it has something to do; not what merges without an order would give."""

  def _read(self, settings: dict[str, Any]) -> None:
    events = rules.read(settings['events'])
    self._replay, self._joins = Replay(events), defaultdict(list)
    for index, (what, *tokens) in enumerate(events):
      if what == 'super':
        self._joins[tuple(tokens)].append(index)
    self._of = functools.lru_cache(2**16)(self._spelled)
    self._first = functools.lru_cache(2**16)(self._event)

  def _spelled(self, word: bytes) -> tuple[list[int], Times]:
    """(ids of a pretoken, when it is one token that may join others)."""
    states = self._replay.states(word)
    ends = [*(event for event, _ in states[1:]), math.inf]
    times = ((event, end, tokens[0]) for (event, tokens), end in zip(states, ends, strict=True) if len(tokens) == 1)
    return [self._ids[token] for token in states[-1][1]], tuple(times) if joins(word) else ()

  def _event(self, left: Times, right: Times) -> float:
    """The first event that joins two neighbours, inf for none."""
    found = math.inf
    for (begin, end, one), (start, stop, other) in itertools.product(left, right):
      if (one, other) in self._joins:
        event = after(self._joins[one, other], max(begin, start))
        found = min(found, event if event < min(end, stop) else math.inf)
    return found

  def _cut(self, document: bytes, with_ends: bool = False) -> tuple[list[int], list[int]]:
    words = self._cutter(document)
    ids, times = map(list, zip(*map(self._of, words), strict=True)) if words else ([], [])
    ends = list(itertools.accumulate(map(len, words)))
    fixed = [
      end for end, (one, other) in zip(ends, itertools.pairwise([*times, ()]), strict=True) if not (one and other)
    ]
    before, behind = list(range(-1, len(words) - 1)), list(range(1, len(words) + 1))
    pairs = ((self._first(times[place], times[place + 1]), place) for place in range(len(words) - 1))
    heap = [found for found in pairs if found[0] < math.inf]
    heapq.heapify(heap)
    while heap:
      event, place = heapq.heappop(heap)
      other = behind[place]
      if ids[place] is None or other == len(words) or self._first(times[place], times[other]) != event:
        continue  # one of them went into another pair
      words[place] += words[other]
      ids[place], ids[other] = [self._ids[words[place]]], None
      times[place] = ((event, math.inf, words[place]),)
      behind[place] = behind[other]
      if behind[place] < len(words):
        before[behind[place]] = place
      for left, right in ((before[place], place), (place, behind[place])):
        if left >= 0 and right < len(words) and (next_ := self._first(times[left], times[right])) < math.inf:
          heapq.heappush(heap, (next_, left))
    return [index for part in ids if part is not None for index in part], fixed
