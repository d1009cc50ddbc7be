"""Attention on a GPU: JAX's Pallas kernel in its Triton lowering, which compares segments and skips what is ahead.

It has no window. `jax.nn.dot_product_attention` would turn segments into a bias of [L, L], and tokamax offers neither
segments nor ranges of keys outside its private modules.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

try:
  from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha
except ImportError as error:
  raise ImportError(f'jax {jax.__version__} has no GPU attention in Pallas; those from 0.10 to 0.12 have') from error

BLOCK = 64


def attention(
  q_BxLxHxK: Array,
  k_BxLxHxK: Array,
  v_BxLxHxK: Array,
  segment_ids_BxL: Array,
  window: int,
  *,
  causal: bool = True,
  interpret: bool = False,
) -> Array:
  """See `kernels.attention.attention`. ValueError: a window that hides anything."""
  length, heads, size = q_BxLxHxK.shape[1:]
  if 0 <= window < length - 1:
    raise ValueError(
      f"attention: the GPU kernel has no window, and one of {window} was asked for; write implementation='xla'."
    )
  block = BLOCK if length >= BLOCK else 16
  pad = -length % block
  padded = lambda v: jnp.pad(v, ((0, 0), (0, pad), (0, 0), (0, 0)))
  shared = lambda v: padded(jnp.repeat(v, heads // v.shape[2], axis=2))
  # What stands behind the row is a segment of its own, which no row has.
  ids_BxL = jnp.pad(segment_ids_BxL, ((0, 0), (0, pad)), constant_values=-1)
  names = ('block_q', 'block_k', 'block_q_dkv', 'block_kv_dkv', 'block_q_dq', 'block_kv_dq')
  run = functools.partial(mha, block_sizes=BlockSizes(**dict.fromkeys(names, block)), interpret=interpret)
  y = run(padded(q_BxLxHxK), shared(k_BxLxHxK), shared(v_BxLxHxK), ids_BxL, sm_scale=size**-0.5, causal=causal)
  return y[:, :length]
