"""Whether the cost of a trained model's step follows its chunks: time against the FLOPs of the rung that it runs at.

  python train.py --config=configs/quickstart.py --workdir=runs/target_6 --config.model.ratio_targets='(6.0,)'
  python train.py --config=configs/quickstart.py --workdir=runs/target_2 --config.model.ratio_targets='(2.0,)'
  python -m benchmarks.ladder runs/target_6 runs/target_2

Forward and backward on batches of the run's own text, packed as in training, for each run with one choosing stage. A
row is a rung: the run's own, as its boundaries choose it, with all rows at once, and in --row_groups on sixteen rungs;
then every larger one of the first run, forced. `fill` is the share of the rung (of the groups' mean rung) that chunks
fill; FLOPs are the model's own count with the rung's positions in place of chunks. Outside the rung a step does the
same work in every row, at a rate of its own; so time should lie on a line over FLOPs. The last column compares it with
the line that fits all rows best. Medians over turns.
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
from layers.ladder import LadderConfig
from layers.paths import flatten, rebuild
from text import command_line, paths
from training import description
from training.trainer import Trainer


@dataclasses.dataclass
class Contestant:
  """A compiled step at one rung."""

  name: str
  step: Any
  flat: Any
  batches: list[text.Batch]
  rung: float
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


def contestants(workdir: pathlib.Path, count: int, row_groups: int, forced: bool) -> list[Contestant]:
  """The run at its own rung, with all rows at once and in groups, and, if `forced`, at each larger one.

  Batches are those, of the first 8 x count, that run at the most frequent rung. Raises ValueError for a run whose model
  has not one choosing stage.
  """
  loaded = training.load(workdir)
  branch = loaded.config['model']
  trainer = Trainer.of(loaded.config)
  batches = [trainer.put(b) for b in itertools.islice(_batches(trainer), 8 * count)]
  found = _contestant(workdir.name, _with_ladder(loaded.model, branch, row_groups=1), batches)
  if found is None:
    raise ValueError(f'{workdir}: its model has no stage that chooses chunks, or several; name a run with one')
  sixteenths = [(i + 1) / 16 for i in range(16)]
  grouped = _with_ladder(loaded.model, branch, row_groups=row_groups, fractions=sixteenths)
  runs = [found, _contestant(f'{workdir.name}, {row_groups} groups', grouped, found.batches)]
  length = batches[0].bytes.shape[1]
  for fraction in LadderConfig.from_dict(branch.get('ladder', {})).fractions if forced else ():
    (rung,) = LadderConfig((fraction,)).rungs(length)
    if rung > found.rung:
      only = [fraction] if fraction == 1 else [fraction, 1.0]
      model = _with_ladder(loaded.model, branch, row_groups=1, fractions=only)
      runs.append(_contestant(f'{workdir.name}, forced', model, found.batches))
  for run in runs:
    run.batches = run.batches[:count]
  return runs


def _batches(trainer: Trainer):
  data = trainer.settings.data
  return trainer.batches(text.Texts.of(data.source, data.validation).open_training())


def _with_ladder(model: Any, branch: dict, **values: Any) -> Any:
  ladder = {**branch.get('ladder', {}), **values}
  return rebuild(description.abstract_model({**branch, 'ladder': ladder}), flatten(model))


def _contestant(name: str, model: Any, batches: list[text.Batch]) -> Contestant | None:
  step, flat, _ = subject.compiled_step(model, batches[0])
  outputs = [step(flat, batch)[0][1] for batch in batches]
  if len(outputs[0].segmentations) != 1:
    return None
  rows, length = batches[0].bytes.shape
  rungs = model.config.ladder.rungs(length)
  of = lambda output: next(r for r in rungs if r >= int(output.segmentations[0].sum(1).max()))
  usual = statistics.mode(map(of, outputs))
  kept = [(batch, output) for batch, output in zip(batches, outputs, strict=True) if of(output) == usual]
  chunks = statistics.mean(float(output.segmentations[0].sum()) for _, output in kept)
  ran = statistics.mean(
    float(output.segmentations[0].sum() / output.metrics['ladder_fill_1']) / rows for _, output in kept
  )
  flops = sum(model.flops_per_byte(length, [length / ran]).values())
  return Contestant(
    name, step, flat, [batch for batch, _ in kept], ran, chunks / (rows * ran), rows * length / chunks, flops
  )


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m benchmarks.ladder', description=__doc__)
  parser.add_argument('workdirs', nargs='+', metavar='WORKDIR', help='of trained models')
  parser.add_argument('--row_groups', type=int, default=4, help='(%(default)s)')
  parser.add_argument('--turns', type=int, default=9, help='(%(default)s)')
  parser.add_argument('--batches', type=int, default=4, help='of a turn (%(default)s)')
  flags = parser.parse_args(arguments)
  if min(flags.turns, flags.batches, flags.row_groups) < 1:
    raise ValueError(
      f'--turns={flags.turns}, --batches={flags.batches} and --row_groups={flags.row_groups} must be at least 1'
    )
  playing = [
    one
    for index, path in enumerate(flags.workdirs)
    for one in contestants(paths.of(path, 'WORKDIR', text=True), flags.batches, flags.row_groups, forced=index == 0)
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
      'rung': f'{one.rung:.0f}',
      'fill': f'{one.fill:.2f}',
      'MFLOP/byte at the rung': f'{one.flops_per_byte / 1e6:.2f}',
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
