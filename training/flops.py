"""The work that a model needs: over what the devices can do (utilization), and made equal to that of another model."""

import copy
import functools
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import byte_models
from layers.mamba2 import HEAD_DIM
from training import config as config_lib
from training.description import BACKWARD, abstract_model

TOLERANCE = 0.05  # of the reference's FLOPs per byte, as HAT's comparisons have it (arXiv:2501.10322)
DEEPEST = 1000
MOST_STEPS = 8  # by which the width of a backbone may change, each what its heads must divide
MULTIPLE = {'hnet': 128, 'word_ar': 8, 'tfree_hat': 8}  # of an MLP's width; H-Net's authors round up to 128


def utilization(forward_flops_per_byte: float, bytes_per_second: float, peak: float) -> float:
  """Share of `peak` (FLOP/s of all devices) that training uses; recomputed activations do not count as work.

  The FLOPs are the model's formulas, in which attention is not causal: docs/performance.md says how much that is.
  """
  return (1.0 + BACKWARD) * forward_flops_per_byte * bytes_per_second / peak


@functools.cache
def matmul_peak(dtype: str) -> float:
  """FLOP/s of one device on a square matrix product of this dtype: the best of a few, measured once in about 0.3 s."""
  size = 1024 if jax.devices()[0].platform == 'cpu' else 8192
  x = jnp.ones((size, size), dtype)
  product = jax.jit(jnp.matmul).lower(x, x).compile()
  product(x, x).block_until_ready()
  best, end = float('inf'), time.perf_counter() + 0.3
  while time.perf_counter() < end:
    start = time.perf_counter()
    product(x, x).block_until_ready()
    best = min(best, time.perf_counter() - start)
  return 2.0 * size**3 / best


def forward_flops(config: Any, bytes_per_chunk: Sequence[float] | None = None) -> float:
  """Forward FLOPs per byte in documents of seq_len bytes, at given bytes per chunk or word or those that it states."""
  resolved = config_lib.resolve(config)
  model = abstract_model(resolved['model'])
  return sum(model.flops_per_byte(resolved['seq_len'], bytes_per_chunk).values())


def match(config: Any, reference: Any, bytes_per_chunk: Sequence[float] | None = None) -> dict[str, Any]:
  """The resolved config with the backbone depth whose forward FLOPs per byte come closest to those of `reference`,
  another config or a number.

  Where whole layers are too coarse to come within 5 %, the width of the backbone's MLP changes too, or, where it has
  none, that of the backbone itself, by as little as is needed. bytes_per_chunk: as in `forward_flops`; words have the
  length that the text gives them. Raises ValueError where the rest of the model alone costs more, and for a family or
  backbone that cannot be resized.
  """
  resolved = config_lib.resolve(config)
  reference = float(reference) if isinstance(reference, int | float) else forward_flops(reference)
  cost = lambda depth, **sizes: forward_flops(_resized(resolved, depth, **sizes), bytes_per_chunk)
  one, two = cost(1), cost(2)
  if one > reference * (1 + TOLERANCE):
    raise ValueError(
      f'a backbone of one layer costs {one:,.0f} FLOPs per byte already, more than the {reference:,.0f} to match: make '
      'the local models or the backbone narrower'
    )
  depth = _depth(one, two, reference)
  if abs(cost(depth) - reference) <= TOLERANCE * reference:
    return _resized(resolved, depth)
  multiple = MULTIPLE[resolved['model']['family']]
  hidden = _hidden(resolved)
  coarse = (
    f'no depth and {"MLP " if hidden else ""}width of the backbone comes within {TOLERANCE:.0%} of {reference:,.0f} '
    f'FLOPs per byte; {depth} layers cost {cost(depth):,.0f}: change its width'
  )
  if not hidden:
    found = _nearest_width(resolved, reference, cost)
    if found is None:
      raise ValueError(coarse)
    return _resized(resolved, found[0], width=found[1])
  nearest = hidden + multiple // 2 - (hidden + multiple // 2) % multiple  # what the family makes of the width given
  found = {}
  for layers in range(max(1, depth - 2), depth + 3):
    base = cost(layers, hidden=nearest)
    steps = round((reference - base) / (cost(layers, hidden=nearest + multiple) - base))
    if nearest + steps * multiple > 0:
      found[abs(steps), layers] = nearest + steps * multiple
  for (_, layers), width in sorted(found.items()):
    if abs(cost(layers, hidden=width) - reference) <= TOLERANCE * reference:
      return _resized(resolved, layers, hidden=width)
  raise ValueError(coarse)


def _depth(one: float, two: float, reference: float) -> int:
  """Layers that come closest to `reference`, if one costs `one` and two cost `two`."""
  return min(DEEPEST, max(1, round(1 + (reference - one) / (two - one))))


def _nearest_width(resolved: Mapping[str, Any], reference: float, cost: Callable[..., float]) -> tuple[int, int] | None:
  """(depth, width) within 5 % of a backbone without MLP, at the width nearest to its own; None if there is none."""
  width, multiple = _width(resolved)
  for steps in range(1, MOST_STEPS + 1):
    found = []
    for other in (width - steps * multiple, width + steps * multiple):
      try:
        depth = _depth(cost(1, width=other), cost(2, width=other), reference)
        found.append((abs(cost(depth, width=other) - reference), depth, other))
      except ValueError:  # below 1, or narrower than the stage around it
        continue
    if found and min(found)[0] <= TOLERANCE * reference:
      return min(found)[1:]
  return None


def _resized(
  resolved: Mapping[str, Any], depth: int, *, hidden: int | None = None, width: int | None = None
) -> dict[str, Any]:
  """A copy with `depth` layers of the backbone and, if given, another width of its MLP or of itself."""
  resized = copy.deepcopy(dict(resolved))
  model = resized['model']
  family = model.get('family')
  if family == 'hnet':
    layout = model['arch_layout']
    while len(layout) == 3:
      layout = layout[1]
    if not re.fullmatch(r'[mMtT]\d+', layout[0]):
      raise ValueError(f'the main network {layout[0]!r} has blocks of several kinds: write one kind to have it resized')
    layout[0] = f'{layout[0][0]}{depth}'
    if hidden is not None:
      model['d_intermediate'][-1] = hidden
    if width is not None:
      model['d_model'][-1] = width
  elif family == 'word_ar':
    sizes = {'arch_layout': f'{_kind(resolved)}{depth}', 'd_intermediate': hidden, 'd_model': width}
    model['backbone'] |= {key: size for key, size in sizes.items() if size is not None}
  elif family == 'tfree_hat':
    more = {} if hidden is None else {'intermediate_size': hidden}
    model['backbone_config'] |= {'num_hidden_layers': depth} | more
  else:
    raise ValueError(f'models of the family {family!r} cannot be resized')
  return resized


def _kind(resolved: Mapping[str, Any]) -> str:
  """The letter of the backbone's blocks; in small ones there is no MLP."""
  model = resolved['model']
  if model['family'] == 'hnet':
    layout = model['arch_layout']
    while len(layout) == 3:
      layout = layout[1]
    return layout[0][0]
  if model['family'] == 'word_ar':
    return 't' if re.fullmatch(r't\d+', model['backbone']['arch_layout']) else 'T'
  return 'T'


def _width(resolved: Mapping[str, Any]) -> tuple[int, int]:
  """(width of the backbone, what it must be a multiple of for the sake of its heads)."""
  model = resolved['model']
  if model['family'] == 'word_ar':
    return model['backbone']['d_model'], 2 * model['backbone']['num_heads']  # a head turns pairs of channels
  stack = byte_models.parse(model).stages[-1].main
  is_mamba = _kind(resolved) == 'm'
  return stack.width, HEAD_DIM // math.gcd(HEAD_DIM, stack.expand) if is_mamba else 2 * stack.num_heads


def _hidden(resolved: Mapping[str, Any]) -> int:
  """Width of the backbone's MLP, 0 if it has none."""
  model = resolved['model']
  if _kind(resolved).islower():
    return 0
  if model['family'] == 'hnet':
    return model['d_intermediate'][-1]
  return (
    model['backbone']['d_intermediate']
    if model['family'] == 'word_ar'
    else model['backbone_config']['intermediate_size']
  )
