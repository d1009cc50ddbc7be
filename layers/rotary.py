"""Rotary position embedding (arXiv 2104.09864), with the frequency scaling of Llama 3."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from layers import checks


@dataclasses.dataclass(frozen=True)
class RotaryScaling:
  """Llama 3's rule for contexts longer than those trained on: waves longer than original_max / low_frequency_factor are
  slowed by `factor`, those shorter than original_max / high_frequency_factor stay, between the two it blends linearly.
  """

  factor: float
  low_frequency_factor: float
  high_frequency_factor: float
  original_max_positions: float

  @classmethod
  def of_published(cls, values: Any, where: str = 'rope_scaling') -> 'RotaryScaling | None':
    """From rope_scaling in a Hugging Face config.json; None where nothing is scaled. ValueError for another rule."""
    kind = values.get('rope_type', values.get('type')) if isinstance(values, Mapping) else None
    if values is None or kind == 'default':
      return None
    if kind != 'llama3' or not values.keys() >= {*_PUBLISHED}:
      raise ValueError(f'{where} {values!r}: supported are none and llama3 with {", ".join(_PUBLISHED)}.')
    return cls(*(checks.number(values[key], f'{where}.{key}') for key in _PUBLISHED))

  def published(self) -> dict[str, Any]:
    """The inverse of `of_published`."""
    values = dict(zip(_PUBLISHED, dataclasses.astuple(self), strict=True))
    return {'rope_type': 'llama3', **values, 'original_max_position_embeddings': int(self.original_max_positions)}


# The fields of RotaryScaling under their published names, in order.
_PUBLISHED = ('factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')


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
  frequency = jax.lax.broadcast_to_rank(frequencies(rotary_dim, base, scaling), x.ndim)
  angle = positions[..., None, None].astype(jnp.float32) * frequency
  cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
  a, b, rest = jnp.split(x, [rotary_dim // 2, rotary_dim], axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)
