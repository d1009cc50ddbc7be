"""Linear maps and root-mean-square norms: float32 parameters, computation in the dtype of the input.

`flax.nnx.Linear` keeps its initializers as attributes, so that two equal models compare unequal as pytrees and a jitted
function traces again; here a module holds its parameters and nothing else.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from kernels.mesh import TENSOR_AXIS, axes
from layers import partition

Initializer = Callable[[Array, tuple[int, ...]], Array]


def normal(deviation: float) -> Initializer:
  """Initializer of independent normal values with mean 0 and the given standard deviation."""
  return lambda key, shape: deviation * jax.random.normal(key, shape, jnp.float32)


def identity(key: Array, shape: tuple[int, ...]) -> Array:
  """Initializer of the identity matrix (H-Net's routing projections)."""
  del key
  return jnp.eye(*shape, dtype=jnp.float32)


def zeros(key: Array, shape: tuple[int, ...]) -> Array:
  """Initializer of zeros."""
  del key
  return jnp.zeros(shape, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x: Array, kernel: Array, precision: jax.lax.Precision | None = None) -> Array:
  """x [..., in] times kernel [in, out].

  The same derivative as `jnp.matmul`, with the kernel's written as x^T g: the transposed product that JAX derives makes
  XLA on a CPU copy the large g first.
  """
  return jnp.matmul(x, kernel, precision=precision)


def _matmul_forward(x, kernel, precision):
  return matmul(x, kernel, precision), (x, kernel)


def _matmul_backward(precision, saved, g):
  x, kernel = saved
  rows = lambda v: v.reshape(-1, v.shape[-1])
  product = functools.partial(jnp.matmul, precision=precision)
  return product(rows(g), kernel.T).reshape(x.shape), product(rows(x).T, rows(g))


matmul.defvjp(_matmul_forward, _matmul_backward)


class Linear(nnx.Module):
  """y = x W + b, with kernel [in, out] and, if `bias_init` is given, bias [out]."""

  def __init__(
    self,
    d_in: int,
    d_out: int,
    *,
    kernel_init: Initializer,
    bias_init: Initializer | None = None,
    rngs: nnx.Rngs,
  ):
    self.kernel = nnx.Param(kernel_init(rngs.params(), (d_in, d_out)))
    if bias_init is not None:
      self.bias = nnx.Param(bias_init(rngs.params(), (d_out,)))

  def __call__(self, x: Array, precision: jax.lax.Precision | None = None) -> Array:
    """x [..., in] -> [..., out] in the dtype of x."""
    y = matmul(x, self.kernel[...].astype(x.dtype), precision)
    return y + jax.lax.broadcast_to_rank(self.bias[...].astype(x.dtype), y.ndim) if hasattr(self, 'bias') else y

  def split(self, x: Array, size: int, units: Sequence[int]) -> list[Array]:
    """The product in column ranges of `size * n` for each n of `units`; no bias.

    Where devices share out the units of each range (layers/partition.py), it is a product a range: the ranges of one
    product would end within devices' shares and have to travel.
    """
    ends = [size * sum(units[:i]) for i in range(1, len(units))]
    if TENSOR_AXIS not in axes():
      return jnp.split(self(x), ends, axis=-1)
    parts = jnp.split(self.kernel[...].astype(x.dtype), ends, axis=-1)
    return [matmul(x, partition.by_columns(part, n)) for part, n in zip(parts, units, strict=True)]


class RMSNorm(nnx.Module):
  """x / rms(x) * scale in float32, returned in `dtype`."""

  def __init__(self, width: int, epsilon: float = 1e-5):
    self.epsilon = epsilon
    self.scale = nnx.Param(jnp.ones((width,), jnp.float32))

  def __call__(self, x: Array, dtype: jnp.dtype) -> Array:
    """x [..., D] -> [..., D]."""
    x = x.astype(jnp.float32)
    scale = jax.lax.broadcast_to_rank(self.scale[...], x.ndim)
    return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.epsilon) * scale).astype(dtype)
