"""Softmax attention inside documents, with a window; its kernels are those of libraries."""

import functools

from jax import Array

from kernels.choice import choose
from kernels.mesh import over_rows


def attention(
  q_BxLxHxK: Array,
  k_BxLxHxK: Array,
  v_BxLxHxK: Array,
  segment_ids_BxL: Array,
  window: int,
  *,
  causal: bool = True,
  keys_BxL: Array | None = None,
  implementation: str | None = None,
) -> Array:
  """Softmax of q k / sqrt(K) over the positions of the same segment, applied to v: [B, L, H, K] in the dtype of q.

  k and v may have fewer heads, each for H / heads query heads in turn. window: how many positions before its own a
  query sees, -1 for all; where attention is not causal, as many behind. Segment ids ascend in a row, but for 0 behind
  them, which is padding and sees itself. Logits and their softmax are float32.

  keys: bool, the positions that others see too; the rest is seen by itself alone. None: all. Positions are then counted
  by keys: that of a query is the number of keys before it, and a window shows so many of them and the query's own. Only
  XLA's form has this, and only where attention is causal.

  implementation: 'xla', 'pallas_tpu', 'pallas_gpu' or None for the default of the mesh's devices (kernels/choice.py).
  ValueError: shapes that do not agree, an implementation that the devices cannot run.
  """
  (batch, length, heads, size), few = q_BxLxHxK.shape, k_BxLxHxK.shape[2]
  if (
    k_BxLxHxK.shape != (batch, length, few, size)
    or v_BxLxHxK.shape != k_BxLxHxK.shape
    or heads % few
    or segment_ids_BxL.shape != (batch, length)
  ):
    raise ValueError(
      f'attention: q {q_BxLxHxK.shape}, k {k_BxLxHxK.shape}, v {v_BxLxHxK.shape} and segment_ids '
      f'{segment_ids_BxL.shape} must be [B, L, H, K], twice [B, L, G, K] with G a divisor of H, and [B, L].'
    )
  if keys_BxL is not None and (keys_BxL.shape != (batch, length) or not causal):
    raise ValueError(
      f'attention: keys {keys_BxL.shape} must be [B, L] = {(batch, length)}, and attention causal; it is '
      f'{"causal" if causal else "not"}.'
    )
  name = choose('attention', implementation, '' if keys_BxL is None else 'choice of keys (keys_BxL)')
  if name == 'xla':
    from kernels.attention.xla import attention as run
  elif name == 'pallas_tpu':
    from kernels.attention.pallas_tpu import attention as run
  else:
    from kernels.attention.pallas_gpu import attention as run
  run = functools.partial(run, window=window, causal=causal, **({} if keys_BxL is None else {'keys_BxL': keys_BxL}))
  arguments = (q_BxLxHxK, k_BxLxHxK, v_BxLxHxK, segment_ids_BxL)
  return over_rows(name, run, arguments, heads=(2, 2, 2, None), output_heads=2)
