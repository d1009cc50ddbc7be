"""Chunks where a slot adds to the coding rate of what was read, in a form that knows no later slot.

ByteFlow (arXiv 2603.03583) scores a slot by how much it raises R = ½ ln det(I + c Σ h hᵀ), c = d / ε², and takes the K
highest of a window. Whether t is among them depends on what follows t, so that the bits of such a model are no code
length. Here a slot starts a chunk if its gain is above a threshold, which learns to be the quantile of the gains that
gives the wanted size.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import HIGHEST, Cut, Predicted, Sizes
from hnet.parts.losses import TargetSchedule
from layers import segments
from layers.chunks import Level
from layers.contract import Context


def added(inverse_BxDxD: Array, v_BxD: Array, weight: Array | float) -> tuple[Array, Array]:
  """(A + weight v vᵀ)⁻¹ from A⁻¹ in O(D²) (Sherman-Morrison), and weight vᵀ A⁻¹ v: [B, D, D] and [B] float32."""
  u_BxD = jnp.einsum('bij,bj->bi', inverse_BxDxD, v_BxD, precision=HIGHEST)
  q_B = weight * jnp.sum(v_BxD * u_BxD, -1)
  # Exactly symmetric in this order: what is not grows with every slot where old ones are forgotten.
  square_BxDxD = u_BxD[:, :, None] * u_BxD[:, None, :]
  return inverse_BxDxD - square_BxDxD * (weight / (1.0 + q_B))[:, None, None], q_B


def gain(
  inverse_BxDxD: Array, count_B: Array, h_BxD: Array, scale: float, decay: float = 1.0
) -> tuple[Array, tuple[Array, Array]]:
  """(ΔR_t = ½ ln(1 + scale hᵀ A⁻¹ h) [B], (A⁻¹, count) with the slot): A ← decay A + scale h hᵀ from A = I.

  count: slots before. With decay 1 the gains of a document add up to R. Below 1 old slots are forgotten, so that gains
  do not vanish once the slots span all channels; I, too, would be, and A be singular: D (1 - decay) is put back on one
  entry of the diagonal a slot, each in its turn.
  """
  width = h_BxD.shape[-1]
  if decay < 1:
    turn_BxD = jax.nn.one_hot(count_B % width, width, dtype=jnp.float32)
    inverse_BxDxD, _ = added(inverse_BxDxD / decay, turn_BxD, width * (1.0 - decay))
  inverse_BxDxD, q_B = added(inverse_BxDxD, h_BxD, scale)
  return 0.5 * jnp.log1p(q_B), (inverse_BxDxD, count_B + 1)


class CodingRate(nnx.Module):
  """A chunk where ΔR_t of the slot's state is above a threshold.

  decay: of earlier slots, a slot; about 1 / (1 - decay) count. epsilon: squared, the published ε². start: the first
  threshold, in nats. States have length 1, so that the gain does not hang on their size. No gradient goes to them. The
  threshold is a parameter that the loss `quantile` moves and nothing else: a running quantile of the batches of the
  training, which evaluation and decoding leave as it is. Without that loss it stays where it starts.

  O(D²) a slot, one after the other: for comparison, and not for long rows.
  """

  OPTIONS = {'decay': 0.98, 'epsilon': 0.5, 'start': 1.0}
  lookahead, differentiable, learned, emits = 0, False, True, 'starts'
  gives = ('above', 'forced')  # gain less threshold, and where a chunk starts whatever it is

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, decay: float, epsilon: float, start: float):
    del rngs
    if not 0.5 <= decay <= 1 or not epsilon > 0:
      raise ValueError(
        f'boundary coding_rate: decay={decay} must be from 0.5 to 1, and epsilon={epsilon} positive: 0.98 and 0.5 do.'
      )
    self.width, self.decay, self.scale = sizes.width, decay, sizes.width / epsilon
    self.threshold = nnx.Param(jnp.full((), start, jnp.float32))

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """One slot after the other."""
    del context
    gain_BxC, _ = self._scan(e_BxCxD, level)
    return self._cut(gain_BxC, segments.starts(level.segment_ids_BxC), level.valid)

  def _scan(self, e_BxCxD: Array, level: Level) -> tuple[Array, tuple[Array, Array]]:
    """(gains [B, C], the state behind each row's last slot)."""

    def one(state, slot):
      e_BxD, starts_B, valid_B = slot
      inverse, count = jax.tree.map(lambda empty, old: _where(starts_B, empty, old), self._empty(len(e_BxD)), state)
      gain_B, new = gain(inverse, count, _unit(e_BxD), self.scale, self.decay)
      return jax.tree.map(lambda new, old: _where(valid_B, new, old), new, state), gain_B

    starts_BxC = segments.starts(level.segment_ids_BxC)
    slots = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (jax.lax.stop_gradient(e_BxCxD), starts_BxC, level.valid))
    state, gain_CxB = jax.lax.scan(one, self._empty(len(e_BxCxD)), slots)
    return gain_CxB.T, state

  def _empty(self, batch_size: int) -> tuple[Array, Array]:
    eye = jnp.broadcast_to(jnp.eye(self.width, dtype=jnp.float32), (batch_size, self.width, self.width))
    return eye, jnp.zeros(batch_size, jnp.int32)

  def _cut(self, gain: Array, starts: Array, valid: Array) -> Cut:
    above = gain - self.threshold[...]
    emit = ((above > 0) | starts) & valid
    forced = starts & valid
    p = jax.lax.stop_gradient(jnp.where(forced, 1.0, jax.nn.sigmoid(above)))
    return Cut(emit, p, emit.astype(jnp.float32), {'above': above, 'forced': forced})

  def init_cache(self, batch_size: int) -> tuple[Array, Array]:
    """A⁻¹ = I of no slots."""
    return self._empty(batch_size)

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> tuple[Array, Array]:
    """The state behind the last slot."""
    del cut
    return self._scan(e_BxCxD, level)[1]

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: tuple) -> tuple[Cut, tuple]:
    """One slot."""
    del marks
    gain_B, new = gain(*cache, _unit(e_BxD), self.scale, self.decay)
    return self._cut(gain_B, cache[1] == 0, active_B), jax.tree.map(lambda a, b: _where(active_B, a, b), new, cache)

  @staticmethod
  def chunk_size(**options: float) -> None:
    """Learned."""

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, **options: float) -> float:
    """Two updates of rank one, of which one multiplies by a unit vector."""
    del chunks, options
    return 10.0 * slots * sizes.width**2


class Quantile:
  """Pulls the threshold of `coding_rate` to the gain that one in `target` slots is above.

  The pinball loss of the gains, whose least value is at that quantile. target, start, until: as of `ratio`.
  """

  OPTIONS = {'target': 5.0, 'start': None, 'until': 1.0}
  name, needs = 'quantile', ('above', 'forced')

  def __init__(self, *, target: float, start: float | None, until: float):
    self.target = TargetSchedule(target if start is None else start, target, until)

  def __call__(self, cut: Cut, level: Level, predicted: Predicted, context: Context) -> Array:
    """Over all slots but the first of documents, which start a chunk whatever the threshold and count as such."""
    del predicted
    free_BxC = level.valid & ~cut.more['forced']
    free = jnp.maximum(jnp.sum(free_BxC), 1)
    wanted = jnp.sum(level.valid) / self.target(context.progress) - jnp.sum(cut.more['forced'])
    share = jnp.clip(wanted / free, 0.0, 1.0)
    above_BxC = cut.more['above']
    pinball_BxC = jnp.where(above_BxC > 0, (1.0 - share) * above_BxC, -share * above_BxC)
    return jnp.sum(jnp.where(free_BxC, pinball_BxC, 0.0)) / free


def _unit(h: Array) -> Array:
  h = h.astype(jnp.float32)
  return h * jax.lax.rsqrt(jnp.maximum(jnp.sum(h * h, -1, keepdims=True), 1e-12))


def _where(rows_B: Array, new: Array, old: Array) -> Array:
  return jnp.where(rows_B.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
