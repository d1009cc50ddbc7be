"""The mean of a chunk that boundaries close, with gradients to the boundaries, in O(L)."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import Cut, Sizes
from layers import checks
from layers.chunks import Segments
from layers.linear import Linear, normal
from layers.segments import starts

NORM_EPSILON = 1e-5


class LayerNorm(nnx.Module):
  """(x - mean) / deviation * scale + bias, float32."""

  def __init__(self, width: int):
    self.scale, self.bias = nnx.Param(jnp.ones(width, jnp.float32)), nnx.Param(jnp.zeros(width, jnp.float32))

  def __call__(self, x: Array) -> Array:
    """[..., D] float32."""
    x = x - jnp.mean(x, -1, keepdims=True)
    scale, bias = (jax.lax.broadcast_to_rank(leaf[...], x.ndim) for leaf in (self.scale, self.bias))
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + NORM_EPSILON) * scale + bias


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OpenMean:
  """seen_B: whether a document began. sum_BxD, count_B: of the slots that no chunk has yet, float32."""

  seen_B: Array
  sum_BxD: Array
  count_B: Array


class Mean(nnx.Module):
  """The mean of the slots behind the last emission up to this one (dynamic-pooling, MAGNET, FLEXITOKENS:
  shortening.py).

  What the published code computes with a [B, L, S] mask of ones and zeros that carries a gradient, g_j = sum_t w_t e_t
  / sum_t w_t does with w_t = 1 + c_t - stop_gradient(c_t), c_t the emissions between the chunk's start and t: the same
  values, and the same gradients to `cut.soft` and e.

  norm: 'layer', also of the null vector (down_ln), or 'none'. null: what stands for the chunk of a document's first
  slot, a 'learned' vector (null_group) or the slot's own state, 'first'. widen: how the channels become those inside,
  by a 'learned' vector behind them (H-Net), 'zeros' before them (SpaceByte) or a 'linear' map.
  """

  OPTIONS = {'norm': 'layer', 'null': 'learned', 'widen': 'learned'}
  reads = 'until'

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, norm: str, null: str, widen: str):
    checks.one_of(norm, ('layer', 'none'), 'pool mean: norm')
    checks.one_of(null, ('learned', 'first'), 'pool mean: null')
    checks.one_of(widen, ('learned', 'zeros', 'linear'), 'pool mean: widen')
    self.width, self.extra, self.widen = sizes.width, sizes.inner - sizes.width, widen
    if norm == 'layer':
      self.norm = LayerNorm(sizes.width)
    if null == 'learned':
      self.null = nnx.Param(normal(1.0)(rngs.params(), (sizes.width,)))
    if self.extra and widen == 'learned':
      self.pad = nnx.Param(jnp.zeros(self.extra, jnp.float32))
    if self.extra and widen == 'linear':
      self.map = Linear(sizes.width, sizes.inner, kernel_init=normal(sizes.width**-0.5), rngs=rngs)

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """See the class; slots behind a document's last emission are in no chunk."""
    outer, capacity = segments.outer, segments.slot_BxM.shape[1]
    begins_BxC = starts(outer.segment_ids_BxC)
    inside_BxC = since(cut.soft, begins_BxC | jnp.pad(segments.starts_BxC[:, :-1], ((0, 0), (1, 0))))
    weight_BxC = 1.0 + (inside_BxC - jax.lax.stop_gradient(inside_BxC))
    total_BxMxD = _sums(weight_BxC[..., None] * e_BxCxD.astype(jnp.float32), segments.closing_BxC, capacity)
    count_BxM = _sums(weight_BxC, segments.closing_BxC, capacity)
    mean_BxMxD = total_BxMxD / jnp.where(count_BxM > 0, count_BxM, 1.0)[..., None]
    is_first_BxM = jnp.take_along_axis(begins_BxC, segments.slot_BxM, 1, mode='clip')
    g_BxMxE = self._finished(mean_BxMxD, is_first_BxM, e_BxCxD.dtype)
    return jnp.where(segments.inner.valid[..., None], g_BxMxE, 0)

  def _finished(self, mean: Array, is_first: Array, dtype: jnp.dtype) -> Array:
    """[..., D] float32 -> [..., E]: null vector, norm and channels."""
    if hasattr(self, 'null'):
      mean = jnp.where(is_first[..., None], jax.lax.broadcast_to_rank(self.null[...], mean.ndim), mean)
    g = (self.norm(mean) if hasattr(self, 'norm') else mean).astype(dtype)
    if not self.extra:
      return g
    if self.widen == 'linear':
      return self.map(g)
    shape = (*g.shape[:-1], self.extra)
    if self.widen == 'zeros':
      return jnp.concatenate([jnp.zeros(shape, dtype), g], -1)
    return jnp.concatenate([g, jnp.broadcast_to(self.pad[...].astype(dtype), shape)], -1)

  def init_cache(self, batch_size: int) -> OpenMean:
    """Nothing seen."""
    zeros = jnp.zeros((batch_size, self.width), jnp.float32)
    return OpenMean(jnp.zeros(batch_size, bool), zeros, jnp.zeros(batch_size, jnp.float32))

  def after(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> OpenMean:
    """What no chunk has yet."""
    del cut
    outer = segments.outer
    is_open_BxC = outer.valid & (segments.closing_BxC == segments.slot_BxM.shape[1])
    sum_BxD = jnp.sum(jnp.where(is_open_BxC[..., None], e_BxCxD.astype(jnp.float32), 0.0), 1)
    return OpenMean(outer.count_B > 0, sum_BxD, jnp.sum(is_open_BxC, 1).astype(jnp.float32))

  def step(self, e_BxD: Array, cut: Cut, active_B: Array, cache: OpenMean) -> tuple[Array, Array, OpenMean]:
    """The open chunk with this slot."""
    active_Bx1 = active_B[:, None]
    sum_BxD = cache.sum_BxD + jnp.where(active_Bx1, e_BxD.astype(jnp.float32), 0.0)
    count_B = cache.count_B + active_B
    mean_BxD = sum_BxD / jnp.maximum(count_B, 1.0)[:, None]
    kept_B = ~cut.emit
    new = OpenMean(cache.seen_B | active_B, jnp.where(kept_B[:, None], sum_BxD, 0.0), jnp.where(kept_B, count_B, 0.0))
    return self._finished(mean_BxD, ~cache.seen_B, e_BxD.dtype), cut.emit, new

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, widen: str, **options: str) -> float:
    """A projection a chunk, if there is one."""
    del slots, options
    return 2.0 * chunks * sizes.width * sizes.inner if widen == 'linear' and sizes.inner > sizes.width else 0.0


def since(values_BxC: Array, resets_BxC: Array) -> Array:
  """Sum of the values before t, back to the last reset at or before t: [B, C] float32."""
  before_BxC = jnp.where(resets_BxC, 0.0, jnp.pad(values_BxC[:, :-1], ((0, 0), (1, 0))))

  def join(left, right):
    return left[0] | right[0], jnp.where(right[0], right[1], left[1] + right[1])

  return jax.lax.associative_scan(join, (resets_BxC, before_BxC), axis=1)[1]


def _sums(values_BxCx: Array, index_BxC: Array, count: int) -> Array:
  """Sums of values by index, of those below count: [B, count, ...]."""
  return jax.vmap(lambda values, index: jax.ops.segment_sum(values, index, count))(values_BxCx, index_BxC)
