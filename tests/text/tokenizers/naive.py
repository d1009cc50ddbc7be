"""Naive forms of what tokenizers do, and texts to try them on."""

import itertools
import random
from collections import Counter

from text.tokenizers.boundless import joins
from text.tokenizers.rules import BYTES

SYLLABLES = ['ka', 'to', 'mi', 're', 'su', 'lon', 'the', 'nä', '日', 'x']


def documents(seed, count=4, words=250):
  """Random texts of few words, as bytes."""
  rng = random.Random(seed)
  lexicon = [''.join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(200)]
  weights = [1 / (rank + 1) for rank in range(len(lexicon))]
  ends = [' ', ' ', ' ', ', ', '. ', '\n', ' 12 ', '  ', "'s "]
  draw = lambda: ''.join(f'{word}{rng.choice(ends)}' for word in rng.choices(lexicon, weights, k=words))
  return [draw().encode() for _ in range(count)]


def merge(tokens, pair):
  """Every pair of tokens as one, from the left."""
  found = []
  for token in tokens:
    if found and (found[-1], token) == pair and found[-1] is not None:
      found[-1] = None
      found.append(pair[0] + pair[1])
    else:
      found.append(token)
  return [token for token in found if token is not None]


class Unit:
  """A pretoken or a superword: its tokens."""

  def __init__(self, word):
    self.word, self.tokens, self.is_super = word, [bytes([byte]) for byte in word], False

  def single(self):
    return self.tokens[0] if len(self.tokens) == 1 and (self.is_super or joins(self.word)) else None


def apply(event, units):
  """One event on the units of a document, in place."""
  what, token, *parts = event
  if what == 'super':
    at = 0
    while at + 1 < len(units):
      if (units[at].single(), units[at + 1].single()) == (token, parts[0]):
        units[at].tokens, units[at].is_super = [token + parts[0]], True
        del units[at + 1]
      at += 1
    return
  for unit in units:
    if unit.is_super:
      continue
    if what == 'merge':
      unit.tokens = merge(unit.tokens, (token, parts[0]))
    else:
      unit.tokens = [new for old in unit.tokens for new in (parts if old == token else [old])]


def replay(events, words):
  """The tokens of a document after all events."""
  units = [Unit(word) for word in words]
  for event in events:
    apply(event, units)
  return [token for unit in units for token in unit.tokens]


def train(texts, size, threshold, *, to_bytes, superwords):
  """(events, vocabulary, the tokens of every text), everything counted anew at every step."""
  texts = [[Unit(word) for word in text] for text in texts]
  names, present, made, supers, events = list(BYTES), set(BYTES), {}, set(), []

  def occurrences():
    return Counter(token for text in texts for unit in text if not unit.is_super for token in unit.tokens)

  def expand(token):
    if token in present:
      return [token]
    return [part for side in made[token] for part in expand(side)]

  def best(counts):
    frequent = {pair: count for pair, count in counts.items() if count > 1}
    number = {name: index for index, name in enumerate(names)}
    order = lambda pair: (-frequent[pair], number[pair[0]], number[pair[1]])
    return min(frequent, key=order, default=None)

  while len(present) < size:
    inside, between = Counter(), Counter()
    for text in texts:
      for unit in text:
        if not unit.is_super:
          inside.update(zip(unit.tokens, unit.tokens[1:], strict=False))
      singles = [unit.single() for unit in text]
      between.update(pair for pair in itertools.pairwise(singles) if superwords and None not in pair)
    pair, neighbours = best(inside), best(between)
    is_super = neighbours is not None and (pair is None or inside[pair] <= between[neighbours])
    pair = neighbours if is_super else pair
    new = pair[0] + pair[1]
    before = occurrences()[new]
    event = ('super' if is_super else 'merge', *pair)
    if new not in names:
      names.append(new)
    for text in texts:
      apply(event, text)
    events.append(event)
    present.add(new)
    if is_super:
      supers.add(new)
      continue
    made[new] = pair
    now = occurrences()
    joined = now[new] - before
    is_over = lambda part, now=now, joined=joined: joined / (joined + now[part]) >= threshold
    gone = [part for part in dict.fromkeys(pair) if len(part) > 1 and part not in supers and is_over(part)]
    present.difference_update(gone)
    for token in gone:
      parts = [bytes([byte]) for byte in token] if to_bytes else expand(token)
      events.append(('split', token, *parts))
      for text in texts:
        apply(events[-1], text)
  vocabulary = [name for name in names[256:] if name in present]
  return events, vocabulary, [[token for unit in text for token in unit.tokens] for text in texts]
