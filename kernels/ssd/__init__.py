"""The state-space recurrence of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060)."""

import functools

import jax.numpy as jnp
from jax import Array

from kernels.choice import choose
from kernels.mesh import over_rows


def ssd(
  x_BxLxHxP: Array,
  dt_BxLxH: Array,
  a_H: Array,
  b_BxLxN: Array,
  c_BxLxN: Array,
  segment_ids_BxL: Array,
  tile: int = 64,
  *,
  implementation: str | None = None,
) -> tuple[Array, Array]:
  """S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T, y_t = S_t C_t, with S = 0 wherever the segment id changes.

  S is [P, N] for every head; B and C serve all heads. dt (not negative) and A (negative) are float32; matrix products
  run in x's dtype, float32 or bfloat16, and accumulate in float32. Returns y [B, L, H, P] in x's dtype and the state
  after the last position [B, H, P, N] float32. A position with dt = 0 leaves the state as it is. All but the segment
  ids, which ascend, have gradients.

  tile: positions that one matrix product mixes in XLA's form, where it trades work for memory; the results do not
  depend on it beyond rounding. The kernels have tiles of their own.
  implementation: 'xla', 'pallas_tpu', 'pallas_gpu' or None for the default of the mesh's devices (kernels/choice.py).
  ValueError: shapes that do not agree, an implementation that the devices cannot run, more state than a kernel holds.
  """
  shapes = tuple(v.shape for v in (x_BxLxHxP, dt_BxLxH, a_H, b_BxLxN, c_BxLxN, segment_ids_BxL))
  (*row, heads, _), (*_, n) = shapes[0], shapes[3]
  if shapes[1:] != ((*row, heads), (heads,), (*row, n), (*row, n), tuple(row)) or len(row) != 2 or tile < 1:
    raise ValueError(
      'ssd: x, dt, A, B, C and segment_ids must be [B, L, H, P], [B, L, H], [H], [B, L, N], [B, L, N] and [B, L], and '
      f'the tile at least 1; they are {", ".join(map(str, shapes))} and {tile}.'
    )
  name = choose('ssd', implementation)
  if name == 'xla':
    from kernels.ssd import xla

    run = functools.partial(xla.ssd, tile=tile)
  elif name == 'pallas_tpu':
    from kernels.ssd.pallas_tpu import ssd as run
  else:
    from kernels.ssd.pallas_gpu import ssd as run
  f32 = jnp.float32
  rows = (x_BxLxHxP, dt_BxLxH.astype(f32), b_BxLxN, c_BxLxN, segment_ids_BxL)
  in_order = lambda x, dt, b, c, ids, a: run(x, dt, a, b, c, ids)
  heads = (2, 2, None, None, None, 0)
  return over_rows(name, in_order, rows, (a_H.astype(f32),), heads=heads, output_heads=(2, 1))
