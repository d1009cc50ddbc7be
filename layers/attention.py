"""Rotary causal attention with a sliding window, isolated by document, and its decoding cache.

A window w lets a query see w keys before it and its own (w + 1 keys, as in the released H-Nets); -1 is full attention.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from layers.linear import Linear, normal


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionCache:
  """Keys (rotated) and values of each row's past, a ring of C slots; position p lives in slot p mod C."""

  k_BxCxHxK: Array
  v_BxCxHxK: Array
  length_B: Array  # positions seen so far


class Attention(nnx.Module):
  """Multi-head causal self-attention; rotary embedding on the first `rotary_dim` channels of every head."""

  def __init__(
    self, width: int, num_heads: int, rotary_dim: int, window: int, *, output_deviation: float, rngs: nnx.Rngs
  ):
    self.num_heads, self.rotary_dim, self.window = num_heads, rotary_dim, window
    self.qkv = Linear(width, 3 * width, kernel_init=normal(0.02), rngs=rngs)
    self.out = Linear(width, width, kernel_init=normal(output_deviation), rngs=rngs)

  def _project(self, x: Array, positions: Array) -> tuple[Array, Array, Array]:
    qkv = self.qkv(x).reshape(*x.shape[:-1], 3, self.num_heads, -1)
    q, k, v = (qkv[..., i, :, :] for i in range(3))
    return rotate(q, positions, self.rotary_dim), rotate(k, positions, self.rotary_dim), v

  def __call__(self, x_BxLxD: Array, segment_ids_BxL: Array, positions_BxL: Array) -> Array:
    """Attends inside documents; positions are those of `segments.positions`."""
    y = causal_attention(*self._project(x_BxLxD, positions_BxL), segment_ids_BxL, self.window)
    return self.out(y.reshape(x_BxLxD.shape))

  def init_cache(self, batch_size: int, max_length: int, dtype: jnp.dtype) -> AttentionCache:
    """An empty cache for rows of at most `max_length` positions; a window bounds it.

    A row that goes beyond what its cache can hold gets nan, and not the answer of a shorter past.
    """
    slots = max_length if self.window < 0 else min(max_length, self.window + 1)
    width = self.qkv.kernel.shape[-2]
    shape = (batch_size, slots, self.num_heads, width // self.num_heads)
    return AttentionCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(batch_size, jnp.int32))

  def prefill(self, x_BxLxD: Array, length_B: Array, cache: AttentionCache) -> tuple[Array, AttentionCache]:
    """Parallel form over right-padded rows, from an empty cache; the rows' last C keys and values are kept."""
    index_L = jnp.arange(x_BxLxD.shape[1], dtype=jnp.int32)
    index_BxL = jnp.broadcast_to(index_L, x_BxLxD.shape[:2])
    q, k, v = self._project(x_BxLxD, index_BxL)
    y = causal_attention(q, k, v, jnp.ones_like(index_BxL), self.window)
    slots = cache.k_BxCxHxK.shape[1]
    kept_BxL = (index_L < length_B[:, None]) & (index_L >= length_B[:, None] - slots)
    slot_BxL = jnp.where(kept_BxL, index_L % slots, slots)
    row_Bx1 = jnp.arange(x_BxLxD.shape[0])[:, None]
    put = lambda buffer, new: buffer.at[row_Bx1, slot_BxL].set(new.astype(buffer.dtype), mode='drop')
    cache = AttentionCache(put(cache.k_BxCxHxK, k), put(cache.v_BxCxHxK, v), length_B.astype(jnp.int32))
    return self._or_nan(self.out(y.reshape(x_BxLxD.shape)), cache), cache

  def step(self, x_BxD: Array, active_B: Array, cache: AttentionCache) -> tuple[Array, AttentionCache]:
    """One position for every active row; other rows keep their cache and return values that nobody reads."""
    q, k, v = self._project(x_BxD, cache.length_B)
    slots = cache.k_BxCxHxK.shape[1]
    # An out-of-range slot drops the write: a `where` over the whole cache would copy it at every byte.
    slot_B = jnp.where(active_B, cache.length_B % slots, slots)
    put = lambda buffer, new: buffer.at[jnp.arange(slot_B.shape[0]), slot_B].set(new.astype(buffer.dtype), mode='drop')
    length_B = cache.length_B + active_B
    cache = AttentionCache(put(cache.k_BxCxHxK, k), put(cache.v_BxCxHxK, v), length_B)
    seen_BxC = jnp.arange(slots) < length_B[:, None]
    logits = jnp.einsum('bhk,bchk->bhc', q, cache.k_BxCxHxK.astype(q.dtype), preferred_element_type=jnp.float32)
    logits = jnp.where(seen_BxC[:, None], logits * q.shape[-1] ** -0.5, _MASKED)
    weights = jax.nn.softmax(logits, -1).astype(q.dtype)
    y = jnp.einsum('bhc,bchk->bhk', weights, cache.v_BxCxHxK.astype(q.dtype))
    return self._or_nan(self.out(y.reshape(x_BxD.shape)), cache), cache

  def _or_nan(self, y: Array, cache: AttentionCache) -> Array:
    """nan for the rows whose past is longer than a cache that must hold all of it."""
    slots = cache.k_BxCxHxK.shape[1]
    if 0 <= self.window < slots:
      return y
    fits_B = cache.length_B <= slots
    return jnp.where(fits_B.reshape(-1, *(1,) * (y.ndim - 1)), y, jnp.nan)


_MASKED = -1e30  # finite, so that a row with nothing to see stays free of nan


def rotate(x: Array, positions: Array, rotary_dim: int, base: float = 10000.0) -> Array:
  """Rotary embedding: pairs (i, i + r/2) turn by position * base^(-2i/r) (half-split form).

  x [..., H, K], positions [...] -> [..., H, K]. Angles in float32, sine and cosine cast to x's dtype.
  """
  if not rotary_dim:
    return x
  half = rotary_dim // 2
  frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angle = positions[..., None, None].astype(jnp.float32) * frequency
  cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
  a, b, rest = jnp.split(x, [half, rotary_dim], axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)


def causal_attention(
  q_BxLxHxK: Array, k_BxLxHxK: Array, v_BxLxHxK: Array, segment_ids_BxL: Array, window: int, block: int = 128
) -> Array:
  """Softmax attention over past positions of the same document: [B, L, H, K].

  Query blocks look only at the keys that their window can reach, so the masked half is never computed; at most 16
  blocks, to bound the size of the program.
  """
  length = q_BxLxHxK.shape[1]
  block = max(block, -(-length // 16))
  outputs = []
  for first in range(0, length, block):
    last = min(first + block, length)
    low = 0 if window < 0 else max(0, first - window)
    outputs.append(
      _attend(
        q_BxLxHxK[:, first:last],
        k_BxLxHxK[:, low:last],
        v_BxLxHxK[:, low:last],
        _visible(segment_ids_BxL, first, last, low, window),
      )
    )
  return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, 1)


def _visible(segment_ids_BxL: Array, first: int, last: int, low: int, window: int) -> Array:
  q_index, k_index = jnp.arange(first, last)[:, None], jnp.arange(low, last)
  near = q_index >= k_index
  if window >= 0:
    near &= q_index - k_index <= window
  return near & (segment_ids_BxL[:, first:last, None] == segment_ids_BxL[:, None, low:last])


def _attend(q_BxQxHxK: Array, k_BxSxHxK: Array, v_BxSxHxK: Array, visible_BxQxS: Array) -> Array:
  logits = jnp.einsum('bqhk,bshk->bhqs', q_BxQxHxK, k_BxSxHxK, preferred_element_type=jnp.float32)
  logits = jnp.where(visible_BxQxS[:, None], logits * q_BxQxHxK.shape[-1] ** -0.5, _MASKED)
  weights = jax.nn.softmax(logits, -1).astype(q_BxQxHxK.dtype)
  return jnp.einsum('bhqs,bshk->bqhk', weights, v_BxSxHxK)


def flops(positions: float, width: int, num_heads: int, span: float) -> float:
  """Forward FLOPs on `positions` positions that each see `span` keys (H-Net paper, appendix B: span = length)."""
  return positions * (6 * width**2 + 2 * span * width + 3 * num_heads * span + 2 * span * width + 2 * width**2)
