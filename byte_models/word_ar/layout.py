"""Words of packed rows in static buffers, by arithmetic and without a sort.

Words are spelled with symbols, bytes or other units, which stand in a row one after the other. Its local buffer holds,
word after word, k slots for vectors and then the word's symbols. Symbol t of word i (from 0) stands at t + k (i + 1);
so a buffer for L symbols and at most S words has L + k S slots, and what it costs follows the symbols and not the
longest word. Encoder and decoder share the layout: what pools a word on the way in stands where the prediction of the
word goes in on the way out.

L: symbols of a row (in `Symbols` its bytes), S: its words, C = L + k S: slots of its buffer, P: symbols of the longest
word.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from byte_models.word_ar.config import WORD_END, WordARConfig
from layers import segments
from text import marks
from text.batch import Batch


def word_starts(config: WordARConfig, batch: Batch) -> Array:
  """Where words begin: [B, L] bool, False in the padding.

  Those of the batch, and some more. A document's first position begins a word. So does a byte of value WORD_END (in raw
  data only): as the first symbol of a word it can be told from the end of one, and no byte is lost. A word above the
  cap is cut there. Without an encoder words are patches, counted from the byte behind BOS; an EOS takes the next place
  of its patch.

  Marks that the batch lacks are made here eagerly, and are a ValueError under tracing.
  """
  bytes_BxL, segment_ids_BxL, bos_BxL = (jnp.asarray(x) for x in (batch.bytes, batch.segment_ids, batch.bos))
  valid_BxL, first_BxL = segment_ids_BxL > 0, segments.starts(segment_ids_BxL)
  if config.encoder is None:
    position_BxL = segments.positions(segment_ids_BxL)
    origin_BxL = jnp.arange(bytes_BxL.shape[1])[None] - position_BxL
    has_bos_BxL = jnp.take_along_axis(bos_BxL, origin_BxL, 1)
    return (first_BxL | ((position_BxL - has_bos_BxL) % config.longest == 0)) & valid_BxL
  starts_BxL = jnp.asarray(marks.mark(batch, config.marks).marks['words']) | first_BxL | (bytes_BxL == WORD_END)
  starts_BxL &= valid_BxL
  inside_BxL = segments.positions(jnp.cumsum(starts_BxL, 1))
  return starts_BxL | ((inside_BxL % config.longest == 0) & valid_BxL)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Symbols:
  """What spells the words of a row: its bytes in place, or its units one after the other from the left.

  ids_BxL: bytes, or ids of units. segment_ids_BxL: document of a symbol, 0 where there is none. starts_BxL: where words
  begin. is_ended_BxL: the end of the word behind it is certain: at BOS and at the last symbol of a word as long as the
  cap, perhaps also at others of that word.
  """

  ids_BxL: Array
  segment_ids_BxL: Array
  starts_BxL: Array
  is_ended_BxL: Array

  def first(self, count: int) -> 'Symbols':
    """The first `count` slots of every row, which hold all symbols."""
    return jax.tree.map(lambda x_BxL: x_BxL[:, :count], self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Places:
  """Where the symbols of a row stand in its bytes.

  starts_BxL: bytes that begin a word. symbol_BxL: slot of the unit that a byte is part of, and is_last_BxL: whether it
  is the last byte of it; both None where symbols are bytes.
  """

  starts_BxL: Array
  symbol_BxL: Array | None = None
  is_last_BxL: Array | None = None

  def spread(self, values_BxLx: Array) -> Array:
    """Values of symbols, each at every byte of its own: [B, L, ...]."""
    if self.symbol_BxL is None:
      return values_BxLx
    index = self.symbol_BxL.reshape(*self.symbol_BxL.shape, *(1,) * (values_BxLx.ndim - 2))
    return jnp.take_along_axis(values_BxLx, index, 1, mode='clip')

  def at_last(self, values_BxL: Array, empty: float = 0) -> Array:
    """Values of symbols, each at its last byte, `empty` elsewhere: [B, L]."""
    if self.symbol_BxL is None:
      return values_BxL
    return jnp.where(self.is_last_BxL, self.spread(values_BxL), empty)


def spelled(config: WordARConfig, batch: Batch) -> tuple[Symbols, Places]:
  """The symbols of a batch; marks that it lacks are made here eagerly, and are a ValueError under tracing."""
  batch = marks.mark(batch, config.marks)
  starts_BxL = word_starts(config, batch)
  bytes_BxL, ids_BxL = jnp.asarray(batch.bytes), jnp.asarray(batch.segment_ids)
  word_BxL = jnp.cumsum(starts_BxL, 1)
  is_ended_BxL = (segments.positions(word_BxL) == config.longest - 1) | jnp.asarray(batch.bos)
  if config.units == 'byte':
    return Symbols(bytes_BxL, ids_BxL, starts_BxL, is_ended_BxL), Places(starts_BxL)
  units_BxL = jnp.asarray(batch.marks['units'])
  is_last_BxL = (units_BxL >= 0) & (ids_BxL > 0)
  symbol_BxL = jnp.cumsum(is_last_BxL, 1) - is_last_BxL
  rows_Bx1 = jnp.arange(len(bytes_BxL))[:, None]
  # Said of all of a word: behind a cut its last unit may stand before its last byte (text/rows.py).
  is_ended_BxS = jnp.zeros((len(bytes_BxL), 1 + bytes_BxL.shape[1]), bool)
  is_ended_BxS = is_ended_BxS.at[rows_Bx1, word_BxL].max(is_ended_BxL & (ids_BxL > 0))
  is_ended_BxL = jnp.take_along_axis(is_ended_BxS, word_BxL, 1)
  target_BxL = jnp.where(is_last_BxL, symbol_BxL, symbol_BxL.shape[1])
  place = lambda values_BxL: jnp.zeros_like(values_BxL).at[rows_Bx1, target_BxL].set(values_BxL, mode='drop')
  placed_BxL = place(word_BxL)
  before_BxL = jnp.pad(placed_BxL[:, :-1], ((0, 0), (1, 0)))
  symbols = Symbols(place(units_BxL), place(ids_BxL), placed_BxL > before_BxL, place(is_ended_BxL))
  return symbols, Places(starts_BxL, symbol_BxL, is_last_BxL)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Words:
  """Where a row's words begin, what they are part of, and their places in the buffer.

  starts_BxL: where words begin. is_byte_BxL: False in the padding. word_BxL: each symbol's word, -1 before any.
  segment_ids_BxS: document of a word, 0 for no word. first_BxS, size_BxS: its first symbol (L for none) and number of
  symbols. slot_BxC: place in the buffer of each symbol, then of each vector, word by word; source_BxC: the inverse.
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
    rows_Bx1, index_1xL, index_1xS = jnp.arange(batch)[:, None], jnp.arange(length)[None], jnp.arange(capacity)[None]
    place = lambda values, empty: (
      jnp.full((batch, capacity), empty, jnp.int32)
      .at[rows_Bx1, jnp.where(starts_BxL, count_BxL - 1, capacity)]
      .set(jnp.broadcast_to(values, starts_BxL.shape).astype(jnp.int32), mode='drop')
    )
    first_BxS, segment_ids_BxS = place(index_1xL, length), place(segment_ids_BxL, 0)
    bytes_B = jnp.sum(segment_ids_BxL > 0, 1)
    after_BxS = jnp.minimum(jnp.pad(first_BxS[:, 1:], ((0, 0), (0, 1)), constant_values=length), bytes_B[:, None])
    vector_BxSxk = (first_BxS + num_vectors * index_1xS)[..., None] + jnp.arange(num_vectors)[None, None]
    slot_BxC = jnp.concatenate([index_1xL + num_vectors * count_BxL, vector_BxSxk.reshape(batch, -1)], 1)
    ids_BxS = jnp.where(segment_ids_BxS > 0, index_1xS + 1, 0)
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
    offset_1x1xP = jnp.arange(size)[None, None]
    index_BxSxP = self.first_BxS[..., None] + offset_1x1xP
    flat = index_BxSxP.reshape(index_BxSxP.shape[0], -1, 1)
    values = jnp.take_along_axis(values_BxLxD, flat, 1, mode='clip').reshape(*index_BxSxP.shape, -1)
    return jnp.where((offset_1x1xP < self.size_BxS[..., None])[..., None], values, 0)

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
  """values[b, source[b, c]]; the derivative is a gather too, since source and target are inverse permutations.

  Clipped, since places of words that have no room lie behind the buffer: what they get is not valid, and yet a number.
  """
  del target_BxC
  return jnp.take_along_axis(values_BxCxD, source_BxC[..., None], 1, mode='clip')


def _permute_forward(values, source, target):
  return permute(values, source, target), (source, target)


def _permute_backward(saved, g):
  source, target = saved
  return permute(g, target, source), None, None


permute.defvjp(_permute_forward, _permute_backward)
