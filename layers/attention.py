"""Rotary self-attention with a sliding window, isolated by segment, and its decoding cache.

A window w lets a query see w keys before it and its own (w + 1 keys, as in the released H-Nets); -1 is full attention.
Attention that is not causal sees as many keys behind. Several query heads may share a key and value head.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from kernels.attention import attention
from kernels.attention.xla import MASKED, repeated
from layers.linear import Linear, RMSNorm, normal
from layers.partition import SharedOut
from layers.rotary import RotaryScaling, rotate
from layers.segments import positions


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionCache:
  """Keys (rotated) and values of each row's past, a ring of C slots; position p lives in slot p mod C."""

  k_BxCxHxK: Array
  v_BxCxHxK: Array
  length_B: Array  # positions seen so far


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
  """num_kv_heads: 0 = num_heads. head_size: 0 = width / num_heads. rotary_dim: channels of a head that turn. qk_norm:
  '' none, 'head' over each head with one scale for all, 'full' over all heads together.
  """

  width: int
  num_heads: int
  rotary_dim: int
  window: int = -1
  num_kv_heads: int = 0
  head_size: int = 0
  rotary_base: float = 10000.0
  rotary_scaling: RotaryScaling | None = None
  qk_norm: str = ''
  norm_epsilon: float = 1e-5
  causal: bool = True

  @property
  def kv_heads(self) -> int:
    return self.num_kv_heads or self.num_heads

  @property
  def head(self) -> int:
    return self.head_size or self.width // self.num_heads


class Attention(SharedOut):
  """Multi-head self-attention; queries, keys and values come from one product, in this order."""

  def __init__(self, config: AttentionConfig, *, output_deviation: float, rngs: nnx.Rngs):
    self.config = config
    heads = config.num_heads + 2 * config.kv_heads
    self.qkv = Linear(config.width, heads * config.head, kernel_init=normal(0.02), rngs=rngs)
    self.out = Linear(config.num_heads * config.head, config.width, kernel_init=normal(output_deviation), rngs=rngs)
    if config.qk_norm:
      full = config.qk_norm == 'full'
      self.query_norm, self.key_norm = (
        RMSNorm(config.head * (heads if full else 1), config.norm_epsilon)
        for heads in (config.num_heads, config.kv_heads)
      )

  def _project(self, x: Array, positions: Array) -> tuple[Array, Array, Array]:
    config = self.config
    parts = self.qkv.split(x, config.head, (config.num_heads, config.kv_heads, config.kv_heads))
    q, k, v = (part.reshape(*x.shape[:-1], -1, config.head) for part in parts)
    if config.qk_norm:
      q, k = self._normed(self.query_norm, q), self._normed(self.key_norm, k)
    turn = lambda x: rotate(x, positions, config.rotary_dim, config.rotary_base, config.rotary_scaling)
    return turn(q), turn(k), v

  def _normed(self, norm: RMSNorm, x: Array) -> Array:
    if self.config.qk_norm == 'full':
      return norm(x.reshape(*x.shape[:-2], -1), x.dtype).reshape(x.shape)
    return norm(x, x.dtype)

  def __call__(
    self, x_BxLxD: Array, segment_ids_BxL: Array, positions_BxL: Array, keys_BxL: Array | None = None
  ) -> Array:
    """Attends inside segments; positions are those of `segments.positions`. keys: which of them others see, bool; None:
    all (kernels/attention).
    """
    q, k, v = self._project(x_BxLxD, positions_BxL)
    y = attention(q, k, v, segment_ids_BxL, self.config.window, causal=self.config.causal, keys_BxL=keys_BxL)
    return self.out(y.reshape(*y.shape[:2], -1))

  @property
  def shared_out(self) -> dict[str, int]:
    """What the mesh axis `tensor` divides among devices."""
    return {'query heads': self.config.num_heads, 'key heads': self.config.kv_heads}

  def init_cache(self, batch_size: int, max_length: int, dtype: jnp.dtype, undo: int = 0) -> AttentionCache:
    """An empty cache for rows of at most `max_length` positions; a window bounds it.

    A row that goes beyond what its cache can hold gets nan, and not the answer of a shorter past. undo: how many of the
    last positions may be taken back, by lowering length_B.
    """
    window = self.config.window
    slots = max_length if window < 0 else min(max_length, window + 1 + undo)
    shape = (batch_size, slots, self.config.kv_heads, self.config.head)
    return AttentionCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(batch_size, jnp.int32))

  def prefill(
    self, x_BxLxD: Array, length_B: Array, cache: AttentionCache, keys_BxL: Array | None = None
  ) -> tuple[Array, AttentionCache]:
    """Parallel form over right-padded rows, from an empty cache; the rows' last C keys and values are kept."""
    index_BxL = jnp.broadcast_to(jnp.arange(x_BxLxD.shape[1], dtype=jnp.int32), x_BxLxD.shape[:2])
    kept_BxL, one_document = index_BxL < length_B[:, None], jnp.ones_like(index_BxL)
    if keys_BxL is not None:
      kept_BxL &= keys_BxL
      index_BxL, length_B = positions(one_document, keys_BxL), jnp.sum(kept_BxL, 1)
    q, k, v = self._project(x_BxLxD, index_BxL)
    y = attention(q, k, v, one_document, self.config.window, keys_BxL=keys_BxL)
    slots = cache.k_BxCxHxK.shape[1]
    kept_BxL &= index_BxL >= length_B[:, None] - slots
    slot_BxL = jnp.where(kept_BxL, index_BxL % slots, slots)
    row_Bx1 = jnp.arange(x_BxLxD.shape[0])[:, None]
    put = lambda buffer, new: buffer.at[row_Bx1, slot_BxL].set(new.astype(buffer.dtype), mode='drop')
    cache = AttentionCache(put(cache.k_BxCxHxK, k), put(cache.v_BxCxHxK, v), length_B.astype(jnp.int32))
    return self._or_nan(self.out(y.reshape(*y.shape[:2], -1)), cache), cache

  def step(
    self, x_BxD: Array, active_B: Array, cache: AttentionCache, keep_B: Array | None = None
  ) -> tuple[Array, AttentionCache]:
    """One position for every active row; other rows keep their cache and return values that nobody reads. keep: where
    later positions see this one, which else the next takes the place of; None: everywhere.
    """
    q, k, v = self._project(x_BxD, cache.length_B)
    slots = cache.k_BxCxHxK.shape[1]
    # An out-of-range slot drops the write: a `where` over the whole cache would copy it at every byte.
    slot_B = jnp.where(active_B, cache.length_B % slots, slots)
    put = lambda buffer, new: buffer.at[jnp.arange(slot_B.shape[0]), slot_B].set(new.astype(buffer.dtype), mode='drop')
    length_B = cache.length_B + active_B
    cache = AttentionCache(put(cache.k_BxCxHxK, k), put(cache.v_BxCxHxK, v), length_B)
    age_BxC = (length_B[:, None] - 1 - jnp.arange(slots)[None]) % slots  # of what a slot holds: 0 is the newest
    seen_BxC = age_BxC < length_B[:, None]
    if self.config.window >= 0:
      seen_BxC &= age_BxC <= self.config.window
    k_BxCxHxK, v_BxCxHxK = (repeated(x.astype(q.dtype), q) for x in (cache.k_BxCxHxK, cache.v_BxCxHxK))
    logits = jnp.einsum('bhk,bchk->bhc', q, k_BxCxHxK, preferred_element_type=jnp.float32)
    logits = jnp.where(seen_BxC[:, None], logits * q.shape[-1] ** -0.5, MASKED)
    weights = jax.nn.softmax(logits, -1).astype(q.dtype)
    y = jnp.einsum('bhc,bchk->bhk', weights, v_BxCxHxK)
    y = self._or_nan(self.out(y.reshape(y.shape[0], -1)), cache)
    return y, cache if keep_B is None else dataclasses.replace(cache, length_B=length_B - (active_B & ~keep_B))

  def _or_nan(self, y: Array, cache: AttentionCache) -> Array:
    """nan for the rows whose past is longer than a cache that must hold all of it."""
    slots = cache.k_BxCxHxK.shape[1]
    if 0 <= self.config.window < slots:
      return y
    fits_B = cache.length_B <= slots
    return jnp.where(fits_B.reshape(-1, *(1,) * (y.ndim - 1)), y, jnp.nan)


def flops(config: AttentionConfig, positions: float, span: float) -> float:
  """Forward FLOPs on `positions` positions that each see `span` keys (H-Net paper, appendix B: span = length)."""
  heads, inner = config.num_heads, config.num_heads * config.head
  projections = 2 * config.width * (2 * inner + 2 * config.kv_heads * config.head)
  return positions * (projections + 4 * span * inner + 3 * heads * span)
