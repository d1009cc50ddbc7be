"""What tests of kernels share: rows of documents and boundaries, and kernels interpreted where models call them."""

import importlib
import inspect

import numpy as np
from hypothesis import strategies as st

ROWS, LENGTH, WIDTH = 2, 50, 40  # of a tile of 16: a tail, and tiles that one walk crosses on both sides
KERNELS = {'route': 'cosines', 'chunk': 'chunk', 'dechunk': 'dechunk', 'ssd': 'ssd', 'attention': 'attention'}
PATTERNS = ('first only', 'every byte', 'one at the end', 'several documents', 'padding', 'empty row', 'drawn')


def boundaries(pattern, seed=0, rows=ROWS, length=LENGTH):
  """(mask [B, L] bool, segment_ids [B, L] int32, p [B, L] float32) as a router could make them."""
  rng = np.random.default_rng(seed)
  ids = np.ones((rows, length), np.int32)
  chance = {'every byte': 1.0, 'first only': 0.0, 'one at the end': 0.0}.get(pattern, rng.random())
  mask = rng.random((rows, length)) < chance
  if pattern in ('several documents', 'padding', 'empty row', 'drawn'):
    ids += np.cumsum(rng.random((rows, length)) < 0.1, 1, dtype=np.int32)
  if pattern in ('padding', 'drawn'):
    for row in ids:
      row[length - rng.integers(length) :] = 0
  if pattern == 'empty row':
    ids[-1] = 0
  mask[:, -1] |= pattern == 'one at the end'
  starts = ids != np.pad(ids[:, :-1], ((0, 0), (1, 0)))
  mask = (mask | starts) & (ids > 0)
  p = np.where(mask, 1 - rng.random(mask.shape) / 2, rng.random(mask.shape) / 2) * (ids > 0)
  return mask, ids, np.where(starts & (ids > 0), 1.0, p).astype(np.float32)


def drawn():
  """hypothesis: arguments of `boundaries`."""
  return st.tuples(st.sampled_from(PATTERNS), st.integers(0, 10**6))


def assert_close(got, want, tolerance):
  """Within `tolerance` of the largest number wanted; shapes alike, and numbers all."""
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  assert got.shape == want.shape and np.isfinite(got).all()
  assert np.abs(got - want).max(initial=0) <= tolerance * max(np.abs(want).max(initial=0), 1e-3)


def interpret_kernels(implementation, setattr=setattr):
  """From now on the kernels of 'pallas_tpu' or 'pallas_gpu' run on any device; setattr: monkeypatch's, to undo it."""
  for operation, name in KERNELS.items():
    module = importlib.import_module(f'kernels.{operation}.{implementation}')
    setattr(module, name, _interpreted(getattr(module, name)))


def _interpreted(kernel):
  signature = inspect.signature(kernel)

  def run(*arguments, **more):
    bound = signature.bind(*arguments, **more)
    bound.arguments['interpret'] = True
    return kernel(*bound.args, **bound.kwargs)

  return run
