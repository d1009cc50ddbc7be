"""Routing: from the two projections of encoder states to where chunks start, and how sure that is."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from kernels.choice import choose
from kernels.mesh import over_rows

FLOOR = 1e-24  # of squared norms: PyTorch's F.normalize floors the norm at 1e-12


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Routing:
  """p_BxL float32: probability that a chunk starts. mask_BxL bool: one does. selected_BxL: p there, 1 - p elsewhere."""

  p_BxL: Array
  mask_BxL: Array
  selected_BxL: Array


def route(q_BxLxD: Array, k_BxLxD: Array, segment_ids_BxL: Array, *, implementation: str | None = None) -> Routing:
  """p_t = (1 - cos(q_{t-1}, k_t)) / 2 within [0, 1]; 1 where a document starts, 0 in padding (segment id 0).

  H-Net's router (arXiv 2507.07955) in the order of the official code, dc.py RoutingModule. A chunk starts where
  p > 1/2. q, k: float32 or bfloat16; the arithmetic is float32. Gradients reach q and k through p and selected.
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
  return decide(over_rows(name, cosines, (q_BxLxD, k_BxLxD)), segment_ids_BxL)


def decide(cosine_BxL: Array, segment_ids_BxL: Array) -> Routing:
  """Routing from cos(q_{t-1}, k_t); what stands at the start of a document does not matter."""
  real_BxL = segment_ids_BxL > 0
  before_BxL = jnp.pad(segment_ids_BxL[:, :-1], ((0, 0), (1, 0)))
  # Chosen before the arithmetic: what a kernel leaves at a start may be no number, and 0 * nan is nan in a gradient.
  cosine_BxL = jnp.where(real_BxL & (segment_ids_BxL == before_BxL), cosine_BxL, -1.0)
  p_BxL = jnp.where(real_BxL, jnp.clip(0.5 * (1.0 - cosine_BxL), 0.0, 1.0), 0.0)
  mask_BxL = (p_BxL > 0.5) & real_BxL
  return Routing(p_BxL, mask_BxL, jnp.where(mask_BxL, p_BxL, 1.0 - p_BxL))
