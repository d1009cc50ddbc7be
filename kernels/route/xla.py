"""Cosines of adjacent positions by XLA's own fusions."""

import jax
import jax.numpy as jnp
from jax import Array

from kernels.route import FLOOR


def cosines(q_BxLxD: Array, k_BxLxD: Array) -> Array:
  """cos(q_{t-1}, k_t), [B, L] float32; 0 at the first position."""
  q, k = q_BxLxD.astype(jnp.float32), k_BxLxD.astype(jnp.float32)
  return cosine(jnp.pad(q[:, :-1], ((0, 0), (1, 0), (0, 0))), k)


def cosine(q: Array, k: Array) -> Array:
  """cos(q, k) of float32 vectors [..., D]: [...]."""
  unit = lambda v: v * jax.lax.rsqrt(jnp.maximum(jnp.sum(v * v, -1, keepdims=True), FLOOR))
  return jnp.sum(unit(q) * unit(k), -1)
