"""Rotary position embedding (arXiv 2104.09864), with the frequency scaling of Llama 3."""

import dataclasses
import math

import jax.numpy as jnp
from jax import Array


@dataclasses.dataclass(frozen=True)
class RotaryScaling:
  """Llama 3's rule for contexts longer than those trained on: waves longer than original_max / low_frequency_factor are
  slowed by `factor`, those shorter than original_max / high_frequency_factor stay, between the two it blends linearly.
  """

  factor: float
  low_frequency_factor: float
  high_frequency_factor: float
  original_max_positions: int


def frequencies(rotary_dim: int, base: float = 10000.0, scaling: RotaryScaling | None = None) -> Array:
  """base^(-2i/r) for i < r/2, in radians per position: [r/2] float32."""
  half = rotary_dim // 2
  frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if scaling is None:
    return frequency
  waves = scaling.original_max_positions * frequency / (2 * math.pi)  # that fit in the original context
  low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
  kept = jnp.clip((waves - low) / (high - low), 0.0, 1.0)
  return frequency * (kept + (1 - kept) / scaling.factor)


def rotate(
  x: Array, positions: Array, rotary_dim: int, base: float = 10000.0, scaling: RotaryScaling | None = None
) -> Array:
  """Turns pairs (i, i + r/2) by position * frequency (half-split form).

  x [..., H, K], positions [...] -> [..., H, K]. Angles in float32, sine and cosine cast to x's dtype.
  """
  if not rotary_dim:
    return x
  angle = positions[..., None, None].astype(jnp.float32) * frequencies(rotary_dim, base, scaling)
  cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
  a, b, rest = jnp.split(x, [rotary_dim // 2, rotary_dim], axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)
