"""What it costs that the host reads how many chunks a step needed before it sends the next one.

  python -m benchmarks.read_between --config=configs/quickstart.py

A training run does so (training/capacity.py), since a step that did not fit has to be run again before the next. Here
the same compiled steps on the same batches run in turns: with what each needed read before the next is sent, and with
it read while the next one runs. Medians over turns, and the ratio of each turn's two sides.
"""

import itertools
import os
import statistics
import sys
import time

import jax

import text
from benchmarks import turns
from evaluation import report
from layers import capacity
from text import command_line
from training import config_flag
from training.state import rebuild
from training.trainer import Trainer


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m benchmarks.read_between', description=__doc__)
  parser.add_argument('--config', default='configs/quickstart.py', help='(%(default)s)')
  parser.add_argument('--turns', type=int, default=15, help='(%(default)s)')
  parser.add_argument('--steps', type=int, default=10, help='of a turn (%(default)s)')
  flags = parser.parse_args(arguments)
  if min(flags.turns, flags.steps) < 1:
    raise ValueError(f'--turns={flags.turns} and --steps={flags.steps} must be at least 1')
  trainer = Trainer.of(config_flag.load(flags.config))
  data = trainer.settings.data
  rows = trainer.batches(text.Texts.of(data.source, data.validation).open_training())
  with jax.set_mesh(trainer.mesh):
    batches = [trainer.put(batch) for batch in itertools.islice(rows, flags.steps)]
    state = trainer.state()
    room = capacity.holding(rebuild(trainer.model, state.params), batches)
    step = trainer.compile(state, batches[0], room, lambda line: None)
    seconds = {'before the next': [], 'while it runs': []}
    for turn in range(flags.turns + 1):
      for when, measured in seconds.items():
        began, waiting = time.perf_counter(), None
        for batch in batches:
          state, _, needed = step(state, batch)
          if when == 'while it runs':
            needed, waiting = waiting, needed
          jax.device_get(needed)
        jax.block_until_ready(state)
        measured += [(time.perf_counter() - began) / flags.steps] if turn else []
      print(f'turn {turn} of {flags.turns}', file=sys.stderr)
  ratios = [one / other for one, other in zip(*seconds.values(), strict=True)]
  table = [{'read': when, 'ms a step': f'{1e3 * statistics.median(of):.2f}'} for when, of in seconds.items()]
  print(report.markdown(table))
  print(f'\nratio, median of {flags.turns} turns: {statistics.median(ratios):.4f}')


if __name__ == '__main__':
  if 'GLIBC_TUNABLES' not in os.environ:
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | turns.ENVIRONMENT)
  command_line.run(main)
