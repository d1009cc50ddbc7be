"""Scratch rows: steps of the stage inside within a chunk that leave nothing behind (Scratchpad Patching, arXiv
2605.09630, whose masks and positions are not known: this is a reading that holds together).

Without them a slot reads what was made of its chunk's first slot, at any distance. A scratch row is one more step of
the stage inside, at a slot in the chunk. It sees the chunks up to there and itself, at the position of the chunk that
comes next; what comes behind sees chunks alone. So no chunk's output depends on which slots have one, slots get what
the last row of either kind gave, and with one at every slot the stage inside works as often as without chunks. A choice
has no parameters: the same weights run with any.

What a row reads is the state at its slot, in which the encoder has the open chunk so far; pools of another kind, and
unpools that mix rows into those behind them, are refused (hnet/systems.py).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import Cut, Sizes, no_flops
from hnet.parts.boundaries import at_last
from hnet.parts.policy import SYMBOLS, Difference
from hnet.parts.pools import First
from hnet.parts.sombrero import SmoothedFirst
from hnet.parts.unpools import Cross, Repeat, Scatter
from kernels.chunk import chunk_index
from layers import checks, segments
from layers.chunks import Level

POOLS = (First, SmoothedFirst)  # whose vector of a slot needs no chunk to start there
UNPOOLS = (Cross, Difference, Repeat, Scatter)  # that give a slot nothing but the last row's


class Every(nnx.Module):
  """A scratch row at every `size`-th slot of a chunk behind its first; 1: at all of them."""

  OPTIONS = {'size': 4}
  flops = no_flops

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, size: int):
    del sizes, rngs
    self.size = checks.integer(size, 'scratch every: size', 1)

  def __call__(self, cut: Cut, level: Level) -> Array:
    """By the offset in the chunk."""
    return (_offsets(cut) % self.size == 0) & ~cut.emit & level.valid

  def init_cache(self, batch_size: int) -> Array:
    """Slots of the open chunk so far: none."""
    return jnp.zeros(batch_size, jnp.int32)

  def after(self, cut: Cut, level: Level) -> Array:
    """Those up to the row's end."""
    return jnp.where(level.count_B > 0, at_last(_offsets(cut), level) + 1, 0)

  def step(self, cut: Cut, active_B: Array, cache: Array) -> tuple[Array, Array]:
    """One slot."""
    offset_B = jnp.where(cut.emit, 0, cache)
    return (offset_B % self.size == 0) & ~cut.emit & active_B, jnp.where(active_B, offset_B + 1, cache)

  @staticmethod
  def rows(slots: float, size: int) -> float:
    """Exact where all chunks have so many slots, or one of the two whole numbers beside it."""
    whole = int(slots)
    few, more = (whole - 1) // size, whole // size
    return few + (slots - whole) * (more - few)


class HighEntropy(nnx.Module):
  """A scratch row where the entropy of the next byte, by the boundary's early exit, is above a number of nats.

  share: of a chunk's slots behind its first, at which FLOPs are counted.
  """

  OPTIONS = {'above': 2.0, 'share': 0.25}
  needs = ('early',)

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, above: float, share: float):
    del sizes, rngs
    if not 0 <= share <= 1:
      raise ValueError(f'scratch entropy: share={share} of the slots must be from 0 to 1.')
    self.above = above

  def __call__(self, cut: Cut, level: Level) -> Array:
    """By the early exit's logits; without a gradient."""
    return self._unsure(cut) & ~cut.emit & level.valid

  def _unsure(self, cut: Cut) -> Array:
    log_p = jax.nn.log_softmax(cut.more['early'], -1)
    return -jnp.sum(jnp.exp(log_p) * log_p, -1) > self.above

  def init_cache(self, batch_size: int) -> None:
    """No state."""

  def after(self, cut: Cut, level: Level) -> None:
    """No state."""

  def step(self, cut: Cut, active_B: Array, cache: None) -> tuple[Array, None]:
    """One slot."""
    return self._unsure(cut) & ~cut.emit & active_B, cache

  @staticmethod
  def rows(slots: float, above: float, share: float) -> float:
    """As stated."""
    del above
    return share * (slots - 1.0)

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, above: float, share: float) -> float:
    """A logarithm, an exponential, and two sums over the bytes; the early exit is counted by its boundary."""
    del sizes, chunks, above, share
    return 5.0 * SYMBOLS * slots


def _offsets(cut: Cut) -> Array:
  """Of each slot from where its chunk starts: [B, C] int32."""
  return segments.positions(chunk_index(cut.emit))
