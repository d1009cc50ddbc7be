"""Compaction as a gather; so is its gradient, by the inverse list, where a derived one would be a scatter of rows."""

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def chunk(x_BxLxD: Array, slot_BxL: Array, position_BxM: Array) -> Array:
  """Rows of x at the positions of the chunks, [B, M, D]; zero where there is none."""
  del slot_BxL
  return _rows(x_BxLxD, position_BxM, position_BxM < x_BxLxD.shape[1])


def _forward(x_BxLxD: Array, slot_BxL: Array, position_BxM: Array) -> tuple[Array, Array]:
  return chunk(x_BxLxD, slot_BxL, position_BxM), slot_BxL


def _backward(slot_BxL: Array, dvalues_BxMxD: Array) -> tuple[Array, None, None]:
  return _rows(dvalues_BxMxD, slot_BxL, slot_BxL >= 0), None, None


chunk.defvjp(_forward, _backward)


def _rows(x_BxLxD: Array, index_BxM: Array, there_BxM: Array) -> Array:
  rows_BxMxD = jnp.take_along_axis(x_BxLxD, index_BxM[..., None], axis=1, mode='clip')
  return jnp.where(there_BxM[..., None], rows_BxMxD, 0)
