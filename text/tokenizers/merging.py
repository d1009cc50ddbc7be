"""Merges of pairs of tokens and their removal, on the pretokens of a text: what `picky` and `boundlessbpe` share."""

import bisect
import heapq
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from text.tokenizers.rules import BYTES

RAREST = 2  # occurrences of a pair that is merged


class Pairs:
  """Counts of pairs of tokens, and where each stands; the most frequent one, of equal ones that of the first tokens."""

  def __init__(self):
    self._counts: Counter[tuple[int, int]] = Counter()
    self.places: dict[tuple[int, int], set[int]] = defaultdict(set)
    self._heap: list[tuple[int, int, int]] = []

  def change(self, pair: tuple[int, int], place: int, count: int, stands: bool) -> None:
    """Adds to the count of a pair. stands: whether it is at this place now."""
    self._counts[pair] += count
    (self.places[pair].add if stands else self.places[pair].discard)(place)
    if count > 0:  # where it falls, its entry is put right when it is first
      heapq.heappush(self._heap, (-self._counts[pair], *pair))

  def best(self) -> tuple[int, tuple[int, int] | None]:
    """(count, pair); (0, None) where none is as frequent as merges need."""
    while self._heap:
      entry, *pair = heapq.heappop(self._heap)
      pair, count = tuple(pair), self._counts[tuple(pair)]
      if count >= RAREST and count <= -entry:
        heapq.heappush(self._heap, (-count, *pair))
        if count == -entry:
          return count, pair
    return 0, None


class Words:
  """Different pretokens with counts, each as tokens.

  names: of tokens, by number. tokens: those of every word. frequency: how often each token stands in the text.
  """

  def __init__(self, counts: Mapping[bytes, int]):
    self.names, self.numbers = list(BYTES), {name: number for number, name in enumerate(BYTES)}
    self.counts = list(counts.values())
    self.tokens = [[] for _ in counts]
    self.pairs, self.frequency = Pairs(), Counter()
    self._words = defaultdict(set)  # that have had a token of several bytes
    for index, word in enumerate(counts):
      self._rewrite(index, [self.numbers[bytes([byte])] for byte in word])
      for token in self.tokens[index]:
        self.frequency[token] += self.counts[index]

  def number(self, name: bytes) -> int:
    """Of a token, which keeps it for good."""
    if name not in self.numbers:
      self.numbers[name] = len(self.names)
      self.names.append(name)
    return self.numbers[name]

  def merge(self, pair: tuple[int, int]) -> tuple[int, list[int]]:
    """(the token that a pair becomes wherever it stands, the words that had it)."""
    new = self.number(self.names[pair[0]] + self.names[pair[1]])
    changed = sorted(self.pairs.places[pair])
    for index in changed:
      tokens = merged(self.tokens[index], pair, new)
      self._count(index, (new,), pair, len(self.tokens[index]) - len(tokens))
      self._rewrite(index, tokens)
    self._words[new].update(changed)
    return new, changed

  def split(self, token: int, parts: Sequence[int]) -> list[int]:
    """Puts parts in place of a token; the words that had it."""
    changed = sorted(index for index in self._words[token] if token in self.tokens[index])
    for index in changed:
      self._count(index, parts, (token,), self.tokens[index].count(token))
      self._rewrite(index, replaced(self.tokens[index], token, parts))
    for part in parts:
      self._words[part].update(changed)
    return changed

  def drop(self, index: int) -> None:
    """Takes out one of the places of a word that is one token."""
    self.counts[index] -= 1
    self.frequency[self.tokens[index][0]] -= 1

  def _count(self, index: int, more: Iterable[int], fewer: Iterable[int], times: int) -> None:
    for sign, tokens in ((1, more), (-1, fewer)):
      for token in tokens:
        self.frequency[token] += sign * times * self.counts[index]

  def _rewrite(self, index: int, tokens: list[int]) -> None:
    before, after_ = (Counter(itertools.pairwise(one)) for one in (self.tokens[index], tokens))
    self.tokens[index] = tokens
    for pair in {**before, **after_}:
      if difference := after_[pair] - before[pair]:
        self.pairs.change(pair, index, difference * self.counts[index], pair in after_)


def merged(tokens: Sequence, pair: tuple, new: object) -> list:
  """Tokens with `new` for every pair, from the left."""
  found, at = [], 0
  while at < len(tokens):
    is_pair = at + 1 < len(tokens) and (tokens[at], tokens[at + 1]) == pair
    found.append(new if is_pair else tokens[at])
    at += 1 + is_pair
  return found


def replaced(tokens: Sequence, token: object, parts: Sequence) -> list:
  """Tokens with parts for every `token`."""
  return [part for one in tokens for part in (parts if one == token else (one,))]


class Picked:
  """Merges after which tokens are taken out that stand almost nowhere but in the merged one (Picky BPE).

  threshold: of IoS = pairs / (pairs + places of a part that are left), above 1 nothing is taken out. Parts are put in
  place of such a token: those that it was merged from, or its bytes. events: what was done, in order.
  """

  def __init__(self, words: Words, threshold: float, *, to_bytes: bool = False):
    self.words, self.events = words, []
    self.present = set(range(256))
    self._threshold, self._to_bytes, self._made = threshold, to_bytes, {}

  def merge(self, pair: tuple[int, int], kept: Iterable[int] = ()) -> list[int]:
    """One merge, and what is taken out; the words that changed. kept: tokens that are not taken out."""
    words, names = self.words, self.words.names
    before = words.frequency[words.number(names[pair[0]] + names[pair[1]])]
    new, changed = words.merge(pair)
    self.present.add(new)
    self._made[new] = pair
    self.events.append(('merge', names[pair[0]], names[pair[1]]))
    joined = words.frequency[new] - before
    leave = lambda part: joined >= self._threshold * (joined + words.frequency[part])
    gone = [part for part in dict.fromkeys(pair) if len(names[part]) > 1 and part not in kept and leave(part)]
    self.present.difference_update(gone)
    for token in gone:
      parts = self._parts(token)
      changed = [*changed, *words.split(token, parts)]
      self.events.append(('split', names[token], *(names[part] for part in parts)))
    return changed

  def vocabulary(self) -> list[bytes]:
    """Names of the tokens that are there, behind the bytes."""
    return [self.words.names[token] for token in sorted(self.present) if token >= 256]

  def _parts(self, token: int) -> list[int]:
    if self._to_bytes:
      return [self.words.numbers[bytes([byte])] for byte in self.words.names[token]]
    return [part for side in self._made[token] for part in ([side] if side in self.present else self._parts(side))]


class Replay:
  """Applies events to a word as they come: always the first one behind the last that has something to do."""

  def __init__(self, events: Iterable[Sequence[bytes]]):
    self._merges, self._splits = defaultdict(list), defaultdict(list)
    self._parts = {}
    for index, (what, token, *parts) in enumerate(events):
      if what == 'merge':
        self._merges[token, parts[0]].append(index)
      elif what == 'split':
        self._splits[token].append(index)
        self._parts[index] = parts

  def states(self, word: bytes) -> list[tuple[int, list[bytes]]]:
    """(event, the tokens behind it), from the bytes (-1) on."""
    tokens, last = [bytes([byte]) for byte in word], -1
    states = [(last, tokens)]
    while True:
      pairs = itertools.pairwise(tokens)
      event, what = min(
        [
          *((after(self._merges[pair], last), pair) for pair in pairs if pair in self._merges),
          *((after(self._splits[token], last), token) for token in tokens if token in self._splits),
        ],
        key=lambda found: found[0],
        default=(math.inf, None),
      )
      if event == math.inf:
        return states
      last = event
      tokens = (
        replaced(tokens, what, self._parts[event]) if event in self._parts else merged(tokens, what, b''.join(what))
      )
      states.append((last, tokens))


def after(events: Sequence[int], last: float) -> float:
  """The first event behind another one, inf for none."""
  place = bisect.bisect_right(events, last)
  return events[place] if place < len(events) else math.inf
