"""What routing means, in plain loops over numpy arrays, float64."""

import numpy as np


def route(q_BxLxD: np.ndarray, k_BxLxD: np.ndarray, segment_ids_BxL: np.ndarray) -> np.ndarray:
  """p [B, L] of kernels.route."""
  q, k = q_BxLxD.astype(np.float64), k_BxLxD.astype(np.float64)
  p = np.zeros(segment_ids_BxL.shape)
  for b, ids in enumerate(segment_ids_BxL):
    for t, document in enumerate(ids):
      if document and (t == 0 or ids[t - 1] != document):
        p[b, t] = 1
      elif document:
        norms = max(np.linalg.norm(q[b, t - 1]), 1e-12) * max(np.linalg.norm(k[b, t]), 1e-12)
        p[b, t] = np.clip((1 - q[b, t - 1] @ k[b, t] / norms) / 2, 0, 1)
  return p
