"""Attention in plain XLA operations, a block of queries at a time."""

import jax
import jax.numpy as jnp
from jax import Array

MASKED = -1e30  # finite, so that a row with nothing to see stays free of nan


def repeated(x: Array, q: Array) -> Array:
  """Key or value heads, each as often as query heads share it: [..., H, K]."""
  return x if x.shape[-2] == q.shape[-2] else jnp.repeat(x, q.shape[-2] // x.shape[-2], -2)


def attention(
  q_BxLxHxK: Array,
  k_BxLxHxK: Array,
  v_BxLxHxK: Array,
  segment_ids_BxL: Array,
  window: int,
  *,
  causal: bool = True,
  block: int = 128,
) -> Array:
  """See `kernels.attention.attention`.

  Query blocks look only at the keys that their window can reach, so what is masked is not computed; at most 16 blocks,
  to bound the size of the program.
  """
  length = q_BxLxHxK.shape[1]
  block = max(block, -(-length // 16))
  outputs = []
  for first in range(0, length, block):
    last = min(first + block, length)
    low = 0 if window < 0 else max(0, first - window)
    high = last if causal else length if window < 0 else min(length, last + window)
    q = q_BxLxHxK[:, first:last]
    k, v = (repeated(x[:, low:high], q) for x in (k_BxLxHxK, v_BxLxHxK))
    outputs.append(_attend(q, k, v, _visible(segment_ids_BxL, (first, last), (low, high), window, causal)))
  return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, 1)


def _visible(segment_ids_BxL: Array, queries: tuple, keys: tuple, window: int, causal: bool) -> Array:
  ahead = jnp.arange(*queries)[:, None] - jnp.arange(*keys)  # of the key
  near = ahead >= 0 if causal else jnp.ones_like(ahead, bool)
  if window >= 0:
    near &= jnp.abs(ahead) <= window
  q_ids, k_ids = segment_ids_BxL[:, slice(*queries), None], segment_ids_BxL[:, None, slice(*keys)]
  return near & (q_ids == k_ids)


def _attend(q_BxQxHxK: Array, k_BxSxHxK: Array, v_BxSxHxK: Array, visible_BxQxS: Array) -> Array:
  logits = jnp.einsum('bqhk,bshk->bhqs', q_BxQxHxK, k_BxSxHxK, preferred_element_type=jnp.float32)
  logits = jnp.where(visible_BxQxS[:, None], logits * q_BxQxHxK.shape[-1] ** -0.5, MASKED)
  weights = jax.nn.softmax(logits, -1).astype(q_BxQxHxK.dtype)
  return jnp.einsum('bhqs,bshk->bqhk', weights, v_BxSxHxK)
