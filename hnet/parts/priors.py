"""Losses of boundaries that a network predicts: how many chunks there should be, or where they should end.

A document's first slot, which always emits, counts nowhere, as the published code has none. Emissions are counted with
the slope of `cut.soft`. A group is a document, or with scope 'row' a row, and with scripts its slots of one script
(hnet/parts/scripts.py). The published means over rows of equal length are means over groups weighted by their slots
here, so that a short document does not count like a long one.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln

from hnet.parts import scripts as scripts_lib
from hnet.parts.base import Cut, Predicted
from hnet.parts.losses import TargetSchedule
from layers import checks, segments
from layers.chunks import Level
from layers.contract import Context


class _Prior:
  """Counts emissions in groups. targets: name -> 'x' or, with scripts, 'x+y', one for each of them."""

  def __init__(self, scripts: str, others: str, scope: str):
    self.where = f'loss {self.name}'
    self.count = scripts_lib.check(scripts, others, self.where)
    self.scripts, self.others = scripts, others
    self.scope = checks.one_of(scope, ('document', 'row'), f'{self.where}: scope')

  @staticmethod
  def marks(scripts: str, others: str, **options: float | str) -> dict[str, str]:
    """The script, where it matters."""
    del options
    return scripts_lib.marks(scripts, others)

  def _numbers(self, name: str, value: str) -> tuple[float, ...]:
    """'x' for all scripts or 'x+y', one for each."""
    try:
      found = [float(part) for part in value.split('+')]
    except ValueError:
      raise ValueError(
        f"{self.where}: {name}='{value}' must be a number, or one for each script with + between."
      ) from None
    if len(found) not in (1, self.count):
      raise ValueError(
        f"{self.where}: {name}='{value}' has {len(found)} numbers for scripts='{self.scripts}': one each."
      )
    return tuple(found if len(found) == self.count else found * self.count)

  def _groups(self, cut: Cut, level: Level) -> tuple[Array, Array]:
    """(emissions, slots) of each group, float32 [G, scripts]; 0 slots where there is none."""
    ids_BxC = level.segment_ids_BxC
    rows, length = ids_BxC.shape
    counted_BxC = level.valid & ~segments.starts(ids_BxC)
    emitted_BxC = cut.emit + cut.soft - jax.lax.stop_gradient(cut.soft)
    script_BxC = scripts_lib.of_slots(self.scripts, self.others, level.marks, ids_BxC)
    of_row_BxC = jnp.minimum(ids_BxC, length) if self.scope == 'document' else jnp.zeros_like(ids_BxC)
    group_BxC = (of_row_BxC + jnp.arange(rows)[:, None] * (length + 1)) * self.count + script_BxC
    add = lambda values_BxC: jax.ops.segment_sum(
      jnp.where(counted_BxC, values_BxC, 0.0).ravel(), group_BxC.ravel(), rows * (length + 1) * self.count
    ).reshape(-1, self.count)
    return add(emitted_BxC), add(jnp.ones(ids_BxC.shape, jnp.float32))


class Binomial(_Prior):
  """-ln Binomial(K; T, 1 / target) of K emissions in the T slots of a group (dynamic-pooling, MAGNET).

  target: slots of a chunk. per_slot: divided by T, as published for language models; else the sum of a group, MAGNET's
  where it is fine-tuned, which is about T times as much. over: the mean is one of each script's own mean, over the
  'scripts' that occur (MAGNET), or over all 'groups' alike (FLEXITOKENS' use_binomial).
  """

  OPTIONS = {
    'target': '5', 'scripts': '', 'others': '', 'per_slot': True, 'over': 'scripts', 'scope': 'document',
  }  # fmt: skip
  name = 'binomial'

  def __init__(self, *, target: str, scripts: str, others: str, per_slot: bool, over: str, scope: str):
    super().__init__(scripts, others, scope)
    self.over = checks.one_of(over, ('scripts', 'groups'), f'{self.where}: over')
    self.targets, self.per_slot = self._numbers('target', target), per_slot
    if not all(1 < number < math.inf for number in self.targets):
      raise ValueError(f"{self.where}: target='{target}' is slots of a chunk and must be above 1.")
    self.target = TargetSchedule(self.targets[0], self.targets[0]) if len(set(self.targets)) == 1 else None

  def __call__(self, cut: Cut, level: Level, predicted: Predicted, context: Context) -> Array:
    """See the class; 0 where there are no slots."""
    del predicted, context
    emitted_GxS, slots_GxS = self._groups(cut, level)
    rate_1xS = 1.0 / jnp.array([self.targets], jnp.float32)
    ways_GxS = gammaln(slots_GxS + 1) - gammaln(emitted_GxS + 1) - gammaln(slots_GxS - emitted_GxS + 1)
    log_p_GxS = ways_GxS + emitted_GxS * jnp.log(rate_1xS) + (slots_GxS - emitted_GxS) * jnp.log1p(-rate_1xS)
    total_S = -jnp.sum(jnp.where(slots_GxS > 0, log_p_GxS, 0.0), 0)
    count_S = jnp.sum(slots_GxS if self.per_slot else slots_GxS > 0, 0)
    if self.over == 'groups':
      return jnp.sum(total_S) / jnp.maximum(jnp.sum(count_S), 1)
    return jnp.sum(total_S / jnp.maximum(count_S, 1)) / jnp.maximum(jnp.sum(count_S > 0), 1)


class Hinge(_Prior):
  """How far a group's rate of emissions is outside [rate - deviations · sigma, rate] (FLEXITOKENS): in it, it is free.

  rate: emissions a slot at most. sigma: what the rate may be below that, `deviations` times (s_lower_bound in the
  published configurations: 1, 2 or 3).
  """

  OPTIONS = {
    'rate': '0.2', 'sigma': '0.02', 'deviations': 1.0, 'scripts': '', 'others': '', 'scope': 'document',
  }  # fmt: skip
  name = 'hinge'

  def __init__(self, *, rate: str, sigma: str, deviations: float, scripts: str, others: str, scope: str):
    super().__init__(scripts, others, scope)
    self.rates, sigmas = self._numbers('rate', rate), self._numbers('sigma', sigma)
    self.least = tuple(r - deviations * s for r, s in zip(self.rates, sigmas, strict=True))
    if not all(0 < r <= 1 for r in self.rates):
      raise ValueError(f"{self.where}: rate='{rate}' is emissions a slot and must be in (0, 1].")
    if not all(0 <= least <= r for least, r in zip(self.least, self.rates, strict=True)):
      raise ValueError(
        f"{self.where}: rate='{rate}' less {deviations:g} times sigma='{sigma}' must be from 0 to the rate itself."
      )

  def __call__(self, cut: Cut, level: Level, predicted: Predicted, context: Context) -> Array:
    """See the class; 0 where there are no slots."""
    del predicted, context
    emitted_GxS, slots_GxS = self._groups(cut, level)
    rate_GxS = emitted_GxS / jnp.maximum(slots_GxS, 1)
    above_GxS = jax.nn.relu(rate_GxS - jnp.array([self.rates], jnp.float32))
    below_GxS = jax.nn.relu(jnp.array([self.least], jnp.float32) - rate_GxS)
    return jnp.sum((above_GxS + below_GxS) * slots_GxS) / jnp.maximum(jnp.sum(slots_GxS), 1)


class BCE:
  """Cross entropy of predicted ends with labels, the mean over slots, of boundaries with a 'logit' (`supervised`), or
  over those that were 'decided'.

  labels: 'spikes', a slot's label is 1 where the entropy of the model's own prediction there is above that of each of
  the `spikes_left` slots before it in its document; or the name of a mark, not 0 where a chunk ends, made `by` a rule
  of text/marks such as pieces(file=FILE). A label may depend on later bytes: no boundary reads it.
  of: 'logit', or 'probability' as published, where a second sigmoid is taken of it. That one has its least at p =
  ln(q / (1 - q)) for labels that are 1 with probability q, so that p > 1/2 needs q > 0.62 and p is 0 below 1/2, and
  hardly a gradient where p is close to 0 or 1; it is there to compare.
  """

  OPTIONS = {'labels': 'spikes', 'by': '', 'spikes_left': 2, 'of': 'logit'}
  name = 'bce'
  needs = ('logit',)

  def __init__(self, *, labels: str, by: str, spikes_left: int, of: str):
    self.labels, self.of = labels, checks.one_of(of, ('logit', 'probability'), 'loss bce: of')
    self.spikes_left = checks.integer(spikes_left, 'loss bce: spikes_left', 1)
    if (labels == 'spikes') == bool(by):
      raise ValueError(
        f"loss bce(labels={labels},by={by}): labels are 'spikes', or the name of a mark and `by` its rule, such as "
        'bce(labels=pieces,by=pieces(file=FILE)).'
      )

  @staticmethod
  def marks(labels: str, by: str, **options: float | str) -> dict[str, str]:
    """The labels, where they are a mark."""
    del options
    return {labels: by} if by else {}

  def __call__(self, cut: Cut, level: Level, predicted: Predicted, context: Context) -> Array:
    """See the class; 0 where there are no slots."""
    del context
    counted_BxC = level.valid & ~segments.starts(level.segment_ids_BxC) & cut.more.get('decided', True)
    if self.labels == 'spikes':
      label_BxC = spikes(entropies(predicted.logits_BxLxV, level), level.segment_ids_BxC, self.spikes_left)
    else:
      label_BxC = level.marks[self.labels] != 0
    logit_BxC = cut.more['logit'] if self.of == 'logit' else jax.nn.sigmoid(cut.more['logit'])
    loss_BxC = jax.nn.softplus(logit_BxC) - logit_BxC * label_BxC
    return jnp.sum(jnp.where(counted_BxC, loss_BxC, 0.0)) / jnp.maximum(jnp.sum(counted_BxC), 1)


def entropies(logits_BxLxV: Array, level: Level) -> Array:
  """Nats of what is predicted behind the byte of each slot, without a gradient: [B, C] float32."""
  log_p_BxLxV = jax.nn.log_softmax(jax.lax.stop_gradient(logits_BxLxV))
  entropy_BxL = -jnp.sum(jnp.exp(log_p_BxLxV) * log_p_BxLxV, -1)
  return jnp.take_along_axis(entropy_BxL, jnp.minimum(level.byte_BxC, level.length - 1), 1)


def spikes(values_BxC: Array, segment_ids_BxC: Array, left: int) -> Array:
  """Whether a value is above each of the `left` before it in its document, behind the document's first slot: [B, C].

  The second slot, which has none to compare with, always is (hourglass.py).
  """
  position_BxC = segments.positions(segment_ids_BxC)
  is_spike_BxC = jnp.ones(values_BxC.shape, bool)
  for back in range(1, min(left, values_BxC.shape[1] - 1) + 1):
    before_BxC = jnp.pad(values_BxC[:, :-back], ((0, 0), (back, 0)))
    is_spike_BxC &= (values_BxC > before_BxC) | (position_BxC <= back)
  return is_spike_BxC
