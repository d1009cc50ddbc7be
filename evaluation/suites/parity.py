"""What the same text costs in other languages: parity and premium, in bits, bytes and chunks (docs/suites.md).

Parity is the mean over documents of the ratio to the base language's document (as in TokSuite, arXiv:2512.20757);
the premium is the ratio of totals (Petrov et al. 2023, arXiv:2305.15425), which is less noisy.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from evaluation.bits_per_byte import SCORING
from evaluation.predictions import predictions
from evaluation.suites.suite import Options, Row, Suite
from text import Corpus, open_corpus


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus | None, options: Options) -> Iterator[Row]:
  """bits_premium, bits_parity and bytes_premium of every part of the source but the base; bits_per_byte of all. Over
  all parts, the base among them: highest bits / lowest (spread), and the Gini coefficient of the bits (gini).
  """
  del config, corpus
  source, base = options.own['source'], options.own['base']
  parts = {_language(part.name): part for part in open_corpus(source, 'validation').parts}
  if base not in parts or len(parts) < 2:
    raise ValueError(
      f"parity: '{source}' has the parts {', '.join(parts)}, '{base}' is not one of several: name a source of several "
      'languages, and one of them as base'
    )
  if len({len(part) for part in parts.values()}) > 1:
    raise ValueError(f"parity: the parts of '{source}' have different numbers of documents, they are no translations")
  bits = {language: _bits(model, part, options) for language, part in parts.items()}
  for language, part in parts.items():
    total = int(part.lengths.sum())
    row = lambda metric, value, language=language, total=total: Row(
      metric, float(value), bytes=total, extras={'language': language}
    )
    yield row('bits_per_byte', bits[language].sum() / total)
    if language != base:
      yield row('bits_premium', bits[language].sum() / bits[base].sum())
      yield row('bits_parity', np.mean(bits[language] / bits[base]))
      yield row('bytes_premium', total / parts[base].lengths.sum())
  totals = np.array([of_documents.sum() for of_documents in bits.values()])
  size = int(sum(part.lengths.sum() for part in parts.values()))
  yield Row('spread', float(totals.max() / totals.min()), bytes=size)
  yield Row('gini', gini(totals), bytes=size)


def gini(values_N: np.ndarray) -> float:
  """Half the mean absolute difference of two values drawn at random, over the mean: 0 where all are equal."""
  return float(np.abs(values_N[:, None] - values_N).mean() / (2 * values_N.mean()))


def _bits(model: Any, part: Corpus, options: Options) -> np.ndarray:
  """Of each document."""
  return np.array([document.bits.sum() for document in predictions(model, part, **options.rows)])


def _language(name: str) -> str:
  """The last part of a corpus' name, without its split."""
  return name.removesuffix(' (test)').removesuffix(' (validation)').rpartition('/')[2]


SUITE = Suite(measure, SCORING, {'source': 'corpus:udhr', 'base': 'eng'}, reads=False, headline='spread')
