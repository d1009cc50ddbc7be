"""What a chunk's vector is made of, and how it becomes as wide as the stage inside."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import Cut, Sizes
from kernels.chunk import chunk
from layers import checks
from layers.chunks import Segments


class First(nnx.Module):
  """The state at a chunk's first slot (H-Net, SpaceByte).

  widen: 'learned' puts a learned vector behind its channels (H-Net's pad_dimension), 'zeros' zeros before them
  (SpaceByte).
  """

  OPTIONS = {'widen': 'learned'}
  reads = 'first'

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, widen: str):
    del rngs
    checks.one_of(widen, ('learned', 'zeros'), 'pool first: widen')
    self.extra, self.widen = sizes.inner - sizes.width, widen
    if self.extra and widen == 'learned':
      self.pad = nnx.Param(jnp.zeros(self.extra, jnp.float32))

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """Compaction, and the channels."""
    del cut
    return self._widened(chunk(e_BxCxD, segments.starts_BxC, segments.slot_BxM.shape[1]).values_BxMxD)

  def init_cache(self, batch_size: int) -> None:
    """No state."""

  def after(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> None:
    """No state."""

  def step(self, e_BxD: Array, cut: Cut, cache: None) -> tuple[Array, None]:
    """The state itself."""
    del cut
    return self._widened(e_BxD), cache

  @staticmethod
  def flops(sizes: Sizes) -> float:
    """Nothing that counts."""
    del sizes
    return 0.0

  def _widened(self, x: Array) -> Array:
    if not self.extra:
      return x
    shape = (*x.shape[:-1], self.extra)
    if self.widen == 'zeros':
      return jnp.concatenate([jnp.zeros(shape, x.dtype), x], -1)
    return jnp.concatenate([x, jnp.broadcast_to(self.pad[...].astype(x.dtype), shape)], -1)
