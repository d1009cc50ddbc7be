"""Dechunking: an average over chunks, back at the positions of the level above, with its confidence and a residual."""

import jax
import jax.numpy as jnp
from jax import Array

from kernels.choice import choose
from kernels.chunk import at_starts, chunk_index, positions, slots
from kernels.mesh import over_rows

CLAMP = 1e-4  # probabilities stay within [1e-4, 1 - 1e-4], as in the official code; the first chunk's 1 is clamped too


def dechunk(
  z_BxMxD: Array,
  p_BxL: Array,
  mask_BxL: Array,
  segment_ids_BxL: Array,
  selected_BxL: Array | None = None,
  residual_BxLxD: Array | None = None,
  *,
  implementation: str | None = None,
) -> Array:
  """y_t = s_m(t) STE(selected_t) + residual_t, [B, L, D] in the dtype of the residual, or else of z.

  s_m = P_m z_m + (1 - P_m) s_{m-1} is H-Net's smoothing over chunks (arXiv 2507.07955, eq. 5; dc.py DeChunkLayer),
  begun anew in every document, with P_m = p where chunk m starts, within [1e-4, 1 - 1e-4]; m(t) is the last chunk of
  t's document that starts at or before t. STE is 1, with slope 1 to `selected`. Without a chunk of its own document,
  which a capacity M below the number of chunks may leave, and in padding, s is 0.

  z: float32 or bfloat16, chunk m of a row at m; what lies behind the last chunk is not looked at. p, selected: float32.
  Gradients reach z, p, selected and the residual; the recurrence runs in float32.
  implementation: 'xla', 'pallas_tpu', 'pallas_gpu' or None for the default of the mesh's devices (kernels/choice.py).
  ValueError: shapes that do not agree, an implementation that the devices cannot run.
  """
  batch, capacity, width = z_BxMxD.shape
  shape = (batch, p_BxL.shape[-1])
  narrow = (p_BxL, mask_BxL, segment_ids_BxL, p_BxL if selected_BxL is None else selected_BxL)
  if any(v.shape != shape for v in narrow) or (residual_BxLxD is not None and residual_BxLxD.shape != (*shape, width)):
    residual = None if residual_BxLxD is None else residual_BxLxD.shape
    raise ValueError(
      f'dechunk: z {z_BxMxD.shape} needs p, mask, segment_ids and selected of one shape [B, L] and a residual of '
      f'[B, L, D]; they are {", ".join(str(v.shape) for v in narrow)} and {residual}.'
    )
  name = choose('dechunk', implementation)
  if name == 'xla':
    from kernels.dechunk.xla import dechunk as run
  elif name == 'pallas_tpu':
    from kernels.dechunk.pallas_tpu import dechunk as run
  else:
    from kernels.dechunk.pallas_gpu import dechunk as run

  def rows(z_BxMxD, p_BxL, mask_BxL, segment_ids_BxL, selected_BxL, residual_BxLxD):
    selected_BxL = jnp.ones(p_BxL.shape, jnp.float32) if selected_BxL is None else selected_BxL.astype(jnp.float32)
    return run(z_BxMxD, *coefficients(p_BxL, mask_BxL, segment_ids_BxL, capacity), selected_BxL, residual_BxLxD)

  return over_rows(name, rows, (z_BxMxD, p_BxL, mask_BxL, segment_ids_BxL, selected_BxL, residual_BxLxD))


def coefficients(p_BxL: Array, mask_BxL: Array, segment_ids_BxL: Array, capacity: int) -> tuple[Array, Array, Array]:
  """The recurrence as s_m = weight_m z_m + keep_m s_{m-1}, and the chunk that each position sees.

  (weight_BxM, keep_BxM, slot_BxL). weight is 0 behind the last chunk, keep also at a document's first; slot, ascending,
  is -1 where a position has no chunk of its own document. The gradient reaches p through weight and keep.
  """
  start_BxL = slots(mask_BxL, capacity)
  position_BxM = positions(start_BxL, capacity)
  filled_BxM = position_BxM < p_BxL.shape[1]
  p_BxM = at_starts(p_BxL.astype(jnp.float32), start_BxL, position_BxM, 0.0)
  weight_BxM = jnp.where(filled_BxM, jnp.clip(p_BxM, CLAMP, 1 - CLAMP), 0.0)
  document_BxM = at_starts(segment_ids_BxL, start_BxL, position_BxM, 0)
  before_BxM = jnp.pad(document_BxM[:, :-1], ((0, 0), (1, 0)))
  keep_BxM = jnp.where(filled_BxM & (document_BxM == before_BxM), 1 - weight_BxM, 0.0)

  # A position has a chunk of its own document if the last chunk starts no earlier than the document.
  index_L = jnp.arange(p_BxL.shape[1], dtype=jnp.int32)
  new_BxL = segment_ids_BxL != jnp.pad(segment_ids_BxL[:, :-1], ((0, 0), (1, 0)))
  document_start_BxL = jax.lax.cummax(jnp.where(new_BxL, index_L, 0), axis=1)
  chunk_start_BxL = jax.lax.cummax(jnp.where(start_BxL >= 0, index_L, -1), axis=1)
  own_BxL = (chunk_start_BxL >= document_start_BxL) & (segment_ids_BxL > 0)
  return weight_BxM, keep_BxM, jnp.where(own_BxL, chunk_index(start_BxL >= 0), -1)
