"""What the tests of layers and models share: inputs, a way to compile fast, and a look into programs."""

import functools

import jax
import numpy as np

# Tests run a program a few times, so what counts is how fast it compiles: without optimisation, and fused by the older
# emitters, which take half the time (as long as XLA has them).
_options = {'xla_backend_optimization_level': 0, 'xla_cpu_use_fusion_emitters': False}
try:
  jax.jit(lambda: 0, compiler_options=_options)()
except jax.errors.JaxRuntimeError:
  del _options['xla_cpu_use_fusion_emitters']
jit = functools.partial(jax.jit, compiler_options=_options)


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
