"""H-Net's chunks meet their probability before the stage inside and not behind it, as in
lucidrains/h-net-dynamic-chunking, whose order differs from the released models'.
"""

import jax.numpy as jnp
from jax import Array

from hnet.parts.base import Cut
from hnet.parts.pools import First
from hnet.parts.unpools import EMA
from kernels.dechunk import CLAMP
from layers.chunks import Segments


class WeightedFirst(First):
  """`first` of the encoder's states times their probability."""

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """The product in float32."""
    return super().__call__(_weighted(e_BxCxD, cut.soft), cut, segments)

  def step(self, e_BxD: Array, cut: Cut, active_B: Array, cache: None) -> tuple[Array, Array, None]:
    """The state itself."""
    return super().step(_weighted(e_BxD, cut.soft), cut, active_B, cache)


def _weighted(e: Array, p: Array) -> Array:
  return (e.astype(jnp.float32) * p[..., None]).astype(e.dtype)


class Decayed(EMA):
  """z̄_k = z_k + (1 - P_k) z̄_{k-1}, P within [CLAMP, 1 - CLAMP]: `ema` without the probability on what is new."""

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, scale: Array | None, residual: Array | None
  ) -> Array:
    """The same kernel, of z / P, which it multiplies by P."""
    p_BxC = jnp.clip(cut.soft, CLAMP, 1 - CLAMP)
    p_BxM1 = jnp.take_along_axis(p_BxC, segments.slot_BxM, 1, mode='clip')[..., None]
    z_BxMxE = z_BxMxE.astype(jnp.float32) / p_BxM1
    return super().__call__(z_BxMxE, cut, segments, scale, residual)

  def step(self, z_BxE: Array, cut: Cut, cache: Array) -> tuple[Array, Array]:
    """The sum where a chunk starts."""
    p_Bx1 = jnp.clip(cut.p, CLAMP, 1 - CLAMP)[:, None]
    value_BxD = self._narrowed(z_BxE).astype(jnp.float32) + (1 - p_Bx1) * cache
    value_BxD = jnp.where(cut.emit[:, None], value_BxD, cache)
    return value_BxD, value_BxD
