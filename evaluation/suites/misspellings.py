"""Whether a model finds the right spelling of a word likelier than one that people write (corpus `misspellings`)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from evaluation.bits_per_byte import SCORING, first_bytes
from evaluation.predictions import predict_all
from evaluation.suites.suite import Options, Refused, Row, Suite
from text import Corpus, noise


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus, options: Options) -> Iterator[Row]:
  """accuracy: share of places in the text where the text with the right word is likelier than with a misspelling of it,
  chance 1/2. bits_apart: mean of the bits of the second less those of the first.

  A place is a lower-case word that has misspellings; the text around it: `before` characters and `behind` characters,
  whole words of other spellings among them. Of each text the first `items` places.
  """
  del config
  own, pairs = options.own, noise.gold_pairs()
  documents: list[bytes] = []
  for document in first_bytes(corpus, options.max_bytes)[0]:
    text = document.decode('utf-8', 'ignore')
    for match in noise.SPELLED.finditer(text):
      wrong = pairs.get(match.group())
      if wrong and len(documents) < 2 * own['items']:
        before, behind = (
          text[max(0, match.start() - own['before']) : match.start()],
          text[match.end() :][: own['behind']],
        )
        chosen = wrong[len(documents) // 2 % len(wrong)]
        documents += [f'{before}{word}{behind}'.encode() for word in (match.group(), chosen)]
  if not documents:
    raise Refused(f'{corpus.name or "the text"} has no word that a misspelling is known of')
  bits_Nx2 = np.array([of.bits.sum() for of in predict_all(model, documents, **options.rows)]).reshape(-1, 2)
  apart_N = bits_Nx2[:, 1] - bits_Nx2[:, 0]
  size, extras = sum(map(len, documents[::2])), {'items': len(apart_N)}
  yield Row('accuracy', float(np.mean(apart_N > 0)), bytes=size, extras={**extras, 'chance': 0.5})
  yield Row('bits_apart', float(apart_N.mean()), bytes=size, extras=extras)


SUITE = Suite(measure, SCORING, {'items': 500, 'before': 200, 'behind': 20}, headline='accuracy')
