"""One config trained with several weights of the ratio loss: the size that chunks come to, and the bits that it costs.

  python -m studies.ratio_weight --workdir=runs/ratio_weight
  python -m studies.ratio_weight --workdir=runs/ratio_weight --weights 0.03 1.0 -- --config.num_steps=100

Each weight is `train.py --config=CONFIG --config.loss_weights.ratio=WEIGHT --workdir=WORKDIR/WEIGHT` in a process of
its own; what stands behind `--` goes to each. The same command goes on where it was stopped, and keeps runs and scores
that are done. The end is WORKDIR/ratio_weight.md: of each weight and stage the target, the size of chunks reached on
all held-out text, and bits per byte.
"""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation import report
from studies import compare, kept, trainings
from text import command_line, paths
from training import config as config_lib
from training.trainer import Trainer

WEIGHTS = (0.03, 0.3, 1.0)


def targets(training: trainings.Training) -> list[float | None]:
  """Of each stage that cuts, how many slots of it the ratio loss wants in a chunk at the end of the training; None
  where it has none.

  Raises ValueError, or OSError, for an experiment that cannot be read or has no ratio loss at all.
  """
  trainer = Trainer.of(config_lib.resolve(training.read_config()))
  found = trainer.model.targets
  if not found:
    raise ValueError(f'--config={training.config}: its model has no ratio loss, so no weight of it changes anything')
  return [float(found[stage](1.0)) if stage in found else None for stage in range(trainer.model.num_stages - 1)]


def rows(scores: Mapping[float, Mapping[str, Any]], wanted: Sequence[float | None]) -> list[dict[str, Any]]:
  """A row for each weight and stage with a target; sizes are in slots of the stage, bytes of the outermost."""
  result = []
  for weight, found in scores.items():
    sizes = [1.0, *found['bytes_per_chunk']]
    for stage, ((outer, inner), target) in enumerate(zip(itertools.pairwise(sizes), wanted, strict=True)):
      if target is not None:
        size = inner / outer if inner and outer else None  # None: no chunk at all
        result.append(
          {
            'weight': f'{weight:g}',
            'stage': stage,
            'target': target,
            'size': '∞' if size is None else size,
            'of the target': '–' if size is None else f'{size / target:.0%}',
            'bits per byte': found['bits_per_byte'],
          }
        )
  return result


def main(arguments: list[str]) -> None:
  """The command."""
  own, forwarded = trainings.divided(arguments)
  parser = command_line.Parser(prog='python -m studies.ratio_weight', description=__doc__)
  parser.add_argument('--workdir', required=True, help='one directory for all runs')
  parser.add_argument('--config', default='configs/quickstart.py', help='FILE.py[:ARGUMENT] (%(default)s)')
  parser.add_argument('--weights', nargs='+', type=float, default=WEIGHTS, help='of the ratio loss (%(default)s)')
  flags = parser.parse_args(own)
  if len(set(flags.weights)) < len(flags.weights) or not all(0 <= weight < float('inf') for weight in flags.weights):
    raise ValueError(f'--weights {" ".join(map(str, flags.weights))}: give numbers of 0 or more that differ')
  study, config = paths.of(flags.workdir, '--workdir', text=True), trainings.config_file(flags.config)
  runs = {
    weight: trainings.Training(study / f'{weight:g}', config, (*forwarded, f'--config.loss_weights.ratio={weight:g}'))
    for weight in flags.weights
  }
  wanted = targets(next(iter(runs.values())))
  trainings.run_all(runs.values())
  scores = {weight: compare.score(run.workdir, compare.WORDS) for weight, run in runs.items()}
  same, _ = compare.conditions({f'{weight:g}': found for weight, found in scores.items()})
  page = '\n\n'.join(
    [
      f'`{shlex.join(["python", "-m", "studies.ratio_weight", *arguments])}`',
      f'{same[:1].upper()}{same[1:]} Sizes are bytes a chunk, or chunks a chunk of the stage around.',
      report.markdown(rows(scores, wanted)),
    ]
  )
  path = study / 'ratio_weight.md'
  kept.write_page(path, page)
  print(f'\n{page}\n\nwritten to {path}')


if __name__ == '__main__':
  command_line.run(main)
