"""Levels of a hierarchy inside static buffers: where the chunks of every row are, and the way to and from bytes.

A level keeps C slots a row; its first `count` slots hold the row's chunks in order and the rest is padding, which has
segment id 0. Level 0 is the bytes themselves. `Level.cut` makes the level inside from where its chunks start; what the
parts of a stage need to know of that is `Segments`, computed once.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from kernels.chunk import chunk_index, place, positions, slots
from layers import segments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Level:
  """segment_ids_BxC: document of each slot, 0 for padding. byte_BxC: byte where each starts, `length` for padding.
  count_B: slots that hold something. marks: [B, C] each, what is known of the byte where a slot starts ('bytes' is the
  byte itself), so that a rule over marks works at any depth. length: bytes of a row, L.
  """

  segment_ids_BxC: Array
  byte_BxC: Array
  count_B: Array
  marks: dict[str, Array]
  length: int = dataclasses.field(metadata={'static': True})

  @staticmethod
  def of_bytes(segment_ids_BxL: Array, marks: dict[str, Array]) -> 'Level':
    """Level 0: every byte is a slot."""
    length = segment_ids_BxL.shape[1]
    index_BxL = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), segment_ids_BxL.shape)
    return Level(segment_ids_BxL, index_BxL, jnp.sum(segment_ids_BxL > 0, 1), marks, length)

  @property
  def valid(self) -> Array:
    """[B, C] bool: slots that hold something."""
    return self.segment_ids_BxC > 0

  def marked(self, **marks: Array) -> 'Level':
    """With further marks, [B, C] each."""
    return dataclasses.replace(self, marks=self.marks | marks)

  def cut(self, emit_BxC: Array, capacity: int | None = None, limit: int | None = None) -> 'Segments':
    """The chunks that start at the True positions of `emit`, in a buffer of `capacity` (None: C, which holds any).

    limit: only the first so many chunks of a row are kept, a fixed capacity of the model. Where `needed` exceeds the
    capacity, what is made of the segments is not valid.
    """
    width = emit_BxC.shape[1]
    capacity = width if capacity is None else capacity
    kept_BxC = emit_BxC if limit is None else emit_BxC & (chunk_index(emit_BxC) < limit)
    slot_BxC = slots(kept_BxC, capacity)
    starts_BxC = slot_BxC >= 0
    target_BxC = jnp.where(starts_BxC, slot_BxC, capacity)
    at = lambda values_BxC, empty: place(values_BxC, target_BxC, capacity, empty)
    count_B = jnp.sum(kept_BxC, 1)
    index_1xC = jnp.arange(width, dtype=jnp.int32)[None]
    offset_BxC = index_1xC - jax.lax.cummax(jnp.where(starts_BxC, index_1xC, -1), axis=1)
    # A position has a chunk of its own document if the last chunk starts no earlier than the document.
    own_BxC = (offset_BxC <= segments.positions(self.segment_ids_BxC)) & self.valid
    return Segments(
      outer=self,
      starts_BxC=starts_BxC,
      index_BxC=jnp.where(own_BxC, chunk_index(starts_BxC), -1),
      offset_BxC=offset_BxC,
      slot_BxM=positions(slot_BxC, capacity),
      inner=Level(
        segment_ids_BxC=at(self.segment_ids_BxC, 0),
        byte_BxC=at(self.byte_BxC, self.length),
        count_B=jnp.minimum(count_B, capacity),
        marks={name: at(values_BxC, 0) for name, values_BxC in self.marks.items()},
        length=self.length,
      ),
      needed=jnp.max(count_B),
      dropped=jnp.sum(emit_BxC) - jnp.sum(kept_BxC),
    )

  def to_bytes(self, values_BxC: Array) -> Array:
    """Puts one value a slot at the byte where the slot starts, 0 elsewhere: [B, L]."""
    return place(values_BxC, jnp.where(self.valid, self.byte_BxC, self.length), self.length, 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segments:
  """How the slots of a level are cut into chunks. k(t): the last chunk of t's document that starts at or before t.

  outer: the level that is cut. starts_BxC bool: where chunks start. index_BxC int32: k(t), a slot of the level inside,
  -1 where there is none (before a document's first chunk, and in padding). offset_BxC int32: t less the start of the
  last chunk, of whatever document. slot_BxM int32: where each chunk starts, C for none. inner: the level of the chunks.
  needed: chunks of the fullest row of the batch, int32. dropped: chunks that a limit dropped, int32.
  """

  outer: Level
  starts_BxC: Array
  index_BxC: Array
  offset_BxC: Array
  slot_BxM: Array
  inner: Level
  needed: Array
  dropped: Array

  @property
  def next_BxC(self) -> Array:
    """The chunk that starts next behind t in t's document, a slot of the level inside; M where none does: int32."""
    return self._in_document(chunk_index(self.starts_BxC) + 1)

  @property
  def closing_BxC(self) -> Array:
    """The first chunk that starts at t or behind it in t's document: where boundaries emit at ends, the one that t is
    part of. M where none does: int32.
    """
    return self._in_document(chunk_index(self.starts_BxC) + 1 - self.starts_BxC)

  def _in_document(self, index_BxC: Array) -> Array:
    """M for chunks that are not of a slot's document, or of none."""
    capacity = self.slot_BxM.shape[1]
    ids_BxM1 = jnp.pad(self.inner.segment_ids_BxC, ((0, 0), (0, 1)))
    same_BxC = jnp.take_along_axis(ids_BxM1, index_BxC, 1) == self.outer.segment_ids_BxC
    return jnp.where(same_BxC & self.outer.valid, index_BxC, capacity)


def pick(values_BxCxD: Array, index_BxM: Array) -> Array:
  """Rows of values at the given slots: [B, M, D]."""
  return jnp.take_along_axis(values_BxCxD, index_BxM[..., None], axis=1, mode='clip')
