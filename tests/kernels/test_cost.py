"""Bytes of a Pallas call from its grid and blocks, against a loop over the grid and against hand counts."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.chunk import slots
from kernels.cost import Block, Call, array_bytes, pallas_calls
from kernels.tpu import Walk, run
from tests.kernels.common import boundaries, drawn

F32 = jnp.float32


def looped(block, grid, revisit):
  """The definition: walk the grid, and count the rows and columns of each block that lie inside the array."""
  total, before = 0, None
  for step in itertools.product(*map(range, grid)):
    index = tuple(int(i) for i in block.index(*step))
    if index != before or not revisit:
      spans = zip(index, block.shape, block.array.shape, strict=True)
      total += 4 * math.prod(max(0, min(n or 1, length - i * (n or 1))) for i, n, length in spans)
    before = index
  return total


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.integers(1, 9)] * 2), st.integers(0, 3), st.booleans())
def test_fetched_bytes_are_those_of_a_loop_over_the_grid(grid, shape, kind, revisit):
  index = (
    lambda b, i, j: (b, i, j),
    lambda b, i, j: (b, j, 0),
    lambda b, i, j: (0, i // 2, 0),
    lambda b, i, j: (0, 0, 0),
  )[kind]
  block = Block(jax.ShapeDtypeStruct((4, *shape), F32), (None, 2, 3), index)
  assert block.fetches(grid, revisit) == looped(block, grid, revisit)


def matmul_call():
  """[8, 6] x [6, 4] in blocks of [4, 3] and [3, 4]: the left is read once, the right twice, the result written once."""
  array = lambda *shape: jax.ShapeDtypeStruct(shape, F32)
  left = Block(array(8, 6), (4, 3), lambda i, k: (i, k))
  right = Block(array(6, 4), (3, 4), lambda i, k: (k, 0))
  out = Block(array(8, 4), (4, 4), lambda i, k: (i, 0))
  return Call('matmul', (2, 2), (left, right), (out,), scratch=(((4, 4), F32),), flops=2 * 8 * 6 * 4)


def matmul_kernel(left_ref, right_ref, out_ref, scratch_ref):
  scratch_ref[...] = left_ref[...] @ right_ref[...]
  out_ref[...] += scratch_ref[...]


def test_a_known_call():
  call = matmul_call()
  assert call.hbm_bytes == 4 * (8 * 6 + 2 * 6 * 4 + 8 * 4)
  assert call.vmem_bytes == 4 * (2 * (4 * 3 + 3 * 4 + 4 * 4) + 4 * 4)
  assert (call.estimate().bytes_accessed, call.estimate().flops) == (call.hbm_bytes, 384)
  assert array_bytes([jnp.zeros((3, 2), jnp.bfloat16), None, (jnp.zeros(5, bool),)]) == 12 + 5


def test_calls_are_found_inside_other_programs():
  call = matmul_call()
  matmul = lambda left, right: run(call, matmul_kernel, left, right, interpret=True)[0]
  scanned = lambda left, right: jax.lax.scan(
    lambda c, _: (jax.jit(matmul)(left, right), None), matmul(left, right), None, 2
  )
  found = pallas_calls(scanned, *(block.array for block in call.inputs))
  assert found == [{'name': 'matmul', 'bytes': call.hbm_bytes, 'vmem': call.vmem_bytes}] * 2


@pytest.mark.parametrize('backwards', [False, True])
@pytest.mark.parametrize('capacity', [50, 17, 100])
@settings(max_examples=20, deadline=None)
@given(pattern=drawn())
def test_a_walk_meets_every_tile_once_and_every_position_beside_its_chunk(capacity, backwards, pattern):
  slot = slots(boundaries(*pattern)[0], capacity)
  walk = Walk(*slot.shape, capacity, 16, backwards)
  tiles = np.asarray(walk.position_tiles(slot))
  for b, row in enumerate(np.asarray(slot)):
    path = [tuple(map(int, walk.at(tiles, b, g))) for g in range(walk.steps)]
    path = path[::-1] if backwards else path
    assert path[0] == (0, 0) and path[-1] == (-(-len(row) // 16) - 1, -(-capacity // 16) - 1)
    assert all(np.subtract(after, before).tolist() in ([0, 1], [1, 0]) for before, after in itertools.pairwise(path))
    assert all((t // 16, m // 16) in path for t, m in enumerate(row) if m >= 0)
  # So the bytes do not depend on the boundaries.
  block = walk.block((len(slot), slot.shape[1], 8), F32, chunks=False)
  exact = Block(block.array, block.shape, lambda b, g: (b, tiles[b * walk.steps + g], 0))
  if not backwards:
    assert block.fetches(walk.grid, True) == exact.fetches(walk.grid, True) == slot.size * 8 * 4
