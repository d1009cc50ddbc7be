"""One chunk of H-Net's smoothing (arXiv 2507.07955, eq. 5; dc.py DeChunkLayer); all at once is kernels/dechunk."""

import jax.numpy as jnp
from jax import Array

from kernels.dechunk import CLAMP


def ema_step(h_BxD: Array, p_B: Array, last_BxD: Array) -> Array:
  """p h + (1 - p) last with p within [CLAMP, 1 - CLAMP], float32: h, last [B, D], p [B]."""
  p_Bx1 = jnp.clip(p_B, CLAMP, 1 - CLAMP)[:, None]
  return p_Bx1 * h_BxD.astype(jnp.float32) + (1 - p_Bx1) * last_BxD
