"""How far a preparation is: a moving line on a terminal, now and then a plain line elsewhere."""

import sys
import time

SECONDS_BETWEEN_LINES = 10


class Display:
  """For `prepare`: `report` prints a sentence, `progress` shows how far a stage is."""

  def __init__(self):
    self._stage, self._began, self._shown, self._live, self._task = '', 0.0, 0.0, None, None

  def __enter__(self) -> 'Display':
    if sys.stdout.isatty():
      from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

      columns = ('{task.description}', BarColumn(), MofNCompleteColumn(), TextColumn('{task.fields[line]}'))
      self._live = Progress(*columns, TimeRemainingColumn())
      self._live.start()
    return self

  def __exit__(self, *_):
    if self._live is not None:
      self._live.stop()

  def report(self, line: str) -> None:
    """A sentence that stays."""
    print(line, flush=True) if self._live is None else self._live.console.print(line, markup=False, highlight=False)

  def progress(self, stage: str, documents: int, size: int, done: int, total: int) -> None:
    """documents, size: of this stage so far, size in bytes of text. done, total: parts of the source, or shards."""
    if not total:  # all of it was done before
      return
    now = time.monotonic()
    if stage != self._stage:
      self._stage, self._began, self._shown = stage, now, 0.0
      self._task = None if self._live is None else self._live.add_task(stage, line='')
    line = f'{documents:,} documents, {size / 1e6:,.1f} MB'
    if now > self._began:
      line += f', {size / 1e6 / (now - self._began):,.1f} MB/s'
    if self._live is not None:
      self._live.update(self._task, completed=done, total=total, line=line)
    elif done == total or now - self._shown >= SECONDS_BETWEEN_LINES:
      self._shown = now
      self.report(f'{stage}: {done} of {total}, {line}')
