"""How far a model is from a source whose entropy is known (`synthetic:…`, text/synthetic.py)."""

from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.bits_per_byte import SCORING, first_bytes
from evaluation.predictions import predictions
from evaluation.suites.suite import Options, Refused, Row, Suite
from text import Corpus


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus, options: Options) -> Iterator[Row]:
  """excess: bits per byte above those that the source itself gives to these bytes, its divergence from the model.

  closed: 1 − excess / (unigram entropy − entropy rate): 0 of who knows how frequent bytes are, 1 of the source.
  """
  del config
  if not hasattr(corpus, 'source_bits'):
    raise Refused(f"the entropy of {corpus.name} is not known: name a source 'synthetic:…'")
  scored, _ = first_bytes(corpus, options.max_bytes)
  total = int(scored.lengths.sum())
  bits = sum(float(document.bits.sum()) for document in predictions(model, scored, **options.rows)) / total
  source = sum(map(corpus.source_bits, scored)) / total
  gap = corpus.unigram_entropy - corpus.entropy_rate
  values = {
    'bits_per_byte': bits,
    'source_bits_per_byte': source,
    'entropy_rate': corpus.entropy_rate,
    'unigram_entropy': corpus.unigram_entropy,
    'excess': bits - source,
    'closed': 1 - (bits - source) / gap if gap > 1e-9 else None,
  }
  for name, value in values.items():
    yield Row(name, value, bytes=total)


SUITE = Suite(measure, SCORING, headline='excess')
