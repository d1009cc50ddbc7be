"""Attention in plain XLA operations, a block of queries at a time, with a gradient that keeps no weights."""

import functools
from collections.abc import Iterator

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
  block: int = 64,
) -> Array:
  """See `kernels.attention.attention`.

  Query blocks look only at the keys that their window can reach, so what is masked is not computed; at most 16 blocks,
  to bound the size of the program.
  """
  heads_first = lambda x: repeated(x, q_BxLxHxK).swapaxes(1, 2)
  block = max(block, -(-q_BxLxHxK.shape[1] // 16))
  q, k, v = map(heads_first, (q_BxLxHxK, k_BxLxHxK, v_BxLxHxK))
  return _attend(window, causal, block, q, k, v, segment_ids_BxL).swapaxes(1, 2)


def _blocks(length: int, window: int, causal: bool, block: int) -> Iterator[tuple[slice, slice]]:
  """Queries, and the keys that they may see."""
  for first in range(0, length, block):
    last = min(first + block, length)
    low = 0 if window < 0 else max(0, first - window)
    high = last if causal else length if window < 0 else min(length, last + window)
    yield slice(first, last), slice(low, high)


def _logits(q: Array, k: Array, ids: Array, queries: slice, keys: slice, window: int, causal: bool) -> Array:
  """Of a block, [B, H, Q, S] float32, with what is not seen at MASKED."""
  ahead = jnp.arange(queries.start, queries.stop)[:, None] - jnp.arange(keys.start, keys.stop)  # of the key
  near = ahead >= 0 if causal else jnp.ones_like(ahead, bool)
  if window >= 0:
    near &= jnp.abs(ahead) <= window
  seen = near & (ids[:, queries, None] == ids[:, None, keys])
  logits = _product('bhqk,bhsk->bhqs', q[:, :, queries], k[:, :, keys])
  return jnp.where(seen[:, None], logits * q.shape[-1] ** -0.5, MASKED)


def _product(form: str, left: Array, right: Array) -> Array:
  return jnp.einsum(form, left, right, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _attend(window: int, causal: bool, block: int, q: Array, k: Array, v: Array, ids: Array) -> Array:
  """q, k, v [B, H, L, K] -> the same."""
  return _forward(window, causal, block, q, k, v, ids)[0]


def _forward(window, causal, block, q, k, v, ids):
  outputs, sums = [], []
  for queries, keys in _blocks(q.shape[2], window, causal, block):
    logits = _logits(q, k, ids, queries, keys, window, causal)
    highest = jnp.max(logits, -1, keepdims=True)
    weights = jnp.exp(logits - highest)
    total = jnp.sum(weights, -1, keepdims=True)
    y = _product('bhqs,bhsk->bhqk', weights.astype(q.dtype), v[:, :, keys])
    outputs.append((y / total).astype(q.dtype))
    sums.append(highest + jnp.log(total))
  y = _joined(outputs)
  return y, (q, k, v, ids, y, _joined(sums))


def _backward(window, causal, block, saved, dy):
  q, k, v, ids, y, sums = saved
  # The softmax's gradient takes off the mean of dy . v under the weights, which is dy . y.
  mean = jnp.sum(dy.astype(jnp.float32) * y.astype(jnp.float32), -1, keepdims=True)
  dq, dk, dv = [], None, None

  def add(total, keys, part):
    if total is None and part.shape == k.shape:  # the last queries may see all keys: nothing to fill with zeros
      return part
    return (jnp.zeros(k.shape, jnp.float32) if total is None else total).at[:, :, keys].add(part)

  for queries, keys in reversed(list(_blocks(q.shape[2], window, causal, block))):
    weights = jnp.exp(_logits(q, k, ids, queries, keys, window, causal) - sums[:, :, queries])
    dlogits = weights * (_product('bhqk,bhsk->bhqs', dy[:, :, queries], v[:, :, keys]) - mean[:, :, queries])
    dlogits = (dlogits * q.shape[-1] ** -0.5).astype(q.dtype)
    dq.append(_product('bhqs,bhsk->bhqk', dlogits, k[:, :, keys]).astype(q.dtype))
    dk = add(dk, keys, _product('bhqs,bhqk->bhsk', dlogits, q[:, :, queries]))
    dv = add(dv, keys, _product('bhqs,bhqk->bhsk', weights.astype(q.dtype), dy[:, :, queries]))
  return _joined(dq[::-1]), dk.astype(k.dtype), dv.astype(v.dtype), None


def _joined(blocks: list[Array]) -> Array:
  return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, 2)


_attend.defvjp(_forward, _backward)
