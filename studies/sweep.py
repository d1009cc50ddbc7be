"""Trains one config with several values of its keys: each combination is a run with a work directory of its own.

  python -m studies.sweep --config=configs/sweep_learning_rate.py --workdir=runs/learning_rate
  python -m studies.sweep --config=configs/quickstart.py --workdir=runs/seeds --axis seed=0,1,2 --jobs=2
  python -m studies.sweep --config=configs/sweep_compression.py --workdir=runs/sizes --print=slurm > sweep.sbatch

get_sweep() of the config says what is swept: axes that are crossed, {KEY: values}, or a list of (name, {KEY: value}).
Each --axis KEY=VALUE,VALUE is crossed with that. A run is `train.py --config=CONFIG --config.KEY=VALUE…
--workdir=WORKDIR/NAME`; its name is the one in the list, or what is changed: learning_rate=0.001,seed=0. What stands
behind `--` goes to each. All configs are checked before the first run starts.

The same command goes on where it was stopped, and skips runs that are done. Where one fails the others are run all the
same; the end is then code 1 and a sentence that names it. SIGTERM and Ctrl-C go to the runs, which save their step.
--jobs: how many run at once on this machine; their output is in WORKDIR/NAME.log. --print: a script in their place: an
array job of Slurm, workloads of XPK, or a shell script; each task is a run that goes on where it was stopped.
"""

import math
import sys
from collections.abc import Mapping, Sequence

import byte_models
from evaluation import report
from layers import checks
from studies import array_jobs, axes, curves, trainings
from studies.trainings import Training
from text import command_line, paths
from training import checkpoint, workdir
from training import config as config_lib


def is_done(training: Training) -> bool:
  """Whether a run has been trained to its last step, so that nothing is left to do.

  Raises ValueError, or OSError, with one sentence that names it, for a config that cannot be trained, or one that the
  work directory was not trained with.
  """
  try:
    config = training.read_config()
    settings = config_lib.parse(config)
    byte_models.parse(settings.model)
    resolved, _ = workdir.with_own_files(training.workdir, config_lib.resolve(config))
    workdir.config_changes(training.workdir, resolved)
  except (ValueError, OSError) as error:
    raise type(error)(f'{training.name}: {error}') from None
  return checkpoint.all_steps(training.workdir / workdir.CHECKPOINTS)[-1:] == [settings.num_steps]


def table(runs: Sequence[Training], done: Sequence[str], failed: Mapping[str, int]) -> str:
  """A row a run: how it ended, and its last validation, as Markdown."""
  rows = []
  for run in runs:
    lines = curves.read(run.workdir)
    scores = [line['validation_bpb'] for line in lines if line.get('validation_bpb') is not None]
    state = f'failed ({failed[run.name]})' if run.name in failed else 'was done' if run.name in done else 'done'
    score = f'{scores[-1]:.4f}' if scores else '–'
    rows.append({'run': run.name, 'state': state, 'step': lines[-1]['step'] if lines else 0, 'bits per byte': score})
  rank = lambda row: float(row['bits per byte']) if row['bits per byte'] != '–' else math.inf
  return report.markdown(sorted(rows, key=rank))


def main(arguments: list[str]) -> None:
  """The command."""
  own, forwarded = trainings.divided(arguments)
  parser = command_line.Parser(prog='python -m studies.sweep', description=__doc__)
  parser.add_argument('--config', required=True, help='FILE.py[:ARGUMENT], whose get_sweep() says what is swept')
  parser.add_argument('--workdir', required=True, help='one directory for all runs')
  parser.add_argument('--axis', action='append', default=[], metavar='KEY=VALUE,VALUE', help='crossed with the others')
  parser.add_argument('--jobs', type=int, default=1, help='runs at once (%(default)s)')
  parser.add_argument('--print', choices=array_jobs.KINDS, help='print a script that runs them, and end')
  flags = parser.parse_args(own)
  checks.integer(flags.jobs, '--jobs', 1)
  study, config = paths.of(flags.workdir, '--workdir', text=True), trainings.config_file(flags.config)
  runs = [
    Training(study / name, config, (*forwarded, *(f'--config.{key}={value}' for key, value in changes.items())))
    for name, changes in axes.entries(config, flags.axis)
  ]
  done = [run.name for run in runs if is_done(run)]
  if flags.print:
    print(array_jobs.script(flags.print, runs, study), end='')
    return
  for name in done:
    print(f'{name} is done')
  failed = trainings.run([run for run in runs if run.name not in done], flags.jobs)
  print(f'\n{table(runs, done, failed)}', flush=True)
  if failed:
    named = ', '.join(f'{name} (code {code})' for name, code in failed.items())
    command_line.tell(f'error: {len(failed)} of {len(runs)} runs failed: {named}; the same command goes on with them')
    sys.exit(1)


if __name__ == '__main__':
  command_line.run(main)
