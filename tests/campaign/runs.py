"""One start of a training: forked, watched, sent signals."""

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

  def __str__(self) -> str:
    return f'{self.processes}/{self.workers}'


class Run:
  """The processes of one start of a training, forked from here. They speak through pipes, which take it on full disks,
  too.
  """

  def __init__(self, config: dict, kind: Kind, workdir: pathlib.Path, clock: int):
    """clock: seconds by which SIGUSR1 shifts the clock of a process."""
    address = f'localhost:{_free_port()}'
    self.pids, self.codes, self._pipes, self._said = [], {}, [], []
    for index in range(kind.processes):
      part = (address, kind.processes, index) if kind.processes > 1 else None
      pid, pipe = fork(lambda part=part: _train(config, workdir, part, clock))
      self.pids.append(pid)
      self._pipes.append(pipe)
      self._said.append(bytearray())

  def output(self) -> str:
    """What the first process has said."""
    self._listen()
    return self._said[0].decode(errors='replace')

  def last_words(self) -> str:
    """The end of what each process has said."""
    self._listen()
    return '; '.join(f'{index}: {said[-600:].decode(errors="replace")}' for index, said in enumerate(self._said))

  def failed_saves(self) -> int:
    """How many checkpoints could not be written, so far."""
    return self.output().count('could not be written to')

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

  def has_failed(self) -> bool:
    """Whether it has ended without having trained to the end."""
    return self.has_ended() and set(self.codes.values()) != {0}

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

  def close(self) -> None:
    """Ends what is left of it."""
    self.send(signal.SIGKILL)
    while not self.has_ended():
      time.sleep(0.02)
    self._listen()
    for pipe in self._pipes:
      os.close(pipe)
    self._pipes = []

  def _listen(self) -> None:
    for pipe, said in zip(self._pipes, self._said, strict=False):
      with contextlib.suppress(BlockingIOError):
        while data := os.read(pipe, 2**16):
          said += data


def fork(call: Callable[[], int]) -> tuple[int, int]:
  """(id of a new process that ends with the code that `call` returns, pipe from which to read what it says); the
  process has a group of its own.
  """
  sys.stdout.flush()
  ours, theirs = os.pipe()
  if pid := os.fork():
    with contextlib.suppress(PermissionError, ProcessLookupError):
      os.setpgid(pid, pid)  # here, too: whoever comes first
    os.close(theirs)
    os.set_blocking(ours, False)
    return pid, ours
  code = 2
  try:
    os.setpgid(0, 0)
    os.dup2(theirs, 1)
    os.dup2(theirs, 2)
    code = call()
  except BaseException:
    traceback.print_exc()
  finally:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError):
        stream.flush()
    os._exit(code)


def workers_of(parent: int) -> list[int]:
  """Data workers of a process: its children, but for the one by which Python keeps account of shared memory."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):
      fields = path.read_text().rpartition(')')[2].split()
      if int(fields[1]) == parent and b'resource_tracker' not in path.with_name('cmdline').read_bytes():
        found.append(int(path.parent.name))
  return found


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


def _free_port() -> int:
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]
