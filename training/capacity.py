"""The training step at capacities that follow the data (layers/capacity.py): a step that does not fit changes nothing
and is run again with more room, and programs are compiled when they are first needed, the next one in a thread.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from layers.capacity import Capacities, Predictor, fits
from training import memory
from training import state as state_lib
from training.trainer import Trainer


class Programs:
  """The step compiled for the capacities that it is asked for, each once."""

  def __init__(
    self,
    trainer: Trainer,
    state: Any,
    batch: Any,
    report: Callable[[str], None] = print,
    compiler_options: Mapping[str, Any] | None = None,
  ):
    """state, batch: arrays or their shapes. report: gets each line once, however many programs say it."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, batch))
    said = set()
    once = lambda line: line in said or said.add(line) or report(line)
    self._compile = lambda capacities: trainer.compile(*shapes, capacities, once, compiler_options)
    self._device = trainer.mesh.devices.flat[0].device_kind
    self._made: dict[Capacities, Callable] = {}
    self._threads: dict[Capacities, threading.Thread] = {}

  def prepare(self, capacities: Capacities) -> None:
    """Begins to compile in a thread, if nothing else is being compiled there."""
    if capacities not in self._made and not any(thread.is_alive() for thread in self._threads.values()):
      thread = threading.Thread(target=self._try, args=(capacities,), name='compilation')
      self._threads[capacities] = thread
      thread.start()

  def __call__(self, capacities: Capacities) -> Callable:
    """The program, compiled now if it has not been."""
    if thread := self._threads.pop(capacities, None):
      thread.join()
    if capacities not in self._made:
      with self.in_memory(capacities):
        self._made[capacities] = self._compile(capacities)
    return self._made[capacities]

  def _try(self, capacities: Capacities) -> None:
    with contextlib.suppress(Exception):  # whoever asks for the program compiles it again, and gets the error
      self._made[capacities] = self._compile(capacities)

  @contextlib.contextmanager
  def in_memory(self, capacities: Capacities) -> Iterator[None]:
    """Makes one sentence, a ValueError, of an error that says that there is not enough memory."""
    try:
      yield
    except jax.errors.JaxRuntimeError as error:
      said = memory.refusal(error)
      if said is None:
        raise
      room = f' with room for {" and ".join(map(str, capacities))} chunks a row' if capacities else ''
      raise ValueError(
        f'a step{room} does not fit the memory of a {self._device} ({said}): make batch_size or seq_len smaller, '
        'optimizer.accumulate larger, or set remat in the model'
      ) from error


class Runner:
  """Runs one step after the other."""

  def __init__(self, trainer: Trainer, programs: Programs, done: int = 0, knowledge: Mapping[str, Any] | None = None):
    """done: steps of the run so far. knowledge: `state` of a runner that did them. Compiles the first program."""
    self._programs, self._refits, self._left = programs, 0, trainer.settings.num_steps - done
    self._predictor = Predictor.of(trainer.model, trainer.settings.seq_len, fresh=not trainer.settings.init_from)
    if knowledge is not None:
      self._predictor.restore(knowledge)
      self._refits = knowledge['refits']
    programs(self._predictor.capacities)

  def start(self, state: state_lib.TrainState, batch: Any) -> None:
    """Dispatches a step; the state is donated."""
    self._used = self._predictor.capacities
    self._batch, self._result = batch, self._run(state, batch)

  def finish(self) -> tuple[state_lib.TrainState, dict[str, Any]]:
    """(state, metrics) after the step, once it is known to have fitted."""
    state, metrics, needed = self._result
    while not fits(needed := self._read(needed), self._used):
      self._refits += 1
      self._used = self._predictor.enough(needed, self._used)
      state, metrics, needed = self._run(state, self._batch)
    self._left -= 1
    self._predictor.observe(needed, self._left)
    if coming := self._predictor.coming(self._left):
      self._programs.prepare(coming)
    for level, capacity in enumerate(self._used):
      metrics[f'capacity_{level}'] = float(capacity)
    if self._used:
      metrics['refits'] = float(self._refits)
    return state, metrics

  def _run(self, state: state_lib.TrainState, batch: Any) -> tuple:
    program = self._programs(self._used)
    with self._programs.in_memory(self._used):
      return program(state, batch)

  def _read(self, needed: jax.Array) -> Any:
    with self._programs.in_memory(self._used):  # a step that runs out of it says so when its results are read
      return jax.device_get(needed)

  def state(self) -> dict[str, Any]:
    """What a resumed run needs to take the same capacities, as JSON data."""
    return self._predictor.state() | {'refits': self._refits}
