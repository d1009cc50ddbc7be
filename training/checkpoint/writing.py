"""The checkpoints that a run writes, keeps and goes on from."""

import asyncio
import concurrent.futures
import contextlib
import json
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from training import processes
from training.checkpoint import array_store, reading
from training.checkpoint.reading import METRIC, DamagedCheckpoint, all_steps, half_written
from training.state import COUNTERS, Flat, TrainState


class Checkpoints:
  """The checkpoints of one training run; one job writes, others may read meanwhile. The processes of a job call
  `restore_newest`, `save`, `wait` and `finish` in step.
  """

  def __init__(self, directory: pathlib.Path, keep_latest: int, keep_best: int, report: Callable[[str], None]):
    """report: takes one sentence for the user, where something went wrong that training survives."""
    self._directory, self._keep, self._report = directory.absolute(), (keep_latest, keep_best), report
    self._saved: int | None = None  # the newest step that was handed to the writer and has not failed
    self._thread: threading.Thread | None = None  # waits for the step being written, and checks it
    self._error: Exception | None = None  # what came of that

  def restore_newest(self, abstract: TrainState, mesh: jax.sharding.Mesh) -> tuple[TrainState, dict[str, Any]] | None:
    """(state, record) of the newest whole checkpoint on `mesh`, or None where there is no checkpoint at all.

    Damaged ones that are newer are named in a report and moved aside as STEP.damaged, so that their step can be saved
    again. Raises DamagedCheckpoint if there are checkpoints but none is whole, ValueError if the newest whole one is of
    another model.
    """
    steps, damage, found = all_steps(self._directory), {}, None
    processes.check_equal(f'the checkpoints in {self._directory}', steps, 'the work directory must be one for all')
    for step in reversed(steps):
      try:
        found = reading.restore(self._directory, step, abstract, mesh)
        break
      except DamagedCheckpoint as error:
        damage[step] = error
    if steps and found is None:
      raise DamagedCheckpoint(
        f'no checkpoint in {self._directory} is whole (the newest: {damage[steps[-1]]}): delete the directory to train '
        'from the beginning'
      )
    if damage:
      processes.in_main(lambda: self._set_damaged_aside(damage, int(found[0].step)))
    for name in half_written(self._directory):
      what = 'removed' if name.endswith(reading.REMOVED) else 'written'
      self._report(f'{self._directory / name} was being {what} when the run was stopped: it is not used')
    self._saved = int(found[0].step) if found else None
    return found

  def _set_damaged_aside(self, damage: Mapping[int, DamagedCheckpoint], found: int) -> None:
    for step, error in sorted(damage.items()):
      aside = _set_aside(self._directory / str(step))
      self._report(f'{error}; it was moved to {aside} and training goes on from step {found}')

  def save(self, state: TrainState, position: Mapping[str, Any], metric: float | None, measured: Any = None) -> None:
    """Begins to write a step: waits for the step before, copies the arrays to the host, leaves the rest to a thread.

    position: JSON data that `restore_newest` gives back. metric: validation bits per byte of this step if known, and
    measured, JSON data: on what. A step that is already saved is not written again. What fails is reported; earlier
    checkpoints stay as they are.
    """
    step = int(state.step)
    if step == self._saved:
      return
    self.wait()
    items = reading.items_of(state)
    record = {name: jax.device_get(getattr(state, name)).item() for name in COUNTERS} | {
      METRIC: metric,
      'measured': measured,
      'position': dict(position),
      'checksums': {name: array_store.checksums(flat) for name, flat in items.items()},
    }
    self._saved, self._error, writes = step, None, []
    handlers = {name: ocp.StandardCheckpointHandler() for name in items}
    try:
      self._make_directories(step, [*items, reading.RECORD])
      writes = _start_writes(handlers, items, self._unfinished(step))
    except Exception as error:  # whatever prevents a save must not end the training
      self._error = error
    arguments = (step, handlers, writes, reading.sealed(record))
    self._thread = threading.Thread(target=self._settle, args=arguments, name='checkpoint', daemon=True)
    self._thread.start()

  def poll(self) -> None:
    """Reports a save that failed, without waiting for one that is under way. Where several processes have to agree on
    it, the next save does.
    """
    if self._thread is not None and not self._thread.is_alive() and jax.process_count() == 1:
      self.wait()

  def wait(self) -> bool:
    """Waits until the save under way is written and checked; False if it failed, which is reported."""
    if self._thread is None:
      return True
    self._thread.join()
    self._thread = None
    reasons = reading.from_all('' if self._error is None else reading.reason(self._error))
    if not reasons:
      return True
    step, self._saved = self._saved, None
    self._report(
      f'the checkpoint of step {step} could not be written to {self._directory} ({reasons[0]}); earlier ones are '
      'untouched, and the next one is tried when it is due'
    )
    if processes.is_main():
      self._clear()  # a full disk needs the space
    return False

  def finish(self, state: TrainState, position: Mapping[str, Any], metric: float | None, measured: Any = None) -> None:
    """Saves the run's last state and waits for it. Raises OSError if it could not be written."""
    self.save(state, position, metric, measured)
    self.wait()
    if self._saved != int(state.step):
      kept = all_steps(self._directory)
      raise OSError(
        f'the last checkpoint, of step {int(state.step)}, could not be written to {self._directory}; '
        + (f'step {kept[-1]} is the newest there' if kept else 'there is none')
      )

  def close(self) -> None:
    """Waits for the save under way. Of several processes one may come here alone, by an error: none waits."""
    if jax.process_count() == 1:
      self.wait()

  def _settle(self, step: int, handlers: Mapping, writes: Iterable[ocp.future.Future], record: Mapping) -> None:
    """In a thread: waits until all processes have written their part, well or badly. If all did well, the first gives
    the step its name, reads it back, and removes what it replaces: however a disk lies, there is always a step that was
    seen to be whole.
    """
    own = [self._error, *map(_error_of, writes)]  # all of them: nobody writes any more when a failure is told
    failed = next(filter(None, own), None)
    try:
      if failures := processes.gather_failures('' if failed is None else reading.reason(failed)):
        raise failed or OSError(failures)
      if processes.is_main():
        self._finish_step(step, handlers, record)
    except Exception as error:
      self._error = error

  def _finish_step(self, step: int, handlers: Mapping, record: Mapping[str, Any]) -> None:
    unfinished = self._unfinished(step)
    for name, handler in handlers.items():
      handler.finalize(epath.Path(unfinished / name))
    reading.record_path(unfinished).write_text(json.dumps(record))
    unfinished.rename(self._directory / str(step))
    if found := reading.damage(self._directory, step):
      aside = _set_aside(self._directory / str(step))
      raise DamagedCheckpoint(f'it does not read back, {found[0]}, and was moved to {aside.name}')
    self._remove_old(step)

  def _remove_old(self, newest: int) -> None:
    latest, best = self._keep
    steps, alike = all_steps(self._directory), reading.scores(self._directory)
    good = [step for step, record in reading.records(self._directory).items() if _is_good(record)]
    best_of_each = (step for scores in alike for step in sorted(scores, key=scores.get)[:best])
    keep = {newest, *steps[-latest:], *good[-1:], *best_of_each}
    for step in steps:
      if step not in keep:
        with contextlib.suppress(OSError):  # what cannot be removed now may go after the next save
          _remove(self._directory / str(step))

  def _make_directories(self, step: int, names: Iterable[str]) -> None:
    """In all processes or, with an OSError, in none."""
    problem = ''
    if processes.is_main():
      try:
        self._clear()
        for name in names:
          (self._unfinished(step) / name).mkdir(parents=True)
      except OSError as error:
        problem = reading.reason(error)
    if problems := reading.from_all(problem):
      raise OSError(problems[0])

  def _unfinished(self, step: int) -> pathlib.Path:
    return self._directory / f'{step}{reading.UNFINISHED}'

  def _clear(self) -> None:
    for name in half_written(self._directory):
      shutil.rmtree(self._directory / name, ignore_errors=True)


def _start_writes(
  handlers: Mapping[str, ocp.StandardCheckpointHandler], items: Mapping[str, Flat], directory: pathlib.Path
) -> list[ocp.future.Future]:
  """Copies the arrays of all items to the host; each is then written to the directory of its name, in threads."""

  async def start():
    arguments = {name: ocp.args.StandardSave(flat) for name, flat in items.items()}
    starts = [handlers[name].async_save(epath.Path(directory / name), args=arguments[name]) for name in items]
    return await asyncio.gather(*starts)

  with concurrent.futures.ThreadPoolExecutor(1) as pool:  # the thread of a notebook has an event loop already
    return [write for writes in pool.submit(asyncio.run, start()).result() for write in writes]


def _error_of(write: ocp.future.Future) -> Exception | None:
  try:
    return write.result()
  except Exception as error:
    return error


def roll_back(directory: pathlib.Path, failed_step: int, batch_size: int, allowed: int) -> str | None:
  """After updates that failed up to `failed_step`: makes the last whole checkpoint before them the newest one, its
  position in the data behind the batch of `failed_step`, and counts that in its position as `rollbacks`.

  A sentence for the user, or None, with nothing changed, if there is no such checkpoint or the run has had its
  `allowed` rollbacks. Stopped half-way, it leaves a run that fails, and is rolled back, in the same way once more.
  """
  done = _roll_back(directory, failed_step, batch_size, allowed) if processes.is_main() else None
  return next(iter(reading.from_all(done or '')), None)


def _roll_back(directory, failed_step, batch_size, allowed) -> str | None:
  records = reading.records(directory)
  count = 1 + max((record['position'].get('rollbacks', 0) for record in records.values()), default=0)
  good = [step for step in records if _is_good(records[step]) and not reading.damage(directory, step)]
  if not good or count > allowed:
    return None
  target = good[-1]
  for step in all_steps(directory):
    if step > target:
      _remove(directory / str(step))
  position = records[target]['position']
  start_row = position['start_row'] + (failed_step - target) * batch_size
  reading.rewrite_position(directory, target, position | {'start_row': start_row, 'rollbacks': count})
  return (
    f'rollback {count} of {allowed}: the run goes on from step {target} with the data behind that of step {failed_step}'
  )


def _is_good(record: Mapping[str, Any]) -> bool:
  """Whether a run that diverges after this step may go back to it."""
  return not record.get('skipped_in_a_row')


def _set_aside(path: pathlib.Path) -> pathlib.Path:
  for number in range(1, 1000):
    aside = path.with_name(f'{path.name}.damaged' + (f'-{number}' if number > 1 else ''))
    if not aside.exists():
      return path.rename(aside)
  raise OSError(f'{path.parent} holds a thousand damaged copies of {path.name}: delete them')


def _remove(path: pathlib.Path) -> None:
  """First takes the name away: what a kill leaves half removed is no checkpoint."""
  away = path.with_name(path.name + reading.REMOVED)
  if away.exists():
    shutil.rmtree(away)
  shutil.rmtree(path.rename(away))
