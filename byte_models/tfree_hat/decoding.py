"""Decoding: bytes one at a time, while every row ends its words where the splitter finds them.

The splitter is a library of the host. A step hands it each row's text by a callback (`text.marks.Read`) and gets back
which of the last bytes begin words; everything else runs on the device, so that `step` works under jit and scan like
that of any model.

Whether a byte begins a word is decided with the last byte of its character (or when the character breaks off), up to
three bytes later. Then the open word is pooled, the backbone makes one step, and the decoder goes on with the new
vector. Under delivery 'published' the decoder also reads the character's earlier bytes again, with the new vector, so
that its cache is the one that the parallel form would have; the logits that had been given for them stay given.
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from byte_models.tfree_hat.words import locate, unfinished
from layers.cross import OpenChunk, guided, inject
from text import marks
from text.batch import Batch
from text.marks import Read

if TYPE_CHECKING:
  from byte_models.tfree_hat.model import TFreeHAT

UNDO = 3  # positions that a late decision about a character may take back
RECENT = UNDO + 1  # positions that one byte may decide about: its own and those that waited


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """State of every row after its last byte. N: bytes a row may have; G: guided layers.

  text: what was read, for the splitter. decided_B: bytes of which it is known whether they begin a word.
  recent_BxRxD: encoder outputs of the last bytes. word_B: index of the open word; pooled: what is decided of it.
  guide_BxGxD: what the decoder's layers add.
  """

  encoder: Any
  decoder: Any
  main: Any
  text: Read
  decided_B: Array
  recent_BxRxD: Array
  word_B: Array
  pooled: OpenChunk
  guide_BxGxD: Array


def init_cache(model: 'TFreeHAT', batch_size: int, max_bytes: int) -> Cache:
  """Empty rows."""
  config, zeros = model.config, lambda: jnp.zeros(batch_size, jnp.int32)  # each its own, to be donated
  dtype = jnp.dtype(config.dtype)
  first_BxD = jnp.broadcast_to(model.first_1x1xD[0].astype(dtype), (batch_size, config.main.width))
  return Cache(
    encoder=model.encoder.init_cache(batch_size, max_bytes),
    decoder=model.decoder.stack.init_cache(batch_size, max_bytes, undo=UNDO),
    main=model.main.init_cache(batch_size, max_bytes),
    text=Read.nothing(model.marks, batch_size, max_bytes),
    decided_B=zeros(),
    recent_BxRxD=jnp.zeros((batch_size, RECENT, config.encoder.width), dtype),
    word_B=zeros() - 1,
    pooled=model.connector.begin(batch_size),
    guide_BxGxD=guided(model.decoder.guides, first_BxD),
  )


def prefill(model: 'TFreeHAT', batch: Batch, length_B: Array, cache: Cache) -> tuple[Array, Cache]:
  """The parallel form up to each row's last word, which stays open; a prompt may be one word."""
  starts_BxP = jnp.asarray(marks.mark(batch, model.marks).marks['words'])
  segment_ids_BxP, index_P = batch.segment_ids, jnp.arange(batch.bytes.shape[1], dtype=jnp.int32)
  bytes_BxP = jnp.where(segment_ids_BxP > 0, jnp.asarray(batch.bytes), 0).astype(jnp.uint8)
  last_B = length_B[:, None] - 1
  decided_B = length_B - jnp.take_along_axis(unfinished(bytes_BxP, segment_ids_BxP), last_B, 1)[:, 0]
  words = locate(bytes_BxP, segment_ids_BxP, starts_BxP & (index_P < decided_B[:, None]), model.config.delivery)
  a_BxPxD, encoder = model.encoder.prefill(model.embed(bytes_BxP), length_B, cache.encoder)
  word_B = words.inner.count_B - 1
  z_BxSxD, main = model.main.prefill(model.pool(a_BxPxD, words), word_B, cache.main)
  table_BxSxGxD = guided(model.decoder.guides, model.predictive(z_BxSxD, words))
  added = inject(table_BxSxGxD, words.delivered_BxL)
  y_BxPxD, decoder = model.decoder.stack.prefill(a_BxPxD, length_B, cache.decoder, added)
  recent_BxR = jnp.maximum(length_B[:, None] - RECENT + jnp.arange(RECENT), 0)
  is_decided = decided_B > 0  # a row that begins with an unfinished character has no word yet
  cache = Cache(
    encoder=encoder,
    decoder=decoder,
    main=main,
    text=cache.text.prompts(bytes_BxP, length_B),
    decided_B=decided_B.astype(jnp.int32),
    recent_BxRxD=jnp.take_along_axis(a_BxPxD, recent_BxR[..., None], 1),
    word_B=jnp.where(is_decided, word_B, -1).astype(jnp.int32),
    pooled=model.connector.read_all(
      a_BxPxD, (words.index_BxC == word_B[:, None]) & (index_P < decided_B[:, None]), word_B
    ),
    guide_BxGxD=jnp.take_along_axis(table_BxSxGxD, word_B[:, None, None, None], 1)[:, 0],
  )
  return _logits(model, jnp.take_along_axis(y_BxPxD, last_B[..., None], 1)[:, 0], cache), cache


def step(model: 'TFreeHAT', byte_B: Array, cache: Cache) -> tuple[Array, Cache]:
  """One byte of every row."""
  every_B = jnp.ones(byte_B.shape, bool)
  a_BxD, encoder = model.encoder.step(model.embed(byte_B), every_B, cache.encoder)
  marked, text = cache.text.then(model.marks, byte_B, RECENT)
  length_B = text.length_B
  position_BxR = length_B[:, None] - RECENT + jnp.arange(RECENT)
  recent_bytes = jnp.take_along_axis(text.bytes_BxN, jnp.maximum(position_BxR, 0), 1)
  decided_B = length_B - unfinished(recent_bytes, (position_BxR >= 0).astype(jnp.int32))[:, -1]
  decides_BxR = (position_BxR >= cache.decided_B[:, None]) & (position_BxR < decided_B[:, None])
  starts_BxR = marked['words'] & decides_BxR
  cache = dataclasses.replace(
    cache,
    encoder=encoder,
    text=text,
    decided_B=decided_B,
    recent_BxRxD=jnp.concatenate([cache.recent_BxRxD[:, 1:], a_BxD[:, None]], 1),
  )
  again_BxR = jnp.zeros_like(starts_BxR)
  if model.config.delivery == 'published':
    again_BxR = (jnp.cumsum(starts_BxR, 1) > 0).at[:, -1].set(False)
    taken_back = lambda block: dataclasses.replace(block, length_B=block.length_B - jnp.sum(again_BxR, 1))
    cache = dataclasses.replace(cache, decoder=tuple(taken_back(block) for block in cache.decoder))
  decide = functools.partial(_decide, model, position_BxR, decides_BxR, starts_BxR, again_BxR)
  first = jnp.min(jnp.argmax(decides_BxR | (jnp.arange(RECENT) == RECENT - 1), 1))  # mostly the last: one round
  cache = jax.lax.fori_loop(first, RECENT, decide, cache)
  y_BxD, decoder = model.decoder.stack.step(a_BxD, every_B, cache.decoder, inject(cache.guide_BxGxD))
  cache = dataclasses.replace(cache, decoder=decoder)
  return _logits(model, y_BxD, cache), cache


def _decide(
  model: 'TFreeHAT',
  position_BxR: Array,
  decides_BxR: Array,
  starts_BxR: Array,
  again_BxR: Array,
  r: Array,
  cache: Cache,
) -> Cache:
  """The r-th recent position: it may end the open word, it joins the open word, the decoder may read it again."""
  at = lambda x_BxR: jax.lax.dynamic_index_in_dim(x_BxR, r, 1, keepdims=False)
  a_BxD, starts_B, decides_B, again_B = at(cache.recent_BxRxD), at(starts_BxR), at(decides_BxR), at(again_BxR)

  def end_words(state):
    main, guide_BxGxD = state
    ends_B = starts_B & (cache.word_B >= 0)
    z_BxD, main = model.main.step(model.connector.finish(cache.pooled, a_BxD.dtype), ends_B, main)
    p_BxD = jnp.where(ends_B[:, None], z_BxD, model.first_1x1xD[0].astype(z_BxD.dtype))
    return main, jnp.where(starts_B[:, None, None], guided(model.decoder.guides, p_BxD), guide_BxGxD)

  main, guide_BxGxD = jax.lax.cond(jnp.any(starts_B), end_words, lambda state: state, (cache.main, cache.guide_BxGxD))
  word_B = cache.word_B + starts_B
  pooled = model.connector.begin_where(starts_B, cache.pooled)
  pooled = model.connector.read(a_BxD, at(position_BxR), word_B, decides_B, pooled)
  cache = dataclasses.replace(cache, main=main, guide_BxGxD=guide_BxGxD, word_B=word_B, pooled=pooled)
  if model.config.delivery != 'published':
    return cache
  read = lambda decoder: model.decoder.stack.step(a_BxD, again_B, decoder, inject(cache.guide_BxGxD))[1]
  decoder = jax.lax.cond(jnp.any(again_B), read, lambda decoder: decoder, cache.decoder)
  return dataclasses.replace(cache, decoder=decoder)


def _logits(model: 'TFreeHAT', y_BxD: Array, cache: Cache) -> Array:
  """Over bytes; nan for a row that is longer than its cache, whose words nobody knows."""
  fits_B = cache.text.length_B <= cache.text.bytes_BxN.shape[1]
  return jnp.where(fits_B[:, None], model.by_byte(model.head(y_BxD)), jnp.nan)
