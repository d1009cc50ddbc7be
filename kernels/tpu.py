"""What the TPU kernels share: running a described call, tiles, and the walk over two tiled sequences at once.

Compaction and expansion both connect positions [B, L] with chunks [B, M] through `slot_BxL`, the chunk of each position
(ascending; -1: none). A kernel walks both in tiles: a staircase of steps, each of which moves on to the next tile of
positions or to the next tile of chunks, so that every tile on either side is in VMEM once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.cost import Block, Call

HIGHEST = jax.lax.Precision.HIGHEST
TILES = (16, 32, 64, 128, 256)
MAX_WIDTH = 16384


def run(call: Call, kernel: Callable, *arrays: Array, prefetch: tuple[Array, ...] = (), interpret: Any = False) -> list:
  """The described call on arrays; the first axis of its grid is independent, the others run in order.

  interpret: True or pltpu.InterpretParams, to run on a CPU.
  """
  return pl.pallas_call(
    kernel,
    out_shape=[block.array for block in call.outputs],
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=len(prefetch),
      grid=call.grid,
      in_specs=[block.spec() for block in call.inputs],
      out_specs=[block.spec() for block in call.outputs],
      scratch_shapes=[pltpu.VMEM(shape, dtype) for shape, dtype in call.scratch],
    ),
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel',) + ('arbitrary',) * (len(call.grid) - 1)),
    cost_estimate=call.estimate(),
    interpret=interpret,
    name=call.name,
    metadata={'vmem_bytes': str(call.vmem_bytes)},
  )(*prefetch, *arrays)


def tile_rows(operation: str, width: int) -> int:
  """Rows of a tile: about 2^18 numbers, so that a float32 tile is 1 MB; ValueError if the width leaves no 16 rows."""
  if width > MAX_WIDTH:
    raise ValueError(
      f"{operation}: width {width} is above {MAX_WIDTH}, what the TPU kernel holds; write implementation='xla'."
    )
  return max(rows for rows in TILES if rows * width <= 2**18)


def in_tiles(v_BxL: Array, tile: int, empty: float) -> Array:
  """[B, L] -> [B, tiles, 1, tile], which a kernel sees as rows [1, tile]; behind L comes `empty`."""
  batch, length = v_BxL.shape
  return jnp.pad(v_BxL, ((0, 0), (0, -length % tile)), constant_values=empty).reshape(batch, -1, 1, tile)


def from_tiles(v_BxGx1xQ: Array, length: int) -> Array:
  """The inverse of in_tiles."""
  return v_BxGx1xQ.reshape(v_BxGx1xQ.shape[0], -1)[:, :length]


def column(row_1xQ: Array) -> Array:
  """[1, Q] -> [Q, 1] without a transpose of narrow arrays, by the diagonal of a square."""
  return jnp.sum(jnp.where(_diagonal(row_1xQ.shape[1]), row_1xQ, 0), axis=1, keepdims=True)


def row(column_Qx1: Array) -> Array:
  """[Q, 1] -> [1, Q]."""
  return jnp.sum(jnp.where(_diagonal(column_Qx1.shape[0]), column_Qx1, 0), axis=0, keepdims=True)


def _diagonal(size: int) -> Array:
  square = (size, size)
  return jax.lax.broadcasted_iota(jnp.int32, square, 0) == jax.lax.broadcasted_iota(jnp.int32, square, 1)


def row_index(rows: int) -> Array:
  """0, 1, 2, … as a column [rows, 1]."""
  return jax.lax.broadcasted_iota(jnp.int32, (rows, 1), 0)


class Walk:
  """The staircase over tiles of positions and tiles of chunks: grid (B, tiles of L + tiles of M - 1).

  Inside a kernel, `at` tells where a step stands; index maps and `at` read the prefetched `position_tiles`.
  """

  def __init__(self, batch: int, length: int, capacity: int, tile: int, backwards: bool = False):
    self.batch, self.length, self.capacity, self.tile, self.backwards = batch, length, capacity, tile, backwards
    self.tiles = pl.cdiv(length, tile)
    self.steps = self.tiles + pl.cdiv(capacity, tile) - 1
    self.grid = (batch, self.steps)

  def position_tiles(self, slot_BxL: Array) -> Array:
    """The tile of positions at every step: [B * steps] int32. The tile of chunks is the step minus this."""
    last_BxG = jax.lax.cummax(jnp.max(in_tiles(slot_BxL, self.tile, -1), (2, 3)), axis=1)
    leaves_BxG = jnp.arange(self.tiles)[None] + jnp.maximum(last_BxG, 0) // self.tile
    passed_BxS = jnp.sum(leaves_BxG[:, None] < jnp.arange(self.steps)[None, :, None], -1, dtype=jnp.int32)
    return jnp.minimum(passed_BxS, self.tiles - 1).reshape(-1)

  def at(self, tiles_ref: Any, b: Any, g: Any) -> tuple[Any, Any]:
    """(tile of positions, tile of chunks) at grid step (b, g)."""
    s = self.steps - 1 - g if self.backwards else g
    i = tiles_ref[b * self.steps + s]
    return i, s - i

  def enters(self, tiles_ref: Any, b: Any, g: Any) -> tuple[Any, Any]:
    """Whether this grid step is the first at its (tile of positions, tile of chunks)."""
    i, m = self.at(tiles_ref, b, g)
    before_i, before_m = self.at(tiles_ref, b, jnp.maximum(g - 1, 0))
    return (g == 0) | (i != before_i), (g == 0) | (m != before_m)

  def leaves_chunks(self, tiles_ref: Any, b: Any, g: Any) -> Any:
    """Whether this grid step is the last at its tile of chunks."""
    after = jnp.minimum(g + 1, self.steps - 1)
    return (g == self.steps - 1) | (self.at(tiles_ref, b, g)[1] != self.at(tiles_ref, b, after)[1])

  def block(self, shape: tuple[int, ...], dtype: Any, *, chunks: bool) -> Block:
    """A tile of an array over chunks or over positions: [B, M or L, D], or [B, tiles, k, tile] of row vectors."""
    blocks = (None, None, *shape[2:]) if len(shape) == 4 else (None, self.tile, shape[2])
    tail = (0,) * (len(shape) - 2)
    side = 1 if chunks else 0
    # Whatever staircase the slots make, each tile is met once: the count of bytes may take the plainest.
    plain = lambda g: (np.minimum(g, self.tiles - 1), np.maximum(g - self.tiles + 1, 0))
    return Block(
      jax.ShapeDtypeStruct(shape, dtype),
      blocks,
      lambda b, g, tiles: (b, self.at(tiles, b, g)[side], *tail),
      typical=lambda b, g: (b, plain(g)[side], *tail),
    )

  def select(self, slot_1xQ: Array, m: Any) -> Array:
    """[chunks of the tile, positions of the tile] bool: which position belongs to which chunk."""
    square = (self.tile, self.tile)
    return slot_1xQ - m * self.tile == jax.lax.broadcasted_iota(jnp.int32, square, 0)

  def rows(self, values_QxD: Array, tile: Any, length: int) -> Array:
    """Values with what lies behind the end of the array zero; it is whatever VMEM held, and 0 * nan is nan."""
    if length % self.tile == 0:
      return values_QxD
    return jnp.where(row_index(self.tile) < length - tile * self.tile, values_QxD, 0)


def move(select_QxR: Array, values: Array, transpose: bool = False) -> Array:
  """select @ values (or its transpose @ values): float32 sums of rows, exact where one row alone is selected.

  A row that is not finite makes its whole tile so, since 0 * inf is nan.
  """
  exact = values.dtype == jnp.bfloat16
  return jax.lax.dot_general(
    select_QxR.astype(values.dtype),
    values,
    (((0 if transpose else 1,), (0,)), ((), ())),
    precision=jax.lax.Precision.DEFAULT if exact else HIGHEST,
    preferred_element_type=jnp.float32,
  )
