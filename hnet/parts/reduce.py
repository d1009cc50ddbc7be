"""The largest, smallest and mean values of a chunk's slots, channel by channel (BLT without cross attention)."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.attend import largest
from hnet.parts.base import Cut, Sizes
from layers.chunks import Segments
from layers.cross import LOWEST
from layers.linear import Linear, normal

KINDS = ('mean', 'min', 'max')  # in the order in which they stand beside each other
EMPTY = {'mean': 0.0, 'min': -LOWEST, 'max': LOWEST}


class Reduce(nnx.Module):
  """What stands beside each other of a chunk's mean, smallest and largest values, of the slots behind the last emission
  up to this one (BLT's downsampling_by_pooling; bytelatent/model/utils.py). A linear map makes it as wide as the stage
  inside, where it is not.

  of: 'max', 'mean+max', …
  """

  OPTIONS = {'of': 'max'}
  reads = 'until'

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, of: str):
    self.of, self.width = _kinds(of), sizes.width
    width = len(self.of) * sizes.width
    if width != sizes.inner:
      self.widen = Linear(width, sizes.inner, kernel_init=normal(0.02), rngs=rngs)

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """By scatter from slots to chunks; slots behind a document's last emission are in none."""
    del cut
    of_chunks = lambda kind: reduced(kind, e_BxCxD, segments.closing_BxC, segments.slot_BxM.shape[1])
    g_BxMxE = self._widened([of_chunks(kind) for kind in self.of])
    return jnp.where(segments.inner.valid[..., None], g_BxMxE, 0)

  def _widened(self, found: list[Array]) -> Array:
    side_by_side = jnp.concatenate(found, -1)
    return self.widen(side_by_side) if hasattr(self, 'widen') else side_by_side

  def init_cache(self, batch_size: int) -> dict[str, Array]:
    """Of the open chunk: each kind [B, D] float32, 'mean' as a sum, and 'count' [B] float32."""
    of_kind = lambda kind: jnp.full((batch_size, self.width), EMPTY[kind], jnp.float32)
    return {kind: of_kind(kind) for kind in self.of} | {'count': jnp.zeros(batch_size, jnp.float32)}

  def after(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> dict[str, Array]:
    """What no chunk has yet."""
    del cut
    open_BxC = segments.outer.valid & (segments.closing_BxC == segments.slot_BxM.shape[1])
    join = {'mean': jnp.sum, 'min': jnp.min, 'max': jnp.max}
    e_BxCxD = e_BxCxD.astype(jnp.float32)
    of_kind = lambda kind: join[kind](jnp.where(open_BxC[..., None], e_BxCxD, EMPTY[kind]), 1)
    return {kind: of_kind(kind) for kind in self.of} | {'count': jnp.sum(open_BxC, 1).astype(jnp.float32)}

  def step(self, e_BxD: Array, cut: Cut, active_B: Array, cache: dict) -> tuple[Array, Array, dict[str, Array]]:
    """The open chunk with this slot."""
    join = {'mean': jnp.add, 'min': jnp.minimum, 'max': jnp.maximum}
    slot_BxD, count_B = e_BxD.astype(jnp.float32), cache['count'] + active_B
    with_slot = {kind: jnp.where(active_B[:, None], join[kind](cache[kind], slot_BxD), cache[kind]) for kind in self.of}
    value = lambda kind: with_slot[kind] / jnp.maximum(count_B, 1.0)[:, None] if kind == 'mean' else with_slot[kind]
    g_BxE = self._widened([value(kind).astype(e_BxD.dtype) for kind in self.of])
    kept = {kind: jnp.where(cut.emit[:, None], EMPTY[kind], of_open) for kind, of_open in with_slot.items()}
    return g_BxE, cut.emit, kept | {'count': jnp.where(cut.emit, 0.0, count_B)}

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, of: str) -> float:
    """A projection a chunk, if there is one."""
    del slots
    width = len(_kinds(of)) * sizes.width
    return 2.0 * chunks * width * sizes.inner * (width != sizes.inner)


def _kinds(of: str) -> tuple[str, ...]:
  given = of.split('+')
  if not {*given} <= {*KINDS} or len({*given}) < len(given):
    raise ValueError(f"pool reduce: of='{of}' must be one or several of {', '.join(KINDS)}, with + between.")
  return tuple(kind for kind in KINDS if kind in given)


def reduced(kind: str, x_BxCxD: Array, chunk_BxC: Array, capacity: int) -> Array:
  """The 'mean', 'min' or 'max' of every channel over the slots of each chunk, 0 for none: [B, M, D] in x's dtype.

  chunk: of each slot, M for none. Slots with the same smallest or largest value share its gradient evenly.
  """
  if kind == 'min':
    return -largest(-x_BxCxD, chunk_BxC, capacity)
  if kind == 'max':
    return largest(x_BxCxD, chunk_BxC, capacity)
  at = jnp.arange(len(x_BxCxD))[:, None], chunk_BxC
  total = jnp.zeros((len(x_BxCxD), capacity, x_BxCxD.shape[-1]), jnp.float32)
  total = total.at[at].add(x_BxCxD.astype(jnp.float32), mode='drop')
  count = jnp.zeros(total.shape[:2], jnp.float32).at[at].add(1.0, mode='drop')
  return (total / jnp.maximum(count, 1.0)[..., None]).astype(x_BxCxD.dtype)
