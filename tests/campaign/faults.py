"""What is done to the runs, and what has to come of it."""

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from layers import capacity
from tests.campaign import disk
from tests.campaign.runs import PATIENCE, Kind, Run, fork, workers_of
from tests.hnet.tiny import branch
from tests.training import comparison, tiny
from training import checkpoint
from training.workdir import CHECKPOINTS

# A run lives on through some faults; others end it; and the last are done to its newest checkpoint when it was killed.
FULL = ('full disk', 'full disk for one')
SURVIVED = ('SIGSTOP', 'clock jump', *FULL)
ENDING = ('SIGKILL', 'SIGTERM', 'killed data worker')
DAMAGE = ('flipped byte', 'deleted shard', 'truncated file')
FAULTS = (*ENDING, *SURVIVED, *DAMAGE)

LAST = 'the last checkpoint'  # what a run says that could not save its end: that alone may end one on a full disk
SMALLEST_DISK = 24 * 2**20  # bytes


@dataclasses.dataclass
class Tally:
  """What happened; the counters are by (fault, kind of training)."""

  injected: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  recovered: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  skipped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  rounds: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  starts: int = 0
  steps_lost: int = 0
  divergences: int = 0
  problems: list[str] = dataclasses.field(default_factory=list)


class Campaign:
  """Rounds, each of the kind that had the fewest faults, until the time is over or the faults are injected."""

  def __init__(self, directory: pathlib.Path, seed: int, kinds: tuple[Kind, ...], config: Mapping[str, Any] | None):
    """config: what is trained, with the keys of training.config; None: a tiny model."""
    self.tally, self._chance, self._kinds, self._directory = Tally(), random.Random(seed), kinds, directory
    self._config_data = tiny_config(directory / 'text') if config is None else dict(config)
    self._num_steps, self._every = self._config_data['num_steps'], self._config_data['checkpoint']['every_steps']
    self._run: Run | None = None

  def run(self, seconds: float, faults: int) -> None:
    """Undisturbed runs first, then rounds; the round that is under way when the time is over is brought to its end."""
    began = time.monotonic()
    over = lambda: time.monotonic() - began > seconds or sum(self.tally.injected.values()) >= faults
    whole = {kind: self._undisturbed(kind) for kind in self._kinds}
    size = max(SMALLEST_DISK, 6 * max(map(disk.bytes_in, whole.values())))
    with disk.small_disk(self._directory / 'disk', size) as self._disk:
      number = 0
      while not over() and len(self.tally.problems) < 20:
        kind = min(self._kinds, key=lambda kind: _count(self.tally.injected, str(kind), 'all'))
        self._round(kind, whole[kind], number, over)
        number += 1
      self.stop()

  def _config(self, kind: Kind) -> dict:
    config = self._config_data
    return config | {
      'data': config['data'] | {'workers': kind.workers},
      'checkpoint': config['checkpoint'] | {'keep_latest': max(config['checkpoint']['keep_latest'], 3)},
      'log': config['log'] | {'every_steps': 1},
    }

  def _undisturbed(self, kind: Kind) -> pathlib.Path:
    workdir = self._directory / 'whole' / str(kind).replace('/', '-')
    run = self._start(kind, workdir)
    run.wait()
    if not run.has_ended() or run.has_failed():
      raise RuntimeError(f'the undisturbed run of {kind} failed with {run.codes}: {run.last_words()}')
    return workdir

  def _start(self, kind: Kind, workdir: pathlib.Path) -> Run:
    self.stop()
    self.tally.starts += 1
    clock = self._chance.choice((-1, 1)) * self._chance.randrange(3600, 400 * 86400)
    self._run = Run(self._config(kind), kind, workdir, clock)
    return self._run

  def stop(self) -> None:
    """Ends the run that is under way."""
    if self._run is not None:
      self._run.close()
    self._run = None

  def _round(self, kind: Kind, whole: pathlib.Path, number: int, over: Callable[[], bool]) -> None:
    """One training with faults, compared with the whole one at its end."""
    workdir, saved, last = (self._disk or self._directory / 'disturbed') / f'round-{number}', 0, None
    for _ in range(200):
      run = self._start(kind, workdir)
      problem, ended_by = self._disturb(run, kind, workdir, saved, last, over)
      if problem:
        self.tally.problems.append(f'round {number} of {kind}, start {self.tally.starts}: {problem}')
        break
      for aside in (workdir / CHECKPOINTS).glob('*.damaged*'):
        shutil.rmtree(aside)
      saved, last = max(_steps(workdir), default=0), ended_by
      if not run.has_failed():
        if last:
          self.tally.injected[last, str(kind)] -= 1  # the run was faster
        self._compare(kind, whole, workdir, number)
        break
      if last in DAMAGE:
        saved = self._damage(workdir, last, saved)
    else:
      self.tally.problems.append(f'round {number} of {kind}: not trained after 200 starts')
    self.tally.rounds[str(kind)] += 1
    self.stop()
    shutil.rmtree(workdir, ignore_errors=True)

  def _disturb(
    self, run: Run, kind: Kind, workdir: pathlib.Path, saved: int, last: str | None, over
  ) -> tuple[str | None, str | None]:
    """Injects faults into a run until it has ended; (what went wrong that must not, the fault that ended it).

    saved: the newest step that this start must not lose; last: the fault that ended the start before.
    """
    began = fault = None
    while True:
      ends_here = over()
      target = max(run.step(), saved) + self._chance.randrange(1, 3 * self._every)
      if not run.wait(lambda target=target, never=ends_here: not never and run.step() >= target):
        return f'nothing happened for {PATIENCE:.0f} s after {last} in the start before: {run.last_words()}', None
      if run.has_failed():
        if fault in FULL and LAST in run.output():
          return None, None  # the disk was full for the very last save, and the run ended when it no longer was
        return f'ended by itself with {run.codes}: {run.last_words()}', None
      if began is None:
        began = _first_step(run.output())
        self.tally.steps_lost += max(saved - began, 0)
        if began < saved:
          return f'went on from step {began}, though step {saved} was saved, after {last}: {run.last_words()}', None
        if last:
          self.tally.recovered[last, str(kind)] += 1
      if run.has_ended():
        return None, None
      fault = self._draw(run, kind, workdir)
      time.sleep(self._chance.uniform(0, 0.1))  # within a step, a save, or the step after
      self.tally.injected[fault, str(kind)] += 1
      problem = self._inject(run, fault)
      if problem or fault not in SURVIVED or run.has_failed():
        return problem, fault
      self.tally.recovered[fault, str(kind)] += 1

  def _draw(self, run: Run, kind: Kind, workdir: pathlib.Path) -> str:
    """Any fault that applies, but mostly one of those that this kind of training had the fewest of."""
    applies = {
      'killed data worker': kind.workers > 0 and any(map(workers_of, run.pids)),
      'full disk for one': kind.processes > 1,
    } | dict.fromkeys(DAMAGE, len(_steps(workdir)) > 1)  # where no step is left, the run rightly stops
    while True:
      faults = [fault for fault in FAULTS if applies.get(fault, True)]
      if self._chance.random() < 0.7:
        had = {fault: (self.tally.injected + self.tally.skipped)[fault, str(kind)] for fault in faults}
        faults = [fault for fault in faults if had[fault] == min(had.values())]
      fault = self._chance.choice(faults)
      if fault != 'full disk' or self._disk is not None:
        return fault
      self.tally.skipped[fault, str(kind)] += 1

  def _inject(self, run: Run, fault: str) -> str | None:
    """What went wrong that must not, at once."""
    one = self._chance.choice(run.pids)
    if fault == 'SIGSTOP':
      run.send(signal.SIGSTOP, one)
      time.sleep(self._chance.uniform(0.1, 1.0))
      run.send(signal.SIGCONT, one)
    elif fault == 'clock jump':
      run.send(signal.SIGUSR1, one)
    elif fault in FULL:
      return self._fill(run, disk.full(self._disk) if fault == 'full disk' else disk.full_for(one))
    elif fault == 'killed data worker':
      with contextlib.suppress(ProcessLookupError, IndexError):  # the run may have ended
        os.kill(self._chance.choice([worker for pid in run.pids for worker in workers_of(pid)]), signal.SIGKILL)
    else:
      run.send(signal.SIGTERM if fault == 'SIGTERM' else signal.SIGKILL, one)
    if fault in SURVIVED:
      step = run.step()
      if not run.wait(lambda: run.step() > step):
        return f'nothing happened for {PATIENCE:.0f} s after {fault}: {run.last_words()}'
      return f'ended with {run.codes} after {fault}: {run.last_words()}' if run.has_failed() else None
    if not run.wait():
      return f'did not end within {PATIENCE:.0f} s after {fault}: {run.last_words()}'
    if fault == 'SIGTERM' and not set(run.codes.values()) <= {128 + signal.SIGTERM, 0}:
      return f'ended with {run.codes} after SIGTERM: {run.last_words()}'
    return None

  def _fill(self, run: Run, filled: contextlib.AbstractContextManager) -> str | None:
    """Leaves no space until a save has failed, or two were due; then the space is there again."""
    step, failed = run.step(), run.failed_saves()
    with filled:
      if not run.wait(lambda: run.failed_saves() > failed or run.step() >= step + 2 * self._every):
        return f'nothing happened for {PATIENCE:.0f} s on a full disk: {run.last_words()}'
    if run.has_failed() and LAST not in run.output():
      return f'ended on a full disk: {run.last_words()}'
    return None

  def _damage(self, workdir: pathlib.Path, fault: str, saved: int) -> int:
    """Damages the newest checkpoint; the newest step that is whole after that."""
    files = sorted(path for path in (workdir / CHECKPOINTS / str(saved)).rglob('*') if path.is_file())
    file = self._chance.choice([path for path in files if path.stat().st_size])
    if fault == 'deleted shard':
      file.unlink()
    elif fault == 'truncated file':
      os.truncate(file, self._chance.randrange(file.stat().st_size))
    else:
      data = bytearray(file.read_bytes())
      data[self._chance.randrange(len(data))] ^= self._chance.randrange(1, 256)
      file.write_bytes(data)
    return max((step for step in _steps(workdir) if step < saved), default=0)

  def _compare(self, kind: Kind, whole: pathlib.Path, workdir: pathlib.Path, number: int) -> None:
    pid, pipe = fork(lambda: _print_all(comparison.differences(whole, workdir, self._num_steps)))
    os.set_blocking(pipe, True)
    with open(pipe, errors='replace') as said:
      found = said.read().strip()
    _, status = os.waitpid(pid, 0)
    if found:
      self.tally.divergences += 1
      self.tally.problems.append(f'round {number} of {kind} differs: {found[:600]}')
    elif status:
      self.tally.problems.append(f'round {number} of {kind} could not be compared')


def table(tally: Tally, kinds: tuple[Kind, ...], seconds: float) -> str:
  """The report: a line for each fault, with what was injected and recovered from in each kind of training."""
  names = [*map(str, kinds), 'all']
  lines = [f'{"fault":<20}' + ''.join(f'{name + what:>16}' for name in names for what in (' injected', ' recovered'))]
  for fault in (*FAULTS, 'all'):
    count = functools.partial(_count, fault=fault)
    counts = [count(counter, name) for name in names for counter in (tally.injected, tally.recovered)]
    skipped = f'  ({skips} skipped)' if (skips := count(tally.skipped, 'all')) else ''
    lines.append(f'{fault:<20}' + ''.join(f'{number:>16}' for number in counts) + skipped)
  rounds = ', '.join(f'{count} of {name}' for name, count in tally.rounds.items())
  return '\n'.join(
    [
      *lines,
      f'{seconds / 60:.1f} minutes, {tally.starts} starts; trained to the end (processes/data workers): {rounds}',
      f'steps lost beyond the last save: {tally.steps_lost}; divergences: {tally.divergences}; other problems: '
      f'{len(tally.problems) - tally.divergences}',
      *tally.problems,
    ]
  )


def _count(counter: collections.Counter, kind: str, fault: str) -> int:
  return sum(n for (of, name), n in counter.items() if fault in ('all', of) and kind in ('all', name))


def tiny_config(text: pathlib.Path) -> dict:
  """A small H-Net on a few kilobytes of text, which is written into the directory `text`.

  Its words are much shorter than the model states, and of unlike length from document to document, so that steps are
  run again and capacities change while the faults come; they fall sooner than they would in a run.
  """
  capacity.WINDOW, capacity.COMPILATION, capacity.CHANGE = 3, 0.3, 0.1  # of the runs that are forked from here
  config = tiny.get_config(_write_text(text)).to_dict()
  config['model'] = branch(['t1', ['T1'], 't1'], chunking='hnet_space', bytes_per_chunk=[16.0])
  config |= {'seq_len': 64, 'batch_size': 2, 'loss_weights': {}}
  config['num_steps'] = 240
  config['optimizer'] |= {'ema': 0.9}
  config['checkpoint'] |= {'every_steps': 12}
  config['eval'] |= {'every_steps': 80}
  return config


def _print_all(lines: list[str]) -> int:
  print('\n'.join(lines))
  return 0


def _first_step(output: str) -> int:
  """The step from which a start went on; 0 if it began anew."""
  found = re.search(r'goes on from step (\d+) of|has been trained to step (\d+) already', output)
  return int(found[1] or found[2]) if found else 0


def _steps(workdir: pathlib.Path) -> list[int]:
  return checkpoint.all_steps(workdir / CHECKPOINTS)


def _write_text(directory: pathlib.Path) -> str:
  chance = random.Random(0)
  directory.mkdir(parents=True)
  words = ['the', 'cat', 'sat', 'on', 'a', 'mat', 'and', 'ran', 'far', 'away', 'from', 'here']
  for number in range(60):
    chosen, times = chance.choices(words, k=chance.randrange(30, 200)), chance.choice([1, 2, 8, 8, 8, 8])
    (directory / f'{number}.txt').write_text(' '.join(word * times for word in chosen))
  return f'files:{directory}/*.txt'
