"""Linear maps and root-mean-square norms: float32 parameters, computation in the dtype of the input.

`flax.nnx.Linear` keeps its initializers as attributes, so that two equal models compare unequal as pytrees and a jitted
function traces again; here a module holds its parameters and nothing else.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

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
    y = jnp.matmul(x, self.kernel[...].astype(x.dtype), precision=precision)
    return y + self.bias[...].astype(x.dtype) if hasattr(self, 'bias') else y


class RMSNorm(nnx.Module):
  """x / rms(x) * scale in float32, returned in `dtype`."""

  def __init__(self, width: int):
    self.scale = nnx.Param(jnp.ones((width,), jnp.float32))

  def __call__(self, x: Array, dtype: jnp.dtype) -> Array:
    """x [..., D] -> [..., D]; epsilon 1e-5 as in the released H-Nets."""
    x = x.astype(jnp.float32)
    return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5) * self.scale[...]).astype(dtype)
