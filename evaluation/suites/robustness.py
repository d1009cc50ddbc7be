"""What each perturbation of text/noise.py costs against the same text without it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.alignment import common
from evaluation.bits_per_byte import SCORING, first_bytes
from evaluation.predictions import Predicted, predict_all
from evaluation.suites.suite import Options, Row, Suite
from text import Corpus, noise
from text.marks import characters
from text.sources import noise_index

NOISES = (  # those that need no corpus of misspellings
  'antspeak+drop+random_case+repeat+upper_case+permute_in_words+replace_in_words+delete_in_words'
)


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus, options: Options) -> Iterator[Row]:
  """Of clean text bits_per_byte; of each noise:

  bits_per_byte: of the noisy text, on its own bytes. drop: that less bits_per_byte of the clean text.
  bits_per_clean_byte: all bits of the noisy text over the bytes of the clean one. unchanged: share of clean bytes that
  still stand there, in characters of a longest common subsequence. unchanged_drop: bits per byte of these with the
  noise less without it. mean_drop: of the noises.
  """
  del config
  noises = [noise.parse(spec) for spec in options.own['noises'].split('+')]
  documents = list(first_bytes(corpus, options.max_bytes)[0])
  clean = predict_all(model, documents, **options.rows)
  size, clean_bits = _totals(clean)
  yield Row('bits_per_byte', clean_bits / size, bytes=size, extras={'noise': 'clean'})
  drops = []
  for each in noises:
    perturbed = [each(document, noise_index(document)) for document in documents]
    noisy = predict_all(model, perturbed, **options.rows)
    noisy_size, noisy_bits = _totals(noisy)
    drops.append(noisy_bits / noisy_size - clean_bits / size)
    unchanged, change = _unchanged(clean, noisy)
    values = {
      'bits_per_byte': noisy_bits / noisy_size,
      'drop': drops[-1],
      'bits_per_clean_byte': noisy_bits / size,
      'unchanged': unchanged / size,
      'unchanged_drop': change / unchanged if unchanged else None,
    }
    for metric, value in values.items():
      yield Row(metric, value, bytes=noisy_size, extras={'noise': each.name})
  yield Row('mean_drop', float(np.mean(drops)), bytes=size)


def _totals(found: Sequence[Predicted]) -> tuple[int, float]:
  """(bytes, bits)."""
  return sum(len(of.document) for of in found), float(sum(of.bits.sum() for of in found))


def _unchanged(clean: Sequence[Predicted], noisy: Sequence[Predicted]) -> tuple[int, float]:
  """(bytes that stand in both texts, their bits in the noisy one less in the clean one)."""
  count, change = 0, 0.0
  for before, after in zip(clean, noisy, strict=True):
    (codes, sizes), (noisy_codes, noisy_sizes) = characters(before.document), characters(after.document)
    places, noisy_places = common(codes, noisy_codes)
    of_characters = lambda of, sizes: np.add.reduceat(of.bits, np.cumsum(sizes) - sizes) if len(sizes) else of.bits
    count += int(sizes[places].sum())
    change += float(of_characters(after, noisy_sizes)[noisy_places].sum() - of_characters(before, sizes)[places].sum())
  return count, change


SUITE = Suite(measure, SCORING, {'noises': NOISES}, headline='mean_drop')
