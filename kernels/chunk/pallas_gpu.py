"""Compaction on a GPU: listed rows are copied, and only those are read."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from kernels import gpu
from kernels.cost import Block, Call

TILE = 16  # rows that one program copies


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def chunk(x_BxLxD: Array, slot_BxL: Array, position_BxM: Array, interpret: bool = False) -> Array:
  """Rows of x [B, L, D] at `position`, [B, M, D]; zero where position is L. `slot` is its inverse, -1 for none."""
  del slot_BxL
  length = x_BxLxD.shape[1]
  return _copy(x_BxLxD, jnp.where(position_BxM < length, position_BxM, -1), 'chunk', interpret)


def _forward(x_BxLxD: Array, slot_BxL: Array, position_BxM: Array, interpret: bool) -> tuple[Array, Array]:
  return chunk(x_BxLxD, slot_BxL, position_BxM, interpret), slot_BxL


def _backward(interpret: bool, slot_BxL: Array, dvalues_BxMxD: Array) -> tuple[Array, None, None]:
  # The inverse of a gather of different rows is a gather too.
  return _copy(dvalues_BxMxD, slot_BxL, 'chunk_gradient', interpret), None, None


chunk.defvjp(_forward, _backward)


def _copy(source_BxSxD: Array, index_BxR: Array, name: str, interpret: bool) -> Array:
  """Rows of the source at index [B, R], zero where that is -1: [B, R, D]."""
  rows, width = index_BxR.shape[1], source_BxSxD.shape[2]
  call = describe(*source_BxSxD.shape[:2], rows, width, source_BxSxD.dtype, name)
  index_BxR = gpu.fit(index_BxR, 1, TILE, value=-1)
  out = gpu.run(call, _kernel, index_BxR, gpu.fit(source_BxSxD, 1, 1, call.inputs[1].shape[2]), interpret=interpret)[0]
  return out[:, :rows, :width]


def _kernel(index_ref: Any, source_ref: Any, out_ref: Any) -> None:
  index_R, size = index_ref[...], out_ref.shape[1]
  rows = gpu.load(source_ref, jnp.maximum(index_R, 0), index_R >= 0, pl.program_id(2) * size, size)
  out_ref[...] = rows.astype(out_ref.dtype)


def describe(batch: int, length: int, rows: int, width: int, dtype: Any, name: str = 'chunk') -> Call:
  """Grid and blocks of a copy of `rows` listed rows of [B, length, D]; bytes are those of a full list.

  name: 'chunk', with rows = M, or 'chunk_gradient', with length = M and rows = L, most of which are zeros.
  """
  size = gpu.columns(width, 512)
  width += -width % size
  padded = rows + -rows % TILE
  # Where a row comes from depends on the list; no row comes twice, so as many blocks are read as the source has.
  place = lambda b, m, d: (b, m, d)
  return Call(
    name=name,
    grid=(batch, padded // TILE, width // size),
    inputs=(
      Block(jax.ShapeDtypeStruct((batch, padded), jnp.int32), (None, TILE), lambda b, m, d: (b, m)),
      gpu.Rows(jax.ShapeDtypeStruct((batch, length, width), dtype), (None, TILE, size), place),
    ),
    outputs=(Block(jax.ShapeDtypeStruct((batch, padded, width), dtype), (None, TILE, size), place),),
    revisit=False,
  )
