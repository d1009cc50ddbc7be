"""The training step at capacities that follow the data (layers/capacity.py): a step that does not fit changes nothing
and is run again with more room, and programs are compiled when they are first needed, the next one in a thread.
"""

import threading
from collections.abc import Callable
from typing import Any

import jax

from layers.capacity import Capacities, Predictor, fits
from training import state as state_lib
from training.trainer import Trainer


class Programs:
  """The step compiled for the capacities that it is asked for, each once."""

  def __init__(self, compile_step: Callable[[Capacities], Callable]):
    self._compile, self._made, self._threads = compile_step, {}, {}

  def prepare(self, capacities: Capacities) -> None:
    """Begins to compile in a thread, if nothing else is being compiled there."""
    if capacities not in self._made and not any(thread.is_alive() for thread in self._threads.values()):
      thread = threading.Thread(target=self._make, args=(capacities,), name='compilation', daemon=True)
      self._threads[capacities] = thread
      thread.start()

  def __call__(self, capacities: Capacities) -> Callable:
    """The program, compiled now if it has not been."""
    if thread := self._threads.pop(capacities, None):
      thread.join()
    if capacities not in self._made:  # never begun, or it failed there: then the error is raised here
      self._make(capacities)
    return self._made[capacities]

  def _make(self, capacities: Capacities) -> None:
    self._made[capacities] = self._compile(capacities)


class Runner:
  """Runs one step after the other."""

  def __init__(
    self, trainer: Trainer, state: Any, batch: Any, knowledge: dict[str, Any] | None, report: Callable[[str], None]
  ):
    """state, batch: of which the shapes are taken. knowledge: `state` of an earlier runner of the run."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, batch))
    self._programs = Programs(lambda capacities: trainer.compile(*shapes, capacities, report))
    self._predictor = Predictor.of(trainer.model, trainer.settings.seq_len, fresh=not trainer.settings.init_from)
    self._refits = 0
    if knowledge is not None:
      self._predictor.restore(knowledge)
      self._refits = knowledge['refits']
    self._programs(self._predictor.capacities)

  def start(self, state: state_lib.TrainState, batch: Any) -> None:
    """Dispatches a step; the state is donated."""
    self._used = self._predictor.capacities
    self._batch, self._result = batch, self._programs(self._used)(state, batch)

  def finish(self) -> tuple[state_lib.TrainState, dict[str, Any]]:
    """(state, metrics) after the step, once it is known to have fitted."""
    state, metrics, needed = self._result
    needed = jax.device_get(needed)
    while not fits(needed, self._used):
      self._refits += 1
      self._used = self._predictor.enough(needed, self._used)
      state, metrics, needed = self._programs(self._used)(state, self._batch)
      needed = jax.device_get(needed)
    self._predictor.observe(needed)
    if coming := self._predictor.coming():
      self._programs.prepare(coming)
    for level, capacity in enumerate(self._used):
      metrics[f'capacity_{level}'] = float(capacity)
    if self._used:
      metrics['refits'] = float(self._refits)
    return state, metrics

  def state(self) -> dict[str, Any]:
    """What a resumed run needs to take the same capacities, as JSON data."""
    return self._predictor.state() | {'refits': self._refits}
