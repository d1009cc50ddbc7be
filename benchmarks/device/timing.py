"""Seconds on a device: many calls are dispatched and waited for once, contestants run in turns, medians count."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.device.context import Context, Row

TURNS = 7
TURN_SECONDS = 0.05  # of one contestant's calls, so that the wait at their end is nothing beside them
MOST_CALLS = 200


def medians(contestants: Mapping[str, Callable[[], Any]], turns: int = TURNS) -> dict[str, float]:
  """Seconds a call of each; a call gives arrays, and all run on one device, whose queue the host fills ahead."""
  calls = {name: _calls(contestant) for name, contestant in contestants.items()}
  seconds = {name: [] for name in contestants}
  for _ in range(turns):
    for name, contestant in contestants.items():
      seconds[name].append(_turn(contestant, calls[name]) / calls[name])
  return {name: statistics.median(values) for name, values in seconds.items()}


def _turn(contestant: Callable[[], Any], calls: int) -> float:
  began = time.perf_counter()
  for _ in range(calls):
    made = contestant()
  jax.block_until_ready(made)
  return time.perf_counter() - began


def _calls(contestant: Callable[[], Any]) -> int:
  _turn(contestant, 1)  # the first loads the program
  return max(1, min(MOST_CALLS, round(TURN_SECONDS / _turn(contestant, 1))))


def peaks(context: Context) -> Iterator[Row]:
  """What the device can do at most: 'bandwidth' (bytes read and written a second), 'flops' (of bfloat16 products).

  'dispatch': seconds from one call to the next where there is nothing to compute; what takes less than that is not
  measured. Numbers are drawn: zeros and ones run faster.
  """
  count = 2**20 if context.tiny else min(2**28, (context.memory or 2**34) // 64)
  size = 256 if context.tiny else 8192
  x = jax.random.normal(jax.random.key(0), (count,))
  left, right = jax.random.normal(jax.random.key(1), (2, size, size), jnp.bfloat16)
  add, negate, product = jax.jit(lambda x: x + 1), jax.jit(jnp.negative), jax.jit(jnp.matmul)
  one = jnp.zeros(())
  found = medians(
    {'dispatch': lambda: add(one), 'copy': lambda: negate(x), 'product': lambda: product(left, right)},
    2 if context.tiny else TURNS,
  )
  yield {
    'what': 'a copy, a product, nothing',
    'bandwidth': 2 * x.nbytes / found['copy'],
    'flops': 2 * size**3 / found['product'],
    'dispatch': found['dispatch'],
  }
