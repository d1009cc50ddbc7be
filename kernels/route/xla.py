"""Cosines of adjacent positions by XLA's own fusions."""

import jax
import jax.numpy as jnp
from jax import Array

from kernels.route import FLOOR


def cosines(q_BxLxD: Array, k_BxLxD: Array) -> Array:
  """cos(q_{t-1}, k_t), [B, L] float32; 0 at the first position."""
  unit = lambda v: v * jax.lax.rsqrt(jnp.maximum(jnp.sum(v * v, -1, keepdims=True), FLOOR))
  q, k = q_BxLxD.astype(jnp.float32), k_BxLxD.astype(jnp.float32)
  q = jnp.pad(q[:, :-1], ((0, 0), (1, 0), (0, 0)))
  return jnp.sum(unit(q) * unit(k), -1)
