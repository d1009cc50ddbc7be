"""Whether two trainings came to the same: their last checkpoints, bit by bit, and their metrics."""

import json
import pathlib

import numpy as np

from training.checkpoint import array_store
from training.workdir import CHECKPOINTS

TIMING = ('bytes_per_second', 'model_flops_utilization', 'data_wait')


def differences(whole: pathlib.Path, disturbed: pathlib.Path, step: int) -> list[str]:
  """A line for each way in which the checkpoints of a step, and the metrics, of two work directories differ."""
  problems = []
  first, second = (saved_arrays(workdir / CHECKPOINTS / str(step)) for workdir in (whole, disturbed))
  if first.keys() != second.keys():
    problems.append(f'other arrays: {sorted(first.keys() ^ second.keys())}')
  for path in sorted(first.keys() & second.keys()):
    if first[path].tobytes() != second[path].tobytes():
      worst = np.max(np.abs(first[path].astype(np.float64) - second[path].astype(np.float64)))
      problems.append(f'{path} differs by up to {worst:g}')
  first, second = (_metrics(workdir) for workdir in (whole, disturbed))
  if [line['step'] for line in first] != [line['step'] for line in second]:
    problems.append('metrics.jsonl of the disturbed run does not have each step once and in order')
  problems += [f'other metrics at step {a["step"]}: {a} {b}' for a, b in zip(first, second, strict=False) if a != b][:1]
  return problems


def saved_arrays(checkpoint_path: pathlib.Path) -> dict[str, np.ndarray]:
  """{item/path: array} of one checkpoint directory, on the host."""
  items = sorted(path.parent for path in checkpoint_path.glob('*/manifest.ocdbt'))
  return {f'{item.name}/{path}': array_store.read(item, path) for item in items for path in array_store.names(item)}


def _metrics(workdir: pathlib.Path) -> list[dict]:
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{name: value for name, value in line.items() if name not in TIMING} for line in lines]
