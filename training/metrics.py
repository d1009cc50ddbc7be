"""What a run tells: metrics.jsonl, TensorBoard, and the terminal."""

import json
import math
import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import rich.console
import rich.progress

from text.command_line import unheard


class Display:
  """Lines for people; on a terminal also a bar with the time left."""

  def __init__(self, quiet: bool = False) -> None:
    """quiet: says nothing at all (all hosts but one)."""
    self._quiet = quiet
    self._console = rich.console.Console(highlight=False)
    self._progress: rich.progress.Progress | None = None

  def line(self, text: str) -> None:
    """Prints one line (or a table made of several), above the bar if there is one."""
    if self._quiet:
      return
    text = text.encode(errors='backslashreplace').decode()  # names of files need not be UTF-8
    with unheard(sys.stdout):
      if self._console.is_terminal:
        self._console.print(text, markup=False, soft_wrap=True)
      else:
        print(text, flush=True)

  def start(self, total: int, done: int) -> None:
    """Begins the bar; nothing where there is no terminal."""
    if self._quiet or not self._console.is_terminal:
      return
    column = rich.progress
    self._progress = column.Progress(
      column.TextColumn('step'),
      column.MofNCompleteColumn(),
      column.BarColumn(),
      column.TextColumn('{task.fields[status]}'),
      column.TimeElapsedColumn(),
      column.TextColumn('left'),
      column.TimeRemainingColumn(),
      console=self._console,
    )
    self._progress.add_task('', total=total, completed=done, status='')
    with unheard(sys.stdout):
      self._progress.start()

  def advance(self, step: int, status: str | None = None) -> None:
    """Moves the bar to `step`."""
    if self._progress is not None:
      changes = {} if status is None else {'status': status}
      self._progress.update(self._progress.task_ids[0], completed=step, **changes)

  def stop(self) -> None:
    """Ends the bar."""
    progress, self._progress = self._progress, None
    if progress is not None:
      with unheard(sys.stdout):
        progress.stop()


class MetricsWriter:
  """Appends one JSON object per step to metrics.jsonl and the same scalars to TensorBoard; opened on a resumed run it
  first drops what was written after the step that the run resumes from, so that each step stands there once.
  """

  def __init__(self, workdir: pathlib.Path, resumed_step: int, report: Callable[[str], None]):
    """report: takes one sentence for the user when a line cannot be written; such lines are kept and tried again."""
    self._path, self._report, self._failing = workdir / 'metrics.jsonl', report, False
    _drop_after(self._path, resumed_step)
    self._unwritten: list[tuple[int, Mapping[str, float]]] = []
    self._unwritten_events: list[tuple[int, Mapping[str, float]]] = []
    # tensorboardX's SummaryWriter hands events to a thread through a bounded queue: on a full disk the thread dies
    # and the next add_scalar blocks for ever. The writer below it is synchronous.
    self._events_directory = workdir / 'tensorboard'
    self._first_step = resumed_step + 1
    self._events: Any = None  # a tensorboardX EventsWriter

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """values: scalars by name; what is not finite becomes null in the JSON and is left out of TensorBoard."""
    self._unwritten.append((step, values))
    self._unwritten_events.append((step, values))
    try:
      self._write_all()
      self._failing = False
    except OSError as error:
      if not self._failing:
        self._report(f'metrics cannot be written to {self._path.parent} ({error}); they are kept and tried again')
      self._failing = True

  def last(self) -> dict[str, float]:
    """The values of the last line on disk, {} if there is none."""
    lines = self._path.read_text(encoding='utf-8').splitlines() if self._path.exists() else []
    return {name: value for name, value in json.loads(lines[-1]).items() if name != 'step'} if lines else {}

  def close(self) -> None:
    """Writes what could not be written before, and closes the event file."""
    try:
      self._write_all()
      if self._events is not None:
        self._events.close()
    except OSError as error:
      self._report(f'metrics of {len(self._unwritten)} steps could not be written to {self._path.parent} ({error})')

  def _write_all(self) -> None:
    if self._unwritten:
      self._write_lines()
    if self._unwritten_events:
      self._write_events()

  def _write_lines(self) -> None:
    lines = [
      json.dumps({'step': step} | {name: value if math.isfinite(value) else None for name, value in values.items()})
      for step, values in self._unwritten
    ]
    size = self._path.stat().st_size if self._path.exists() else 0
    try:
      with open(self._path, 'a', encoding='utf-8') as file:
        file.writelines(line + '\n' for line in lines)
    except OSError:
      os.truncate(self._path, size)  # no half line for the next one to be glued to
      raise
    self._unwritten = []

  def _write_events(self) -> None:
    # Imported late: tensorboardX imports PyTorch where that is installed, for seconds.
    from tensorboardX import summary as event_summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2

    if self._events is None:
      self._events_directory.mkdir(exist_ok=True)
      # The name has the second; the step keeps apart what a quick restart writes within the same one.
      self._events = EventsWriter(str(self._events_directory / 'events'), f'.{self._first_step}')
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # TensorBoard hides older events from here on
      self._events.write_event(event_pb2.Event(wall_time=time.time(), step=self._first_step, session_log=start))
    for step, values in self._unwritten_events:
      for name, value in ((name, value) for name, value in values.items() if math.isfinite(value)):
        scalar = event_summary.scalar(name.encode(errors='backslashreplace').decode(), value)
        self._events.write_event(event_pb2.Event(wall_time=time.time(), step=step, summary=scalar))
    self._unwritten_events = []
    self._events.flush()


class Meter:
  """Speed over the steps since the last reading. Used as a `with` block it leaves out the time spent inside."""

  def __init__(self) -> None:
    self._bytes, self._steps, self._since, self._paused = 0.0, 0, time.perf_counter(), 0.0

  def add(self, count: float) -> None:
    """Counts one step with its bytes."""
    self._bytes += count
    self._steps += 1

  def read(self) -> tuple[float, float, float]:
    """(bytes per second, steps per second, seconds), and starts again."""
    seconds = max(time.perf_counter() - self._since, 1e-9)
    speeds = self._bytes / seconds, self._steps / seconds, seconds
    self._bytes, self._steps, self._since = 0.0, 0, time.perf_counter()
    return speeds

  def __enter__(self) -> None:
    self._paused = time.perf_counter()

  def __exit__(self, *_) -> None:
    self._since += time.perf_counter() - self._paused


def _drop_after(path: pathlib.Path, step: int) -> None:
  """Keeps the lines of a metrics file up to a step; a last line cut short by a kill is later than any checkpoint."""
  if not path.exists():
    return
  lines = path.read_bytes().splitlines(keepends=True)
  kept = [line for line in lines if (number := _step_of(line)) is not None and number <= step]
  if len(kept) < len(lines):
    partial = path.with_name(f'{path.name}.{socket.gethostname()}.{os.getpid()}')
    partial.write_bytes(b''.join(kept))
    os.replace(partial, path)


def _step_of(line: bytes) -> int | None:
  try:
    return int(json.loads(line)['step'])
  except (ValueError, KeyError, TypeError):
    return None


def named(values: Mapping[str, Any]) -> dict[str, float]:
  """A step's metrics under the names that are written: those of the i-th stage, outermost first, as NAME_i."""
  flat = {name: value for name, value in values.items() if name != 'stages'}
  stages = enumerate(values.get('stages', ()))
  return flat | {f'{name}_{index}': value for index, stage in stages for name, value in stage.items()}


def summary_line(step: int, num_steps: int, values: Mapping[str, Any], seconds_left: float) -> str:
  """A step's metrics as one line of text."""
  parts = [f'step {step}/{num_steps}']
  parts += [f'{label} {values[name]:{form}}' for name, label, form in _SHOWN if name in values]
  stages = enumerate(values.get('stages', ()))
  parts += [f'bytes_per_chunk_{index} {stage["bytes_per_chunk"]:.3g}' for index, stage in stages]
  return '  '.join([*parts, f'left {duration(seconds_left)}'])


_SHOWN = (
  ('loss', 'loss', '.4f'),
  ('bpb', 'bpb', '.4f'),
  ('validation_bpb', 'validation bpb', '.4f'),
  ('gradient_norm', 'gradient norm', '.3g'),
  ('learning_rate', 'lr', '.3g'),
  ('bytes_per_second', 'bytes/s', ',.0f'),
  ('model_flops_utilization', 'MFU', '.1%'),
  ('data_wait', 'waiting for data', '.1%'),
)


def duration(seconds: float) -> str:
  """Seconds as 1:02:03 or 2:03."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'
