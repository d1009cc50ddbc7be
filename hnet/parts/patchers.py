"""Where BLT's patches end, as functions of what was read (arXiv 2412.09871; bytelatent/data/patcher.py).

Each says of a slot t whether its patch ends there, so that t + 1 opens the next: known with t, since the entropy H_t is
that of the prediction of t + 1 after t was read. Positions count from 0 at a document's first symbol, BOS, which is a
patch by itself: position 1 always opens one.
"""

import jax
import jax.numpy as jnp
from jax import Array

MODES = ('threshold', 'jump', 'both')


def entropy(logits: Array) -> Array:
  """Nats of the distribution over the last axis, float32: [..., V] -> [...]."""
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32), -1)
  return -jnp.sum(jnp.exp(log_p) * log_p, -1)


def by_entropy(
  entropy: Array, before: Array, position: Array, threshold: Array | float, mode: str = 'threshold', add: float = 0.0
) -> Array:
  """Whether a patch ends at a slot: bool in the shape of its entropy, that of the slot before, and its position.

  threshold: H_t > threshold, for t >= 1. jump: H_t - H_{t-1} > threshold (BLT: monotonicity), for t >= 2; 0 and 1 are
  ends. both: H_t - H_{t-1} > add and H_t > threshold (threshold_add), for t >= 3; 0 and 1 are ends and 2 is none. These
  positions are those of the published code, whatever the entropy.
  """
  high, jump = entropy > threshold, entropy - before
  if mode == 'threshold':
    return (position == 0) | high
  if mode == 'jump':
    return (position <= 1) | (jump > threshold)
  return (position <= 1) | ((position >= 3) & high & (jump > add))


def by_space(space: Array, space_before: Array, special: Array, position: Array) -> Array:
  """Ends at the first of several space-like bytes, and at BOS and EOS: bool. space: of `boundaries.space_like`."""
  return (position == 0) | special | (space & ~space_before)


def by_stride(position: Array, size: int) -> Array:
  """Patches of `size` symbols, the first as long as the others."""
  return (position + 1) % size == 0


def length(ends_BxC: Array) -> Array:
  """Slots since the end before each slot, itself included: [B, C] int32. A document's first slot must be an end."""
  index_1xC = jnp.arange(ends_BxC.shape[1], dtype=jnp.int32)[None]
  end_BxC = jax.lax.cummax(jnp.where(ends_BxC, index_1xC, -1), axis=1)
  return index_1xC - jnp.pad(end_BxC[:, :-1], ((0, 0), (1, 0)), constant_values=-1)


def capped(ends: Array, length: Array, most: int) -> Array:
  """The ends and, in a patch that is longer, one after every `most` slots (max_patch_length); 0: no more ends."""
  return ends | (length % most == 0) if most else ends
