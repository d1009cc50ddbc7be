"""What is done to the runs, and what has to come of it."""

import collections
import contextlib
import dataclasses
import os
import pathlib
import random
import re
import shutil
import signal
import time
from collections.abc import Callable

from tests.campaign.runs import PATIENCE, Kind, Run, children, fork
from tests.training import tiny
from training import checkpoint, kill_test
from training.workdir import CHECKPOINTS

NUM_STEPS, SAVE_EVERY = 240, 12

# A run lives on through some faults; others end it; and the last are done to its newest checkpoint when it was killed.
SURVIVED = ('SIGSTOP', 'full disk', 'clock jump')
ENDING = ('SIGKILL', 'SIGTERM', 'killed data worker')
DAMAGE = ('flipped byte', 'deleted shard', 'truncated file')
FAULTS = (*ENDING, *SURVIVED, *DAMAGE)


@dataclasses.dataclass
class Tally:
  """What happened."""

  injected: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  recovered: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  skipped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  rounds: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  starts: int = 0
  steps_lost: int = 0
  divergences: int = 0
  problems: list[str] = dataclasses.field(default_factory=list)


class Campaign:
  """Rounds of one kind after the other, until the time is over or the faults are injected."""

  def __init__(self, directory: pathlib.Path, seed: int, kinds: tuple[Kind, ...], disk: pathlib.Path | None):
    """disk: a small file system for the runs, None if none could be made."""
    self.tally, self._chance, self._kinds, self._disk = Tally(), random.Random(seed), kinds, disk
    self._directory, self._runs = directory, disk or directory / 'disturbed'
    self._source = _write_text(directory / 'text')
    self._run: Run | None = None

  def run(self, seconds: float, faults: int) -> None:
    """Undisturbed runs first, then rounds; the round that is under way when the time is over is brought to its end."""
    began = time.monotonic()
    over = lambda: time.monotonic() - began > seconds or sum(self.tally.injected.values()) >= faults
    whole = {kind: self._undisturbed(kind) for kind in self._kinds}
    number = 0
    while not over() and len(self.tally.problems) < 20:
      kind = self._kinds[number % len(self._kinds)]
      self._round(kind, whole[kind], number, over)
      number += 1

  def _config(self, kind: Kind) -> dict:
    config = tiny.get_config(self._source).to_dict()
    config['num_steps'] = NUM_STEPS
    config['data']['workers'] = kind.workers
    config['optimizer'] |= {'ema': 0.9}
    config['checkpoint'] |= {'every_steps': SAVE_EVERY, 'keep_latest': 3}
    config['eval'] |= {'every_steps': 80}
    return config

  def _undisturbed(self, kind: Kind) -> pathlib.Path:
    workdir = self._directory / 'whole' / kind.name.replace(' ', '_')
    run = self._start(kind, workdir)
    run.wait()
    if set(run.codes.values()) != {0}:
      raise RuntimeError(f'the undisturbed run of {kind.name} failed with {run.codes}: {run.output()[-2000:]}')
    return workdir

  def _start(self, kind: Kind, workdir: pathlib.Path) -> Run:
    self.tally.starts += 1
    clock = self._chance.choice((-1, 1)) * self._chance.randrange(3600, 400 * 86400)
    logs = self._directory / 'logs' / str(self.tally.starts)
    self._run = Run(self._config(kind), kind, workdir, logs, clock)
    return self._run

  def stop(self) -> None:
    """Ends the run that is under way."""
    if self._run is not None:
      self._run.send(signal.SIGKILL)

  def _round(self, kind: Kind, whole: pathlib.Path, number: int, over: Callable[[], bool]) -> None:
    """One training with faults, compared with the whole one at its end."""
    workdir, saved, last = self._runs / f'round-{number}', 0, None
    for _ in range(200):
      run = self._start(kind, workdir)
      problem = self._disturb(run, kind, workdir, saved, last, over)
      if problem:
        self.tally.problems.append(f'round {number}, {kind.name}, start {self.tally.starts}: {problem}')
        run.send(signal.SIGCONT)
        run.send(signal.SIGKILL)
        break
      saved, last = max(_steps(workdir), default=0), self._last
      if set(run.codes.values()) == {0}:
        if last:
          self.tally.injected[last] -= 1  # the run was faster
        self._compare(kind, whole, workdir, number)
        break
      if last in DAMAGE and len(_steps(workdir)) < 2:  # no other step to go on from: that run rightly stops
        self.tally.injected[last] -= 1
        self.tally.injected['SIGKILL'] += 1
        last = 'SIGKILL'
      elif last in DAMAGE:
        saved = self._damage(workdir, last, saved)
    else:
      self.tally.problems.append(f'round {number}, {kind.name}: not trained after 200 starts')
    self.tally.rounds[kind.name] += 1
    shutil.rmtree(workdir, ignore_errors=True)

  def _disturb(self, run: Run, kind: Kind, workdir: pathlib.Path, saved: int, last: str | None, over) -> str | None:
    """Injects faults into a run until it has ended; what went wrong that must not.

    saved: the newest step that this start must not lose; last: the fault that ended the start before.
    """
    began = None
    self._last = None
    while True:
      ends_here = over()
      target = max(run.step(), saved) + self._chance.randrange(1, 40)
      if not run.wait(lambda target=target, never=ends_here: not never and run.step() >= target):
        return f'nothing happened for {PATIENCE:.0f} s after {last} in the start before: {run.last_words()}'
      if run.has_ended() and set(run.codes.values()) != {0}:
        return f'ended by itself with {run.codes}: {run.last_words()}'
      if began is None:
        began = _first_step(run.output())
        self.tally.steps_lost += max(saved - began, 0)
        if began < saved:
          return f'went on from step {began}, though step {saved} was saved, after {last}'
        if last:
          self.tally.recovered[last] += 1
      if run.has_ended():
        return None
      fault = self._chance.choice(FAULTS)
      if not self._applies(fault, run):
        continue
      time.sleep(self._chance.uniform(0, 0.1))  # within a step, a save, or the step after
      self.tally.injected[fault] += 1
      problem = self._inject(run, fault, workdir)
      if problem is not None:
        return problem
      if fault in SURVIVED:
        self.tally.recovered[fault] += 1
      else:
        self._last = fault
        return None

  def _applies(self, fault: str, run: Run) -> bool:
    if fault == 'killed data worker':
      return any(map(children, run.pids))
    if fault == 'full disk' and self._disk is None:
      self.tally.skipped[fault] += 1
      return False
    return True

  def _inject(self, run: Run, fault: str, workdir: pathlib.Path) -> str | None:
    """What went wrong that must not, at once."""
    one = self._chance.choice(run.pids)
    if fault == 'SIGSTOP':
      run.send(signal.SIGSTOP, one)
      time.sleep(self._chance.uniform(0.1, 1.0))
      run.send(signal.SIGCONT, one)
    elif fault == 'clock jump':
      run.send(signal.SIGUSR1, one)
    elif fault == 'full disk':
      return self._fill(run, workdir)
    elif fault == 'killed data worker':
      with contextlib.suppress(ProcessLookupError):
        os.kill(self._chance.choice([worker for pid in run.pids for worker in children(pid)]), signal.SIGKILL)
    else:
      run.send(signal.SIGTERM if fault == 'SIGTERM' else signal.SIGKILL, one)
    if fault in SURVIVED:
      step = run.step()
      return (
        None
        if run.wait(lambda: run.step() > step)
        else f'nothing happened for {PATIENCE:.0f} s after {fault}: {run.last_words()}'
      )
    if not run.wait():
      return f'did not end within {PATIENCE:.0f} s after {fault}: {run.last_words()}'
    if fault == 'SIGTERM' and not set(run.codes.values()) <= {128 + signal.SIGTERM, 0}:
      return f'ended with {run.codes} after SIGTERM: {run.last_words()}'
    return None

  def _fill(self, run: Run, workdir: pathlib.Path) -> str | None:
    """Leaves no byte on the disk until a save has failed, or two were due; then the space is there again."""
    ballast, step, failed = self._disk / 'ballast', run.step(), run.output().count('could not be written')
    try:
      with contextlib.suppress(OSError), open(ballast, 'wb', buffering=0) as file:
        while True:
          file.write(bytes(4096))
      run.wait(lambda: run.output().count('could not be written') > failed or run.step() >= step + 2 * SAVE_EVERY)
    finally:
      ballast.unlink(missing_ok=True)
    if run.has_ended() and set(run.codes.values()) != {0}:
      # Only the last save of all must not fail in silence.
      return None if 'the last checkpoint' in run.output() else f'ended on a full disk: {run.last_words()}'
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
    log = self._directory / 'logs' / f'compared-{number}'
    pid = fork(lambda: _print_all(kill_test.compare(whole, workdir, NUM_STEPS)), log)
    _, status = os.waitpid(pid, 0)
    if found := log.read_text().strip():
      self.tally.divergences += 1
      self.tally.problems.append(f'round {number}, {kind.name}, differs: {found[:600]}')
    elif status:
      self.tally.problems.append(f'round {number} could not be compared')


def table(tally: Tally, seconds: float) -> str:
  """The report."""
  lines = [f'{"fault":<20} {"injected":>8} {"recovered":>9} {"skipped":>8}']
  for fault in (*FAULTS, None):
    counts = [sum(c.values()) if fault is None else c[fault] for c in (tally.injected, tally.recovered, tally.skipped)]
    lines.append(f'{fault or "all":<20} {counts[0]:>8} {counts[1]:>9} {counts[2]:>8}')
  rounds = '; '.join(f'{count} of {name}' for name, count in tally.rounds.items())
  return '\n'.join(
    [
      *lines,
      f'{seconds / 60:.1f} minutes, {tally.starts} starts, rounds: {rounds}',
      f'steps lost beyond the last save: {tally.steps_lost}; divergences: {tally.divergences}; other problems: '
      f'{len(tally.problems) - tally.divergences}',
      *tally.problems,
    ]
  )


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
    (directory / f'{number}.txt').write_text(' '.join(chance.choices(words, k=chance.randrange(30, 200))))
  return f'files:{directory}/*.txt'
