"""What the GPU kernels share: running a described call, and reads and writes whose rows are listed.

The kernels are Pallas in its Triton lowering. They use `pallas_call`, block specs and jax.numpy; what is Triton's own
stands in this file alone: masked access to listed rows, and the number of warps.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from kernels.cost import Block, Call

# Deprecated since jax 0.11. By name, so that it is missing here, and not in a kernel, once it is gone: kernels.choice
# then says that XLA's form runs.
try:
  from jax.experimental.pallas.triton import CompilerParams
  from jax.experimental.pallas.triton import load as masked_load
  from jax.experimental.pallas.triton import store as masked_store
except ImportError as error:
  raise ImportError(f'jax {jax.__version__} has no Triton lowering of Pallas; those from 0.10 to 0.12 have') from error


@dataclasses.dataclass(frozen=True)
class Rows(Block):
  """A block whose place depends on data: the kernel gets the whole row of the batch and reads about one block of it.

  On a GPU a reference is only a pointer, so nothing is moved by handing it over. The first index of the grid is the
  batch row.
  """

  def spec(self) -> pl.BlockSpec:
    """For pallas_call: everything but the batch axis."""
    return pl.BlockSpec((None, *self.array.shape[1:]), lambda b, *_: (b, *(0,) * (len(self.array.shape) - 1)))


def run(
  call: Call, kernel: Callable, *arrays: Array, warps: int = 4, stages: int = 2, interpret: bool = False
) -> list[Array]:
  """The described call on arrays; programs of the grid run in any order, so none may depend on another.

  warps: of 32 threads a program. stages: of software pipelines over loops. interpret: to run on a CPU.
  """
  return pl.pallas_call(
    kernel,
    grid=call.grid,
    in_specs=[block.spec() for block in call.inputs],
    out_specs=[block.spec() for block in call.outputs],
    out_shape=[block.array for block in call.outputs],
    compiler_params=CompilerParams(num_warps=warps, num_stages=stages),
    cost_estimate=call.estimate(),
    interpret=interpret,
    name=call.name,
  )(*arrays)


def power_of_two(number: int) -> int:
  """The least power of two that is not below `number`: values inside a kernel have such lengths."""
  return 1 << max(number - 1, 0).bit_length()


def columns(width: int, most: int) -> int:
  """How many columns a block has: a power of two of at most `most`, and of at least 16, what a matrix product takes."""
  return next((size for size in (512, 256, 128, 64, 32) if size <= most and width % size == 0), 16)


def fit(v: Array, *multiples: int, value: float = 0) -> Array:
  """v with each axis padded to a multiple; v itself where all fit, as at the widths of released models."""
  ends = [-n % multiple for n, multiple in zip(v.shape, multiples, strict=True)]
  return jnp.pad(v, [(0, end) for end in ends], constant_values=value) if any(ends) else v


def load(ref: Any, index_R: Array, mask_R: Array, start: Any, size: int) -> Array:
  """Listed rows of ref [R, D], columns start ... start + size: [R, size] float32, zero where the mask is False."""
  column_C = start + jnp.arange(size)
  values = masked_load(ref.at[index_R[:, None], column_C[None]], mask=_wide(mask_R, size), other=0)
  return values.astype(jnp.float32)


def store(ref: Any, index_R: Array, mask_R: Array, start: Any, values: Array) -> None:
  """Writes listed rows; those where the mask is False stay as they are."""
  column_C = start + jnp.arange(values.shape[1])
  # The interpreter writes masked rows back as it read them, which must not hit a row that is written here.
  index_R = jnp.where(mask_R, index_R, ref.shape[0])
  mask = _wide(mask_R, values.shape[1])
  masked_store(ref.at[index_R[:, None], column_C[None]], values.astype(ref.dtype), mask=mask)


def _wide(mask_R: Array, size: int) -> Array:
  return jnp.broadcast_to(mask_R[:, None], (mask_R.shape[0], size))


def dot(a: Array, b: Array) -> Array:
  """Matrix product accumulated in float32; of float32 values in three TF32 products, with an error of about 2^-21.

  Tensor cores take float32 only as TF32; without them such a product takes minutes to compile.
  """
  product = functools.partial(jax.lax.dot, precision=jax.lax.Precision.DEFAULT, preferred_element_type=jnp.float32)
  if a.dtype != jnp.float32:
    return product(a, b)
  (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
  return product(a_high, b_high) + (product(a_high, b_low) + product(a_low, b_high))


def halves(v: Array) -> tuple[Array, Array]:
  """float32 values as what TF32 holds exactly and the rest."""
  bits = jax.lax.bitcast_convert_type(v, jnp.int32) & ~0x1FFF
  high = jax.lax.bitcast_convert_type(bits, jnp.float32)
  return high, v - high


def decay(log_keep_Q: Array) -> tuple[Array, Array]:
  """How much of position j is left at position i: exp of the log keeps summed over j < k <= i.

  Returns the sums [i, j], not to be used where j > i, and their prefix sums [i]. Each sum is taken over its own range:
  the difference of two long prefix sums loses digits.
  """
  size = log_keep_Q.shape[0]
  i, j = jnp.arange(size)[:, None], jnp.arange(size)[None]
  between_QxQ = jnp.cumsum(jnp.where(i > j, log_keep_Q[:, None], 0.0), axis=0)
  return between_QxQ, jnp.cumsum(log_keep_Q, axis=0)
