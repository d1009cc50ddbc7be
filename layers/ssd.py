"""One step of the state-space recurrence of Mamba-2 (arXiv 2405.21060) and what it costs; rows are `kernels.ssd`'s.

S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T,   y_t = S_t C_t     (S is [P, N] for every head, zero at document starts)
"""

import jax.numpy as jnp
from jax import Array


def ssd_step(
  state_BxHxPxN: Array, x_BxHxP: Array, dt_BxH: Array, a_H: Array, b_BxN: Array, c_BxN: Array
) -> tuple[Array, Array]:
  """One position, in float32; returns (y [B, H, P], the new state). A row with dt = 0 keeps its state."""
  f32 = jnp.float32
  u_BxHxP = dt_BxH[..., None] * x_BxHxP.astype(f32)
  decay_BxHx1x1 = jnp.exp(dt_BxH * a_H[None])[..., None, None]
  state = decay_BxHx1x1 * state_BxHxPxN + u_BxHxP[..., None] * b_BxN[:, None, None].astype(f32)
  return jnp.einsum('bhpn,bn->bhp', state, c_BxN.astype(f32)), state


def flops(positions: float, d_inner: int, d_state: int) -> float:
  """Forward FLOPs on `positions` positions (H-Net paper, appendix B: 6 e d N a position)."""
  return positions * 6 * d_inner * d_state
