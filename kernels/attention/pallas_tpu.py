"""Attention on a TPU: JAX's splash attention, which skips blocks of keys that the window or causality hides."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask


def attention(
  q_BxLxHxK: Array,
  k_BxLxHxK: Array,
  v_BxLxHxK: Array,
  segment_ids_BxL: Array,
  window: int,
  *,
  causal: bool = True,
  interpret: Any = False,
) -> Array:
  """See `kernels.attention.attention`. Segments are compared inside the blocks."""
  length, heads, size = q_BxLxHxK.shape[1:]
  # Large blocks move less, small ones pad less.
  block = 512 if length >= 2048 else 256 if length >= 1024 else 128
  pad = -length % block
  shape = 2 * (length + pad,)
  if window >= 0:
    mask = splash_attention_mask.LocalMask(shape, (window, 0 if causal else window), 0)
  else:
    mask = (splash_attention_mask.CausalMask if causal else splash_attention_mask.FullMask)(shape)
  forward = ('block_q', 'block_kv', 'block_kv_compute')
  backward = ('block_q_dkv', 'block_kv_dkv', 'block_kv_dkv_compute', 'block_q_dq', 'block_kv_dq')
  kernel = splash_attention_kernel.make_splash_mha(
    splash_attention_mask.MultiHeadMask([mask] * heads),
    block_sizes=splash_attention_kernel.BlockSizes(**dict.fromkeys(forward + backward, block)),
    head_shards=1,
    q_seq_shards=1,
    interpret=interpret,
  )
  heads_first = lambda v: jnp.moveaxis(jnp.pad(v, ((0, 0), (0, pad), (0, 0), (0, 0))), 1, 2)
  # What stands behind the row is a segment of its own, which no row has.
  ids_BxL = jnp.pad(segment_ids_BxL, ((0, 0), (0, pad)), constant_values=-1)
  one_row = lambda q, k, v, ids: kernel(q, k, v, splash_attention_kernel.SegmentIds(ids, ids))
  y_BxHxLxK = jax.vmap(one_row)(*map(heads_first, (q_BxLxHxK * size**-0.5, k_BxLxHxK, v_BxLxHxK)), ids_BxL)
  return jnp.moveaxis(y_BxHxLxK, 1, 2)[:, :length]
