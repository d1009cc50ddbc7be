"""Boundary predictors: where a chunk starts, with what probability, in parallel and one position at a time.

A predictor takes encoder states and bytes of its level and returns probabilities; a chunk starts where p > 1/2, and
always at a document's first position. `step` carries a small state a row.
"""

import re

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from kernels.route import route
from layers import segments
from layers.linear import Linear, identity

HIGHEST = jax.lax.Precision.HIGHEST


class Cosine(nnx.Module):
  """Half of one minus the cosine of adjacent encoder states (H-Net, arXiv 2507.07955; dc.py RoutingModule).

  p_t = (1 - cos(W_q e_{t-1}, W_k e_t)) / 2. The paper's eq. 4 swaps the two projections; released weights follow this
  order. Always float32.
  """

  learned = True

  def __init__(self, width: int, *, rngs: nnx.Rngs):
    self.query = Linear(width, width, kernel_init=identity, rngs=rngs)
    self.key = Linear(width, width, kernel_init=identity, rngs=rngs)

  def __call__(self, e_BxLxD: Array, segment_ids_BxL: Array, bytes_BxL: Array) -> Array:
    """Probability [B, L] that a chunk starts; 1 at document starts, 0 in padding."""
    del bytes_BxL
    e_BxLxD = e_BxLxD.astype(jnp.float32)
    return route(self.query(e_BxLxD, HIGHEST), self.key(e_BxLxD, HIGHEST), segment_ids_BxL).p_BxL

  def init_state(self, batch_size: int) -> dict[str, Array]:
    """Nothing seen yet."""
    width = self.query.kernel.shape[0]
    return {'seen': jnp.zeros(batch_size, bool), 'last': jnp.zeros((batch_size, width), jnp.float32)}

  def last_state(self, e_BxLxD: Array, bytes_BxL: Array, length_B: Array) -> dict[str, Array]:
    """The state after each row's first `length` positions."""
    del bytes_BxL
    index = jnp.maximum(length_B - 1, 0)[:, None, None]
    return {'seen': length_B > 0, 'last': jnp.take_along_axis(e_BxLxD, index, 1)[:, 0].astype(jnp.float32)}

  def step(self, e_BxD: Array, byte_B: Array, active_B: Array, state: dict[str, Array]) -> tuple[Array, dict]:
    """Probability [B] at one position."""
    del byte_B
    e_BxD = e_BxD.astype(jnp.float32)
    p_B = _half_cosine_distance(self.query(state['last'], HIGHEST), self.key(e_BxD, HIGHEST))
    new = {'seen': state['seen'] | active_B, 'last': jnp.where(active_B[:, None], e_BxD, state['last'])}
    return jnp.where(state['seen'], p_B, 1.0), new


def _half_cosine_distance(q: Array, k: Array) -> Array:
  unit = lambda v: v * jax.lax.rsqrt(jnp.maximum(jnp.sum(v * v, -1, keepdims=True), 1e-24))
  return jnp.clip(0.5 * (1.0 - jnp.sum(unit(q) * unit(k), -1)), 0.0, 1.0)


LONGEST_STRIDE = 2**31 - 1  # positions in a document are int32


class Stride(nnx.Module):
  """A chunk every `stride` positions of its document: H-Net (pool) of the paper's table 1."""

  learned = False

  def __init__(self, stride: int):
    self.stride = stride

  def __call__(self, e_BxLxD: Array, segment_ids_BxL: Array, bytes_BxL: Array) -> Array:
    """1 where a chunk starts, 0 elsewhere: [B, L]."""
    del e_BxLxD, bytes_BxL
    return (segments.positions(segment_ids_BxL) % self.stride == 0).astype(jnp.float32)

  def init_state(self, batch_size: int) -> dict[str, Array]:
    """Position 0."""
    return {'position': jnp.zeros(batch_size, jnp.int32)}

  def last_state(self, e_BxLxD: Array, bytes_BxL: Array, length_B: Array) -> dict[str, Array]:
    """The state after each row's first `length` positions."""
    del e_BxLxD, bytes_BxL
    return {'position': length_B.astype(jnp.int32)}

  def step(self, e_BxD: Array, byte_B: Array, active_B: Array, state: dict[str, Array]) -> tuple[Array, dict]:
    """1 or 0 at one position: [B]."""
    del e_BxD, byte_B
    return (state['position'] % self.stride == 0).astype(jnp.float32), {'position': state['position'] + active_B}


class SpaceLike(nnx.Module):
  """A chunk at every space-like byte that does not follow another one (SpaceByte, arXiv 2404.14408; H-Net (space))."""

  learned = False

  def __call__(self, e_BxLxD: Array, segment_ids_BxL: Array, bytes_BxL: Array) -> Array:
    """1 where a chunk starts, 0 elsewhere: [B, L]."""
    del e_BxLxD
    space = space_like(bytes_BxL)
    after_space = jnp.pad(space[:, :-1], ((0, 0), (1, 0)))
    return ((space & ~after_space) | segments.starts(segment_ids_BxL)).astype(jnp.float32)

  def init_state(self, batch_size: int) -> dict[str, Array]:
    """Nothing seen yet."""
    return {'seen': jnp.zeros(batch_size, bool), 'space': jnp.zeros(batch_size, bool)}

  def last_state(self, e_BxLxD: Array, bytes_BxL: Array, length_B: Array) -> dict[str, Array]:
    """The state after each row's first `length` positions."""
    del e_BxLxD
    index = jnp.maximum(length_B - 1, 0)[:, None]
    return {'seen': length_B > 0, 'space': space_like(jnp.take_along_axis(bytes_BxL, index, 1)[:, 0])}

  def step(self, e_BxD: Array, byte_B: Array, active_B: Array, state: dict[str, Array]) -> tuple[Array, dict]:
    """1 or 0 at one position: [B]."""
    del e_BxD
    space = space_like(byte_B)
    p_B = ((space & ~state['space']) | ~state['seen']).astype(jnp.float32)
    return p_B, {'seen': state['seen'] | active_B, 'space': jnp.where(active_B, space, state['space'])}


def space_like(byte: Array) -> Array:
  """Neither an ASCII letter or digit nor a UTF-8 continuation byte (spacebyte.py); leading bytes are space-like."""
  between = lambda low, high: (byte >= low) & (byte <= high)
  word = between(ord('0'), ord('9')) | between(ord('A'), ord('Z')) | between(ord('a'), ord('z'))
  return ~(word | between(0x80, 0xBF))


def parse(spec: str) -> tuple[str, int]:
  """`'cosine'`, `'space'` or `'stride:6'` -> (name, stride); ValueError on anything else."""
  if spec in ('cosine', 'space'):
    return spec, 0
  name, _, number = spec.partition(':') if isinstance(spec, str) else ('', '', '')
  if name == 'stride' and re.fullmatch('[0-9]{1,10}', number) and 1 <= int(number) <= LONGEST_STRIDE:
    return name, int(number)
  raise ValueError(f"boundary {spec!r}: write 'cosine', 'space', or 'stride:N' with N from 1 to {LONGEST_STRIDE}.")


def make(spec: str, width: int, *, rngs: nnx.Rngs) -> Cosine | Stride | SpaceLike:
  """The predictor that `spec` names."""
  name, stride = parse(spec)
  if name == 'cosine':
    return Cosine(width, rngs=rngs)
  return Stride(stride) if name == 'stride' else SpaceLike()
