"""What is said where a model's outputs are not finite, so that no score and no text is made of them."""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from text import Corpus
from text.packing import Pieces

REMEDY = (
  'its weights or activations hold nan or inf; use another checkpoint, or model.dtype float32 where it is bfloat16'
)


class NotFiniteError(ValueError):
  """A model's outputs are nan or infinite where a score or a symbol was to be read from them."""


def everywhere(values_BxL: Iterable[jax.Array]) -> jax.Array | bool:
  """[B, L] bool: where all of them are finite."""
  return functools.reduce(jnp.logical_and, map(jnp.isfinite, values_BxL), True)


def check(is_finite_T: np.ndarray, corpus: Corpus, pieces: Pieces) -> None:
  """Raises NotFiniteError, which names the place, if there is a False.

  is_finite_T: whether a model's outputs are, at the positions that the pieces score, one piece after the other.
  """
  bad_N = np.flatnonzero(~is_finite_T)
  if not len(bad_N):
    return
  ends_P = np.cumsum(pieces.stop - pieces.first_scored)
  piece = int(np.searchsorted(ends_P, bad_N[0], 'right'))
  document, symbol = int(pieces.document[piece]), int(pieces.stop[piece] - (ends_P[piece] - bad_N[0]))
  at = f'byte {symbol - 1}' if symbol <= corpus.lengths[document] else 'the end'  # symbol 0 is BOS
  name = f"'{corpus.name}'" if corpus.name else 'the text'
  raise NotFiniteError(f"the model's output is not finite at {at} of document {document} of {name}: {REMEDY}")
