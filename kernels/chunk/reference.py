"""What compaction means, in plain loops over numpy arrays."""

import numpy as np


def chunk(x_BxLxD: np.ndarray, mask_BxL: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(values [B, M, D], position [B, M], count [B]) of kernels.chunk."""
  batch, length, width = x_BxLxD.shape
  values = np.zeros((batch, capacity, width), x_BxLxD.dtype)
  position = np.full((batch, capacity), length, np.int32)
  count = np.zeros(batch, np.int32)
  for b in range(batch):
    for t in range(length):
      if mask_BxL[b, t] and count[b] < capacity:
        values[b, count[b]], position[b, count[b]] = x_BxLxD[b, t], t
        count[b] += 1
  return values, position, count
