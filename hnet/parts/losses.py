"""Losses beside the language model's: the ratio loss pulls a router to its target, which may move over training."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from hnet.parts.base import Cut, Predicted
from layers import checks
from layers.chunks import Level
from layers.contract import Context


@dataclasses.dataclass(frozen=True)
class TargetSchedule:
  """Bytes (or chunks) per chunk: `start` up to the part `since` of the training, and from there on a line to `end` at
  `until` (ATDC, arXiv 2605.30080, holds 5.0 for some of the training and goes to 6.5 until its end).
  """

  start: float
  end: float
  until: float = 1.0
  since: float = 0.0

  def __post_init__(self):
    if not all(1 < target < math.inf for target in (self.start, self.end)):
      raise ValueError(f'ratio_targets {self.start} -> {self.end}: a target is bytes per chunk and must be above 1.')
    if not 0 < self.until <= 1:
      raise ValueError(f'ratio_targets until {self.until}: the ramp ends at a fraction of the training in (0, 1].')
    if not 0 <= self.since < self.until:
      raise ValueError(
        f'ratio_targets since {self.since}: the ramp begins at 0 or later, and before until {self.until}.'
      )

  def __call__(self, progress: Array | float) -> Array | float:
    """Target at `progress` in [0, 1]."""
    if self.start == self.end:
      return self.end
    done = jnp.clip((progress - self.since) / (self.until - self.since), 0.0, 1.0)
    return self.start + (self.end - self.start) * done


class Ratio:
  """Bytes (or chunks) per chunk pulled to `target`, or to a target that moves there from `start` between `since` and
  `until` of the training.

  scope: 'global', one rate over all positions of a micro-batch, or 'per_document', the mean of the documents' losses.
  Without a target or a scope they are the configuration's (ratio_targets, ratio_scope).
  """

  OPTIONS = {'target': None, 'start': None, 'until': 1.0, 'scope': '', 'since': None}
  name = 'ratio'

  def __init__(self, *, target: float, start: float | None, until: float, scope: str, since: float | None):
    self.target = TargetSchedule(target if start is None else start, target, until, since or 0.0)
    self.scope = checks.one_of(scope, ('global', 'per_document'), 'loss ratio: scope')

  def __call__(self, cut: Cut, level: Level, predicted: Predicted, context: Context) -> Array:
    """See `ratio_loss`."""
    del predicted
    target = self.target(context.progress)
    if self.scope == 'per_document':
      return ratio_loss_per_document(cut.p, cut.emit, level.segment_ids_BxC, target)
    return ratio_loss(cut.p, cut.emit, level.valid, target)


def at_next_byte(values_BxL: Array, level: Level) -> Array:
  """Values of the byte behind the one where each slot starts, 0 where the row has none and in padding: [B, C]."""
  ahead_BxL = jnp.pad(values_BxL[:, 1:], ((0, 0), (0, 1)))
  at_BxC = jnp.take_along_axis(ahead_BxL, level.byte_BxC, 1, mode='clip')
  return jnp.where(level.valid, at_BxC, 0)


def ratio_loss(p_BxL: Array, b_BxL: Array, mask_BxL: Array, target: Array | float) -> Array:
  """Pulls the boundary rate to 1/target (H-Net, arXiv 2507.07955, eq. 10); 1.0 when both rates equal it.

  p_BxL: boundary probabilities in [0, 1]; b_BxL: boundaries drawn; mask_BxL: True on real positions; target: bytes per
  chunk, > 1. One rate over all positions that are given, of one micro-batch in training. Raises
  ValueError if a constant target <= 1.
  """
  _check(target)
  total = jnp.maximum(jnp.sum(mask_BxL), 1)
  mean = lambda v: jnp.sum(jnp.where(mask_BxL, v.astype(jnp.float32), 0.0)) / total
  return _ratio(mean(b_BxL), mean(p_BxL), target)


def ratio_loss_per_document(p_BxL: Array, b_BxL: Array, segment_ids_BxL: Array, target: Array | float) -> Array:
  """The same loss with rates of each document (segment ids, 0 = padding), averaged over the documents of the batch."""
  _check(target)
  batch, length = p_BxL.shape
  bucket = (segment_ids_BxL + jnp.arange(batch)[:, None] * (length + 1)).ravel()
  add = lambda v: jax.ops.segment_sum(
    jnp.where(segment_ids_BxL > 0, v.astype(jnp.float32), 0.0).ravel(), bucket, batch * (length + 1)
  )
  size = add(jnp.ones_like(p_BxL))
  mean = lambda v: add(v) / jnp.maximum(size, 1)
  losses = jnp.where(size > 0, _ratio(mean(b_BxL), mean(p_BxL), target), 0.0)
  return jnp.sum(losses) / jnp.maximum(jnp.sum(size > 0), 1)


def _ratio(drawn: Array, probability: Array, target: Array | float) -> Array:
  drawn = jax.lax.stop_gradient(drawn)
  return target / (target - 1) * ((1 - drawn) * (1 - probability) + (target - 1) * drawn * probability)


def _check(target: Array | float) -> None:
  if isinstance(target, (int, float)) and target <= 1:
    raise ValueError(f'ratio loss target {target}: bytes per chunk must be above 1.')
