"""What dechunking means, in plain loops over numpy arrays, float64."""

import numpy as np


def dechunk(
  z_BxMxD: np.ndarray,
  p_BxL: np.ndarray,
  mask_BxL: np.ndarray,
  segment_ids_BxL: np.ndarray,
  residual_BxLxD: np.ndarray | None = None,
) -> np.ndarray:
  """y [B, L, D] of kernels.dechunk; the factor STE(selected) is 1."""
  batch, capacity, width = z_BxMxD.shape
  y = np.zeros((batch, p_BxL.shape[1], width))
  for b, ids in enumerate(segment_ids_BxL):
    chunk, document, state = -1, 0, np.zeros(width)
    for t, here in enumerate(ids):
      if mask_BxL[b, t] and chunk + 1 < capacity:
        chunk += 1
        weight = np.clip(p_BxL[b, t].astype(np.float64), 1e-4, 1 - 1e-4)
        state = weight * z_BxMxD[b, chunk] + (1 - weight) * (state if document == here else 0)
        document = here
      if here and document == here:
        y[b, t] = state
  return y if residual_BxLxD is None else y + residual_BxLxD
