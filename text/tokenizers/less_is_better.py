"""Less-is-Better (Yang et al., CogALex 2020): a ranked lexicon that reading changes; tokens are its longest matches.

Articles of sentences are read from the left with the longest entry that matches. Two chunks in a row, and one or two
unknown characters, are memorised when they come twice in an article. Where a shorter entry matches, too, reading goes
on with each until both stand at the same place: the long one is demoted if it needs more unknown characters, or as many
and more chunks (if as many, a larger sum of ranks), and the shorter is promoted; else the long one is. The last entry
is on probation and forgotten unless reading needs it. In the end the 256 bytes and the first entries are the
vocabulary.

Where it differs from the published code: the moves of an article are made at once, a guard that measured a pair in
place of its text measures the text, and sentences are the pretokens of a pattern.
"""

import itertools
import random
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from text.tokenizers import library, patterns, rules

SENTENCES, LIVES, MEMORISED, MOVED, FORGOTTEN = 200, 10, 0.25, 0.2, 1e-4  # the published settings
_UNKNOWN = 2  # characters of what is memorised of unknown ones


class Lexicon:
  """Entries with ranks, 0 the first."""

  def __init__(self, entries: Iterable[str], length: int):
    self.ranks = {entry: rank for rank, entry in enumerate(entries)}
    self.length = length
    self._lives: dict[str, int] = dict.fromkeys(self.ranks, LIVES)
    self._moves: list[tuple[str, int]] = []
    self._added = len(self.ranks)

  def matches(self, text: str, at: int) -> Iterator[str]:
    """Entries that stand at a place, the longest first."""
    for end in range(min(len(text), at + self.length), at, -1):
      if text[at:end] in self.ranks:
        yield text[at:end]

  def add(self, entry: str) -> None:
    """Puts an entry behind all others."""
    self.ranks[entry] = self._added
    self._added += 1

  def judge(self, text: str, at: int, long: str, short: str) -> None:
    """Compares two ways to go on from a place, and notes the moves."""
    ways = [[long], [short]]
    ends = [at + len(long), at + len(short)]
    while ends[0] != ends[1]:
      way = 0 if ends[0] < ends[1] else 1
      chunk = next(self.matches(text, ends[way]), '')
      ways[way].append(chunk)
      ends[way] += len(chunk) or 1
    unknown = [way.count('') for way in ways]
    costs = [(len(way), sum(self.ranks[chunk] for chunk in way if chunk)) for way in ways]
    if unknown[0] > unknown[1] or (unknown[0] == unknown[1] and costs[0] > costs[1]):
      self._moves += [(long, +1), (short, -1)]
    else:
      self._moves.append((long, -1))
      self._lives.pop(long, None)

  def rescue(self, entry: str) -> None:
    """Ends a probation."""
    self._lives.pop(entry, None)

  def close(self) -> None:
    """What an article has changed."""
    dead = {entry for entry, lives in self._lives.items() if lives <= 1}
    self._lives = {entry: lives - 1 for entry, lives in self._lives.items() if lives > 1}
    keys = {entry: rank for entry, rank in self.ranks.items() if entry not in dead}
    for entry, sign in self._moves:
      if keys.get(entry, 0) > 0:
        keys[entry] = max(0, keys[entry] + sign * (int(MOVED * keys[entry]) + 1))
    count, self._moves = len(keys), []
    order = sorted((entry for entry in keys if keys[entry] <= count), key=keys.__getitem__)
    self.ranks = {entry: rank for rank, entry in enumerate(order)}
    self._added = len(order)
    for entry in order[int((1 - FORGOTTEN) * len(order)) :]:
      self._lives.setdefault(entry, LIVES)


def read(lexicon: Lexicon, article: Iterable[str], rng: random.Random) -> None:
  """Reads an article."""
  once = set()
  for text in article:
    at, last, is_known = 0, '', False
    while at < len(text):
      found = lexicon.matches(text, at)
      chunk, shorter = next(found, ''), next(found, '')
      if not chunk:
        last, is_known = ('' if is_known else last) + text[at], False
        at += 1
        continue
      new = last + chunk if is_known else last
      if rng.random() < MEMORISED and 0 < len(new) <= (lexicon.length if is_known else _UNKNOWN):
        if new in once and new not in lexicon.ranks:
          lexicon.add(new)
        once ^= {new}
      if shorter:
        lexicon.judge(text, at, chunk, shorter)
      else:
        lexicon.rescue(chunk)
      at, last, is_known = at + len(chunk), chunk, True
  lexicon.close()


def train(
  documents: Iterable[bytes], vocab_size: int, pattern: str, length: int, articles: int, seed: int
) -> dict[str, Any]:
  """The rules. length: characters of the longest entry. articles: to read at least; then on until the lexicon is large
  enough, ten times as many at most. Raises ValueError where it does not become so large.
  """
  expression = patterns.of(pattern)
  cut = patterns.cutter(expression)
  texts = (text for document in documents for text in patterns.texts(document))
  sentences = [sentence.decode() for text in texts for sentence in cut(text.encode())]
  lexicon = Lexicon(dict.fromkeys(itertools.chain.from_iterable(sentences[:SENTENCES])), length)
  rng, place = random.Random(seed), 0
  for done in range(10 * articles):
    if done >= articles and len(_several(lexicon)) >= vocab_size - 256:
      break
    if place >= len(sentences):
      place = 0
    read(lexicon, sentences[place : place + SENTENCES], rng)
    place += SENTENCES
  entries = _several(lexicon)[: max(0, vocab_size - 256)]
  if len(entries) < vocab_size - 256:
    raise library.supported(vocab_size, 256 + len(entries))
  return rules.content('lib', expression, entries)


def _several(lexicon: Lexicon) -> list[bytes]:
  """Entries of more than one byte, by rank."""
  return [entry.encode() for entry in lexicon.ranks if len(entry.encode()) > 1]


def greedy(word: bytes, tokens: Collection[bytes], longest: int) -> list[bytes]:
  """The longest token at every place, from the left; bytes are tokens."""
  found, at = [], 0
  while at < len(word):
    end = min(len(word), at + longest)
    while end > at + 1 and word[at:end] not in tokens:
      end -= 1
    found.append(word[at:end])
    at = end
  return found


class LessIsBetter(rules.Rules):
  """Its tokens: the longest at every place."""

  def _word(self, word: bytes) -> list[bytes]:
    return greedy(word, self._ids, int(self.sizes.max()))
