"""The specification of `kernels.ssd`: one position after the other."""

import jax
import jax.numpy as jnp
from jax import Array


def ssd(
  x_BxLxHxP: Array, dt_BxLxH: Array, a_H: Array, b_BxLxN: Array, c_BxLxN: Array, segment_ids_BxL: Array
) -> tuple[Array, Array]:
  """S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T, y_t = S_t C_t in float32, or float64 where an input is.

  S is zero before every position whose segment id differs from the one before it. Returns (y, the last S [B, H, P, N]).
  """
  x, dt, a, b, c = (
    v.astype(jnp.promote_types(v.dtype, jnp.float32)) for v in (x_BxLxHxP, dt_BxLxH, a_H, b_BxLxN, c_BxLxN)
  )
  continues_BxL = jnp.pad(segment_ids_BxL[:, 1:] == segment_ids_BxL[:, :-1], ((0, 0), (1, 0)))

  def step(state_BxHxPxN, at):
    x, dt, b, c, continues = at
    decay_BxH = jnp.exp(dt * a[None]) * continues[:, None]
    state = decay_BxH[..., None, None] * state_BxHxPxN + jnp.einsum('bh,bhp,bn->bhpn', dt, x, b, precision='highest')
    return state, jnp.einsum('bhpn,bn->bhp', state, c, precision='highest')

  start = jnp.zeros((*x.shape[:1], *x.shape[2:], b.shape[-1]), x.dtype)
  state, y = jax.lax.scan(step, start, jax.tree.map(lambda v: jnp.moveaxis(v, 1, 0), (x, dt, b, c, continues_BxL)))
  return jnp.moveaxis(y, 0, 1), state
