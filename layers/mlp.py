"""The gated MLP (SwiGLU), in the channel order of the released H-Nets."""

import jax
from flax import nnx
from jax import Array

from layers.linear import Linear, normal
from layers.partition import SharedOut


class SwiGLU(SharedOut):
  """fc2(silu(gate) * y) with [y | gate] = fc1(x): the gate is the second half."""

  def __init__(self, width: int, hidden: int, *, output_deviation: float, rngs: nnx.Rngs):
    self.fc1 = Linear(width, 2 * hidden, kernel_init=normal(0.02), rngs=rngs)
    self.fc2 = Linear(hidden, width, kernel_init=normal(output_deviation), rngs=rngs)

  def __call__(self, x: Array) -> Array:
    """x [..., D] -> [..., D]."""
    hidden = self.fc2.kernel.shape[-2]
    y, gate = self.fc1.split(x, 1, (hidden, hidden))
    return self.fc2(jax.nn.silu(gate) * y)

  @property
  def shared_out(self) -> dict[str, int]:
    """What the mesh axis `tensor` divides among devices."""
    return {'channels': self.fc2.kernel.shape[-2]}


def flops(positions: float, width: int, hidden: int) -> float:
  """Forward FLOPs on `positions` positions (H-Net paper, appendix B; its gate counts `width`, ours `hidden`)."""
  return positions * (6 * width * hidden + 5 * hidden)
