"""Words of packed rows in static buffers, by arithmetic and without a sort.

A row's local buffer holds, word after word, k slots for vectors and then the word's bytes. Byte t of word i (from 0)
stands at t + k (i + 1); so a buffer for L bytes and at most S words has L + k S slots, and what it costs follows the
bytes and not the longest word. Encoder and decoder share the layout: what pools a word on the way in stands where the
prediction of the word goes in on the way out.

S: words of a row, C = L + k S: slots of its buffer, P: bytes of the longest word.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from byte_models.word_ar.config import WORD_END, WordARConfig
from layers import segments
from text import BOS
from text.batch import Batch


def word_starts(config: WordARConfig, batch: Batch) -> Array:
  """Where words begin: [B, L] bool, False in the padding.

  Those of the batch, and some more. A document's first position and the byte behind BOS begin a word. So does a byte of
  value WORD_END (in raw data only): as the first symbol of a word it can be told from the end of one, and no byte is
  lost. A word above the cap is cut there. Without an encoder words are patches, counted from the byte behind BOS; an
  EOS takes the next place of its patch.

  Raises ValueError if the batch is traced without word_starts; eagerly they are made here.
  """
  bytes_BxL, segment_ids_BxL = jnp.asarray(batch.bytes), jnp.asarray(batch.segment_ids)
  valid_BxL, first_BxL = segment_ids_BxL > 0, segments.starts(segment_ids_BxL)
  if config.encoder is None:
    position_BxL = segments.positions(segment_ids_BxL)
    origin_BxL = jnp.arange(bytes_BxL.shape[1]) - position_BxL
    has_bos_BxL = jnp.take_along_axis(bytes_BxL, origin_BxL, 1) == BOS
    return (first_BxL | ((position_BxL - has_bos_BxL) % config.longest == 0)) & valid_BxL
  if batch.word_starts is None:
    from text import words  # the splitters' libraries are needed only here

    batch = words.mark(batch, config.words)
  behind_bos_BxL = jnp.pad((first_BxL & (bytes_BxL == BOS))[:, :-1], ((0, 0), (1, 0)))
  starts_BxL = jnp.asarray(batch.word_starts) | first_BxL | behind_bos_BxL | (bytes_BxL == WORD_END)
  starts_BxL &= valid_BxL
  inside_BxL = segments.positions(jnp.cumsum(starts_BxL, 1))
  return starts_BxL | ((inside_BxL % config.longest == 0) & valid_BxL)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Words:
  """Where a row's words begin, what they are part of, and their places in the buffer.

  starts_BxL: where words begin. is_byte_BxL: False in the padding. word_BxL: each byte's word, -1 before any.
  segment_ids_BxS: document of a word, 0 for no word. first_BxS, size_BxS: its first byte (L for none) and number of
  bytes. slot_BxC: place in the buffer of each byte, then of each vector, word by word; source_BxC: the inverse.
  local_ids_BxC: word of each place, from 1; 0 for no word.
  """

  starts_BxL: Array
  is_byte_BxL: Array
  word_BxL: Array
  segment_ids_BxS: Array
  first_BxS: Array
  size_BxS: Array
  slot_BxC: Array
  source_BxC: Array
  local_ids_BxC: Array

  @staticmethod
  def of(starts_BxL: Array, segment_ids_BxL: Array, num_vectors: int, capacity: int) -> 'Words':
    """The words of rows that have at most `capacity` of them."""
    batch, length = starts_BxL.shape
    count_BxL = jnp.cumsum(starts_BxL, 1)
    rows_Bx1, index_L, index_S = jnp.arange(batch)[:, None], jnp.arange(length), jnp.arange(capacity)
    place = lambda values, empty: (
      jnp.full((batch, capacity), empty, jnp.int32)
      .at[rows_Bx1, jnp.where(starts_BxL, count_BxL - 1, capacity)]
      .set(jnp.broadcast_to(values, starts_BxL.shape).astype(jnp.int32), mode='drop')
    )
    first_BxS, segment_ids_BxS = place(index_L, length), place(segment_ids_BxL, 0)
    bytes_B = jnp.sum(segment_ids_BxL > 0, 1)
    after_BxS = jnp.minimum(jnp.pad(first_BxS[:, 1:], ((0, 0), (0, 1)), constant_values=length), bytes_B[:, None])
    vector_BxSxk = (first_BxS + num_vectors * index_S)[..., None] + jnp.arange(num_vectors)
    slot_BxC = jnp.concatenate([index_L + num_vectors * count_BxL, vector_BxSxk.reshape(batch, -1)], 1)
    ids_BxS = jnp.where(segment_ids_BxS > 0, index_S + 1, 0)
    ids_BxC = jnp.concatenate([jnp.where(segment_ids_BxL > 0, count_BxL, 0), repeat(ids_BxS, num_vectors)], 1)
    source_BxC = (
      jnp.zeros_like(slot_BxC)
      .at[rows_Bx1, slot_BxC]
      .set(jnp.broadcast_to(jnp.arange(slot_BxC.shape[1]), slot_BxC.shape), unique_indices=True)
    )
    return Words(
      starts_BxL=starts_BxL,
      is_byte_BxL=segment_ids_BxL > 0,
      word_BxL=count_BxL - 1,
      segment_ids_BxS=segment_ids_BxS,
      first_BxS=first_BxS,
      size_BxS=jnp.maximum(after_BxS - first_BxS, 0),
      slot_BxC=slot_BxC,
      source_BxC=source_BxC,
      local_ids_BxC=jnp.take_along_axis(ids_BxC, source_BxC, 1),
    )

  def pack(self, bytes_BxLxD: Array, vectors_BxNxD: Array) -> Array:
    """Values of the bytes and of the k vectors of every word, N = k S -> the buffer [B, C, D]."""
    return permute(jnp.concatenate([bytes_BxLxD, vectors_BxNxD], 1), self.source_BxC, self.slot_BxC)

  def unpack(self, buffer_BxCxD: Array) -> tuple[Array, Array]:
    """The inverse of `pack`."""
    values = permute(buffer_BxCxD, self.slot_BxC, self.source_BxC)
    return jnp.split(values, [self.starts_BxL.shape[1]], 1)

  def patches(self, values_BxLxD: Array, size: int) -> Array:
    """The values of each word's bytes, zero behind its last: [B, S, size, D]."""
    offset_P = jnp.arange(size)
    index_BxSxP = self.first_BxS[..., None] + offset_P
    flat = index_BxSxP.reshape(index_BxSxP.shape[0], -1, 1)
    values = jnp.take_along_axis(values_BxLxD, flat, 1, mode='clip').reshape(*index_BxSxP.shape, -1)
    return jnp.where((offset_P < self.size_BxS[..., None])[..., None], values, 0)

  def per_byte(self, values_BxSxPxD: Array) -> Array:
    """Value j of a word for its j-th byte: [B, L, D]; the inverse of `patches` where there is a byte."""
    batch, words, size = values_BxSxPxD.shape[:3]
    offset_BxL = segments.positions(self.word_BxL)
    index_BxL = jnp.clip(self.word_BxL, 0, words - 1) * size + jnp.minimum(offset_BxL, size - 1)
    return jnp.take_along_axis(values_BxSxPxD.reshape(batch, words * size, -1), index_BxL[..., None], 1)

  def from_previous(self, values_BxSx: Array) -> Array:
    """Values of the word before in the same document, zero for a document's first: [B, S, ...]."""
    ids = self.segment_ids_BxS
    has_previous = jnp.pad(ids[:, 1:] == ids[:, :-1], ((0, 0), (1, 0))) & (ids > 0)
    dimensions = values_BxSx.ndim - 2
    before = jnp.pad(values_BxSx[:, :-1], ((0, 0), (1, 0)) + ((0, 0),) * dimensions)
    return jnp.where(has_previous.reshape(*ids.shape, *(1,) * dimensions), before, 0)


def repeat(values_BxS: Array, times: int) -> Array:
  """Each value `times` times in a row: [B, S * times]."""
  return jnp.repeat(values_BxS, times, 1, total_repeat_length=values_BxS.shape[1] * times)


@jax.custom_vjp
def permute(values_BxCxD: Array, source_BxC: Array, target_BxC: Array) -> Array:
  """values[b, source[b, c]]; the derivative is a gather too, since source and target are inverse permutations."""
  del target_BxC
  return jnp.take_along_axis(values_BxCxD, source_BxC[..., None], 1)


def _permute_forward(values, source, target):
  return permute(values, source, target), (source, target)


def _permute_backward(saved, g):
  source, target = saved
  return permute(g, target, source), None, None


permute.defvjp(_permute_forward, _permute_backward)
