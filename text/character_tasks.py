"""Tasks about the characters and words of words: spell, contain, insert, delete, substitute, swap.

Twelve of the fourteen tasks of CUTE (Edman et al. 2024, arXiv:2409.15452; without the two of similarity, which need
word vectors), and the sub-character ones of EXECUTE (arXiv:2505.17784) by Unicode's decomposition: jamo of Hangul,
marks of Latin letters. Insert, delete and substitute change every occurrence, as there; swap is of two that occur once.
The wording is ours, short, for models that follow no instructions: examples say what to do.

An item is four (question, answer) of one operation, of which one is asked for and all four answers are candidates. The
four are drawn alike, so a model that does not read the question chooses the right answer with probability 1/4, whatever
it believes about answers.
"""

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

CANDIDATES = 4
SHORTEST, LONGEST = 3, 10  # characters of a word
WORDS = 4  # of a sequence of words
FEWEST = 20  # words that a list needs
MOST_TRIES = 1000


@dataclasses.dataclass(frozen=True)
class Item:
  """prompt: examples and the question, up to the quote before the answer. answers: CANDIDATES different ones, each with
  the quote that ends it; answers[right] is that of the question.
  """

  task: str
  prompt: str
  answers: tuple[str, ...]
  right: int


Pair = tuple[str, str]  # (question, answer)


def words_of(texts: Iterable[str]) -> list[str]:
  """Different words of texts, the most frequent first: runs of letters and marks of SHORTEST characters and more, in
  lower case; what is longer than LONGEST, such as a clause of Chinese, gives its first LONGEST.
  """
  counts: Counter[str] = Counter()
  for text in texts:
    spaced = ''.join(c if unicodedata.category(c)[0] in 'LM' else ' ' for c in unicodedata.normalize('NFC', text))
    counts.update(word[:LONGEST] for word in spaced.lower().split() if len(word) >= SHORTEST)
  return sorted(counts, key=lambda word: (-counts[word], word))


def items(task: str, words: Sequence[str], count: int, shots: int, seed: int) -> list[Item]:
  """So many items of a task of TASKS, each with `shots` examples; of the same words and seed the same on every machine.

  Fewer, perhaps none, where the words do not give them: without Hangul or accents there are no parts to spell. Raises
  ValueError for fewer than FEWEST words.
  """
  if len(words) < FEWEST:
    raise ValueError(
      f'{len(words)} words of {SHORTEST} letters and more are too few to ask about: give {FEWEST} or more'
    )
  rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *task.encode()))))
  draw = _Draw(rng, words)
  found: list[Item] = []
  for _ in range(count):
    sets = []
    for _ in range(shots + 1):
      pairs = next((pairs for _ in range(MOST_TRIES) if (pairs := TASKS[task](draw))), None)
      if pairs is None:
        return found
      sets.append(pairs)
    *examples, asked = sets
    lines = [f'{question}: "{answer}"\n' for question, answer in (pairs[draw.below(len(pairs))] for pairs in examples)]
    right = draw.below(CANDIDATES)
    answers = tuple(f'{answer}"' for _, answer in asked)
    found.append(Item(task, ''.join(lines) + f'{asked[right][0]}: "', answers, right))
  return found


class _Draw:
  """Random choices from raw bits, which numpy keeps equal between its versions."""

  def __init__(self, rng: np.random.Generator, words: Sequence[str]):
    self._rng, self._words = rng, words
    self._decomposed = [word for word in words if len(unicodedata.normalize('NFD', word)) > len(word)]

  def below(self, limit: int) -> int:
    return int(self._rng.bit_generator.random_raw() % limit)

  def of(self, choices: Sequence) -> Any:
    return choices[self.below(len(choices))]

  def words(self, count: int) -> list[str]:
    """Different ones."""
    return self._different(self._words, count)

  def alike(self, decomposed: bool) -> list[str]:
    """Different words of one length, as many as there are candidates; decomposed: that have parts. None if too few."""
    pool = self._decomposed if decomposed else self._words
    size = len(self.of(pool)) if pool else 0
    same = [word for word in pool if len(word) == size]
    return self._different(same, CANDIDATES) if len(same) >= CANDIDATES else []

  def sequence(self, by_words: bool) -> list[str]:
    """A word's characters, or some words."""
    return self.words(WORDS) if by_words else list(self.of(self._words))

  def _different(self, pool: Sequence[str], count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
      found[self.of(pool)] = None
    return list(found)


def _checked(pairs: Sequence[Pair]) -> list[Pair] | None:
  """The pairs, if they are enough with different answers, of which none is empty."""
  answers = {answer for _, answer in pairs}
  return list(pairs) if len(answers) == len(pairs) == CANDIDATES and '' not in answers else None


def _spelled(draw: _Draw, form: str, inverse: bool) -> list[Pair] | None:
  """Of words of one length, so that no answer stands out; form: NFC for characters, NFD for what they are made of."""
  pairs = [(word, ' '.join(unicodedata.normalize(form, word))) for word in draw.alike(form == 'NFD')]
  return _checked([(f'write "{parts}"', word) if inverse else (f'spell "{word}"', parts) for word, parts in pairs])


def _contained(draw: _Draw, by_words: bool) -> list[Pair] | None:
  """Which of four is in a sequence, of four sequences that each have one of them and no other."""
  sequences = [draw.sequence(by_words) for _ in range(CANDIDATES)]
  counts = Counter(part for sequence in sequences for part in set(sequence))
  own = [[part for part in sequence if counts[part] == 1] for sequence in sequences]
  if not all(own):
    return None
  chosen, join = list(map(draw.of, own)), ' ' if by_words else ''
  asked = [f'of "{" ".join(chosen)}" in "{join.join(sequence)}"' for sequence in sequences]
  return _checked(list(zip(asked, chosen, strict=True)))


def _changed(draw: _Draw, by_words: bool, ask: Callable[[_Draw, list[str]], Any]) -> list[Pair] | None:
  """Four changes of one sequence; ask -> (what is asked, the changed sequence), or None."""
  sequence, join = draw.sequence(by_words), ' ' if by_words else ''
  asked = [ask(draw, sequence) for _ in range(CANDIDATES)]
  if None in asked:
    return None
  return _checked([(f'{what} in "{join.join(sequence)}"', join.join(changed)) for what, changed in asked])


def _insert(draw: _Draw, sequence: list[str]) -> tuple[str, list[str]] | None:
  new, behind = _other(draw, sequence), draw.of(sequence)
  changed = [part for old in sequence for part in ((old, new) if old == behind else (old,))]
  return f'put "{new}" after "{behind}"', changed


def _delete(draw: _Draw, sequence: list[str]) -> tuple[str, list[str]] | None:
  gone = draw.of(sequence)
  return f'leave out "{gone}"', [old for old in sequence if old != gone]


def _substitute(draw: _Draw, sequence: list[str]) -> tuple[str, list[str]] | None:
  new, gone = _other(draw, sequence), draw.of(sequence)
  return f'put "{new}" for "{gone}"', [new if old == gone else old for old in sequence]


def _swap(draw: _Draw, sequence: list[str]) -> tuple[str, list[str]] | None:
  once = [part for part, count in Counter(sequence).items() if count == 1]
  if len(once) < 2:
    return None
  one = draw.of(once)
  other = draw.of([part for part in once if part != one])
  return f'swap "{one}" and "{other}"', [{one: other, other: one}.get(old, old) for old in sequence]


def _other(draw: _Draw, sequence: list[str]) -> str:
  """A part as those of the sequence: a word, or a character of one."""
  word = draw.words(1)[0]
  return word if max(map(len, sequence)) > 1 else draw.of(word)


def _task(make: Callable, **settings) -> Callable[[_Draw], list[Pair] | None]:
  return lambda draw: make(draw, **settings)


TASKS: dict[str, Callable[[_Draw], list[Pair] | None]] = {
  'spell': _task(_spelled, form='NFC', inverse=False),
  'spell_inverse': _task(_spelled, form='NFC', inverse=True),
  'spell_parts': _task(_spelled, form='NFD', inverse=False),
  'spell_parts_inverse': _task(_spelled, form='NFD', inverse=True),
  **{
    f'{name}_{kind}': _task(make, by_words=kind == 'word', **more)
    for name, make, more in (
      ('contains', _contained, {}),
      ('insert', _changed, {'ask': _insert}),
      ('delete', _changed, {'ask': _delete}),
      ('substitute', _changed, {'ask': _substitute}),
      ('swap', _changed, {'ask': _swap}),
    )
    for kind in ('char', 'word')
  },
}
