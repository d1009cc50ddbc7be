"""Any source of text into a directory that is read fast: `python -m text.prepare --source=... --out=DIR`.

DIR becomes a tensorflow_datasets directory, with an index for random access beside the shards (see text.prepared).
Exact duplicates and empty documents are dropped and counted. The same text and settings give the same bytes, whatever
the number of processes, and a command that was killed goes on where it stopped when it is typed again: finished work is
kept in DIR/.partial until the directory is complete. About 200 bytes of memory per document are needed.

A source that has splits of its own keeps them unless --split, --validation or --test ask for others. Where
--validation_source or --test_source is given, the sources are the splits. A text that stands in several given splits is
kept in test, else in validation, so that nothing that is held out is trained on.
"""

import itertools
import os
from collections.abc import Mapping, Sequence

from text import command_line, paths, prepared
from text.corpus import Group
from text.prepare.assignment import ByHash, ByPosition
from text.prepare.display import Display
from text.prepare.preparation import SHARD_BYTES, prepare
from text.remarks import collected
from text.sources import document_groups


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m text.prepare', description=__doc__)
  parser.add_argument('--source', help='as data.source in a config: python_docs, files:GLOB#field, tfds:NAME, ...')
  parser.add_argument('--validation_source', help='text for validation only; then nothing is split')
  parser.add_argument('--test_source', help='text for test only; then nothing is split')
  parser.add_argument('--out', help='the directory: empty, new, or of the same command')
  parser.add_argument('--name', help='NAME or NAME/CONFIG for tensorflow_datasets, else from --out')
  parser.add_argument('--split', choices=('hash', 'position'), help='what decides the split: hash if not given')
  parser.add_argument('--validation', type=float, help='share of the documents (hash) or bytes (position), 0.05')
  parser.add_argument('--test', type=float, help='likewise')
  parser.add_argument('--processes', type=int, default=os.cpu_count())
  parser.add_argument('--shard_bytes', type=int, default=SHARD_BYTES, help='about how much text a file holds')
  parser.add_argument('--license', help='kept in the metadata')
  parser.add_argument('--notes', help='kept in the metadata')
  parser.add_argument('--verify', metavar='DIR', help='only compares a prepared directory with its checksums')
  flags = parser.parse_args(arguments)
  if flags.verify is not None:
    metadata = prepared.verify(paths.of(flags.verify, '--verify'))
    print(f"'{flags.verify}': every file is as recorded ({metadata['documents']:,} documents)")
    return
  if not flags.source or flags.out is None:
    raise ValueError('--source and --out are needed: `python -m text.prepare --help` lists the flags')
  out = paths.of(flags.out, '--out', text=True)
  shares = {key: value for key in ('validation', 'test') if (value := getattr(flags, key)) is not None}
  rule = (ByPosition if flags.split == 'position' else ByHash)(**shares) if shares or flags.split else None
  sources = {split: getattr(flags, f'{split}_source') for split in ('validation', 'test')}
  if any(sources.values()) and rule is not None:
    raise ValueError(
      '--split, --validation and --test divide --source: leave them out where a split has its own source'
    )
  with collected() as remarks:
    groups, source = document_groups(flags.source), flags.source
    if any(sources.values()) or rule is not None:
      groups = _all_of(groups)
    if any(sources.values()):
      groups = {'train': groups}
      for split, its_source in sources.items():
        if its_source:
          groups[split] = _all_of(document_groups(its_source))
          source += f' {split}={its_source}'
  metadata = {'licence': flags.license, 'notes': flags.notes}
  with Display() as display:
    for said in remarks.sentences():
      display.report(said)
    prepare(
      groups,
      out,
      source=source,
      name=flags.name,
      splits=rule,
      metadata={key: value for key, value in metadata.items() if value},
      processes=flags.processes,
      shard_bytes=flags.shard_bytes,
      report=display.report,
      progress=display.progress,
    )


def _all_of(groups: Sequence[Group] | Mapping[str, Sequence[Group]]) -> list[Group]:
  return list(itertools.chain(*groups.values()) if isinstance(groups, Mapping) else groups)


if __name__ == '__main__':
  command_line.run(main)
