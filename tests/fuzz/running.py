"""Cases of a target, one after the other, in a process that may crash, hang or run out of memory."""

import dataclasses
import json
import os
import pathlib
import random
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from tests.fuzz.sandbox import Audit, Verdict, judge

HARD_LIMIT = 12 * 10**9  # bytes of address space that a case may add, so that the machine outlives it
_CASES_A_PROCESS = 400
_LARGEST_PROCESS = 3e9  # bytes; what JAX has compiled stays


@dataclasses.dataclass(frozen=True)
class Target:
  """What is fed.

  prepare(seeds): writes valid input and calls the reader once, so that all is imported. make(rng, seeds, case): writes
  hostile input into the directory `case`. run(case): reads it, whatever it is. factor, constant: a case may take
  factor * (bytes of its input) + constant MB of memory. seconds: until a case counts as hanging.
  """

  name: str
  prepare: Callable[[pathlib.Path], Any]
  make: Callable[[random.Random, pathlib.Path, pathlib.Path], Any]
  run: Callable[[pathlib.Path], Any]
  factor: float = 8.0
  constant: float = 300.0
  seconds: float = 60.0

  def bound(self, case: pathlib.Path) -> float:
    """MB for this input."""
    return self.factor * sum(file.stat().st_size for file in case.rglob('*') if file.is_file()) / 1e6 + self.constant


@dataclasses.dataclass
class Tally:
  """Counts of one target. problems: (case, what is wrong); sentences: {beginning of a sentence: how often}."""

  cases: int = 0
  worked: int = 0
  refused: int = 0
  seconds: float = 0.0
  slowest: float = 0.0
  megabytes: float = 0.0
  problems: list[tuple[int, str]] = dataclasses.field(default_factory=list)
  sentences: dict[str, int] = dataclasses.field(default_factory=dict)

  def add(self, number: int, verdict: Verdict, seconds: float) -> None:
    """Counts a case."""
    self.cases += 1
    self.worked += verdict.outcome == 'worked'
    self.refused += verdict.outcome == 'refused'
    self.slowest, self.megabytes = max(self.slowest, seconds), max(self.megabytes, verdict.megabytes)
    if verdict.outcome == 'uncaught':
      self.problems.append((number, verdict.text))
    elif verdict.outcome == 'refused':
      self.sentences[verdict.text] = self.sentences.get(verdict.text, 0) + 1


def generator(seed: int, target: str, number: int) -> random.Random:
  """Makes case `number` of a target, whatever was made before it."""
  return random.Random(f'{seed}/{target}/{number}')


def run(
  target: Target,
  directory: pathlib.Path,
  seed: int,
  first: int,
  *,
  seconds: float,
  cases: float,
  keep: pathlib.Path | None,
  tally: Tally,
) -> int:
  """Runs cases from `first` on for so many seconds, or so many cases; returns the number of the next one."""
  began, number, last = time.monotonic(), first, first + cases
  while number < last and time.monotonic() - began < seconds:
    for case, verdict, taken in _one_process(target, directory, seed, number, last, began + seconds, keep):
      tally.add(case, verdict, taken)
      number += 1
  tally.seconds += time.monotonic() - began
  return number


def _one_process(target: Target, directory, seed: int, number: int, last: float, until: float, keep) -> Iterator[tuple]:
  """(case, verdict, seconds) of each case that one forked process gets through, its last perhaps by dying."""
  read_end, write_end = os.pipe()
  sys.stdout.flush()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # JAX warns of its threads: it has started none in this process
    child = os.fork()
  if not child:
    _work(target, directory, seed, number, last, until, keep, write_end)
  os.close(write_end)
  started, began = None, time.monotonic()
  with os.fdopen(read_end, 'rb') as pipe:
    buffer = b''
    while True:
      limit = 600 if started is None else target.seconds  # preparing includes imports and compilation
      ready, _, _ = select.select([pipe], [], [], max(0.0, began + limit - time.monotonic()))
      if not ready:
        os.kill(child, signal.SIGKILL)
      chunk = os.read(pipe.fileno(), 1 << 16)
      if not chunk:
        break
      *lines, buffer = (buffer + chunk).split(b'\n')
      for line in lines:
        message = json.loads(line)
        if 'starts' in message:
          started, began = message['starts'], time.monotonic()
          continue
        yield started, Verdict(**message['verdict']), time.monotonic() - began
        started, began = None, time.monotonic()
  _, status = os.waitpid(child, 0)
  if status and started is None:
    raise RuntimeError(f'target {target.name} fell between cases, with status {status}')
  if started is not None:
    taken = time.monotonic() - began
    how = f'no end after {taken:.0f} s' if taken >= target.seconds else f'the process died with status {status}'
    _keep(directory / 'case', keep, target, seed, started, how)
    yield started, Verdict('uncaught', how), taken


def _work(target: Target, directory, seed: int, number: int, last: float, until: float, keep, write_end: int) -> None:
  """The child: never returns."""
  code = 1
  try:
    tell = lambda **message: os.write(write_end, json.dumps(message).encode() + b'\n')
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    seeds, case = directory / 'seeds', directory / 'case'
    os.chdir(directory)
    target.prepare(seeds)
    audit, end = Audit(), number + _CASES_A_PROCESS
    while number < min(end, last) and time.monotonic() < until and _pages() < _LARGEST_PROCESS:
      shutil.rmtree(case, ignore_errors=True)
      case.mkdir()
      target.make(generator(seed, target.name, number), seeds, case)
      resource.setrlimit(resource.RLIMIT_AS, (_pages(virtual=True) + HARD_LIMIT, resource.RLIM_INFINITY))
      tell(starts=number)
      verdict = judge(lambda: target.run(case), case, audit, target.bound(case))
      if verdict.outcome == 'uncaught':  # here, since the next case takes the place of this one
        _keep(case, keep, target, seed, number, verdict.text)
      tell(verdict=dataclasses.asdict(verdict))
      number += 1
    code = 0
  except BaseException:
    traceback.print_exc()
  finally:
    os._exit(code)


def _pages(virtual: bool = False) -> int:
  """Bytes of this process, in memory or of address space."""
  sizes = pathlib.Path('/proc/self/statm').read_text().split()
  return int(sizes[0 if virtual else 1]) * resource.getpagesize()


def _keep(case: pathlib.Path, keep: pathlib.Path | None, target: Target, seed: int, number: int, text: str) -> None:
  if keep is None:
    return
  place = keep / f'{target.name}-{seed}-{number}'
  shutil.rmtree(place, ignore_errors=True)
  if case.is_dir():
    shutil.copytree(case, place, symlinks=True)
  place.mkdir(parents=True, exist_ok=True)
  (place / 'problem.txt').write_text(text + '\n', errors='backslashreplace')
