"""Levels of a hierarchy inside static buffers: where the chunks of every row are, and the way to and from bytes.

A level keeps C slots a row; its first `count` slots hold the row's chunks in order and the rest is padding, which has
segment id 0. Level 0 is the bytes themselves.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Level:
  """segment_ids [B, C]: document of each slot, 0 for padding. picked_BxC bool: slots of the level above that became
  this level's, in order (for level 0, its own). byte_BxC: byte where each starts, out of range for padding. count_B.
  """

  segment_ids: Array
  picked_BxC: Array
  byte_BxC: Array
  count_B: Array

  @staticmethod
  def of_bytes(segment_ids_BxL: Array) -> 'Level':
    """Level 0: every byte is a slot."""
    index_BxL = jnp.broadcast_to(jnp.arange(segment_ids_BxL.shape[1], dtype=jnp.int32), segment_ids_BxL.shape)
    present_BxL = segment_ids_BxL > 0
    return Level(segment_ids_BxL, present_BxL, index_BxL, jnp.sum(present_BxL, 1))

  @property
  def valid(self) -> Array:
    """[B, C] bool: slots that hold something."""
    return self.segment_ids > 0

  def compact(self, boundary_BxC: Array) -> 'Level':
    """The level of the chunks that start at True positions: a prefix sum and a scatter, no sort."""
    batch, capacity = boundary_BxC.shape
    rows_Bx1 = jnp.arange(batch)[:, None]
    target_BxC = jnp.where(boundary_BxC, jnp.cumsum(boundary_BxC, 1) - 1, capacity)
    place = lambda values, empty: (
      jnp.full_like(values, empty).at[rows_Bx1, target_BxC].set(values, mode='drop', unique_indices=False)
    )
    return Level(
      segment_ids=place(self.segment_ids, 0),
      picked_BxC=boundary_BxC,
      byte_BxC=place(self.byte_BxC, self.byte_BxC.shape[1]),
      count_B=jnp.sum(boundary_BxC, 1),
    )

  def to_bytes(self, values_BxC: Array) -> Array:
    """Puts one value a slot at the byte where the slot's chunk starts, 0 elsewhere: [B, L]."""
    rows_Bx1 = jnp.arange(values_BxC.shape[0])[:, None]
    target = jnp.where(self.valid, self.byte_BxC, self.byte_BxC.shape[1])
    return jnp.zeros_like(values_BxC).at[rows_Bx1, target].set(values_BxC, mode='drop')


def pick(values_BxCxD: Array, index_BxM: Array) -> Array:
  """Rows of values at the given slots: [B, M, D]."""
  return jnp.take_along_axis(values_BxCxD, index_BxM[..., None], axis=1, mode='clip')
