"""Decoding: bytes one at a time, while every row ends its words where the splitter finds them.

The splitter is a library of the host. A step hands it each row's text by a callback and gets back which of the last
bytes begin words; everything else runs on the device, so that `step` works under jit and scan like that of any model.

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
import numpy as np
from jax import Array

from byte_models.tfree_hat.words import locate, unfinished
from layers.cross import OpenChunk, guided, inject
from text import BOS

if TYPE_CHECKING:
  from byte_models.tfree_hat.model import TFreeHAT

UNDO = 3  # positions that a late decision about a character may take back
RECENT = UNDO + 1  # positions that one byte may decide about: its own and those that waited


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """State of every row after its last byte. N: bytes a row may have; G: guided layers.

  bytes_BxN, length_B: the text. context_B, open_B: where the splitter starts reading it, and where the last word begins
  for it (a word cut for its length counts as one). decided_B: bytes of which it is known whether they begin a word.
  recent_BxRxD: encoder outputs of the last bytes. word_B: index of the open word; pooled: what is decided of it.
  guide_BxGxD: what the decoder's layers add.
  """

  encoder: Any
  decoder: Any
  main: Any
  bytes_BxN: Array
  length_B: Array
  context_B: Array
  open_B: Array
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
    bytes_BxN=jnp.zeros((batch_size, max_bytes), jnp.uint8),
    length_B=zeros(),
    context_B=zeros(),
    open_B=zeros(),
    decided_B=zeros(),
    recent_BxRxD=jnp.zeros((batch_size, RECENT, config.encoder.width), dtype),
    word_B=zeros() - 1,
    pooled=model.connector.begin(batch_size),
    guide_BxGxD=guided(model.decoder.guides, first_BxD),
  )


def prefill(model: 'TFreeHAT', bytes_BxP: Array, length_B: Array, cache: Cache) -> tuple[Array, Cache]:
  """The parallel form up to each row's last word, which stays open; a prompt may be one word."""
  index_1xP = jnp.arange(bytes_BxP.shape[1], dtype=jnp.int32)[None]
  segment_ids_BxP = (index_1xP < length_B[:, None]).astype(jnp.int32)
  bytes_BxP = jnp.where(segment_ids_BxP > 0, bytes_BxP, 0).astype(jnp.uint8)
  starts_BxP, context_B, open_B = find_starts(model.words, bytes_BxP, length_B, cache.context_B, cache.open_B)
  last_B = length_B[:, None] - 1
  decided_B = length_B - jnp.take_along_axis(unfinished(bytes_BxP, segment_ids_BxP), last_B, 1)[:, 0]
  # A last byte of value EOS is a byte like others here: more may follow it.
  words = locate(bytes_BxP, segment_ids_BxP, starts_BxP & (index_1xP < decided_B[:, None]), model.config.delivery)
  a_BxPxD, encoder = model.encoder.prefill(model.embed(bytes_BxP), length_B, cache.encoder)
  word_B = words.inner.count_B - 1
  z_BxSxD, main = model.main.prefill(model.pool(a_BxPxD, words), word_B, cache.main)
  table_BxSxGxD = guided(model.decoder.guides, model.predictive(z_BxSxD, words))
  added = inject(table_BxSxGxD, words.delivered_BxL)
  y_BxPxD, decoder = model.decoder.stack.prefill(a_BxPxD, length_B, cache.decoder, added)
  recent_BxR = jnp.maximum(length_B[:, None] - RECENT + jnp.arange(RECENT)[None], 0)
  is_decided = decided_B > 0  # a row that begins with an unfinished character has no word yet
  cache = Cache(
    encoder=encoder,
    decoder=decoder,
    main=main,
    bytes_BxN=cache.bytes_BxN.at[:, : bytes_BxP.shape[1]].set(bytes_BxP[:, : cache.bytes_BxN.shape[1]]),
    length_B=length_B.astype(jnp.int32),
    context_B=context_B,
    open_B=open_B,
    decided_B=decided_B.astype(jnp.int32),
    recent_BxRxD=jnp.take_along_axis(a_BxPxD, recent_BxR[..., None], 1),
    word_B=jnp.where(is_decided, word_B, -1).astype(jnp.int32),
    pooled=model.connector.read_all(
      a_BxPxD, (words.index_BxC == word_B[:, None]) & (index_1xP < decided_B[:, None]), word_B
    ),
    guide_BxGxD=jnp.take_along_axis(table_BxSxGxD, word_B[:, None, None, None], 1)[:, 0],
  )
  return _logits(model, jnp.take_along_axis(y_BxPxD, last_B[..., None], 1)[:, 0], cache), cache


def step(model: 'TFreeHAT', byte_B: Array, cache: Cache) -> tuple[Array, Cache]:
  """One byte of every row."""
  rows_B, every_B = jnp.arange(byte_B.shape[0]), jnp.ones(byte_B.shape, bool)
  a_BxD, encoder = model.encoder.step(model.embed(byte_B), every_B, cache.encoder)
  bytes_BxN = cache.bytes_BxN.at[rows_B, cache.length_B].set(byte_B.astype(jnp.uint8), mode='drop')
  length_B = cache.length_B + 1
  position_BxR = length_B[:, None] - RECENT + jnp.arange(RECENT)[None]
  recent_bytes = jnp.take_along_axis(bytes_BxN, jnp.maximum(position_BxR, 0), 1)
  decided_B = length_B - unfinished(recent_bytes, (position_BxR >= 0).astype(jnp.int32))[:, -1]
  starts_BxN, context_B, open_B = find_starts(model.words, bytes_BxN, length_B, cache.context_B, cache.open_B, RECENT)
  decides_BxR = (position_BxR >= cache.decided_B[:, None]) & (position_BxR < decided_B[:, None])
  starts_BxR = starts_BxN & decides_BxR
  cache = dataclasses.replace(
    cache,
    encoder=encoder,
    bytes_BxN=bytes_BxN,
    length_B=length_B,
    context_B=context_B,
    open_B=open_B,
    decided_B=decided_B,
    recent_BxRxD=jnp.concatenate([cache.recent_BxRxD[:, 1:], a_BxD[:, None]], 1),
  )
  again_BxR = jnp.zeros_like(starts_BxR)
  if model.config.delivery == 'published':
    again_BxR = (jnp.cumsum(starts_BxR, 1) > 0).at[:, -1].set(False)
    taken_back = lambda block: dataclasses.replace(block, length_B=block.length_B - jnp.sum(again_BxR, 1))
    cache = dataclasses.replace(cache, decoder=tuple(taken_back(block) for block in cache.decoder))
  decide = functools.partial(_decide, model, position_BxR, decides_BxR, starts_BxR, again_BxR)
  is_last_1xR = jnp.arange(RECENT)[None] == RECENT - 1
  first = jnp.min(jnp.argmax(decides_BxR | is_last_1xR, 1))  # mostly the last: one round
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
  fits_B = cache.length_B <= cache.bytes_BxN.shape[1]
  return jnp.where(fits_B[:, None], model.by_byte(model.head(y_BxD)), jnp.nan)


def find_starts(
  spec: str, bytes_BxN: Array, length_B: Array, context_B: Array, open_B: Array, recent: int | None = None
) -> tuple[Array, Array, Array]:
  """Where words begin that begin after the open one: (starts [B, recent] of the last positions or [B, N] of all, and
  context and open as the next call takes them). On the host, by callback where the arrays are traced.
  """
  rows, size = bytes_BxN.shape
  shape = jax.ShapeDtypeStruct((rows, recent or size), bool)
  whole = jax.ShapeDtypeStruct((rows,), jnp.int32)
  find = functools.partial(_find_starts, spec, recent)
  return jax.pure_callback(find, (shape, whole, whole), bytes_BxN, length_B, context_B, open_B)


def _find_starts(spec: str, recent: int | None, bytes_BxN, length_B, context_B, open_B):
  from text import words  # the splitters' libraries are needed only here

  splitter = words.parse(spec)
  bytes_BxN, length_B = np.asarray(bytes_BxN), np.asarray(length_B)
  context_B, open_B = np.array(context_B), np.array(open_B)
  size = recent or bytes_BxN.shape[1]
  found = np.zeros((len(bytes_BxN), size), bool)
  for row, length in enumerate(np.minimum(length_B, bytes_BxN.shape[1])):
    after_bos = int(bytes_BxN[row, 0] == BOS)
    if context_B[row] == 0:
      context_B[row] = open_B[row] = after_bos
    context, open_ = int(context_B[row]), int(open_B[row])
    # As text.words.Stream does: what the splitter makes of the open word may depend on the word before.
    ends, characters = splitter.uncapped(bytes_BxN[row, context:length].tobytes())
    ends = ends[ends > open_ - context]
    starts = context + splitter.cap(ends, characters, open_ - context)[:-1]
    starts = np.concatenate([[0, after_bos], starts]) - (length - size if recent else 0)
    found[row, starts[(starts >= 0) & (starts < size)]] = True
    if len(ends) > 1:
      context_B[row] = context + int(ends[-3]) if len(ends) > 2 else open_
      open_B[row] = context + int(ends[-2])
  return found, context_B, open_B
