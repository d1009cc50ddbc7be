"""Bits per byte of each part of a text: languages of `corpus:udhr`, pages of `corpus:multilingual`, files of none."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from evaluation.bits_per_byte import SCORING, first_bytes
from evaluation.predictions import predictions
from evaluation.suites.suite import Options, Row, Suite
from text import Corpus


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus, options: Options) -> Iterator[Row]:
  """bits_per_byte of each part, by its name; mean_bits_per_byte: of the parts, each as much as the others.

  max_bytes: of each part.
  """
  del config
  found = []
  for part in corpus.parts:
    scored, _ = first_bytes(part, options.max_bytes)
    total = int(scored.lengths.sum())
    bits = sum(float(document.bits.sum()) for document in predictions(model, scored, **options.rows))
    found.append((bits / total, total))
    yield Row('bits_per_byte', bits / total, bytes=total, extras={'part': part.name})
  means, sizes = zip(*found, strict=True)
  yield Row('mean_bits_per_byte', float(np.mean(means)), bytes=sum(sizes))


SUITE = Suite(measure, SCORING, headline='mean_bits_per_byte')
