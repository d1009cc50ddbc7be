"""Whether the boundaries that a model learns go where its ratio loss pulls them, and those that were calibrated cut as
often as they promise; and what to do where they do not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from training import config as config_lib

WINDOW = 100  # steps whose mean rate is judged; of one step it is noise
# A rate below a fifth of its target, or as close to 1, cuts nothing or everything.
COLLAPSE = 0.2
# A rate that is off by more than a half of its target should come closer, by a twentieth of the distance in a window.
FAR, PROGRESS = 0.5, 0.05
OFF = 0.1  # share of its promise by which the size of a calibrated boundary's chunks may be off


class BoundaryWatch:
  """Watches the metric `boundary_rate` of the stages that have a target.

  The first verdict comes with the second window after the learning rate's warm-up, since routers swing at first: an
  H-Net that ends at its target may begin with a tenth of it and be at twice it a hundred steps later. A stage is
  reported when it goes wrong, and again only after it was well, or went wrong in another way. A calibrated boundary
  does not move: it has its verdict with the first window, once.
  """

  def __init__(self, settings: config_lib.Config, model: Any):
    self._targets = model.targets
    self._settings = settings
    self._first = round(settings.optimizer.schedule.warmup * settings.num_steps)
    self._rates = {index: [] for index in self._targets}
    self._before: dict[int, float] = {}  # distance from the target in the window before
    self._said: dict[int, str] = {}
    self._promised = {index: (size, []) for index, size in model.promised.items()}

  def look(self, step: int, stages: Sequence[Mapping[str, float]]) -> list[str]:
    """Sentences for the user after a step with these metrics of its stages, outermost first."""
    sentences = []
    for index, target in self._targets.items():
      if step <= self._first:
        continue
      self._rates[index].append(stages[index]['boundary_rate'])
      if len(self._rates[index]) == WINDOW:
        mean, self._rates[index] = sum(self._rates[index]) / WINDOW, []
        goal = 1.0 / float(target(step / self._settings.num_steps))
        sentences += self._judge(step, index, mean, goal)
    for index, (size, rates) in self._promised.items():
      if len(rates) < WINDOW:
        rates.append(stages[index]['boundary_rate'])
        sentences += _kept(step, index, size, WINDOW / max(sum(rates), 1e-9)) if len(rates) == WINDOW else []
    return sentences

  def _judge(self, step: int, index: int, rate: float, goal: float) -> list[str]:
    distance, before = abs(rate - goal), self._before.get(index)
    self._before[index] = distance
    if before is None:
      return []
    if rate < COLLAPSE * goal:
      verdict = 'has collapsed to 0: hardly any chunk is cut, and the inner network sees next to nothing'
    elif 1.0 - rate < COLLAPSE * (1.0 - goal):
      verdict = 'has collapsed to 1: nearly every position is a chunk of its own'
    elif distance > FAR * goal and distance > (1.0 - PROGRESS) * before:
      verdict = 'does not move towards its target'
    else:
      self._said.pop(index, None)
      return []
    if self._said.get(index) == verdict:
      return []
    self._said[index] = verdict
    return [
      f'step {step}: the boundary rate of stage {index} {verdict} (mean of {WINDOW} steps {rate:.3f}, target {goal:.3f}'
      f'); {self._advice()}'
    ]

  def _advice(self) -> str:
    weights = self._settings.loss_weights
    if weights and 'ratio' not in weights:
      return (
        f'raise the weight of the loss that pulls it ({", ".join(weights)}), or the learning rate of the boundary (a '
        "group in optimizer.groups with pattern 'boundary' and a multiplier above 1)"
      )
    weight = weights.get('ratio', 0.0)
    if not weight:
      return 'loss_weights.ratio is 0, so nothing pulls it there: give it a weight, 0.03 as in the H-Net paper'
    steps = self._settings.num_steps
    warmup = self._settings.optimizer.schedule.warmup
    return (
      f'raise loss_weights.ratio ({weight:g}) two- to tenfold; if the rate swings, lower the learning rate of the '
      "router (a group in optimizer.groups with pattern 'boundary' and a multiplier below 1) or lengthen the warm-up "
      f'(optimizer.schedule.warmup {warmup:g} is {round(warmup * steps)} of {steps} steps); a small or short run may '
      'need model.ratio_targets that begin lower and rise'
    )


def _kept(step: int, index: int, size: float, found: float) -> list[str]:
  """A sentence where a promised size is not met."""
  if abs(found - size) <= OFF * size:
    return []
  return [
    f'step {step}: the chunks of stage {index} have {found:.2f} slots (mean of {WINDOW} steps) and its boundary states '
    f'{size:g}: calibrate it on this text (python -m studies.calibrate), or state what they have as its size, at which '
    'FLOPs are counted'
  ]
