"""A router trained by policy gradient (Dauncey and Wattenhofer, arXiv 2602.13940): where chunks start is drawn, and a
draw is rewarded by what the stage inside then gains over an early exit.

Rewards belong to slots here: that of slot t is of the byte behind the one where it starts, which its draw may change.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import HIGHEST, Cut, Predicted, Sizes
from hnet.parts.losses import TargetSchedule, at_next_byte
from hnet.parts.unpools import Repeat
from layers import checks, segments
from layers.chunks import Level, Segments, pick
from layers.contract import Context
from layers.linear import Linear, RMSNorm, normal

SYMBOLS = 256


class Bernoulli(nnx.Module):
  """A gate of one projection, p_t = σ(ℓ_t), ℓ_t = w · norm(e_t) + b, from which training draws where chunks start.

  Without a key in the context (evaluation, decoding) a chunk starts where p > 1/2, or with draw=true where p is above a
  number that the slot's position and byte fix, so that both forms draw alike. size: slots of a chunk at first, b =
  logit(1/size). A document's first slot always emits. The probability carries no gradient into the language model's
  loss; `reinforce`, `rate` and `early` train the gate and the early exit, an unembedding of the same norm.
  """

  OPTIONS = {'size': 5.0, 'draw': False}
  lookahead, differentiable, learned, emits = 0, False, True, 'starts'
  gives = ('action', 'early', 'logit', 'state')

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, size: float, draw: bool):
    if not 1 < size < math.inf:
      raise ValueError(f'boundary bernoulli: size={size} is slots of a chunk at first and must be above 1.')
    self.draw = draw
    begin = lambda key, shape: jnp.full(shape, -math.log(size - 1.0), jnp.float32)
    self.norm = RMSNorm(sizes.width)
    self.gate = Linear(sizes.width, 1, kernel_init=normal(0.02), bias_init=begin, rngs=rngs)
    self.early = Linear(sizes.width, SYMBOLS, kernel_init=normal(0.02), rngs=rngs)

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """p is 1 at the first slot of a document and 0 in padding. The early exit's logits are float32 [B, C, 256]."""
    x_BxCxD, logit_BxC = self._read(e_BxCxD)
    p_BxC = jax.nn.sigmoid(logit_BxC)
    if context.rng is not None:
      drawn_BxC = _uniform(context.rng, level) < p_BxC
    else:
      drawn_BxC = self._decided(p_BxC, segments.positions(level.segment_ids_BxC), level.marks['bytes'])
    first_BxC, count = segments.starts(level.segment_ids_BxC), jnp.maximum(jnp.sum(level.count_B), 1)
    emit_BxC = (drawn_BxC | first_BxC) & level.valid
    p_BxC = jnp.where(first_BxC, 1.0, p_BxC) * level.valid
    more = {
      'state': e_BxCxD,
      'logit': logit_BxC,
      'action': emit_BxC,
      'early': self.early(x_BxCxD.astype(e_BxCxD.dtype)).astype(jnp.float32),
      'mean_probability': jax.lax.stop_gradient(jnp.sum(p_BxC) / count),
      'likely_rate': jnp.sum(p_BxC > 0.5) / count,
    }
    return Cut(emit_BxC, p_BxC, jax.lax.stop_gradient(p_BxC), more)

  def _read(self, e: Array) -> tuple[Array, Array]:
    x = self.norm(e, jnp.float32)
    return x, self.gate(x, HIGHEST)[..., 0]

  def _decided(self, p: Array, position: Array, byte: Array) -> Array:
    if not self.draw:
      return p > 0.5
    fixed = lambda slot: jax.random.uniform(jax.random.fold_in(jax.random.key(0), slot))
    slot = position.astype(jnp.uint32) * SYMBOLS + byte.astype(jnp.uint32)
    return jax.vmap(fixed)(slot.ravel()).reshape(p.shape) < p

  def init_cache(self, batch_size: int) -> Array:
    """Position 0."""
    return jnp.zeros(batch_size, jnp.int32)

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> Array:
    """Slots so far."""
    del e_BxCxD, cut
    return level.count_B.astype(jnp.int32)

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: Array) -> tuple[Cut, Array]:
    """One slot; nothing is drawn from a key."""
    p_B = jax.nn.sigmoid(self._read(e_BxD)[1])
    emit_B = (self._decided(p_B, cache, marks['bytes']) | (cache == 0)) & active_B
    p_B = jnp.where(cache == 0, 1.0, p_B)
    return Cut(emit_B, p_B, p_B, {'state': e_BxD}), cache + active_B

  @staticmethod
  def chunk_size(size: float, draw: bool) -> None:
    """Learned."""

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, size: float, draw: bool) -> float:
    """The gate and the early exit."""
    del chunks, size, draw
    return 2.0 * slots * sizes.width * (1 + SYMBOLS)


def _uniform(rng: Array, level: Level) -> Array:
  """Numbers in [0, 1) that hang on the byte where a slot starts, the same at any capacity: [B, C]. The number of slots
  tells levels apart, which get the same key.
  """
  rows, width = level.byte_BxC.shape[0], level.length
  of_bytes_BxL = jax.random.uniform(jax.random.fold_in(rng, jnp.sum(level.count_B)), (rows, width))
  return jnp.take_along_axis(of_bytes_BxL, level.byte_BxC, 1, mode='clip')


class Difference(Repeat):
  """A slot gets what the stage inside changed of the state at its chunk's first slot, z_k - e_k, to be added (`sum`).

  With pool `first` and without a norm at the end of stacks (post_norm) that is the sum of what its blocks added.
  """

  needs = ('state',)

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, scale: Array | None, residual: Array | None
  ) -> Array:
    """0 where a slot has no chunk of its own document."""
    return super().__call__(self._change(z_BxMxE, cut, segments), cut, segments, scale, residual)

  def _change(self, z_BxMxE: Array, cut: Cut, segments: Segments) -> Array:
    e_BxMxD = pick(cut.more['state'], segments.slot_BxM)
    return self._narrowed(z_BxMxE).astype(jnp.float32) - e_BxMxD.astype(jnp.float32)

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments) -> Array:
    """The last chunk's change."""
    return super().after(self._change(z_BxMxE, cut, segments), cut, segments)

  def step(self, z_BxE: Array, cut: Cut, cache: Array) -> tuple[Array, Array]:
    """The change where a chunk starts here, else the last one's."""
    change_BxD = self._narrowed(z_BxE).astype(jnp.float32) - cut.more['state'].astype(jnp.float32)
    return super().step(change_BxD, cut, cache)


class Reinforce:
  """-mean_t log π(a_t) A_t, the advantage A_t = Σ_i γ^i (R_{t+i} - its mean) over the slots of the document from t on,
  `window` of them (0: all). R_t is what the byte behind slot t gains in nats over the early exit, without a gradient.

  The mean is that of the other rows of the micro-batch at the same index of the row, whatever place in its document
  that is: any number that a row's own draws do not change leaves the expected gradient as it is, and a mean with the
  row itself would shrink it by 1 - 1/B. Slots whose next byte is not scored have no reward and are in no mean; the one
  that is alone at its index keeps its reward. Weight 0.01 in the paper, γ = 0.99, window 8 (1 did as well). Below about
  16 rows the gradient is noisy. A document's first slot is not drawn and has no gradient.
  """

  OPTIONS = {'gamma': 0.99, 'window': 8}
  name = 'reinforce'
  needs = ('action', 'early', 'logit')

  def __init__(self, *, gamma: float, window: int):
    if not 0 <= gamma <= 1:
      raise ValueError(f'loss reinforce: gamma={gamma} must be from 0 to 1.')
    self.gamma, self.window = gamma, checks.integer(window, 'loss reinforce: window', 0)

  def __call__(self, cut: Cut, level: Level, predicted: Predicted, context: Context) -> Array:
    """The mean is over the slots of a micro-batch whose next byte is scored."""
    del context
    known_BxC = at_next_byte(predicted.scored_BxL, level)
    reward_BxC = early_nats(cut, level, predicted) - at_next_byte(predicted.nll_BxL, level)
    advantage_BxC = jax.lax.stop_gradient(
      discounted(centred(reward_BxC, known_BxC), level.segment_ids_BxC, self.gamma, self.window)
    )
    logit_BxC, action_BxC = cut.more['logit'], cut.more['action']
    log_p_BxC = -jax.nn.softplus(jnp.where(action_BxC, -logit_BxC, logit_BxC))
    drawn_BxC = known_BxC & ~segments.starts(level.segment_ids_BxC)
    return -jnp.sum(jnp.where(drawn_BxC, log_p_BxC * advantage_BxC, 0.0)) / jnp.maximum(jnp.sum(known_BxC), 1)


class Rate:
  """mean ℓ · (mean p - 1/target), the second without a gradient: moves logits until the mean probability is right.

  target: slots of a chunk, to which it goes from `start` between `since` and `until` of the training. Weight 0.01
  in the paper.
  """

  OPTIONS = {'target': 5.0, 'start': None, 'until': 1.0, 'since': 0.0}
  name = 'rate'
  needs = ('logit',)

  def __init__(self, *, target: float, start: float | None, until: float, since: float):
    try:
      self.size = TargetSchedule(target if start is None else start, target, until, since)
    except ValueError as error:
      raise ValueError(str(error).replace('ratio_targets', 'loss rate: target')) from None

  def __call__(self, cut: Cut, level: Level, predicted: Predicted, context: Context) -> Array:
    """Means over the slots of a micro-batch that are drawn."""
    del predicted
    drawn_BxC = level.valid & ~segments.starts(level.segment_ids_BxC)
    count = jnp.maximum(jnp.sum(drawn_BxC), 1)
    mean = lambda values_BxC: jnp.sum(jnp.where(drawn_BxC, values_BxC, 0.0)) / count
    logit_BxC = cut.more['logit']
    off = mean(jax.nn.sigmoid(logit_BxC)) - 1.0 / self.size(context.progress)
    return mean(logit_BxC) * jax.lax.stop_gradient(off)


class Early:
  """Mean nats of the next byte by the early exit. Weight 0.1 in the paper."""

  OPTIONS = {}
  name = 'early'
  needs = ('early',)

  def __call__(self, cut: Cut, level: Level, predicted: Predicted, context: Context) -> Array:
    """Over the slots of a micro-batch whose next byte is scored."""
    del context
    known_BxC = at_next_byte(predicted.scored_BxL, level)
    return jnp.sum(early_nats(cut, level, predicted)) / jnp.maximum(jnp.sum(known_BxC), 1)


def early_nats(cut: Cut, level: Level, predicted: Predicted) -> Array:
  """Nats of the byte behind the one where a slot starts by the early exit, 0 where it is not scored: [B, C]."""
  logits_BxCxV, byte_BxC = cut.more['early'], at_next_byte(predicted.bytes_BxL, level).astype(jnp.int32)
  nats_BxC = jax.nn.logsumexp(logits_BxCxV, -1) - jnp.take_along_axis(logits_BxCxV, byte_BxC[..., None], -1)[..., 0]
  return jnp.where(at_next_byte(predicted.scored_BxL, level), nats_BxC, 0.0)


def centred(reward_BxC: Array, known_BxC: Array) -> Array:
  """Rewards less the mean of the other rows' at the same index; 0 where not known."""
  reward_BxC = jnp.where(known_BxC, reward_BxC, 0.0)
  others_BxC = jnp.sum(reward_BxC, 0, keepdims=True) - reward_BxC
  count_1xC = jnp.maximum(jnp.sum(known_BxC, 0, keepdims=True) - 1, 1)
  return jnp.where(known_BxC, reward_BxC - others_BxC / count_1xC, 0.0)


def discounted(reward_BxC: Array, segment_ids_BxC: Array, gamma: float, window: int) -> Array:
  """Σ_i γ^i r_{t+i} over the slots of t's document, the first `window` of them (0: all): [B, C]."""
  ends_BxC = jnp.pad(segment_ids_BxC[:, 1:] != segment_ids_BxC[:, :-1], ((0, 0), (0, 1)), constant_values=True)
  add = lambda later, sooner: (sooner[0] * later[0], sooner[1] + sooner[0] * later[1])
  keep_BxC = jnp.where(ends_BxC, 0.0, gamma)
  total_BxC = jax.lax.associative_scan(add, (keep_BxC, reward_BxC), reverse=True, axis=1)[1]
  if not 0 < window < reward_BxC.shape[1]:
    return total_BxC
  behind = lambda values_BxC: jnp.pad(values_BxC[:, window:], ((0, 0), (0, window)))
  same_BxC = behind(segment_ids_BxC) == segment_ids_BxC
  return total_BxC - jnp.where(same_BxC, gamma**window * behind(total_BxC), 0.0)
