"""Tasks about characters, their parts and words, by ranking and by greedy decoding (text/character_tasks.py)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from evaluation.bits_per_byte import SCORING, first_bytes
from evaluation.predictions import predict_all
from evaluation.suites.suite import Options, Row, Suite
from text import Corpus, character_tasks, paths


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus, options: Options) -> Iterator[Row]:
  """accuracy: share of items whose right answer is the likeliest of four, chance 1/4. exact: share of which greedy
  decoding writes the right answer and the quote behind it, read off one pass (evaluation/accuracy.py). Both of each
  task that the words give items of, and as means of the tasks.

  words: a file with words, one a line; without it those of the text. tasks: all, or names joined by +.
  """
  del config
  own = options.own
  tasks = list(character_tasks.TASKS) if own['tasks'] == 'all' else own['tasks'].split('+')
  if unknown := [task for task in tasks if task not in character_tasks.TASKS]:
    raise ValueError(f"characters: '{unknown[0]}' is no task: use all, or of {', '.join(character_tasks.TASKS)}")
  if own['items'] < 1 or own['shots'] < 0 or own['seed'] < 0:
    raise ValueError('characters: items must be at least 1, shots and seed at least 0')
  if own['words']:
    texts = paths.of(own['words'], 'characters: words').read_text(encoding='utf-8').splitlines()
  else:
    texts = [document.decode('utf-8', 'ignore') for document in first_bytes(corpus, options.max_bytes)[0]]
  words = character_tasks.words_of(texts)[: own['most']]
  means = []
  for task in tasks:
    items = character_tasks.items(task, words, own['items'], own['shots'], own['seed'])
    if not items:
      continue
    accuracy, exact, size = _scored(model, items, options)
    means.append((accuracy, exact))
    for metric, value in (('accuracy', accuracy), ('exact', exact)):
      chance = {'chance': 1 / character_tasks.CANDIDATES} if metric == 'accuracy' else {}
      yield Row(metric, value, bytes=size, extras={'task': task, 'items': len(items), **chance})
  if means:
    yield Row('mean_accuracy', float(np.mean([accuracy for accuracy, _ in means])), extras={'tasks': len(means)})
    yield Row('mean_exact', float(np.mean([exact for _, exact in means])), extras={'tasks': len(means)})


def _scored(model: Any, items: list[character_tasks.Item], options: Options) -> tuple[float, float, int]:
  """(accuracy, exact, bytes of the right documents)."""
  documents = [(item.prompt + answer).encode() for item in items for answer in item.answers]
  found = predict_all(model, documents, **options.rows)
  bits_NxC = np.array([of.bits.sum() for of in found]).reshape(len(items), -1)
  right = np.array([item.right for item in items])
  asked = [found[place] for place in np.arange(len(items)) * bits_NxC.shape[1] + right]
  exact = [of.is_right[len(item.prompt.encode()) : -1].all() for item, of in zip(items, asked, strict=True)]
  return float(np.mean(bits_NxC.argmin(1) == right)), float(np.mean(exact)), sum(len(of.document) for of in asked)


SUITE = Suite(
  measure,
  SCORING,
  {'words': '', 'tasks': 'all', 'items': 100, 'shots': 4, 'most': 5000, 'seed': 0},
  headline='mean_accuracy',
)
