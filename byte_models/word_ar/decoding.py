"""Symbol by symbol: a word is decoded by the local decoder until it ends, then encoded and given to the backbone.

Rows end their words at different steps. What a word's end costs (encoder, backbone, the new prediction's slots) runs
only when some row of the batch ends one; rows that do not are skipped by writes that are dropped.
"""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from byte_models.word_ar.config import WORD_END
from byte_models.word_ar.layout import Words, spelled
from text import BOS, units
from text.batch import Batch

if TYPE_CHECKING:
  from byte_models.word_ar.model import WordAR


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WordCache:
  """backbone: caches over all words that ended. decoder: over the slots of the open word. vectors_BxKxD: its
  prediction. word_BxP, size_B: its symbols so far, and how many; bytes_B: how many bytes these have.
  """

  backbone: tuple
  decoder: tuple
  vectors_BxKxD: Array
  word_BxP: Array
  size_B: Array
  bytes_B: Array


def init_cache(model: 'WordAR', batch_size: int, max_bytes: int) -> WordCache:
  """Empty caches; every byte may be a word."""
  config = model.config
  return WordCache(
    backbone=model.backbone.init_cache(batch_size, config.positions * max_bytes),
    decoder=model.decoder.init_cache(batch_size, config.num_vectors + config.longest),
    vectors_BxKxD=jnp.zeros((batch_size, config.inputs, config.decoder.width), config.dtype),
    word_BxP=jnp.zeros((batch_size, config.longest), jnp.uint8 if config.units == 'byte' else jnp.int32),
    size_B=jnp.zeros(batch_size, jnp.int32),
    bytes_B=jnp.zeros(batch_size, jnp.int32),
  )


def prefill(model: 'WordAR', prompts: Batch, length_B: Array, cache: WordCache) -> tuple[Array, WordCache]:
  """See `WordAR.prefill`."""
  config = model.config
  (symbols, places), index_1xP = spelled(config, prompts), jnp.arange(prompts.bytes.shape[1])[None]
  words = Words.of(symbols.starts_BxL, symbols.segment_ids_BxL, config.num_vectors, index_1xP.shape[1])
  count_B = jnp.sum(symbols.starts_BxL, 1)
  last_Bx1 = jnp.maximum(count_B - 1, 0)[:, None]
  size_B = jnp.take_along_axis(words.size_BxS, last_Bx1, 1)[:, 0]
  bytes_B = length_B - jnp.max(jnp.where(places.starts_BxL, index_1xP, 0), 1)
  is_bos_B = (length_B == 1) & (symbols.ids_BxL[:, 0] == BOS)
  has_ended_B = (bytes_B == config.longest) | is_bos_B
  ended_B = count_B - 1 + has_ended_B
  size_B, bytes_B = (jnp.where(has_ended_B, 0, count_B) for count_B in (size_B, bytes_B))

  g = model.encode(model.embed(symbols.ids_BxL), words)
  z, backbone = model.backbone.prefill(g, ended_B * config.positions, cache.backbone)
  index = (ended_B - 1)[:, None] * config.positions + jnp.arange(config.positions)[None]
  z = jnp.take_along_axis(z, jnp.maximum(index, 0)[..., None], 1)
  vectors = jnp.where((ended_B > 0)[:, None, None], model.predictions(z)[:, 0], 0)

  first_Bx1 = jnp.take_along_axis(words.first_BxS, last_Bx1, 1)
  offset_1xP = jnp.arange(config.longest)[None]
  word_BxP = jnp.take_along_axis(symbols.ids_BxL, first_Bx1 + offset_1xP, 1, mode='clip')
  word_BxP = jnp.where(offset_1xP < size_B[:, None], word_BxP, 0)
  x = jnp.concatenate([_opening(model, vectors), _behind(model, word_BxP, offset_1xP + 1, vectors)], 1)
  slots_B = _num_opening(model) + size_B
  h, decoder = model.decoder.prefill(x[:, : config.num_vectors + config.longest], slots_B, cache.decoder)
  h = jnp.take_along_axis(h, (slots_B - 1)[:, None, None], 1)[:, 0]
  return model.head(h), WordCache(backbone, decoder, vectors, word_BxP, size_B, bytes_B)


def step(model: 'WordAR', symbol_B: Array, cache: WordCache) -> tuple[Array, WordCache]:
  """See `WordAR.step`."""
  config = model.config
  is_text_B = is_text(model, symbol_B, cache)
  place_B = jnp.where(is_text_B, cache.size_B, config.longest)
  rows_B, read_B = jnp.arange(len(place_B)), symbol_B.astype(cache.word_BxP.dtype)
  word_BxP = cache.word_BxP.at[rows_B, place_B].set(read_B, mode='drop')
  size_B = cache.size_B + is_text_B
  width_B = 1 if config.units == 'byte' else jnp.asarray(units.parse(config.units).sizes)[read_B]
  bytes_B = cache.bytes_B + is_text_B * width_B
  ends_B = ~is_text_B | (bytes_B >= config.longest)  # a unit that is drawn may reach over the cap
  x = _behind(model, symbol_B[:, None], size_B[:, None], cache.vectors_BxKxD)[:, 0]
  h, decoder = model.decoder.step(x, ~ends_B, cache.decoder)
  cache = WordCache(cache.backbone, decoder, cache.vectors_BxKxD, word_BxP, size_B, bytes_B)
  h, cache = jax.lax.cond(
    jnp.any(ends_B), lambda h, cache: _end_word(model, ends_B, h, cache), lambda h, cache: (h, cache), h, cache
  )
  return model.head(h), cache


def is_text(model: 'WordAR', symbol_B: Array, cache: WordCache) -> Array:
  """See `WordAR.is_text`."""
  if not model.config.encoder:
    return jnp.ones(symbol_B.shape, bool)
  return (symbol_B != WORD_END) | (cache.size_B == 0)


def _end_word(model: 'WordAR', ends_B: Array, h_BxD: Array, cache: WordCache) -> tuple[Array, WordCache]:
  """Gives the word of the rows that end one to the backbone and opens the next; (h with theirs, cache)."""
  config = model.config
  offset_1xP = jnp.arange(config.longest)[None]
  is_symbol_BxP = offset_1xP < cache.size_B[:, None]
  starts_BxP = is_symbol_BxP & (offset_1xP == 0)
  word = Words.of(starts_BxP, is_symbol_BxP.astype(jnp.int32), config.num_vectors, 1)
  g_BxNxD, z, backbone = model.encode(model.embed(cache.word_BxP), word), [], cache.backbone
  for position in range(config.positions):
    z_BxD, backbone = model.backbone.step(g_BxNxD[:, position], ends_B, backbone)
    z.append(z_BxD)
  new_BxKxD = model.predictions(jnp.stack(z, 1))[:, 0]
  vectors = jnp.where(ends_B[:, None, None], new_BxKxD, cache.vectors_BxKxD)
  # The open word's keys lie at the beginning of its cache, which is as long as the longest word: forgetting is a count.
  decoder = tuple(dataclasses.replace(c, length_B=jnp.where(ends_B, 0, c.length_B)) for c in cache.decoder)
  opening_BxNxD = _opening(model, vectors)
  for slot in range(_num_opening(model)):
    new_BxD, decoder = model.decoder.step(opening_BxNxD[:, slot], ends_B, decoder)
  size_B, bytes_B = (jnp.where(ends_B, 0, count_B) for count_B in (cache.size_B, cache.bytes_B))
  h_BxD = jnp.where(ends_B[:, None], new_BxD, h_BxD)
  return h_BxD, WordCache(backbone, decoder, vectors, cache.word_BxP, size_B, bytes_B)


def _num_opening(model: 'WordAR') -> int:
  return model.config.num_vectors or 1


def _opening(model: 'WordAR', vectors_BxKxD: Array) -> Array:
  """Inputs of the decoder before the first symbol of a word: [B, k, d], or [B, 1, d] for patches."""
  if model.config.encoder:
    return vectors_BxKxD
  return vectors_BxKxD[:, :1] + model.start[None, None].astype(vectors_BxKxD.dtype)


def _behind(model: 'WordAR', symbols_BxN: Array, size_BxN: Array, vectors_BxKxD: Array) -> Array:
  """Inputs of the decoder behind symbols that are the size-th of their word, from 1: [B, N, d]."""
  x = model.embed(symbols_BxN)
  if model.config.encoder:
    return x
  index = jnp.broadcast_to(size_BxN, symbols_BxN.shape)[..., None]
  return x + jnp.take_along_axis(vectors_BxKxD, index, 1, mode='clip')
