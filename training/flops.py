"""Model-FLOPs utilization: the work that the model needs, over what the devices can do on matrix products."""

import functools
import time

import jax
import jax.numpy as jnp

BACKWARD = 2.0  # the backward pass costs twice the forward one: each product has two gradients


def utilization(forward_flops_per_byte: float, bytes_per_second: float, peak: float) -> float:
  """Share of `peak` (FLOP/s of all devices) that training uses; recomputed activations do not count as work."""
  return (1.0 + BACKWARD) * forward_flops_per_byte * bytes_per_second / peak


@functools.cache
def matmul_peak(dtype: str) -> float:
  """FLOP/s of one device on a square matrix product of this dtype: the best of a few, measured once in about 0.3 s."""
  size = 1024 if jax.devices()[0].platform == 'cpu' else 8192
  x = jnp.ones((size, size), dtype)
  product = jax.jit(jnp.matmul).lower(x, x).compile()
  product(x, x).block_until_ready()
  best, end = float('inf'), time.perf_counter() + 0.3
  while time.perf_counter() < end:
    start = time.perf_counter()
    product(x, x).block_until_ready()
    best = min(best, time.perf_counter() - start)
  return 2.0 * size**3 / best
