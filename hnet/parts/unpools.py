"""How what comes from inside reaches the slots again: smoothed, repeated, only where chunks start, or by attention.

All but the last take the `narrow` channels of the stage inside: the 'first' (H-Net), the 'last' (SpaceByte), or a
'linear' map of all (BLT without cross attention).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import Cut, Sizes
from kernels.dechunk import CLAMP, dechunk
from layers import checks
from layers.chunks import Segments, pick
from layers.cross import CrossConfig, Guide, guide_flops, guided, inject
from layers.linear import Linear, normal
from layers.stack import Inject


def spread(u: Array | Inject, scale: Array | None, residual: Array | None) -> Array | Inject:
  """u · STE(scale) + residual, float32: the scale is exactly 1 forward and has slope 1 backward (dc.py ste_func).

  u itself, which may be an Inject, where both are None.
  """
  if scale is not None:
    u = u * (1.0 + (scale - jax.lax.stop_gradient(scale)))[..., None]
  return u if residual is None else u + residual


class _Unpool(nnx.Module):
  """Keeps the value of the last chunk of every row."""

  OPTIONS = {'narrow': 'first'}
  injects = False

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, narrow: str):
    checks.one_of(narrow, ('first', 'last', 'linear'), 'unpool: narrow')
    self.width, self.narrow = sizes.width, narrow
    if narrow == 'linear':
      self.map = Linear(sizes.inner, sizes.width, kernel_init=normal(sizes.inner**-0.5), rngs=rngs)

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, narrow: str) -> float:
    """Of the linear map, if there is one."""
    del slots
    return 2.0 * chunks * sizes.inner * sizes.width * (narrow == 'linear')

  def _narrowed(self, z: Array) -> Array:
    if self.narrow == 'linear':
      return self.map(z)
    return z[..., : self.width] if self.narrow == 'first' else z[..., z.shape[-1] - self.width :]

  def init_cache(self, batch_size: int) -> Array:
    """No chunk yet."""
    return jnp.zeros((batch_size, self.width), jnp.float32)

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments) -> Array:
    """The last chunk's value, 0 without a chunk."""
    del cut
    count_Bx1 = segments.inner.count_B[:, None]
    last_BxD = pick(self._narrowed(z_BxMxE).astype(jnp.float32), jnp.maximum(count_Bx1 - 1, 0))[:, 0]
    return jnp.where(count_Bx1 > 0, last_BxD, 0.0)

  def step(self, z_BxE: Array, cut: Cut, cache: Array) -> tuple[Array, Array]:
    """The value of the last chunk."""
    value = jnp.where(cut.emit[:, None], self._narrowed(z_BxE).astype(jnp.float32), cache)
    return value, value


class Repeat(_Unpool):
  """A slot gets the value of its chunk."""

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, scale: Array | None, residual: Array | None
  ) -> Array:
    """0 where a slot has no chunk of its own document, which a fixed capacity may leave."""
    del cut
    return spread(self._at_slots(z_BxMxE, segments, segments.index_BxC >= 0), scale, residual)

  def _at_slots(self, z_BxMxE: Array, segments: Segments, where_BxC: Array) -> Array:
    values = pick(self._narrowed(z_BxMxE).astype(jnp.float32), jnp.maximum(segments.index_BxC, 0))
    return jnp.where(where_BxC[..., None], values, 0.0)


class Scatter(Repeat):
  """The slot where a chunk starts gets its value, the others 0 (SpaceByte, arXiv 2404.14408)."""

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, scale: Array | None, residual: Array | None
  ) -> Array:
    """0 between the starts."""
    del cut
    return spread(self._at_slots(z_BxMxE, segments, segments.starts_BxC), scale, residual)

  def step(self, z_BxE: Array, cut: Cut, cache: Array) -> tuple[Array, Array]:
    """The value where the chunk starts here."""
    value, cache = super().step(z_BxE, cut, cache)
    return jnp.where(cut.emit[:, None], value, 0.0), cache


class EMA(_Unpool):
  """Chunks smoothed by their probabilities (arXiv 2507.07955, eq. 5; dc.py DeChunkLayer): kernels/dechunk."""

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, scale: Array | None, residual: Array | None
  ) -> Array:
    """One pass over the chunks and one over the slots."""
    z = self._narrowed(z_BxMxE)
    z = z.astype(jnp.float32) if residual is None else z
    return dechunk(z, cut.soft, segments.starts_BxC, segments.outer.segment_ids_BxC, scale, residual)

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments) -> Array:
    """The smoothed value at the last slot."""
    u_BxCxD = self(z_BxMxE, cut, segments, None, None)
    return pick(u_BxCxD, jnp.maximum(segments.outer.count_B - 1, 0)[:, None])[:, 0]

  def step(self, z_BxE: Array, cut: Cut, cache: Array) -> tuple[Array, Array]:
    """p z + (1 - p) last where a chunk starts, p of cut.soft, within [CLAMP, 1 - CLAMP]."""
    p_Bx1 = jnp.clip(cut.soft, CLAMP, 1 - CLAMP)[:, None]
    smoothed = p_Bx1 * self._narrowed(z_BxE).astype(jnp.float32) + (1 - p_Bx1) * cache
    value = jnp.where(cut.emit[:, None], smoothed, cache)
    return value, value


class Cross(nnx.Module):
  """Cross attention of a slot to its chunk, added in each of the first `layers` blocks of the decoder (0: in all).

  With one key the softmax is 1: what is added is out(value(norm(z))), T-Free-HAT's, and needs no query. A slot before
  its document's first chunk attends to a learned vector. heads share the channels of the stage; kv_heads: 0 = heads.
  """

  OPTIONS = {'heads': 8, 'kv_heads': 0, 'layers': 0, 'norm_epsilon': 1e-5}
  injects = True

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, layers: int, **options: float):
    config = self._config(sizes, **options)
    if checks.integer(layers, 'unpool cross: layers', 0) > sizes.blocks:
      raise ValueError(f'unpool cross: layers={layers}, but the decoder has {sizes.blocks} blocks.')
    self.first_E = nnx.Param(normal(0.02)(rngs.params(), (sizes.inner,)))
    count = layers or sizes.blocks
    self.guides = nnx.List([Guide(config, output_deviation=0.02, rngs=rngs) for _ in range(count)])

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, scale: Array | None, residual: Array | None
  ) -> Inject:
    """The learned vector stands behind the chunks, in slot M."""
    del cut, scale, residual
    rows, capacity, _ = z_BxMxE.shape
    index_BxC = jnp.where(segments.index_BxC < 0, capacity, segments.index_BxC)
    z_BxM1xE = jnp.concatenate([z_BxMxE, self._first(rows, z_BxMxE.dtype)[:, None]], 1)
    return inject(guided(self.guides, z_BxM1xE), index_BxC)

  def init_cache(self, batch_size: int) -> Array:
    """What the learned vector adds: [B, G, D] float32."""
    return guided(self.guides, self._first(batch_size, jnp.float32))

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments) -> Array:
    """What the last chunk adds, or the learned vector."""
    del cut
    count_Bx1 = segments.inner.count_B[:, None]
    z_BxE = pick(z_BxMxE, jnp.maximum(count_Bx1 - 1, 0))[:, 0]
    z_BxE = jnp.where(count_Bx1 > 0, z_BxE, self._first(*z_BxE.shape[:1], z_BxE.dtype))
    return guided(self.guides, z_BxE).astype(jnp.float32)

  def step(self, z_BxE: Array, cut: Cut, cache: Array) -> tuple[Inject, Array]:
    """The same as before until a chunk starts."""
    starts_Bx1x1 = cut.emit[:, None, None]
    renew = lambda added: jnp.where(starts_Bx1x1, guided(self.guides, z_BxE).astype(added.dtype), added)
    added_BxGxD = jax.lax.cond(jnp.any(cut.emit), renew, lambda added: added, cache)
    return inject(added_BxGxD.astype(z_BxE.dtype)), added_BxGxD

  @classmethod
  def flops(cls, sizes: Sizes, slots: float, chunks: float, layers: int, **options: float) -> float:
    """Two projections a chunk and layer."""
    del slots
    return (layers or sizes.blocks) * guide_flops(cls._config(sizes, **options), chunks)

  @staticmethod
  def _config(sizes: Sizes, heads: int, kv_heads: int, norm_epsilon: float) -> CrossConfig:
    return CrossConfig.of_heads('unpool cross', sizes.width, sizes.inner, heads, kv_heads, norm_epsilon=norm_epsilon)

  def _first(self, rows: int, dtype: jnp.dtype) -> Array:
    return jnp.broadcast_to(self.first_E[...].astype(dtype), (rows, self.first_E.shape[0]))
