"""What the logits of a word model say of symbols: nats, the logits of each, what greedy decoding writes.

before: logits [B, S, V] for the first symbol of each word, for patches [B, L, V] for each byte. behind: logits
[B, L, V] for what follows each symbol within its word, WORD_END among it; None for patches.
"""

import jax
import jax.numpy as jnp
from jax import Array

from byte_models.word_ar.config import WORD_END
from byte_models.word_ar.layout import Symbols, Words
from layers import segments


def nats(words: Words, symbols: Symbols, before: Array, behind: Array | None) -> Array:
  """Nats of every symbol, with those of the end of the word before it: [B, L]."""
  ids_BxL, starts_BxL = symbols.ids_BxL, words.starts_BxL
  if behind is None:
    return _cross_entropy(before, ids_BxL)
  next_BxL = jnp.where(_next(starts_BxL), WORD_END, _next(ids_BxL))
  behind_BxL = _previous(_cross_entropy(behind, next_BxL))
  first_BxS = jnp.take_along_axis(ids_BxL, words.first_BxS, 1, mode='clip')
  before_BxS = _cross_entropy(before, first_BxS)
  before_BxL = jnp.take_along_axis(before_BxS, words.word_BxL, 1, mode='clip')
  first_BxL = segments.starts(symbols.segment_ids_BxL)
  is_certain_BxL = _previous(symbols.is_ended_BxL)
  end_BxL = jnp.where(is_certain_BxL | first_BxL, 0.0, behind_BxL)  # no word ends before a document's first unit
  return jnp.where(starts_BxL, before_BxL + end_BxL, behind_BxL)


def logits(words: Words, symbols: Symbols, before: Array, behind: Array | None) -> tuple:
  """(of every symbol, of what follows it within its word or None): [B, L, V]."""
  del symbols
  if behind is None:
    return before, None
  index_BxLx1 = words.word_BxL[..., None]
  of_first = jnp.take_along_axis(before, index_BxLx1, 1, mode='clip')
  return jnp.where(words.starts_BxL[..., None], of_first, _previous(behind)), behind


def likeliest(words: Words, symbols: Symbols, before: Array, behind: Array | None) -> tuple:
  """What `WordAR.likeliest` says, of symbols: [B, L] each."""
  of_symbol, of_end = logits(words, symbols, before, behind)
  best_BxL, goes_on_BxL = of_symbol.argmax(-1), jnp.zeros(symbols.ids_BxL.shape, bool)
  if of_end is not None:
    next_BxL = of_end.argmax(-1)
    goes_on_BxL = words.starts_BxL & _previous((next_BxL != WORD_END) & ~symbols.is_ended_BxL)
    best_BxL = jnp.where(goes_on_BxL, _previous(next_BxL), best_BxL)
  is_right_BxL = (best_BxL == symbols.ids_BxL) & ~goes_on_BxL
  return is_right_BxL, best_BxL, nats(words, symbols, before, behind)


def _cross_entropy(logits: Array, targets: Array) -> Array:
  chosen = jnp.take_along_axis(logits, targets[..., None].astype(jnp.int32), -1)[..., 0]
  return jax.nn.logsumexp(logits, -1) - chosen


def _next(values_BxL: Array) -> Array:
  return jnp.roll(values_BxL, -1, 1)


def _previous(values_BxLx: Array) -> Array:
  return jnp.roll(values_BxLx, 1, 1)
