"""How many chunks a program has room for: predicted by the host from what batches needed, checked on the device.

XLA wants static lengths and a batch's chunks are known only when it has run. A program is compiled for one capacity an
inner level; a batch that needs more is run again with more, so no chunk is ever dropped, and the cost follows the
chunks. Capacities are rungs, so that few programs are compiled. All of this is arithmetic on counts, the same in every
process and in a run that was resumed.
"""

import bisect
import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

STEP, LONG_STEP, LONG = 8, 128, 2048  # rungs are multiples of 8, of 128 in rows from 2,048 bytes on
GROWTH = 8 / 7  # of a rung over the one below it, at least
MARGIN = 1.02  # of a prediction over the fullest rows of the last batches
RARE, FEW = 2, 8  # batches of a window that may need more and are run again, one for so many that there are
WINDOW = 32  # batches that a prediction looks back
COMPILATION, CHANGE = 20, 4  # batches whose time a new program must have saved, and a change between two
PAYS = 120  # batches whose time a new program must still save; on two cores a compilation costs that of about 65
FRESH = 2.2  # slots of a chunk of a learned boundary at initialisation

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


def stated(model: Any, length: int, fresh: bool = False) -> Capacities:
  """Room for half as many chunks again as a model states that rows of `length` bytes have, or has at initialisation."""
  return _rising(length, (rung(length, 1.5 * length / size) for size in model.level_sizes(fresh)))


def full(model: Any, length: int) -> Capacities:
  """Room for whatever a row of `length` bytes may need."""
  return (length,) * len(model.level_sizes())


def holding(model: Any, batches: Sequence[Any]) -> Capacities:
  """The smallest capacities that hold the chunks of all these batches, which are run for that."""
  needed = jax.jit(lambda model, batch: model(batch).needed)
  length = batches[0].bytes.shape[1]
  levels = zip(*(jax.device_get(needed(model, batch)) for batch in batches), strict=True)
  return _rising(length, (rung(length, int(max(level))) for level in levels))


@dataclasses.dataclass
class Predictor:
  """Capacities for the next batch.

  length: bytes of a row. cost: what a batch costs at some capacities, in any unit (FLOPs). They follow the fullest row
  of the last WINDOW batches but for RARE of them: to run these again costs less than room for them in all. They rise
  at once, to a program that was used before if one has the room. They fall to one that was used before when what it
  would have saved since the last change (`wasted`) has paid for a change. A new program is compiled when it alone would
  have saved enough since the last was (`savings`, of all that some batch would have wanted, in `batches`), and will pay
  for that in the batches that are left.
  """

  length: int
  cost: Callable[[Capacities], float]
  capacities: Capacities
  used: set[Capacities] = dataclasses.field(default_factory=set)
  recent: collections.deque = dataclasses.field(default_factory=lambda: collections.deque(maxlen=WINDOW))
  wasted: float = 0.0
  savings: dict[Capacities, float] = dataclasses.field(default_factory=dict)
  batches: int = 0

  @classmethod
  def of(cls, model: Any, length: int, fresh: bool = False, used: set[Capacities] | None = None) -> 'Predictor':
    """Begins with the capacities of `stated`, or with others that have the room and are among those used before by a
    model of the same config; those that this one uses are put into that set.
    """
    cost = lambda capacities: sum(model.flops_per_byte(length, [length / c for c in capacities]).values())
    found = cls(length, functools.cache(cost), stated(model, length, fresh), set() if used is None else used)
    found._change(found._ready(found.capacities))
    return found

  def observe(self, needed: Sequence[int], left: float = math.inf) -> None:
    """After a batch that fitted: chunks of the fullest row of each level, outermost first. left: batches to come."""
    if not self.capacities:
      return
    self.recent.append(tuple(map(int, needed)))
    wanted = self._wanted(MARGIN)
    if not fits(wanted, self.capacities):
      self._change(self._ready(_rising(self.length, map(max, wanted, self.capacities))))
    elif len(self.recent) == WINDOW:
      ready, now = self._ready(wanted), self.cost(self.capacities)
      self.wasted += 1 - self.cost(ready) / now
      self.batches += 1
      self.savings.setdefault(wanted, 0.0)
      for other in self.savings:
        if fits(wanted, other):
          self.savings[other] += max(0.0, self.cost(ready) - self.cost(other)) / now
      best = self._best(left)
      if best and self.savings[best] > COMPILATION and fits(wanted, best):
        self._change(best)
      elif self.wasted > CHANGE:
        self._change(ready)

  def enough(self, needed: Sequence[int], used: Capacities) -> Capacities:
    """Capacities to run a batch again that did not fit those used. Behind the first level that overflowed nothing is
    known, so levels inside it keep their share of it.
    """
    new, growth = [], 1.0
    for count, capacity in zip(map(int, needed), used, strict=True):
      if growth == 1.0 and count > capacity:
        new.append(rung(self.length, count))
        growth = new[-1] / capacity
      else:
        new.append(rung(self.length, capacity * growth))
    found = self._ready(_rising(self.length, map(max, new, self.capacities)))
    self._use(found)
    return found

  def coming(self, left: float = math.inf) -> Capacities | None:
    """The capacities that a change would bring, where one is likely soon: worth compiling for in the meantime."""
    if (best := self._best(left)) and self.savings[best] > COMPILATION / 2:
      return best
    if not self.recent:
      return None
    near = self._ready(_rising(self.length, map(max, self._wanted(MARGIN**1.5), self.capacities)))
    return near if near != self.capacities else None

  def state(self) -> dict[str, Any]:
    """What it knows, as JSON data: a predictor that gets it back goes on in the same way."""
    return {
      'capacities': list(self.capacities),
      'used': sorted(map(list, self.used)),
      'recent': [list(needed) for needed in self.recent],
      'wasted': self.wasted,
      'savings': sorted([*capacities, saved] for capacities, saved in self.savings.items()),
      'batches': self.batches,
    }

  def restore(self, state: dict[str, Any]) -> None:
    """The inverse of `state`."""
    self.capacities, self.wasted = tuple(state['capacities']), state['wasted']
    self.savings = {tuple(map(int, entry[:-1])): entry[-1] for entry in state.get('savings', ())}
    self.batches = state.get('batches', 0)  # which records of an earlier version lack, with savings
    self.used = set(map(tuple, state['used']))
    self.recent = collections.deque(map(tuple, state['recent']), WINDOW)

  def _wanted(self, margin: float) -> Capacities:
    """By the third largest of the last batches in each level; by the largest while they are few."""
    rare = min(RARE, (len(self.recent) - 1) // FEW)
    largest = (sorted(level)[-1 - rare] for level in zip(*self.recent, strict=True))
    return _rising(self.length, [rung(self.length, count * margin) for count in largest])

  def _ready(self, capacities: Capacities) -> Capacities:
    """The cheapest that were used and have so much room; these, for which a program is compiled, if none has."""
    return min((used for used in self.used if fits(capacities, used)), key=self.cost, default=capacities)

  def _best(self, left: float) -> Capacities | None:
    """Of those for which no program is, what would have saved most, if it pays in the batches that are left."""
    best = max(self.savings, key=lambda capacities: (self.savings[capacities], capacities), default=None)
    return best if best and self.savings[best] * left > PAYS * self.batches else None

  def _change(self, capacities: Capacities) -> None:
    self.capacities, self.wasted = capacities, 0.0
    self._use(capacities)

  def _use(self, capacities: Capacities) -> None:
    if capacities not in self.used:
      self.used.add(capacities)
      self.savings, self.batches = {}, 0


def fits(needed: Sequence[int], capacities: Capacities) -> bool:
  """Whether a batch that needed so many chunks a row ran with enough."""
  return all(int(count) <= capacity for count, capacity in zip(needed, capacities, strict=True))


def run_all(
  call: Callable[[Any, Capacities], tuple[Any, Sequence[Any]]], predictor: Predictor, items: Iterable[Any]
) -> Iterator[tuple[Any, Any]]:
  """(item, values on the host) for every item, in order, where call(item, capacities) -> (values, needed) has no effect
  but its result: what did not fit is called again. An item is on its way while the one before is read.
  """
  waiting = None
  for item in items:
    started = item, predictor.capacities, call(item, predictor.capacities)
    if waiting:
      yield _settled(call, predictor, *waiting)
    waiting = started
  if waiting:
    yield _settled(call, predictor, *waiting)


def _settled(call, predictor: Predictor, item: Any, used: Capacities, called: tuple) -> tuple[Any, Any]:
  values, needed = jax.device_get(called)
  while not fits(needed, used):
    used = predictor.enough(needed, used)
    values, needed = jax.device_get(call(item, used))
  predictor.observe(needed)
  return item, values


def _rising(length: int, capacities: Iterable[int]) -> Capacities:
  """Each at most that of the level above."""
  found, above = [], length
  for capacity in capacities:
    found.append(min(capacity, above))
    above = found[-1]
  return tuple(found)
