"""Chunks against the units of a gold corpus: words of Chinese, morphemes of English (evaluation/boundaries.py)."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.boundaries import boundary_scores, unit_starts
from evaluation.suites.suite import Options, Refused, Row, Suite
from text import Corpus, gold, open_gold


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus | None, options: Options) -> Iterator[Row]:
  """Precision, recall and F1 of each stage's boundaries, as `BoundaryScore` has them, each beside those of as many
  boundaries at random bytes ('random.f1').

  max_bytes: whole documents, as many as fit, one at least.
  """
  del config, corpus
  if not model.emits:
    raise Refused('it has no stage that cuts, so there are no boundaries to compare with gold units')
  documents = [gold.units(document) for document in open_gold(options.own['name'])]
  sizes = [sum(map(len, units)) for units in documents]
  if options.max_bytes:
    ends = itertools.accumulate(sizes)
    kept = max(1, sum(1 for _ in itertools.takewhile(lambda end: end <= options.max_bytes, ends)))
    documents, sizes = documents[:kept], sizes[:kept]
  texts = list(map(b''.join, documents))
  _, *scores = boundary_scores(model, texts, list(map(unit_starts, documents)), **options.rows)
  for place, score in enumerate(scores):
    prefix = 'random.' if place % 2 else ''
    for metric in ('precision', 'recall', 'f1', 'unit_recall', 'unit_f1', 'f1_1', 'bytes_per_chunk', 'bytes_per_unit'):
      yield Row(prefix + metric, getattr(score, metric), place // 2, bytes=sum(sizes))


SUITE = Suite(measure, 1, {'name': 'english_morphemes'}, reads=False, headline='f1')
