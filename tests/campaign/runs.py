"""One start of a small training: forked, watched, sent signals."""

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable

import training
from training import processes

PATIENCE = 300.0  # seconds without any sign of a run, on a machine that others use, too


@dataclasses.dataclass(frozen=True)
class Kind:
  """A way to train: number of processes, and of data workers in each."""

  processes: int
  workers: int

  @property
  def name(self) -> str:
    return f'{self.processes} process{"es" if self.processes > 1 else ""}, {self.workers} data workers'


class Run:
  """The processes of one start of a training, forked from here; their output stands in files."""

  def __init__(self, config: dict, kind: Kind, workdir: pathlib.Path, logs: pathlib.Path, clock: int):
    logs.mkdir(parents=True, exist_ok=True)
    port = _free_port() if kind.processes > 1 else 0
    self.logs = [logs / f'{index}.log' for index in range(kind.processes)]
    self.pids, self.codes = [], {}
    for index, log in enumerate(self.logs):
      part = (f'localhost:{port}', kind.processes, index) if kind.processes > 1 else None
      log.write_text('')
      self.pids.append(fork(lambda part=part: _train(config, workdir, part, clock), log))

  def output(self) -> str:
    """What the first process has said."""
    return self.logs[0].read_text(errors='replace')

  def last_words(self) -> str:
    """The end of what each process has said."""
    return '; '.join(f'{log.stem}: {log.read_text(errors="replace")[-400:]}' for log in self.logs)

  def step(self) -> int:
    """The last step that was logged."""
    return max(map(int, re.findall(r'^step (\d+)/', self.output(), re.MULTILINE)), default=0)

  def has_ended(self) -> bool:
    """Whether all processes have; collects their codes."""
    for pid in self.pids:
      if pid not in self.codes:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
          self.codes[pid] = os.waitstatus_to_exitcode(status)
    return len(self.codes) == len(self.pids)

  def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
    """Waits until the run has ended or something holds; False if nothing happened for PATIENCE seconds, without those
    in which this process was stopped itself.
    """
    seen, silent, before = None, 0.0, time.monotonic()
    while not (self.has_ended() or until()):
      time.sleep(0.02)
      now = time.monotonic()
      silent, before = silent + min(now - before, 1.0), now
      if (said := self.output()) != seen:
        seen, silent = said, 0.0
      if silent > PATIENCE:
        return False
    return True

  def send(self, number: int, pid: int | None = None) -> None:
    """A signal to one process, or to all and their data workers."""
    for one in self.pids if pid is None else [pid]:
      if one not in self.codes:
        with contextlib.suppress(ProcessLookupError):
          os.kill(one, number) if pid is not None else os.killpg(one, number)


def fork(call: Callable[[], int], log: pathlib.Path) -> int:
  """The id of a new process, with a group of its own, that ends with the code that `call` returns."""
  sys.stdout.flush()
  if pid := os.fork():
    with contextlib.suppress(PermissionError, ProcessLookupError):
      os.setpgid(pid, pid)  # here, too: whoever comes first
    return pid
  code = 2
  try:
    os.setpgid(0, 0)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = call()
  except BaseException:
    traceback.print_exc()
  finally:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError):
        stream.flush()
    os._exit(code)


def _train(config: dict, workdir: pathlib.Path, part: tuple[str, int, int] | None, clock: int) -> int:
  """In a new process: what train.py does, with its exit codes; SIGUSR1 shifts the clock by `clock` seconds."""
  now, shift = time.time, [0]
  time.time = lambda: now() + shift[0]
  signal.signal(signal.SIGUSR1, lambda *_: shift.__setitem__(0, shift[0] + clock))
  try:
    with processes.taking_part(*part) if part else contextlib.nullcontext():
      training.train(config, workdir)
  except training.Interrupted as error:
    print(error)
    return 128 + error.signal_number
  except (OSError, ValueError, training.Diverged) as error:
    print(f'error: {error}')
    return 1
  return 0


def children(pid: int) -> list[int]:
  """Processes started by another one that are Python programs with a module to run, so data workers."""
  with contextlib.suppress(OSError):
    found = pathlib.Path(f'/proc/{pid}/task').glob('*/children')
    return [
      int(child)
      for path in found
      for child in path.read_text().split()
      if b'resource_tracker' not in pathlib.Path(f'/proc/{child}/cmdline').read_bytes()
    ]
  return []


def _free_port() -> int:
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]
