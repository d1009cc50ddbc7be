"""What the tests of layers and models share: inputs, and a look into programs."""

import jax
import numpy as np


def segment_ids(*rows):
  """Document lengths of every row, then padding up to the longest row -> [B, L] int32."""
  length = max(map(sum, rows))
  ids = [np.repeat(np.arange(len(row)) + 1, row) for row in rows]
  return np.stack([np.pad(row, (0, length - len(row))) for row in ids]).astype(np.int32)


def random(*shape, seed=0):
  """Standard normal float32."""
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def equations(jaxpr, depth=0):
  """(primitive name, number of switches around it) of every equation, inner programs included."""
  for equation in jaxpr.eqns:
    yield equation.primitive.name, depth
    inside = depth + (equation.primitive.name == 'cond')
    for parameter in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, 'eqns') or hasattr(v, 'jaxpr')):
      inner = getattr(parameter, 'jaxpr', parameter)
      if hasattr(inner, 'eqns'):
        yield from equations(inner, inside)
