"""The work that a model needs: over what the devices can do (utilization), and made equal to that of another model."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import byte_models
from layers.stack import Backbone
from training import config as config_lib
from training.description import BACKWARD, abstract_model

TOLERANCE = 0.05  # of the reference's FLOPs per byte, as HAT's comparisons have it (arXiv:2501.10322)
DEEPEST = 1000
MOST_STEPS = 8  # by which the width of a backbone may change, each what its heads must divide


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
  backbone = byte_models.backbone(byte_models.parse(resolved['model']))
  hidden, multiple = backbone.mlp_width, backbone.mlp_multiple
  coarse = (
    f'no depth and {"MLP " if hidden else ""}width of the backbone comes within {TOLERANCE:.0%} of {reference:,.0f} '
    f'FLOPs per byte; {depth} layers cost {cost(depth):,.0f}: change its width'
  )
  if not hidden:
    found = _nearest_width(backbone, reference, cost)
    if found is None:
      raise ValueError(coarse)
    return _resized(resolved, found[0], width=found[1])
  nearest = hidden + multiple // 2 - (hidden + multiple // 2) % multiple  # what the family makes of the width given
  found = {}
  for layers in range(max(1, depth - 2), depth + 3):
    base = cost(layers, mlp_width=nearest)
    steps = round((reference - base) / (cost(layers, mlp_width=nearest + multiple) - base))
    if nearest + steps * multiple > 0:
      found[abs(steps), layers] = nearest + steps * multiple
  for (_, layers), width in sorted(found.items()):
    if abs(cost(layers, mlp_width=width) - reference) <= TOLERANCE * reference:
      return _resized(resolved, layers, mlp_width=width)
  raise ValueError(coarse)


def _depth(one: float, two: float, reference: float) -> int:
  """Layers that come closest to `reference`, if one costs `one` and two cost `two`."""
  return min(DEEPEST, max(1, round(1 + (reference - one) / (two - one))))


def _nearest_width(backbone: Backbone, reference: float, cost: Callable[..., float]) -> tuple[int, int] | None:
  """(depth, width) within 5 % of a backbone without MLP, at the width nearest to its own; None if there is none."""
  width, multiple = backbone.stack.width, backbone.multiple
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


def _resized(resolved: Mapping[str, Any], depth: int, **sizes: int) -> dict[str, Any]:
  return {**resolved, 'model': byte_models.resize(resolved['model'], depth, **sizes)}
