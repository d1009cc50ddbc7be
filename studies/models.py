"""The models that a command names: runs and their steps, and directories of official weights."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from studies import kept
from text import globbing, paths
from training import checkpoint, workdir


@dataclasses.dataclass(frozen=True)
class Run:
  """name: the directory as it was given. config: resolved; {} of official weights, whose only step is None."""

  name: str
  directory: pathlib.Path
  config: dict[str, Any]
  steps: tuple[int | None, ...]

  @property
  def seed(self) -> int | None:
    """That of its training."""
    return self.config.get('seed')

  @property
  def group(self) -> str:
    """12 hex digits, the same for runs whose configs differ in the seed alone."""
    return kept.digest({**self.config, 'seed': None} if self.config else self.name)[:12]

  def weights(self, step: int | None) -> str:
    """16 hex digits that tell the parameters of a step from others; of official weights: names, sizes, times of files.

    Raises ValueError or OSError for a step that is damaged or no longer there.
    """
    if step is not None:
      return kept.trained(self.directory, step)['weights']
    files = sorted(file for file in self.directory.iterdir() if file.is_file())
    return kept.digest([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def find(patterns: Sequence[str], steps: str, tell: Callable[[str], None]) -> list[Run]:
  """The models that paths and globs name, each once, with their steps: 'all', 'newest', 'best', or numbers, '100,200'.

  Of a glob, files are no runs, and a directory that is no run or has not the step is left out, which is told. Raises
  ValueError or OSError with one sentence where that is so of a path that was named in full, and where nothing is left.
  """
  if steps not in ('all', 'newest', 'best') and not all(part.isdecimal() for part in steps.split(',')):
    raise ValueError(f"--steps={steps} must be 'all', 'newest', 'best' or numbers such as 100,200")
  found: dict[str, Run] = {}
  for pattern in patterns:
    path = paths.expanded(pattern, 'the name of a run', text=True)
    is_one = os.path.isdir(path)
    directories = [path] if is_one else [match for match in globbing.matches(path) if os.path.isdir(match)]
    if not directories:
      raise FileNotFoundError(f"{pattern}: there is no such directory: name work directories of runs, such as 'runs/*'")
    for directory in directories:
      try:
        run = of(pathlib.Path(directory), steps, tell)
      except (ValueError, OSError) as error:
        if is_one:
          raise
        tell(f'left out: {error}')
      else:
        found.setdefault(run.name, run)
  if not found:
    raise FileNotFoundError(f'{" ".join(patterns)}: none is a run with a checkpoint: train one, or name others')
  return list(found.values())


def of(directory: pathlib.Path, steps: str, tell: Callable[[str], None]) -> Run:
  """The model of one directory, with steps as `find` takes them. Raises ValueError or OSError where there is none."""
  name = os.path.normpath(directory)
  if workdir.is_published(directory):
    return Run(name, directory, {}, (None,))
  config, checkpoints = workdir.read_config(directory), directory / workdir.CHECKPOINTS
  there = checkpoint.all_steps(checkpoints)
  if not there:
    raise FileNotFoundError(f'there is no checkpoint in {checkpoints}: the run has not saved one yet')
  if steps == 'best':
    return Run(name, directory, config, (checkpoint.best_step(checkpoints, tell),))
  wanted = there if steps == 'all' else there[-1:] if steps == 'newest' else sorted(map(int, steps.split(',')))
  if missing := [step for step in wanted if step not in there]:
    have = ', '.join(map(str, there))
    raise FileNotFoundError(f'--steps={steps}: {checkpoints} has no checkpoint of step {missing[0]}, but of {have}')
  return Run(name, directory, config, tuple(dict.fromkeys(wanted)))
