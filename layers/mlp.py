"""The gated MLP (SwiGLU), in the channel order of the released H-Nets."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from layers.linear import Linear, normal


class SwiGLU(nnx.Module):
  """fc2(silu(gate) * y) with [y | gate] = fc1(x): the gate is the second half."""

  def __init__(self, width: int, hidden: int, *, output_deviation: float, rngs: nnx.Rngs):
    self.fc1 = Linear(width, 2 * hidden, kernel_init=normal(0.02), rngs=rngs)
    self.fc2 = Linear(hidden, width, kernel_init=normal(output_deviation), rngs=rngs)

  def __call__(self, x: Array) -> Array:
    """x [..., D] -> [..., D]."""
    y, gate = jnp.split(self.fc1(x), 2, axis=-1)
    return self.fc2(jax.nn.silu(gate) * y)


def flops(positions: float, width: int, hidden: int) -> float:
  """Forward FLOPs on `positions` positions (H-Net paper, appendix B)."""
  return positions * (6 * width * hidden + 5 * hidden)
