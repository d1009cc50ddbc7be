"""Reads every checkpoint of a run, without its model: python -m training.checkpoint verify DIR

DIR: a work directory, or the directory `checkpoints` in it. A line for each step: whole, or every array that is not as
it was saved. Ends with code 0 if all are whole, and 1 if one is damaged or there is none.
"""

import sys

from text import command_line, paths
from training import checkpoint
from training.workdir import CHECKPOINTS


def main(arguments: list[str] | None = None) -> None:
  """`verify DIR`: a line for each step, and code 1 if one is damaged."""
  parser = command_line.Parser(prog='python -m training.checkpoint', description='Checkpoints of a run.')
  verify = parser.add_subparsers(required=True).add_parser('verify', help='read all of them and say which are whole')
  verify.add_argument('directory', metavar='DIR', help='a work directory, or its checkpoints')
  directory = paths.of(parser.parse_args(arguments).directory, 'DIR', text=True)
  directory = directory / CHECKPOINTS if (directory / CHECKPOINTS).is_dir() else directory
  steps, damaged = checkpoint.all_steps(directory), 0
  if not steps:
    sys.exit(f'error: there is no checkpoint in {directory}: name a work directory or its {CHECKPOINTS}')
  for step in steps:
    try:
      found = checkpoint.damage(directory, step)
    except FileNotFoundError:  # its run goes on
      found = []
    if not (directory / str(step)).is_dir():
      print(f'step {step}: removed by its run meanwhile')
      continue
    damaged += bool(found)
    print(f'step {step}: ' + ('damaged\n  ' + '\n  '.join(found) if found else 'whole'), flush=True)
  for name in checkpoint.half_written(directory):
    print(f'{name}: left by a run that was stopped; it is not used, and the next save clears it away')
  print(f'{damaged} of {len(steps)} checkpoints are damaged')
  sys.exit(bool(damaged))


if __name__ == '__main__':
  command_line.run(main)
