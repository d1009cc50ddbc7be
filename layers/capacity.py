"""How many chunks a program has room for: predicted by the host from what batches needed, checked on the device.

XLA wants static lengths and a batch's chunks are known only when it has run. A program is compiled for one capacity an
inner level; a batch that needs more is run again with more, so no chunk is ever dropped, and the cost follows the
chunks. Capacities are rungs, so that few programs are compiled. All of this is arithmetic on counts, the same in every
process and in a run that was resumed.
"""

import bisect
import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

STEP, LONG_STEP, LONG = 8, 128, 2048  # rungs are multiples of 8, of 128 in rows from 2,048 bytes on
GROWTH = 8 / 7  # of a rung over the one below it, at least
MARGIN = 1.06  # of a prediction over the fullest row of the last WINDOW batches
WINDOW = 32
COMPILATION = 100  # steps that the compilation of a program costs, about

Capacities = tuple[int, ...]


def rungs(length: int) -> tuple[int, ...]:
  """The capacities that there are for rows of `length` bytes; the last is `length`."""
  step = LONG_STEP if length >= LONG else STEP
  found = []
  rung = step
  while rung < length:
    found.append(rung)
    rung = max(rung + step, math.ceil(rung * GROWTH / step) * step)
  return (*found, length)


def rung(length: int, count: float) -> int:
  """The smallest capacity that holds so many chunks of a row; `length` where none does."""
  of_length = rungs(length)
  return of_length[min(bisect.bisect_left(of_length, count), len(of_length) - 1)]


@dataclasses.dataclass
class Predictor:
  """Capacities for the next batch.

  length: bytes of a row. cost: what a batch costs at some capacities, in any unit (FLOPs). They rise as soon as the
  last batches come near them. They fall when the work that lower ones would have saved has added up to a compilation,
  so that a rate that falls steadily is not followed with a program for each of its steps.
  """

  length: int
  cost: Callable[[Capacities], float]
  capacities: Capacities
  recent: collections.deque
  wasted: float = 0.0

  @classmethod
  def of(cls, model: Any, length: int) -> 'Predictor':
    """From the bytes per chunk that a model states, with half as much again."""
    expected = [min(length, 1.5 * length / size) for size in model.bytes_per_chunk]
    cost = lambda capacities: sum(model.flops_per_byte(length, [length / c for c in capacities]).values())
    return cls(length, cost, _rising(length, [rung(length, count) for count in expected]), collections.deque(maxlen=WINDOW))

  def observe(self, needed: Sequence[int]) -> None:
    """After a batch that fitted: chunks of the fullest row of each level, outermost first."""
    self.recent.append(tuple(map(int, needed)))
    target = self._wanted()
    if any(wanted > now for wanted, now in zip(target, self.capacities, strict=True)):
      self._change(_rising(self.length, map(max, target, self.capacities)))
    elif len(self.recent) == WINDOW and target != self.capacities:
      self.wasted += 1 - self.cost(target) / self.cost(self.capacities)
      if self.wasted > COMPILATION:
        self._change(target)

  def misfit(self, needed: Sequence[int]) -> Capacities:
    """Capacities to run a batch again that did not fit. Behind the first level that overflowed nothing is known, so
    those inside keep their share of it.
    """
    new, grown = [], 1.0
    for count, now in zip(map(int, needed), self.capacities, strict=True):
      if grown == 1.0 and count > now:
        new.append(rung(self.length, count * MARGIN))
        grown = new[-1] / now
      else:
        new.append(rung(self.length, now * grown))
    self._change(_rising(self.length, new))
    return self.capacities

  def fits(self, needed: Sequence[int]) -> bool:
    """Whether the batch that needed so many ran with enough."""
    return all(int(count) <= now for count, now in zip(needed, self.capacities, strict=True))

  def state(self) -> dict[str, Any]:
    """What it knows, as JSON data: a predictor that gets it back goes on in the same way."""
    return {'capacities': list(self.capacities), 'recent': [list(n) for n in self.recent], 'wasted': self.wasted}

  def restore(self, state: dict[str, Any]) -> None:
    """The inverse of `state`."""
    self.capacities, self.wasted = tuple(state['capacities']), state['wasted']
    self.recent.clear()
    self.recent.extend(map(tuple, state['recent']))

  def _wanted(self) -> Capacities:
    return _rising(self.length, [rung(self.length, max(level) * MARGIN) for level in zip(*self.recent, strict=True)])

  def _change(self, capacities: Capacities) -> None:
    self.capacities, self.wasted = capacities, 0.0


def _rising(length: int, capacities: Iterable[int]) -> Capacities:
  """Each at most that of the level above."""
  found, above = [], length
  for capacity in capacities:
    found.append(min(capacity, above))
    above = found[-1]
  return tuple(found)
