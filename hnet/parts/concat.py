"""A chunk's slots side by side, through one linear map: for chunks of a fixed size (MegaByte, Hourglass)."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import Cut, Sizes
from layers import checks
from layers.chunks import Segments, pick
from layers.linear import Linear, normal
from layers.segments import positions


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConcatCache:
  """last_BxNxD: the slots before, in order. count_B int32: how many the open chunk has. seen_B: any at all."""

  last_BxNxD: Array
  count_B: Array
  seen_B: Array


class Concat(nnx.Module):
  """W [e_{s-size}, …, e_{s-1}] of the slots before a chunk starts at s, 0 for those before the last start.

  MegaByte's patches (arXiv 2305.07185), Hourglass' linear pooling (arXiv 2110.13711). Of a longer chunk the last slots
  count.
  """

  OPTIONS = {'size': 6}
  reads = 'before'

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, size: int):
    self.size, self.width = checks.integer(size, 'pool concat: size', 1), sizes.width
    width = size * sizes.width
    self.map = Linear(width, sizes.inner, kernel_init=normal(width**-0.5), rngs=rngs)

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """[B, M, E], zero behind the last chunk."""
    del cut
    g_BxMxE = self._joined(*self._before(e_BxCxD, segments, segments.slot_BxM))
    return jnp.where(segments.inner.valid[..., None], g_BxMxE, 0)

  def _before(self, e_BxCxD: Array, segments: Segments, slot_BxM: Array) -> tuple[Array, Array]:
    """(the `size` slots before each of some slots [B, M, N, D], how many of them its open chunk has)."""
    begun_BxC = 1 + jnp.minimum(segments.offset_BxC, positions(segments.outer.segment_ids_BxC))
    count_BxM = jnp.take_along_axis(begun_BxC, jnp.maximum(slot_BxM - 1, 0), 1, mode='clip')
    back_1x1xN = jnp.arange(-self.size, 0)[None, None]
    index_BxMxN = jnp.maximum(slot_BxM[..., None] + back_1x1xN, 0)
    flat_BxMNxD = pick(e_BxCxD, index_BxMxN.reshape(len(slot_BxM), -1))
    return flat_BxMNxD.reshape(*index_BxMxN.shape, -1), jnp.where(slot_BxM > 0, count_BxM, 0)

  def _joined(self, slots_BxMxNxD: Array, count_BxM: Array) -> Array:
    is_own = jnp.arange(self.size, 0, -1)[None, None] <= count_BxM[..., None]
    slots = jnp.where(is_own[..., None], slots_BxMxNxD, 0)
    return self.map(slots.reshape(*slots.shape[:-2], -1))

  def init_cache(self, batch_size: int) -> ConcatCache:
    """Nothing read."""
    last_BxNxD = jnp.zeros((batch_size, self.size, self.width), jnp.float32)
    return ConcatCache(last_BxNxD, jnp.zeros(batch_size, jnp.int32), jnp.zeros(batch_size, bool))

  def after(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> ConcatCache:
    """The last slots of each row."""
    del cut
    end_Bx1 = segments.outer.count_B[:, None]
    slots_Bx1xNxD, count_Bx1 = self._before(e_BxCxD, segments, end_Bx1)
    return ConcatCache(slots_Bx1xNxD[:, 0].astype(jnp.float32), count_Bx1[:, 0].astype(jnp.int32), end_Bx1[:, 0] > 0)

  def step(self, e_BxD: Array, cut: Cut, active_B: Array, cache: ConcatCache) -> tuple[Array, Array, ConcatCache]:
    """What was read is joined where a chunk starts, and the slot is the first of the next."""
    starts_B = cut.emit & cache.seen_B
    g_Bx1xE = self._joined(cache.last_BxNxD.astype(e_BxD.dtype)[:, None], cache.count_B[:, None])
    last_BxNxD = jnp.concatenate([cache.last_BxNxD[:, 1:], e_BxD.astype(jnp.float32)[:, None]], 1)
    last_BxNxD = jnp.where(active_B[:, None, None], last_BxNxD, cache.last_BxNxD)
    count_B = jnp.where(starts_B, 0, cache.count_B) + active_B
    return g_Bx1xE[:, 0], starts_B, ConcatCache(last_BxNxD, count_B, cache.seen_B | active_B)

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, size: int) -> float:
    """The map."""
    del slots
    return 2.0 * chunks * size * sizes.width * sizes.inner
