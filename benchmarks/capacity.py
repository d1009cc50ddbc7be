"""Whether the cost of a trained model's step follows its chunks: time against FLOPs at the capacity that it runs at.

  python train.py --config=configs/quickstart.py --workdir=runs/target_6 --config.model.ratio_targets='(6.0,)'
  python train.py --config=configs/quickstart.py --workdir=runs/target_2 --config.model.ratio_targets='(2.0,)'
  python -m benchmarks.capacity runs/target_6 runs/target_2

Forward and backward on batches of the run's own text, packed as in training, for each run with one stage that chunks.
A row is a capacity: the smallest that holds the run's chunks; then larger ones for the first run. `fill` is the share
of it that chunks fill; FLOPs are the model's own count with the capacity's slots in place of chunks. Outside, a step
does the same work in every row, at a rate of its own; so time should lie on a line over FLOPs. The last column compares
it with the line that fits all rows best. Medians over turns.
"""

import dataclasses
import itertools
import os
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np

import text
import training
from benchmarks import subject, turns
from evaluation import report
from layers import capacity
from text import command_line, paths
from training.trainer import Trainer

LARGER = (1.5, 2.0, 4.0)  # times the run's own capacity


@dataclasses.dataclass
class Contestant:
  """A compiled step at one capacity."""

  name: str
  step: Any
  flat: Any
  batches: list[text.Batch]
  capacity: int
  fill: float
  bytes_per_chunk: float
  flops_per_byte: float
  seconds: list[float] = dataclasses.field(default_factory=list)

  def run(self) -> None:
    """One pass over the batches."""
    jax.block_until_ready(self.step(self.flat, self.batches[0]))
    began = time.perf_counter()
    for batch in self.batches:
      jax.block_until_ready(self.step(self.flat, batch))
    self.seconds.append(time.perf_counter() - began)


def contestants(workdir: pathlib.Path, count: int, larger: bool) -> list[Contestant]:
  """The run at the capacity that holds its chunks in so many batches, and, if `larger`, at larger ones.

  Raises ValueError for a run whose model has not one level of chunks.
  """
  loaded = training.load(workdir)
  trainer = Trainer.of(loaded.config)
  if len(trainer.model.level_sizes()) != 1:
    raise ValueError(f'{workdir}: the model has {len(trainer.model.level_sizes())} levels of chunks, one is needed')
  data, length = trainer.settings.data, trainer.settings.seq_len
  batches = trainer.batches(text.Texts.of(data.source, data.validation).open_training())
  batches = [jax.device_put(batch) for batch in itertools.islice(batches, count)]
  (own,) = capacity.holding(loaded.model, batches)
  wanted = {own: workdir.name}
  for times in LARGER if larger else ():
    wanted.setdefault(capacity.rung(length, times * own), f'{workdir.name}, with more room')
  return [_contestant(name, loaded.model, batches, room) for room, name in wanted.items()]


def _contestant(name: str, model: Any, batches: list[text.Batch], room: int) -> Contestant:
  step, flat, _ = subject.compiled_step(model, batches[0], (room,))
  rows, length = batches[0].bytes.shape
  chunks = statistics.mean(float(step(flat, batch)[0][1].segmentations[0].sum()) for batch in batches)
  flops = sum(model.flops_per_byte(length, [length / room]).values())
  return Contestant(name, step, flat, batches, room, chunks / (rows * room), rows * length / chunks, flops)


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m benchmarks.capacity', description=__doc__)
  parser.add_argument('workdirs', nargs='+', metavar='WORKDIR', help='of trained models')
  parser.add_argument('--turns', type=int, default=9, help='(%(default)s)')
  parser.add_argument('--batches', type=int, default=4, help='of a turn (%(default)s)')
  flags = parser.parse_args(arguments)
  if min(flags.turns, flags.batches) < 1:
    raise ValueError(f'--turns={flags.turns} and --batches={flags.batches} must be at least 1')
  playing = [
    one
    for index, path in enumerate(flags.workdirs)
    for one in contestants(paths.of(path, 'WORKDIR', text=True), flags.batches, larger=index == 0)
  ]
  for turn in range(flags.turns):
    for one in playing:
      one.run()
    print(f'turn {turn + 1} of {flags.turns}', file=sys.stderr)
  done = [one.batches[0].bytes.size * len(one.batches) / statistics.median(one.seconds) for one in playing]
  flops, taken = [one.flops_per_byte for one in playing], 1 / np.array(done)
  slope, fixed = np.polyfit(flops, taken, 1)
  rows = [
    {
      'run': one.name,
      'bytes/chunk': f'{one.bytes_per_chunk:.2f}',
      'capacity': f'{one.capacity}',
      'fill': f'{one.fill:.2f}',
      'MFLOP/byte there': f'{one.flops_per_byte / 1e6:.2f}',
      'bytes/s': f'{speed:,.0f}',
      'us/byte': f'{1e6 / speed:.1f}',
      'of the line': f'{1 / speed / (fixed + slope * one.flops_per_byte):.2f}',
    }
    for one, speed in zip(playing, done, strict=True)
  ]
  print(report.markdown(rows))


if __name__ == '__main__':
  if 'GLIBC_TUNABLES' not in os.environ:
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | turns.ENVIRONMENT)
  command_line.run(main)
