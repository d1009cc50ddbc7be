"""Whole words right under greedy decoding, apart for those that training text has rarely (evaluation/accuracy.py)."""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.accuracy import word_accuracy, word_counts
from evaluation.bits_per_byte import SCORING, first_bytes
from evaluation.suites.bits_per_byte import BOUNDARY_WORDS
from evaluation.suites.suite import Options, Row, Suite
from text import Corpus, Texts
from text.words import parse


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus, options: Options) -> Iterator[Row]:
  """greedy, sampled and words of each kind ('all', 'often', 'rare', 'never'); of official weights, whose training text
  is not known, of 'all'. Training text counts up to `count_mb` megabytes, the same share of each source.
  """
  splitter = options.own['words']
  parse(splitter)
  scored, _ = first_bytes(corpus, options.max_bytes)
  training = Texts.of(config.get('data', {}).get('source')).training
  seen = _counts(training, splitter, options.own['count_mb']) if training else {}
  for found in word_accuracy(model, scored, splitter=splitter, seen=seen, **options.rows):
    if found.kind == 'all' or training:
      for metric in ('greedy', 'sampled', 'words'):
        value, size = getattr(found, metric), int(scored.lengths.sum())
        yield Row(metric, None if value is None else float(value), bytes=size, extras={'kind': found.kind})


@functools.lru_cache(8)
def _counts(training: tuple[tuple[str, float], ...], splitter: str, megabytes: float) -> Counter[bytes]:
  """Of the words of training text, which every checkpoint of a run shares."""
  corpora = Texts(training, (), False).open_training().corpora
  share = max(1, int(megabytes * 1e6 / len(corpora)))
  return word_counts((document for corpus in corpora for document in first_bytes(corpus, share)[0]), splitter)


SUITE = Suite(measure, SCORING, {'words': BOUNDARY_WORDS, 'count_mb': 50.0}, headline='greedy')
