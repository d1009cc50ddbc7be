"""The metrics of steps on their way from the device to files and terminal."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from training import config as config_lib
from training import flops
from training import metrics as metrics_lib
from training import step as step_lib
from training.boundary_watch import BoundaryWatch


class Diverged(RuntimeError):
  """Loss or gradient was not finite, or the gradient exploded, for too many steps in a row, up to `step`."""

  def __init__(self, message: str, step: int):
    super().__init__(message)
    self.step = step


def is_due(step: int, every_steps: int) -> bool:
  """Whether what happens every so many steps (0: never) happens at this one."""
  return every_steps > 0 and step % every_steps == 0


class Recorder:
  """Reads a step's metrics when the next step is on its way, writes them when they are due, and stops a run that
  diverged.
  """

  def __init__(
    self,
    settings: config_lib.Config,
    model: Any,
    mesh: jax.sharding.Mesh,
    writer: metrics_lib.MetricsWriter | None,
    display: metrics_lib.Display,
    rollbacks: int = 0,
  ):
    """writer: None in the processes that write nothing; rollbacks: of this run so far, a metric where they may be."""
    self._settings, self._model, self._writer, self._display = settings, model, writer, display
    self._peak = mesh.size * flops.matmul_peak(settings.model.get('dtype', 'float32'))
    self._waiting: tuple[int, dict[str, Any]] | None = None
    self._rollbacks = {'rollbacks': float(rollbacks)} if settings.checkpoint.rollbacks else {}
    self._boundaries = BoundaryWatch(settings, model)
    self._meter = metrics_lib.Meter()
    self._waited = 0.0  # seconds in which the device had no data, since the last reading of the meter

  def later(self, step: int, metrics: dict[str, Any]) -> None:
    """Takes a step's metrics to read them at the next call of `read_previous`."""
    self._waiting = step, metrics

  def wait(self) -> None:
    """Blocks until the waiting step is done, so that its time is counted as training."""
    jax.block_until_ready(self._waiting)

  def wait_for_data(self, batches: Iterator[Any]) -> Any:
    """The next batch. Its time counts as waiting if the device had nothing left to do when it came."""
    began = time.perf_counter()
    batch = next(batches)
    waiting = jax.tree.leaves(self._waiting)
    if all(value.is_ready() for value in waiting if isinstance(value, jax.Array)):
      self._waited += time.perf_counter() - began
    return batch

  def pause(self) -> metrics_lib.Meter:
    """A `with` block whose time does not count as training."""
    return self._meter

  def read_previous(self, validation: Mapping[str, float] | None = None) -> dict[str, float]:
    """The metrics of the waiting step as they are written, {} if there is none; they are where logging is due or there
    is a validation score.
    """
    if self._waiting is None:
      return {}
    (step, metrics), self._waiting = self._waiting, None
    values = step_lib.read(metrics)
    self._meter.add(values.pop('bytes'))
    self._check(step, values)
    for advice in self._boundaries.look(step, values['stages']):
      self._display.line(advice)
    num_steps = self._settings.num_steps
    if not (is_due(step, self._settings.log.every_steps) or validation or step == num_steps):
      self._display.advance(step)
      return metrics_lib.named(values)
    bytes_per_second, steps_per_second, seconds = self._meter.read()
    flops_per_byte = self._flops_per_byte(step, values['stages'])
    values |= {
      'bytes_per_second': bytes_per_second,
      'flops_per_byte': flops_per_byte,
      'data_wait': self._waited / seconds,
      'model_flops_utilization': flops.utilization(flops_per_byte, bytes_per_second, self._peak),
      **self._rollbacks,
      **(validation or {}),
    }
    self._waited = 0.0
    written = metrics_lib.named(values)
    if self._writer is not None:
      self._writer.write(step, written)
    self._display.advance(step, f'bpb {values["bpb"]:.3f}' if 'bpb' in values else None)
    left = (num_steps - step) / steps_per_second
    self._display.line(metrics_lib.summary_line(step, num_steps, values, left))
    return written

  def _check(self, step: int, values: Mapping[str, Any]) -> None:
    if not values['skipped_in_a_row']:
      return
    in_a_row = round(values['skipped_in_a_row'])
    finite = math.isfinite(values['loss']) and math.isfinite(values['gradient_norm'])
    what = f'above {self._settings.optimizer.skip_norm:g} times the usual one' if finite else 'not finite'
    which = '' if finite else f'loss {values["loss"]:g} or '
    self._display.line(
      f'step {step}: {which}gradient norm {values["gradient_norm"]:g} is {what}, so its update was skipped '
      f'({values["skipped"]:.0f} in all, {in_a_row} in a row)'
    )
    if in_a_row >= step_lib.MAX_SKIPPED_IN_A_ROW:
      gradient = 'an exploding gradient' if finite else 'a non-finite loss or gradient'
      raise Diverged(
        f'{in_a_row} updates in a row, up to step {step}, had {gradient}: the run has diverged; its earlier '
        'checkpoints are untouched; a lower optimizer.learning_rate or optimizer.clip_norm is the usual remedy',
        step,
      )

  def _flops_per_byte(self, step: int, stages: Sequence[Mapping[str, float]]) -> float:
    """Forward FLOPs per byte at the chunk sizes that this step reached."""
    bags = self._settings.superposition
    position = bags.size if bags.at((step - 1) / self._settings.num_steps) else 1  # bytes of one
    sizes = [size / position if math.isfinite(size := stage['bytes_per_chunk']) else 1.0 for stage in stages]
    per_position = self._model.flops_per_byte(self._settings.seq_len // position, [max(s, 1.0) for s in sizes] or None)
    return sum(per_position.values()) / position
