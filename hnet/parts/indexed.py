"""The way back to slots of AU-Net and ByteFlow: linear maps of a chunk's vector, by the distance from its emission."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import Cut, Sizes
from hnet.parts.unpools import spread
from layers import checks
from layers.chunks import Segments, pick
from layers.linear import Linear, RMSNorm, normal

OFFSETS = 16  # distances that are told apart; they start anew behind


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class IndexedCache:
  """table_BxOxD float32: what slots get of the last chunk, by their offset. offset_B int32: of the last slot."""

  table_BxOxD: Array
  offset_B: Array


class Indexed(nnx.Module):
  """Slots t in [e_k, e_{k+1}) get W n + M_o n, n = norm(z_k), o = (t - e_k) mod 16 (AU-Net, arXiv 2506.14761; lingua,
  apps/aunet/hierarchical.py SimpleTransition).

  by: 'matrix' is this; 'embedding' W (n + p_o); 'start' W n where the chunk starts, and 0 elsewhere; 'bin' M_b n, b =
  min(floor((t - e_k) / size), 15), a matrix for each bin of `size` slots, the last for all behind (ByteFlow, arXiv
  2603.03583, whose 16 matrices are by position; which positions share one is a reading). narrow: 'linear' is W and its
  norm; 'mean' the mean of as many neighbouring channels as the stage inside is wider, of z itself.
  """

  OPTIONS = {'by': 'matrix', 'narrow': 'linear', 'size': 1}
  injects = False

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, by: str, narrow: str, size: int):
    checks.one_of(by, ('matrix', 'embedding', 'start', 'bin'), 'unpool indexed: by')
    self.size = checks.integer(size, 'unpool indexed: size', 1)
    if size > 1 and by != 'bin':
      raise ValueError(f'unpool indexed: size={size} is of by=bin, and by is {by}: leave it out.')
    checks.one_of(narrow, ('linear', 'mean'), 'unpool indexed: narrow')
    if sizes.inner % sizes.width and narrow == 'mean':
      raise ValueError(f'unpool indexed: narrow=mean needs {sizes.inner} channels to be a multiple of {sizes.width}.')
    self.by, self.narrow, self.width = by, narrow, sizes.width
    deviation = sizes.inner**-0.5
    if narrow == 'linear':
      self.norm = RMSNorm(sizes.inner)
    if narrow == 'linear' and by != 'bin':
      self.map = Linear(sizes.inner, sizes.width, kernel_init=normal(deviation), rngs=rngs)
    if by in ('matrix', 'bin'):
      self.maps_OxExD = nnx.Param(normal(deviation)(rngs.params(), (OFFSETS, sizes.inner, sizes.width)))
      if narrow == 'mean':
        self.maps_norm = RMSNorm(sizes.inner)
    elif by == 'embedding':
      self.places_OxE = nnx.Param(normal(1.0)(rngs.params(), (OFFSETS, sizes.inner)))

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, scale: Array | None, residual: Array | None
  ) -> Array:
    """0 where a slot has no chunk of its own document, which a fixed capacity may leave."""
    del cut
    table_BxMxOxD = self._table(z_BxMxE)
    has_BxC = segments.index_BxC >= 0
    index_BxC, offset_BxC = jnp.maximum(segments.index_BxC, 0), self._place(segments.offset_BxC)
    if self.by == 'start':
      has_BxC = segments.starts_BxC
    flat_BxNxD = table_BxMxOxD.reshape(z_BxMxE.shape[0], -1, self.width)
    u_BxCxD = pick(flat_BxNxD, index_BxC * table_BxMxOxD.shape[2] + offset_BxC).astype(jnp.float32)
    return spread(jnp.where(has_BxC[..., None], u_BxCxD, 0.0), scale, residual)

  def init_cache(self, batch_size: int) -> IndexedCache:
    """No chunk yet."""
    count = 1 if self.by == 'start' else OFFSETS
    return IndexedCache(jnp.zeros((batch_size, count, self.width), jnp.float32), jnp.zeros(batch_size, jnp.int32))

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments) -> IndexedCache:
    """The last chunk's, 0 without a chunk."""
    del cut
    count_Bx1 = segments.inner.count_B[:, None]
    slot_Bx1 = jnp.maximum(segments.outer.count_B - 1, 0)[:, None]
    table_BxOxD = self._table(pick(z_BxMxE, jnp.maximum(count_Bx1 - 1, 0))[:, 0]).astype(jnp.float32)
    table_BxOxD = jnp.where(count_Bx1[..., None] > 0, table_BxOxD, 0.0)
    return IndexedCache(table_BxOxD, jnp.take_along_axis(segments.offset_BxC, slot_Bx1, 1)[:, 0].astype(jnp.int32))

  def step(self, z_BxE: Array, cut: Cut, cache: IndexedCache) -> tuple[Array, IndexedCache]:
    """The table is made where a chunk starts, and read at every slot."""
    renew = lambda old: jnp.where(cut.emit[:, None, None], self._table(z_BxE).astype(jnp.float32), old)
    table_BxOxD = jax.lax.cond(jnp.any(cut.emit), renew, lambda old: old, cache.table_BxOxD)
    offset_B = jnp.where(cut.emit, 0, cache.offset_B + cut.more['active'])
    u_BxD = jnp.take_along_axis(table_BxOxD, self._place(offset_B)[:, None, None], 1)[:, 0]
    if self.by == 'start':
      u_BxD = jnp.where(cut.emit[:, None], u_BxD, 0.0)
    return u_BxD, IndexedCache(table_BxOxD, offset_B)

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, by: str, narrow: str, size: int) -> float:
    """A product for each chunk and offset."""
    del slots, size
    each = 2.0 * chunks * sizes.width * sizes.inner
    if by in ('matrix', 'bin'):
      return each * OFFSETS
    return each * (narrow == 'linear') * (OFFSETS if by == 'embedding' else 1)

  def _place(self, offset: Array) -> Array:
    """Where in the table a slot at this distance from the emission looks."""
    if self.by == 'bin':
      return jnp.minimum(offset // self.size, OFFSETS - 1)
    return jnp.zeros_like(offset) if self.by == 'start' else offset % OFFSETS

  def _table(self, z: Array) -> Array:
    """[..., E] -> [..., offsets, D]: what the slots of a chunk get."""
    x = self.norm(z, z.dtype) if self.narrow == 'linear' else z
    if self.by in ('matrix', 'bin'):
      maps_OxExD, rest = self.maps_OxExD[...], 0.0
      if hasattr(self, 'map'):
        maps_OxExD = maps_OxExD + self.map.kernel[...][None]
      elif self.narrow == 'mean':
        x, rest = self.maps_norm(z, z.dtype), self._narrowed(z)[..., None, :]
      return jnp.einsum('...e,oed->...od', x, maps_OxExD.astype(z.dtype)) + rest
    x = x[..., None, :]
    if self.by == 'embedding':
      x = x + jax.lax.broadcast_to_rank(self.places_OxE[...].astype(z.dtype), x.ndim)
    return self._narrowed(x)

  def _narrowed(self, x: Array) -> Array:
    return self.map(x) if self.narrow == 'linear' else jnp.mean(x.reshape(*x.shape[:-1], self.width, -1), -1)
