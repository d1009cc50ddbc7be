"""SOMBRERO (arXiv 2601.22805): a router of one projection, smoothing at every slot in place of over chunks, and a loss
that wants boundaries where the next byte is hard to predict.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import HIGHEST, Cut, Predicted, Sizes
from hnet.parts.boundaries import Begins, at_last
from hnet.parts.losses import at_next_byte
from hnet.parts.pools import First
from hnet.parts.unpools import Repeat, spread
from kernels.dechunk.xla import smooth
from layers import segments
from layers.chunks import Level, Segments
from layers.contract import Context
from layers.linear import Linear, normal

LEAST = 1e-6  # probability of the next byte, in the loss


class Sigmoid(Begins):
  """p_t = sigmoid(w · e_t + b), a chunk where p > 1/2; always float32. It begins near 1/2, as the cosine's does not."""

  OPTIONS = {}
  lookahead, differentiable, learned, emits = 0, True, True, 'starts'

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
    self.gate = Linear(sizes.width, 1, kernel_init=normal(sizes.width**-0.5), bias_init=_zero, rngs=rngs)

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """p is 1 at the first slot of a document and 0 in padding."""
    del context
    p_BxC = jnp.where(segments.starts(level.segment_ids_BxC), 1.0, self._probability(e_BxCxD)) * level.valid
    return Cut((p_BxC > 0.5) & level.valid, p_BxC, p_BxC)

  def _probability(self, e: Array) -> Array:
    return jax.nn.sigmoid(self.gate(e.astype(jnp.float32), HIGHEST)[..., 0])

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: Array) -> tuple[Cut, Array]:
    """One slot."""
    del marks
    p_B = jnp.where(cache, self._probability(e_BxD), 1.0)
    return Cut((p_B > 0.5) & active_B, p_B, p_B), cache | active_B

  @staticmethod
  def chunk_size() -> None:
    """Learned."""

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float) -> float:
    """One product a slot."""
    del chunks
    return 2.0 * slots * sizes.width


def smoothed(x_BxCxD: Array, cut: Cut, level: Level) -> Array:
  """x̄_t = c_t x_t + (1 - c_t) x̄_{t-1}, begun anew in every document: [B, C, D] float32.

  c is the probability of what was decided, p where a chunk starts and else 1 - p (H-Net's confidence); the paper's own
  choice is not known. Where it is 1, as of a rule, x̄ is x. Gradients reach x and the boundary.
  """
  c_BxC = jnp.where(segments.starts(level.segment_ids_BxC), 1.0, _confidence(cut))
  return smooth(jnp.where(level.valid[..., None], x_BxCxD, 0), c_BxC, 1.0 - c_BxC)


def _confidence(cut: Cut) -> Array:
  return jnp.where(cut.emit, cut.soft, 1.0 - cut.soft)


class SmoothedFirst(First):
  """`first` of the encoder's states smoothed over the slots before, as far as the boundary was unsure; the decoder
  still gets the states as they are.
  """

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, widen: str):
    super().__init__(sizes, rngs=rngs, widen=widen)
    self.width = sizes.width

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """One pass over the slots, then compaction."""
    return super().__call__(smoothed(e_BxCxD, cut, segments.outer).astype(e_BxCxD.dtype), cut, segments)

  def init_cache(self, batch_size: int) -> Array:
    """Nothing before the first slot, which is taken as it is."""
    return jnp.zeros((batch_size, self.width), jnp.float32)

  def after(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """The smoothed state of the last slot."""
    return at_last(smoothed(e_BxCxD, cut, segments.outer), segments.outer)

  def step(self, e_BxD: Array, cut: Cut, active_B: Array, cache: Array) -> tuple[Array, Array, Array]:
    """One slot of the same average."""
    c_Bx1 = _confidence(cut)[:, None]
    smoothed_BxD = c_Bx1 * e_BxD.astype(jnp.float32) + (1.0 - c_Bx1) * cache
    g_BxE, starts_B, _ = super().step(smoothed_BxD.astype(e_BxD.dtype), cut, active_B, None)
    return g_BxE, starts_B, jnp.where(active_B[:, None], smoothed_BxD, cache)

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, widen: str) -> float:
    """The average."""
    del chunks, widen
    return 3.0 * slots * sizes.width


class SmoothedRepeat(Repeat):
  """What `repeat` gives, smoothed over slots: a new chunk's value comes in as far as the boundary was sure of it."""

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, scale: Array | None, residual: Array | None
  ) -> Array:
    """One pass over the slots behind the repetition."""
    return spread(self._smoothed(z_BxMxE, cut, segments), scale, residual)

  def _smoothed(self, z_BxMxE: Array, cut: Cut, segments: Segments) -> Array:
    return smoothed(super().__call__(z_BxMxE, cut, segments, None, None), cut, segments.outer)

  def init_cache(self, batch_size: int) -> tuple[Array, Array]:
    """(the last chunk's value, its average): none yet."""
    return super().init_cache(batch_size), super().init_cache(batch_size)

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments) -> tuple[Array, Array]:
    """Of the last slot."""
    at_slots = self._smoothed(z_BxMxE, cut, segments)
    return super().after(z_BxMxE, cut, segments), at_last(at_slots, segments.outer)

  def step(self, z_BxE: Array, cut: Cut, cache: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    """One slot."""
    value_BxD, _ = super().step(z_BxE, cut, cache[0])
    c_Bx1 = _confidence(cut)[:, None]
    average_BxD = c_Bx1 * value_BxD + (1.0 - c_Bx1) * cache[1]
    average_BxD = jnp.where(cut.more['active'][:, None], average_BxD, cache[1])
    return average_BxD, (value_BxD, average_BxD)

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, narrow: str) -> float:
    """The average."""
    del chunks, narrow
    return 3.0 * slots * sizes.width


class ConfidenceAligned:
  """CAB: the mean over slots of (1 - P - p)², P the model's own probability of the byte that comes next, which gets no
  gradient. Weight 0.01 in the paper. The next byte is the one behind the byte where a slot starts, at any depth; slots
  where it is not scored do not count.
  """

  OPTIONS = {}
  name = 'cab'

  def __call__(self, cut: Cut, level: Level, predicted: Predicted, context: Context) -> Array:
    """A mean over the slots of a micro-batch."""
    del context
    nats_BxC = jax.lax.stop_gradient(at_next_byte(predicted.nll_BxL, level))
    known_BxC = at_next_byte(predicted.scored_BxL, level)
    missing_BxC = 1.0 - jnp.clip(jnp.exp(-nats_BxC), LEAST, 1.0 - LEAST)
    return jnp.sum(jnp.where(known_BxC, (missing_BxC - cut.p) ** 2, 0.0)) / jnp.maximum(jnp.sum(known_BxC), 1)


def _zero(key: Array, shape: tuple[int, ...]) -> Array:
  del key
  return jnp.zeros(shape, jnp.float32)
