"""Routing: from the two projections of encoder states to the probability that a chunk starts."""

import jax.numpy as jnp
from jax import Array

from kernels.choice import choose
from kernels.mesh import over_rows

FLOOR = 1e-24  # of squared norms: PyTorch's F.normalize floors the norm at 1e-12


def route(q_BxLxD: Array, k_BxLxD: Array, segment_ids_BxL: Array, *, implementation: str | None = None) -> Array:
  """p_t = (1 - cos(q_{t-1}, k_t)) / 2 within [0, 1]; 1 where a document starts, 0 in padding (segment id 0).

  H-Net's router (arXiv 2507.07955) in the order of the official code, dc.py RoutingModule. q, k: float32 or bfloat16;
  p is float32, as the arithmetic is.
  implementation: 'xla', 'pallas_tpu', 'pallas_gpu' or None for the default of the mesh's devices (kernels/choice.py).
  ValueError: shapes that do not agree, an implementation that the devices cannot run.
  """
  if q_BxLxD.shape != k_BxLxD.shape or q_BxLxD.shape[:2] != segment_ids_BxL.shape:
    raise ValueError(
      f'route: q {q_BxLxD.shape}, k {k_BxLxD.shape} and segment_ids {segment_ids_BxL.shape} must be [B, L, D] twice '
      'and [B, L].'
    )
  name = choose('route', implementation)
  if name == 'xla':
    from kernels.route.xla import cosines
  elif name == 'pallas_tpu':
    from kernels.route.pallas_tpu import cosines
  else:
    from kernels.route.pallas_gpu import cosines
  return probability(over_rows(name, cosines, (q_BxLxD, k_BxLxD)), segment_ids_BxL)


def probability(cosine_BxL: Array, segment_ids_BxL: Array) -> Array:
  """`route` from cos(q_{t-1}, k_t); what stands at the start of a document does not matter."""
  real_BxL = segment_ids_BxL > 0
  before_BxL = jnp.pad(segment_ids_BxL[:, :-1], ((0, 0), (1, 0)))
  # Chosen before the arithmetic: what a kernel leaves at a start may be no number, and 0 * nan is nan in a gradient.
  cosine_BxL = jnp.where(real_BxL & (segment_ids_BxL == before_BxL), cosine_BxL, -1.0)
  return jnp.where(real_BxL, jnp.clip(0.5 * (1.0 - cosine_BxL), 0.0, 1.0), 0.0)
