"""Surprisal against reading times of the Natural Stories corpus (Futrell et al. 2021), where the user has its files.

The surprisal of a word is that of its bytes and of the space behind it, so that those of a story add up to the bits of
its text. Reading times are means over readers of a word, where the paper fits a mixed model to single readings. The
baseline knows length, −log frequency and position of a word, and length and frequency of the word before; the full
model also the surprisals of both. Both are least squares on the logarithm of reading times, fitted to all stories but
one and scored on that; ΔLL is what surprisal adds to the log-likelihood per word, in nats.
"""

import csv
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from evaluation.bits_per_byte import SCORING
from evaluation.predictions import predict_all
from evaluation.suites.suite import Options, Row, Suite
from text import Corpus, paths

STORIES, TIMES, FREQUENCIES = 'all_stories.tok', 'processed_wordinfo.tsv', 'freqs-1*.tsv'
DRAWS = 1000  # of the bootstrap over stories


class Word(NamedTuple):
  """text with its punctuation. zone: its number in the story, from 1. seconds: None where there is no reading time.
  frequency: how often a large corpus has it, at least 1.
  """

  text: str
  zone: int
  time: float | None
  frequency: float


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus | None, options: Options) -> Iterator[Row]:
  """delta_ll, with the ends of a 95% interval from a bootstrap over stories (delta_ll_low, delta_ll_high);
  delta_ll_shuffled: of the same surprisals in a random order, about 0; bits_per_word.

  directory: a copy of the corpus' repository, or of the files STORIES, TIMES and FREQUENCIES from it.
  """
  del config, corpus
  stories = read(options.own['directory'])
  texts = [' '.join(word.text for word in story).encode() for story in stories]
  found = predict_all(model, texts, **options.rows)
  surprisals = [of_words(story, of.bits) for story, of in zip(stories, found, strict=True)]
  rng = np.random.default_rng(options.own['seed'])
  gains = gain(stories, surprisals)
  shuffled = gain(stories, [rng.permutation(of_story) for of_story in surprisals])
  low, high = interval(gains, rng)
  size = sum(map(len, texts))
  row = lambda metric, value: Row(metric, float(value), bytes=size, extras={'words': sum(map(len, gains))})
  yield row('delta_ll', np.concatenate(gains).mean())
  yield row('delta_ll_low', low)
  yield row('delta_ll_high', high)
  yield row('delta_ll_shuffled', np.concatenate(shuffled).mean())
  yield row('bits_per_word', np.concatenate(surprisals).mean())


def of_words(story: list[Word], bits_N: np.ndarray) -> np.ndarray:
  """Bits of each word with the space behind it; the last one has none."""
  sizes = np.array([len(word.text.encode()) + 1 for word in story])
  return np.add.reduceat(bits_N, np.cumsum(sizes) - sizes)


def gain(stories: list[list[Word]], surprisals: list[np.ndarray]) -> list[np.ndarray]:
  """Of each story, what surprisal adds to the log-likelihood of each of its words, in nats; models of the others."""
  base, full, y = zip(*map(_features, stories, surprisals), strict=True)
  gains = []
  for held_out in range(len(stories)):
    others = [index for index in range(len(stories)) if index != held_out]
    fit = lambda x, others=others, held_out=held_out: _log_likelihood(
      np.concatenate([x[index] for index in others]),
      np.concatenate([y[index] for index in others]),
      x[held_out],
      y[held_out],
    )
    gains.append(fit(full) - fit(base))
  return gains


def interval(gains: list[np.ndarray], rng: np.random.Generator) -> tuple[float, float]:
  """95% of the means over all words where stories are drawn with replacement."""
  sums, sizes = np.array([of.sum() for of in gains]), np.array(list(map(len, gains)))
  drawn = rng.integers(len(gains), size=(DRAWS, len(gains)))
  low, high = np.quantile(sums[drawn].sum(1) / sizes[drawn].sum(1), (0.025, 0.975))
  return float(low), float(high)


def _features(story: list[Word], surprisal_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(baseline [M, 6], full [M, 8], log times [M]) of the words that have a time and a word before them."""
  size = np.array([len(word.text) for word in story], float)
  rare = np.array([-math.log(word.frequency) for word in story])
  zone = np.array([word.zone for word in story], float)
  at = np.array([index for index, word in enumerate(story) if index and word.time is not None], int)
  base = np.stack([np.ones(len(at)), size[at], rare[at], zone[at], size[at - 1], rare[at - 1]], 1)
  full = np.concatenate([base, np.stack([surprisal_N[at], surprisal_N[at - 1]], 1)], 1)
  return base, full, np.log([story[index].time for index in at])


def _log_likelihood(x: np.ndarray, y: np.ndarray, new_x: np.ndarray, new_y: np.ndarray) -> np.ndarray:
  """Nats of each new value under least squares on (x, y), with the mean squared residual as variance."""
  weights = np.linalg.lstsq(x, y, rcond=None)[0]
  variance = np.mean((y - x @ weights) ** 2)
  return -0.5 * (math.log(2 * math.pi) + np.log(variance) + (new_y - new_x @ weights) ** 2 / variance)


def read(directory: str) -> list[list[Word]]:
  """The words of each story in order; ValueError or OSError with one sentence for files that are not these."""
  if not directory:
    raise ValueError(
      "reading_times: name a copy of the Natural Stories corpus, 'reading_times(directory=naturalstories)'"
    )
  root = paths.of(directory, 'reading_times: directory')
  times = {
    (row['item'], row['zone']): float(row.get('gmeanItemRT') or row['meanItemRT'])
    for row in _table(_file(root, TIMES), ('item', 'zone', 'meanItemRT'))
  }
  counts = {}
  for code, _, _, count, *_ in _rows(_file(root, FREQUENCIES)):
    item, zone, part = code.split('.')
    if part == 'word':
      counts[item, zone] = float(count)
  stories: dict[str, list[Word]] = {}
  for row in _table(_file(root, STORIES), ('word', 'zone', 'item')):
    key = row['item'], row['zone']
    word = Word(row['word'], int(row['zone']), times.get(key), max(1.0, counts.get(key, 1.0)))
    stories.setdefault(row['item'], []).append(word)
  if len(stories) < 2 or not times:
    raise ValueError(
      f"'{root}' has {len(stories)} stories and {len(times)} reading times: at least two stories and some"
    )
  return list(stories.values())


def _file(root: pathlib.Path, name: str) -> pathlib.Path:
  found = sorted(root.rglob(name))
  if not found:
    raise FileNotFoundError(f"'{root}' has no file {name}: name a copy of the repository of the Natural Stories corpus")
  return found[0]


def _rows(path: pathlib.Path) -> list[list[str]]:
  with path.open(encoding='utf-8', newline='') as file:
    return list(csv.reader(file, delimiter='\t', quoting=csv.QUOTE_NONE))


def _table(path: pathlib.Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
  names, *rows = _rows(path) or [[]]
  if missing := [column for column in columns if column not in names]:
    raise ValueError(f"'{path}' has no column {missing[0]}: its first line names {', '.join(columns)}, with tabs")
  return (dict(zip(names, row, strict=False)) for row in rows)


SUITE = Suite(measure, SCORING, {'directory': '', 'seed': 0}, reads=False, headline='delta_ll')
