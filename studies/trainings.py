"""Trainings, each in a process of its own: one after the other, or several at once."""

import collections
import dataclasses
import functools
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags as absl_flags

from text import paths
from text.command_line import tell
from training import config_flag

HOME = pathlib.Path(__file__).parent.parent
POLL = 0.1  # seconds between two looks at processes


@dataclasses.dataclass(frozen=True)
class Training:
  """`train.py` with a config, FILE.py[:ARGUMENT], a work directory, and further flags."""

  workdir: pathlib.Path
  config: str
  flags: tuple[str, ...] = ()

  @property
  def name(self) -> str:
    """That of its directory."""
    return self.workdir.name

  @property
  def command(self) -> list[str]:
    """What to give to Python."""
    return [str(HOME / 'train.py'), f'--config={self.config}', f'--workdir={self.workdir.absolute()}', *self.flags]

  def read_config(self) -> Any:
    """Its tree, with the keys changed that the flags change; raises ValueError or OSError where it cannot be read."""
    values = absl_flags.FlagValues()
    config_flag.define('', values)
    values(config_flag.rewritten(['', f'--config={self.config}', *self.flags], values), known_only=True)
    return config_flag.read(values)


def divided(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
  """(a study's own arguments, those behind `--`, which go to each training)."""
  at = arguments.index('--') if '--' in arguments else len(arguments)
  return list(arguments[:at]), tuple(arguments[at + 1 :])


def config_file(named: str) -> str:
  """FILE.py[:ARGUMENT] with the file that is here, or else in this repository; FileNotFoundError if there is none."""
  paths.of(named, '--config')
  name, colon, argument = named.partition(':')
  config = pathlib.Path(name)
  if not config.is_file() and not (config := HOME / config).is_file():
    raise FileNotFoundError(f"--config={name}: there is no such file here and none in '{HOME}'")
  return f'{config}{colon}{argument}'


def run(trainings: Sequence[Training], jobs: int = 1, *, go_on: bool = True) -> dict[str, int]:
  """{name: exit code} of those that did not come to their end; jobs: at once.

  Of several at once the output goes to files beside the work directories, NAME.log. go_on: with the others where one
  fails. SIGTERM, SIGINT and SIGHUP go to those that run, which save their step: nothing more is started then, and
  this process ends with 128 + n when they have ended.
  """
  waiting, running, failed = collections.deque(trainings), {}, {}
  received: list[int] = []
  numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
  numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
  before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in numbers}
  told = 0
  try:
    while running or (waiting and not received and (go_on or not failed)):
      while waiting and len(running) < jobs and not received and (go_on or not failed):
        training = waiting.popleft()
        running[training] = _started(training, jobs > 1)
      for number in received[told:]:
        for process in running.values():
          process.send_signal(number)
      told = len(received)
      for training in [training for training, process in running.items() if process.poll() is not None]:
        if code := running.pop(training).returncode:
          failed[training.name] = code if code > 0 else 128 - code
          where = f', see {_log(training)}' if jobs > 1 else ''
          tell(f'the training of {training.name} ended with code {failed[training.name]}{where}')
      time.sleep(POLL if running else 0)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  if received:
    tell('interrupted: the same command goes on there')
    sys.exit(128 + received[0])
  return failed


def run_all(trainings: Iterable[Training]) -> None:
  """Trains one after the other; ends this process with the code of the first that does not come to its end."""
  if failed := run(list(trainings), go_on=False):
    tell('the same command goes on there')
    sys.exit(next(iter(failed.values())))


def _started(training: Training, logged: bool) -> subprocess.Popen:
  print(f'\n{shlex.join(["python", *training.command])}', flush=True)
  # In a process group of its own: Ctrl-C on a terminal comes to this process alone, which passes it on, once.
  start = functools.partial(subprocess.Popen, [sys.executable, *training.command], process_group=0)
  if not logged:
    return start()
  training.workdir.parent.mkdir(parents=True, exist_ok=True)
  with open(_log(training), 'ab') as log:
    return start(stdout=log, stderr=subprocess.STDOUT)


def _log(training: Training) -> pathlib.Path:
  return training.workdir.with_name(f'{training.name}.log')
