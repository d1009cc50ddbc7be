"""Marks of what decoding reads, byte by byte."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from text.batch import BOS
from text.marks.kind import Kind, Specs, parse


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Read:
  """What decoding has read of every row, for the marks of what it reads next. N: symbols that a row may have.

  bytes_BxN: of which length_B are known, BOS included. state_Bx2: what each kind of mark keeps, by name.
  """

  bytes_BxN: Array
  length_B: Array
  state_Bx2: dict[str, Array]

  @staticmethod
  def nothing(specs: Specs, batch_size: int, max_bytes: int) -> 'Read':
    """Of empty rows; without marks there is nothing to keep."""
    return Read(
      jnp.zeros((batch_size, max_bytes if specs else 0), jnp.uint8),
      jnp.zeros(batch_size, jnp.int32),
      {name: jnp.zeros((batch_size, 2), jnp.int32) for name in specs},
    )

  def prompts(self, bytes_BxP: Array, length_B: Array) -> 'Read':
    """After right-padded prompts in empty rows."""
    prompts = jnp.where(jnp.arange(bytes_BxP.shape[1])[None] < length_B[:, None], bytes_BxP, 0).astype(jnp.uint8)
    bytes_BxN = self.bytes_BxN.at[:, : bytes_BxP.shape[1]].set(prompts[:, : self.bytes_BxN.shape[1]])
    return dataclasses.replace(self, bytes_BxN=bytes_BxN, length_B=length_B.astype(jnp.int32))

  def then(self, specs: Specs, byte_B: Array, count: int = 1) -> tuple[dict[str, Array], 'Read']:
    """(the marks of the last `count` bytes by name, [B, count]; what is read) after one more byte of every row.

    By a callback on the host. That a byte begins a word is said once, with the byte that decides it: up to three later.
    """
    rows_B = jnp.arange(byte_B.shape[0])
    bytes_BxN = self.bytes_BxN.at[rows_B, self.length_B].set(byte_B.astype(jnp.uint8), mode='drop')
    read = dataclasses.replace(self, bytes_BxN=bytes_BxN, length_B=self.length_B + 1)
    if not specs:
      return {}, read
    kinds = parse(specs)
    shapes = {name: jax.ShapeDtypeStruct((len(rows_B), count), kind.DTYPE) for name, kind in kinds.items()}
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.state_Bx2)
    find = functools.partial(_of_last, kinds, count)
    marks, state = jax.pure_callback(find, (shapes, like), read.bytes_BxN, read.length_B, read.state_Bx2)
    return marks, dataclasses.replace(read, state_Bx2=state)


def _of_last(kinds: Mapping[str, Kind], count: int, bytes_BxN: Any, length_B: Any, state_Bx2: Any) -> tuple:
  bytes_BxN, states = np.asarray(bytes_BxN), {name: np.array(state_Bx2[name]) for name in kinds}
  rows = [row[:length].tobytes() for row, length in zip(bytes_BxN, np.asarray(length_B), strict=True)]
  found = {
    name: np.stack([kind.of_last(row, row[0] == BOS, count, states[name][r]) for r, row in enumerate(rows)])
    for name, kind in kinds.items()
  }
  return found, states
