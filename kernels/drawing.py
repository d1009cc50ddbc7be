"""Arguments of the operations, drawn: rows of documents with boundaries as a router could make them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernels import cases

PATTERNS = ('first only', 'every byte', 'one at the end', 'several documents', 'padding', 'empty row', 'drawn')


def boundaries(pattern: str, seed: int, rows: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def arguments(case: cases.Case, pattern: str, seed: int = 0) -> tuple[Array, ...]:
  """What the function of `cases.program(case, …)` takes, without the gradients that come first if it has one."""
  mask, ids, p = boundaries(pattern, seed, case.batch, case.length)
  rows = (case.batch, case.length)
  if case.operation == 'route':
    q, k = normal(case, seed, *[(*rows, case.width)] * 2)
    return q, k, ids
  if case.operation == 'chunk':
    return *normal(case, seed, (*rows, case.width)), mask
  if case.operation == 'dechunk':
    z, residual = normal(case, seed, (case.batch, case.capacity, case.width), (*rows, case.width))
    return z, p, np.where(mask, p, 1 - p), residual, mask, ids
  if case.operation == 'ssd':
    heads, rng = 2 * case.width // cases.HEAD_DIM, np.random.default_rng(seed)
    x, b, c = normal(case, seed, (*rows, 2 * case.width), *[(*rows, cases.STATES)] * 2)
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(0.1), (*rows, heads))).astype(np.float32)
    return x, dt, -np.linspace(0.5, 16, heads, dtype=np.float32), b, c, ids
  return *normal(case, seed, *[(*rows, cases.HEADS, case.width // cases.HEADS)] * 3), ids


def normal(case: cases.Case, seed: int, *shapes: tuple[int, ...]) -> list[Array]:
  """Normal numbers of the case's dtype, the same on every kind of device."""
  keys = jax.random.split(jax.random.key(seed), len(shapes))
  draw = lambda key, shape: jax.random.normal(key, shape).astype(jnp.dtype(case.dtype))
  return [draw(key, shape) for key, shape in zip(keys, shapes, strict=True)]
