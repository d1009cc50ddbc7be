"""`python -m tests.goldens.chunkers DIR…`: the largest difference of every tensor; 1 if one is above its tolerance."""

import pathlib
import sys

from tests.goldens.chunkers import compare


def main(folders: list[str]) -> int:
  """Prints a table for each folder."""
  if not folders:
    print('usage: python -m tests.goldens.chunkers DIR…', file=sys.stderr)
    return 2
  failed = 0
  for folder in folders:
    print(folder)
    found = compare(pathlib.Path(folder))
    for name, difference in found.items():
      verdict = '' if difference.is_small else '  ABOVE'
      print(f'  {name:<60} {difference.largest:9.2e} of {difference.tolerance:8.1e}{verdict}')
    failed += sum(not difference.is_small for difference in found.values())
    print(f'  {len(found)} tensors')
  print(f'{failed} above their tolerance' if failed else 'all within their tolerances')
  return int(failed > 0)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
