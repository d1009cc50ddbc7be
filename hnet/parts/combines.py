"""How what comes back from inside meets the encoder's states."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import HIGHEST, Cut, Sizes, Spread, no_flops
from layers.linear import Linear, RMSNorm, normal, zeros
from layers.stack import Inject


class STE(nnx.Module):
  """u · STE(confidence) + W e + b, with the probability of what was decided as confidence (H-Net, eq. 7 to 9)."""

  OPTIONS = {}
  injects = False

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
    # The weight starts at zero; the official code leaves the bias at PyTorch's default.
    limit, width = sizes.width**-0.5, sizes.width
    uniform = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -limit, limit)
    self.residual = Linear(width, width, kernel_init=zeros, bias_init=uniform, rngs=rngs)

  def __call__(self, e: Array, cut: Cut, spread: Spread) -> tuple[Array, None]:
    """The residual in float32."""
    confidence = jnp.where(cut.emit, cut.soft, 1 - cut.soft)
    return spread(confidence, self.residual(e.astype(jnp.float32), HIGHEST)).astype(e.dtype), None

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float) -> float:
    """One projection a slot."""
    del chunks
    return 2.0 * slots * sizes.width**2


class LinearSum(nnx.Module):
  """norm(u) + W e + b (Bolmo, arXiv 2512.15586)."""

  OPTIONS = {}
  injects = False

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
    self.norm = RMSNorm(sizes.width)
    self.map = Linear(sizes.width, sizes.width, kernel_init=normal(sizes.width**-0.5), bias_init=zeros, rngs=rngs)

  def __call__(self, e: Array, cut: Cut, spread: Spread) -> tuple[Array, None]:
    """The sum in float32."""
    del cut
    return (self.norm(spread(None, None), jnp.float32) + self.map(e.astype(jnp.float32))).astype(e.dtype), None

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float) -> float:
    """One projection a slot."""
    del chunks
    return 2.0 * slots * sizes.width**2


class Sum(nnx.Module):
  """u + e."""

  OPTIONS = {}
  injects, flops = False, no_flops

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
    del sizes, rngs

  def __call__(self, e: Array, cut: Cut, spread: Spread) -> tuple[Array, None]:
    """The sum in float32."""
    del cut
    return spread(None, e.astype(jnp.float32)).astype(e.dtype), None


class Through(nnx.Module):
  """The encoder's states as they are; what comes from inside enters the blocks of the decoder (HAT, T-Free-HAT)."""

  OPTIONS = {}
  injects, flops = True, no_flops

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
    del sizes, rngs

  def __call__(self, e: Array, cut: Cut, spread: Spread) -> tuple[Array, Inject]:
    """The states, and what the unpool gives."""
    del cut
    return e, spread(None, None)
