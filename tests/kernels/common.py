"""What tests of kernels share: rows of documents and boundaries."""

import numpy as np
from hypothesis import strategies as st

from kernels import drawing
from kernels.drawing import PATTERNS

ROWS, LENGTH, WIDTH = 2, 50, 40  # of a tile of 16: a tail, and tiles that one walk crosses on both sides


def boundaries(pattern, seed=0, rows=ROWS, length=LENGTH):
  return drawing.boundaries(pattern, seed, rows, length)


def drawn():
  """hypothesis: arguments of `boundaries`."""
  return st.tuples(st.sampled_from(PATTERNS), st.integers(0, 10**6))


def assert_close(got, want, tolerance):
  """Within `tolerance` of the largest number wanted; shapes alike, and numbers all."""
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  assert got.shape == want.shape and np.isfinite(got).all()
  assert np.abs(got - want).max(initial=0) <= tolerance * max(np.abs(want).max(initial=0), 1e-3)
