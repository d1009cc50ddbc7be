"""How what comes from inside reaches the slots again: smoothed, repeated, or only where chunks start.

Each takes the `narrow` channels of the stage inside, the 'first' (H-Net) or the 'last' (SpaceByte) of them.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import Cut, Sizes
from kernels.dechunk import CLAMP, dechunk
from layers import checks
from layers.chunks import Level, Segments, pick


def spread(u: Array, scale: Array | None, residual: Array | None) -> Array:
  """u · STE(scale) + residual, float32: the scale is exactly 1 forward and has slope 1 backward (dc.py ste_func)."""
  if scale is not None:
    u = u * (1.0 + (scale - jax.lax.stop_gradient(scale)))[..., None]
  return u if residual is None else u + residual


class _Unpool(nnx.Module):
  """Keeps the value of the last chunk of every row."""

  OPTIONS = {'narrow': 'first'}

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, narrow: str):
    del rngs
    checks.one_of(narrow, ('first', 'last'), 'unpool: narrow')
    self.width, self.narrow = sizes.width, narrow

  @staticmethod
  def flops(sizes: Sizes) -> float:
    """Nothing that counts."""
    del sizes
    return 0.0

  def _narrowed(self, z: Array) -> Array:
    return z[..., : self.width] if self.narrow == 'first' else z[..., z.shape[-1] - self.width :]

  def init_cache(self, batch_size: int) -> Array:
    """No chunk yet."""
    return jnp.zeros((batch_size, self.width), jnp.float32)

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments, level: Level) -> Array:
    """The last chunk's value."""
    del cut, level
    last_Bx1 = jnp.maximum(segments.inner.count_B - 1, 0)[:, None]
    return pick(self._narrowed(z_BxMxE).astype(jnp.float32), last_Bx1)[:, 0]

  def step(self, z_BxE: Array, cut: Cut, cache: Array) -> tuple[Array, Array]:
    """The value of the last chunk."""
    value = jnp.where(cut.emit[:, None], self._narrowed(z_BxE).astype(jnp.float32), cache)
    return value, value


class Repeat(_Unpool):
  """A slot gets the value of its chunk."""

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, level: Level, scale: Array | None, residual: Array | None
  ) -> Array:
    """0 where a slot has no chunk of its own document, which a fixed capacity may leave."""
    del cut, level
    return spread(self._at_slots(z_BxMxE, segments, segments.index_BxC >= 0), scale, residual)

  def _at_slots(self, z_BxMxE: Array, segments: Segments, where_BxC: Array) -> Array:
    values = pick(self._narrowed(z_BxMxE).astype(jnp.float32), jnp.maximum(segments.index_BxC, 0))
    return jnp.where(where_BxC[..., None], values, 0.0)


class Scatter(Repeat):
  """The slot where a chunk starts gets its value, the others 0 (SpaceByte, arXiv 2404.14408)."""

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, level: Level, scale: Array | None, residual: Array | None
  ) -> Array:
    """0 between the starts."""
    del cut, level
    return spread(self._at_slots(z_BxMxE, segments, segments.starts_BxC), scale, residual)

  def step(self, z_BxE: Array, cut: Cut, cache: Array) -> tuple[Array, Array]:
    """The value where the chunk starts here."""
    value, cache = super().step(z_BxE, cut, cache)
    return jnp.where(cut.emit[:, None], value, 0.0), cache


class EMA(_Unpool):
  """Chunks smoothed by their probabilities (arXiv 2507.07955, eq. 5; dc.py DeChunkLayer): kernels/dechunk."""

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, level: Level, scale: Array | None, residual: Array | None
  ) -> Array:
    """One pass over the chunks and one over the slots."""
    z = self._narrowed(z_BxMxE)
    z = z.astype(jnp.float32) if residual is None else z
    return dechunk(z, cut.soft, segments.starts_BxC, level.segment_ids_BxC, scale, residual)

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments, level: Level) -> Array:
    """The smoothed value at the last slot."""
    u_BxCxD = self(z_BxMxE, cut, segments, level, None, None)
    return pick(u_BxCxD, jnp.maximum(level.count_B - 1, 0)[:, None])[:, 0]

  def step(self, z_BxE: Array, cut: Cut, cache: Array) -> tuple[Array, Array]:
    """p z + (1 - p) last where a chunk starts, p within [CLAMP, 1 - CLAMP]."""
    p_Bx1 = jnp.clip(cut.p, CLAMP, 1 - CLAMP)[:, None]
    smoothed = p_Bx1 * self._narrowed(z_BxE).astype(jnp.float32) + (1 - p_Bx1) * cache
    value = jnp.where(cut.emit[:, None], smoothed, cache)
    return value, value
