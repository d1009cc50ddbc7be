"""What a chunk's vector is made of, and how it becomes as wide as the stage inside."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import Cut, Sizes
from kernels.chunk import chunk
from layers import checks
from layers.chunks import Segments
from layers.cross import CrossConfig, LatentPool, OpenChunk, pool_flops
from layers.linear import Linear, RMSNorm, normal


class First(nnx.Module):
  """The state at a chunk's first slot (H-Net, SpaceByte).

  widen: 'learned' puts a learned vector behind its channels (H-Net's pad_dimension), 'zeros' zeros before them
  (SpaceByte), 'linear' is a norm and a linear map, 'mixed' has each channel as often as the stage inside is wider,
  mixed with the next one (AU-Net's two; lingua, apps/aunet/hierarchical.py).
  """

  OPTIONS = {'widen': 'learned'}
  reads = 'first'

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, widen: str):
    checks.one_of(widen, ('learned', 'zeros', 'linear', 'mixed'), 'pool first: widen')
    self.extra, self.widen = sizes.inner - sizes.width, widen
    if widen == 'mixed' and sizes.inner % sizes.width:
      raise ValueError(f'pool first: widen=mixed needs {sizes.inner} channels to be a multiple of {sizes.width}.')
    if self.extra and widen == 'learned':
      self.pad = nnx.Param(jnp.zeros(self.extra, jnp.float32))
    elif widen == 'linear':
      self.norm = RMSNorm(sizes.width)
      self.map = Linear(sizes.width, sizes.inner, kernel_init=normal(sizes.width**-0.5), rngs=rngs)

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """Compaction, and the channels."""
    del cut
    return self._widened(chunk(e_BxCxD, segments.starts_BxC, segments.slot_BxM.shape[1]).values_BxMxD)

  def init_cache(self, batch_size: int) -> None:
    """No state."""

  def after(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> None:
    """No state."""

  def step(self, e_BxD: Array, cut: Cut, active_B: Array, cache: None) -> tuple[Array, Array, None]:
    """The state itself."""
    del active_B
    return self._widened(e_BxD), cut.emit, cache

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, widen: str) -> float:
    """Of the linear map, if there is one."""
    del slots
    return 2.0 * chunks * sizes.width * sizes.inner * (widen == 'linear')

  def _widened(self, x: Array) -> Array:
    if self.widen == 'linear':
      return self.map(self.norm(x, x.dtype))
    if self.widen == 'mixed':
      times = 1 + self.extra // x.shape[-1]
      weight = jnp.tile(jnp.arange(1, times + 1, dtype=x.dtype) / times, x.shape[-1])
      weight, x = jax.lax.broadcast_to_rank(weight, x.ndim), jnp.repeat(x, times, -1)
      return x * weight + jnp.roll(x, times, -1) * (1 - weight)
    if not self.extra:
      return x
    shape = (*x.shape[:-1], self.extra)
    if self.widen == 'zeros':
      return jnp.concatenate([jnp.zeros(shape, x.dtype), x], -1)
    return jnp.concatenate([x, jnp.broadcast_to(self.pad[...].astype(x.dtype), shape)], -1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LatentCache:
  """slot_B: slots of the document so far; chunk_B: chunks that started; open: what is read for the next, float32."""

  slot_B: Array
  chunk_B: Array
  open: OpenChunk


class Latent(LatentPool):
  """A latent query's attention to the slots before a chunk, back to where the chunk before starts (T-Free-HAT).

  heads share the channels inside; kv_heads: 0 = heads; qk_norm: 'none', 'head' or 'full'; norm_epsilon: of that norm.

  What starts at e_k gets what was read in [e_{k-1}, e_k). Where words start at e, that is word k - 1: T-Free-HAT has a
  slot for it, w = k - 1, and delivers the output one word later, to the same slots. The emission at a document's first
  slot makes no chunk (its slots get `first_E` of `cross`, which does not pass through the stage inside, as there), so
  chunks, too, count from w = 0: rotary positions of the query and of the stage inside are equal, and so are the values.
  Not equal: T-Free-HAT's last word of a document has a slot, whose output nothing reads; here it has no chunk.
  """

  OPTIONS = {'heads': 8, 'kv_heads': 0, 'qk_norm': 'none', 'rotary_base': 10000.0, 'norm_epsilon': 1e-5}
  reads = 'before'

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **options: float | str):
    super().__init__(self._config(sizes, **options), output_deviation=0.02, rngs=rngs)

  @staticmethod
  def _config(
    sizes: Sizes, heads: int, kv_heads: int, qk_norm: str, rotary_base: float, norm_epsilon: float
  ) -> CrossConfig:
    checks.one_of(qk_norm, ('none', 'head', 'full'), 'pool latent: qk_norm')
    more = {'qk_norm': qk_norm.replace('none', ''), 'rotary_base': rotary_base, 'norm_epsilon': norm_epsilon}
    return CrossConfig.of_heads('pool latent', sizes.inner, sizes.width, heads, kv_heads, **more)

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """Each slot is read by the chunk that starts next."""
    del cut
    return self.pool(e_BxCxD, segments.next_BxC, segments)

  def init_cache(self, batch_size: int) -> LatentCache:
    """Nothing read."""
    zeros = lambda: jnp.zeros(batch_size, jnp.int32)  # each its own, to be donated
    return LatentCache(zeros(), zeros(), self.begin(batch_size))

  def after(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> LatentCache:
    """What no chunk has read yet is open."""
    del cut
    outer, count_B = segments.outer, segments.inner.count_B.astype(jnp.int32)
    waits_BxC = outer.valid & (segments.next_BxC == segments.slot_BxM.shape[1])
    return LatentCache(outer.count_B.astype(jnp.int32), count_B, self.read_all(e_BxCxD, waits_BxC, count_B))

  def step(self, e_BxD: Array, cut: Cut, active_B: Array, cache: LatentCache) -> tuple[Array, Array, LatentCache]:
    """The open chunk is done where one starts, and the slot is read for the next."""
    starts_B = cut.emit & (cache.slot_B > 0)
    finish = lambda chunk: self.finish(chunk, e_BxD.dtype)
    nothing = lambda chunk: jnp.zeros((e_BxD.shape[0], self.config.width_q), e_BxD.dtype)
    g_BxE = jax.lax.cond(jnp.any(starts_B), finish, nothing, cache.open)
    chunk_B = cache.chunk_B + starts_B
    chunk = self.read(e_BxD, cache.slot_B, chunk_B, active_B, self.begin_where(starts_B, cache.open))
    return g_BxE, starts_B, LatentCache(cache.slot_B + active_B, chunk_B, chunk)

  @classmethod
  def flops(cls, sizes: Sizes, slots: float, chunks: float, **options: float | str) -> float:
    """Keys and values of every slot, and a projection a chunk."""
    return pool_flops(cls._config(sizes, **options), slots, chunks)
