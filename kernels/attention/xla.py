"""Attention in plain XLA operations, a block of queries at a time, with a gradient that keeps no weights."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

MASKED = -1e30  # finite, so that a row with nothing to see stays free of nan
LOOPED = 128  # queries of a longer block that are met at once, so that memory grows with the length alone


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
  keys_BxL: Array | None = None,
  block: int = 64,
) -> Array:
  """See `kernels.attention.attention`.

  Query blocks look only at the keys that their window can reach, so what is masked is not computed; at most 16 blocks
  and a rest, to bound the size of the program. A long block is a loop over its queries. With `keys` a window reaches
  as far as the text says, and all keys that causality allows are computed.
  """
  heads_first = lambda x: repeated(x, q_BxLxHxK).swapaxes(1, 2)
  block = max(block, -(-q_BxLxHxK.shape[1] // 16))
  block += -block % LOOPED if block > LOOPED else 0
  q, k, v = map(heads_first, (q_BxLxHxK, k_BxLxHxK, v_BxLxHxK))
  counted = None if keys_BxL is None else (keys_BxL, jnp.cumsum(keys_BxL, 1, dtype=jnp.int32) - keys_BxL)
  return _attend(window, causal, block, q, k, v, segment_ids_BxL, counted).swapaxes(1, 2)


def _blocks(length: int, window: int, causal: bool, block: int) -> Iterator[tuple[slice, slice]]:
  """Queries, and the keys that they may see; window: -1 where it says nothing about their places in the row."""
  rest = length % block % LOOPED if block > LOOPED else 0
  starts = [*range(0, length - rest, block), *([length - rest] if rest else [])]
  for first, last in zip(starts, [*starts[1:], length], strict=True):
    low = 0 if window < 0 else max(0, first - window)
    high = last if causal else length if window < 0 else min(length, last + window)
    yield slice(first, last), slice(low, high)


def _logits(
  q: Array,
  k: Array,
  ids: Array,
  counted: tuple[Array, Array] | None,
  start: int | Array,
  size: int,
  keys: slice,
  window: int,
  causal: bool,
) -> Array:
  """Of the queries start, start + 1, ... [B, H, size, S] float32, with what is not seen at MASKED. counted: which
  positions others see, and how many of these stand before each; None: all are seen.
  """
  ahead = (start + jnp.arange(size))[None, :, None] - jnp.arange(keys.start, keys.stop)[None, None]  # of the key
  near = ahead >= 0 if causal else jnp.ones_like(ahead, bool)
  if window >= 0 and counted is None:
    near &= jnp.abs(ahead) <= window
  seen = near & (_part(ids, start, size, 1)[:, :, None] == ids[:, None, keys])
  if counted is not None:
    is_key, before = counted
    seen &= is_key[:, None, keys] | (ahead == 0)
    if window >= 0:
      seen &= _part(before, start, size, 1)[:, :, None] - before[:, None, keys] <= window
  logits = _product('bhqk,bhsk->bhqs', _part(q, start, size), k[:, :, keys])
  return jnp.where(seen[:, None], logits * q.shape[-1] ** -0.5, MASKED)


def _part(x: Array, start: int | Array, size: int, axis: int = 2) -> Array:
  if isinstance(start, int):
    return jax.lax.slice_in_dim(x, start, start + size, axis=axis)
  return jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def _in_turns(step: Callable, carry: Any, queries: slice) -> tuple[Any, Any]:
  """(carry, arrays [B, H, Q, K]) of step(carry, start, size) over the queries of a block."""
  size = queries.stop - queries.start
  if size <= LOOPED:
    return step(carry, queries.start, size)
  starts = jnp.arange(queries.start, queries.stop, LOOPED)
  carry, found = jax.lax.scan(lambda carry, start: step(carry, start, LOOPED), carry, starts)
  return carry, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], size, x.shape[-1]), found)


def _product(form: str, left: Array, right: Array) -> Array:
  return jnp.einsum(form, left, right, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _attend(
  window: int,
  causal: bool,
  block: int,
  q: Array,
  k: Array,
  v: Array,
  ids: Array,
  counted: tuple[Array, Array] | None,
) -> Array:
  """q, k, v [B, H, L, K] -> the same."""
  return _forward(window, causal, block, q, k, v, ids, counted)[0]


def _forward(window, causal, block, q, k, v, ids, counted):
  found = []
  for queries, keys in _blocks(q.shape[2], window if counted is None else -1, causal, block):

    def step(carry, start, size, keys=keys):
      logits = _logits(q, k, ids, counted, start, size, keys, window, causal)
      highest = jnp.max(logits, -1, keepdims=True)
      weights = jnp.exp(logits - highest)
      total = jnp.sum(weights, -1, keepdims=True)
      y = _product('bhqs,bhsk->bhqk', weights.astype(q.dtype), v[:, :, keys])
      return carry, ((y / total).astype(q.dtype), highest + jnp.log(total))

    found.append(_in_turns(step, None, queries)[1])
  y, sums = map(_joined, zip(*found, strict=True))
  return y, (q, k, v, ids, counted, y, sums)


def _backward(window, causal, block, saved, dy):
  q, k, v, ids, counted, y, sums = saved
  # The softmax's gradient takes off the mean of dy . v under the weights, which is dy . y.
  mean = jnp.sum(dy.astype(jnp.float32) * y.astype(jnp.float32), -1, keepdims=True)
  dq, dk, dv = [], None, None

  def add(total, keys, part):
    if total is None and part.shape == k.shape:  # the last queries may see all keys: nothing to fill with zeros
      return part
    return (jnp.zeros(k.shape, jnp.float32) if total is None else total).at[:, :, keys].add(part)

  for queries, keys in reversed(list(_blocks(q.shape[2], window if counted is None else -1, causal, block))):

    def step(carry, start, size, keys=keys):
      dk, dv = carry
      dy_part = _part(dy, start, size)
      logits = _logits(q, k, ids, counted, start, size, keys, window, causal)
      weights = jnp.exp(logits - _part(sums, start, size))
      dlogits = weights * (_product('bhqk,bhsk->bhqs', dy_part, v[:, :, keys]) - _part(mean, start, size))
      dlogits = (dlogits * q.shape[-1] ** -0.5).astype(q.dtype)
      dk += _product('bhqs,bhqk->bhsk', dlogits, _part(q, start, size))
      dv += _product('bhqs,bhqk->bhsk', weights.astype(q.dtype), dy_part)
      return (dk, dv), _product('bhqs,bhsk->bhqk', dlogits, k[:, :, keys]).astype(q.dtype)

    none = jnp.zeros((*k.shape[:2], keys.stop - keys.start, k.shape[3]), jnp.float32)
    (dk_part, dv_part), dq_part = _in_turns(step, (none, none), queries)
    dq.append(dq_part)
    dk, dv = add(dk, keys, dk_part), add(dv, keys, dv_part)
  return _joined(dq[::-1]), dk.astype(k.dtype), dv.astype(v.dtype), None, None


def _joined(blocks: Sequence[Array]) -> Array:
  return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, 2)


_attend.defvjp(_forward, _backward)
