"""Feeds hostile input to everything that reads a file or a string: python -m tests.fuzz --minutes=10 --seed=0

Every case either works or ends as a command tells its user: with one sentence. Anything else is uncaught, a crash, a
hang, memory above the target's bound, a file written elsewhere, a process, a connection or code from a file among it:
its input is kept under --keep, and `--targets=NAME --case=N` with the same seed repeats it. Ends with code 1 if
anything is uncaught. --sentences prints what was refused, and how.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'

from tests.fuzz import running
from tests.fuzz.targets import TARGETS


def main() -> None:
  parser = argparse.ArgumentParser(description='Feeds hostile input to everything that reads a file or a string.')
  parser.add_argument('--minutes', type=float, default=5.0, help='for all targets together')
  parser.add_argument('--cases', type=float, default=float('inf'), help='of each target, if this is less')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--targets', default=','.join(TARGETS), help='names, separated by commas')
  parser.add_argument('--case', type=int, help='only this one of each target')
  parser.add_argument('--keep', type=pathlib.Path, default=pathlib.Path('fuzz-findings'), help='where bad input goes')
  parser.add_argument('--sentences', action='store_true', help='print what was refused, and how')
  options = parser.parse_args()
  unknown = [name for name in options.targets.split(',') if name not in TARGETS]
  if unknown:
    sys.exit(f'error: target {unknown[0]} is not known: use {", ".join(TARGETS)}')
  tallies, keep, began = {}, options.keep.absolute(), time.monotonic()
  for position, name in enumerate(names := options.targets.split(',')):
    left = 60 * options.minutes - (time.monotonic() - began)
    tallies[name] = running.Tally()
    with tempfile.TemporaryDirectory(prefix='fuzz-') as place:
      running.run(
        TARGETS[name],
        pathlib.Path(place).resolve(),
        options.seed,
        options.case or 0,
        seconds=left / (len(names) - position),
        cases=1 if options.case is not None else options.cases,
        keep=keep,
        tally=tallies[name],
      )
    for number, problem in tallies[name].problems:
      print(
        f'--- {name}, --seed={options.seed} --case={number}, input in {keep}/{name}-{options.seed}-{number}\n{problem}'
      )
    if options.sentences:
      for text, count in sorted(tallies[name].sentences.items()):
        print(f'{name} {count:5} {text}')
    sys.stdout.flush()
  print(table(tallies))
  sys.exit(any(tally.problems for tally in tallies.values()))


def table(tallies: dict[str, running.Tally]) -> str:
  """The counts by target, as Markdown."""
  lines = [
    '| target | cases | worked | refused | uncaught | seconds | slowest, s | most memory, MB | bound, MB |',
    '|---|---:|---:|---:|---:|---:|---:|---:|---|',
  ]
  for name, tally in tallies.items():
    target = TARGETS[name]
    lines.append(
      f'| {name} | {tally.cases:,} | {tally.worked:,} | {tally.refused:,} | {len(tally.problems)} '
      f'| {tally.seconds:.0f} | {tally.slowest:.1f} | {tally.megabytes:.0f} '
      f'| {target.factor:g} x input + {target.constant:g} |'
    )
  total = lambda key: sum(getattr(tally, key) for tally in tallies.values())
  uncaught = sum(len(tally.problems) for tally in tallies.values())
  lines.append(
    f'| all | {total("cases"):,} | {total("worked"):,} | {total("refused"):,} | {uncaught} '
    f'| {total("seconds"):.0f} | | | |'
  )
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
