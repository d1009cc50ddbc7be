"""Pallas calls described once: the same blocks make the call, its CostEstimate and the bytes of the ledger.

XLA's cost analysis cannot look into a Pallas call. What such a call moves between HBM and VMEM follows from its grid
and blocks: a block is fetched when its index differs from that of the grid step before, and an output block is written
when the grid leaves it.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl


@dataclasses.dataclass(frozen=True)
class Block:
  """One operand or result of a Pallas call, cut into blocks.

  array: its shape and dtype in HBM. shape: of a block, as pl.BlockSpec takes it (None: an axis that the kernel does not
  see). index: grid indices -> block indices, in arithmetic that numpy arrays can do too.
  typical: instead of `index` in the count of bytes, where `index` reads prefetched scalars.
  memory_space: None for the default of the platform.
  """

  array: jax.ShapeDtypeStruct
  shape: tuple[int | None, ...]
  index: Callable[..., tuple]
  typical: Callable[..., tuple] | None = None
  memory_space: Any = None

  def spec(self) -> pl.BlockSpec:
    """For pallas_call."""
    more = {} if self.memory_space is None else {'memory_space': self.memory_space}
    return pl.BlockSpec(self.shape, self.index, **more)

  def fetches(self, grid: Sequence[int], revisit: bool) -> int:
    """Bytes between HBM and the kernel over the whole grid, the last axis of which runs fastest.

    revisit: whether a block stays while its index does (TPU), or every grid step moves its own (GPU).
    """
    axes = [axis.reshape(-1) for axis in np.meshgrid(*map(np.arange, grid), indexing='ij')]
    steps = math.prod(grid)
    index = [np.broadcast_to(np.asarray(i), (steps,)) for i in (self.typical or self.index)(*axes)]
    size = np.full(steps, jnp.dtype(self.array.dtype).itemsize, np.int64)
    for i, block, length in zip(index, self.shape, self.array.shape, strict=True):
      size *= np.clip(length - i * (block or 1), 0, block or 1)  # blocks end where the array does
    moved = np.ones(steps, bool)
    if revisit:
      moved[1:] = np.any([i[1:] != i[:-1] for i in index], axis=0)
    return int(np.sum(size[moved]))

  @property
  def block_bytes(self) -> int:
    """Of one block."""
    return math.prod(n or 1 for n in self.shape) * jnp.dtype(self.array.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Call:
  """A Pallas call without its kernel function: grid, blocks, scratch and arithmetic.

  scalars: bytes of prefetched scalars. scratch: (shape, dtype) of buffers that live through the grid.
  revisit: see Block.fetches.
  """

  name: str
  grid: tuple[int, ...]
  inputs: tuple[Block, ...]
  outputs: tuple[Block, ...]
  scratch: tuple[tuple[tuple[int, ...], Any], ...] = ()
  scalars: int = 0
  flops: int = 0
  transcendentals: int = 0
  revisit: bool = True

  @property
  def hbm_bytes(self) -> int:
    """Read from and written to HBM by one run."""
    blocks = itertools.chain(self.inputs, self.outputs)
    return self.scalars + sum(block.fetches(self.grid, self.revisit) for block in blocks)

  @property
  def vmem_bytes(self) -> int:
    """Of two buffers a block, as the pipeline keeps them, and the scratch; values inside the kernel not counted."""
    blocks = sum(block.block_bytes for block in (*self.inputs, *self.outputs))
    return 2 * blocks + sum(math.prod(shape) * jnp.dtype(dtype).itemsize for shape, dtype in self.scratch)

  def estimate(self) -> pl.CostEstimate:
    """What XLA's scheduler is told."""
    return pl.CostEstimate(flops=self.flops, transcendentals=self.transcendentals, bytes_accessed=self.hbm_bytes)


def array_bytes(arrays: Any) -> int:
  """Of every array (or ShapeDtypeStruct) of a pytree, each once: the least that an operation can move."""
  return sum(math.prod(a.shape) * jnp.dtype(a.dtype).itemsize for a in jax.tree.leaves(arrays))


def pallas_calls(fn: Callable, *arguments: Any) -> list[dict[str, Any]]:
  """The Pallas calls that fn makes: 'name', 'bytes' as told to XLA, 'vmem' (0 where the caller did not say)."""
  return _calls(jax.make_jaxpr(fn)(*arguments).jaxpr)


def _calls(jaxpr: Any) -> list[dict[str, Any]]:
  calls = []
  for equation in jaxpr.eqns:
    parameters = equation.params
    if equation.primitive.name == 'pallas_call':
      vmem = int(dict(parameters['metadata'] or {}).get('vmem_bytes', 0))
      calls.append({'name': parameters['name'], 'bytes': parameters['cost_estimate'].bytes_accessed, 'vmem': vmem})
      continue
    for inner in parameters.values():
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        calls += _calls(inner)
  return calls
