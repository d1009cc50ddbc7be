"""What is known of prepared corpora, as Markdown tables: python -m evaluation.corpora --root=data/corpora [NAME …]

For each ROOT/NAME[/PART]/VERSION with a corpus.json: how much there is, and how far general compressors and byte Markov
models come on its held-out text, which is what a model has to beat.
"""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from evaluation.baselines import compressed_bits_per_byte, markov_bits_per_byte
from evaluation.bits_per_byte import first_bytes
from evaluation.report import markdown
from text import command_line, gold, paths
from text.prepared import open_prepared, read_metadata

HELD_OUT_MB = 10  # of the held-out text, for the compressors and the Markov models
MARKOV_MB = 20  # of the training text; all orders take 20 s and 1.5 GB of memory
ORDERS = (1, 2, 3, 4, 5, 6, 7)


def describe(directory: pathlib.Path, name: str) -> dict[str, Any]:
  """One row of a table, column -> value; the metadata decide whether it is of text or of gold units.

  Raises ValueError or OSError for a directory that is not prepared or damaged.
  """
  metadata = read_metadata(directory)
  licence = metadata.get('licence') or ''
  splits = [split for split in ('train', 'validation', 'test') if split in metadata['splits']]
  if metadata['kind'] == 'gold':
    units = text_bytes = 0
    for split in splits:
      for document in open_prepared(directory, split, kind='gold'):
        found = gold.units(document)
        units, text_bytes = units + len(found), text_bytes + sum(map(len, found))
    counts = {'documents': metadata['documents'], 'units': units, 'bytes': text_bytes}
    return {'gold': name, **counts, 'licence': licence}
  read = metadata['documents'] + metadata['duplicates']['documents']
  row = {
    'source': name,
    'documents': metadata['documents'],
    'bytes': metadata['bytes'],
    'unique': f'{metadata["documents"] / read:.2%}',
  }
  held_out = 'validation' if 'validation' in splits else splits[-1]
  scored = list(first_bytes(open_prepared(directory, held_out), int(HELD_OUT_MB * 1e6))[0])
  row |= {'held out': held_out, **compressed_bits_per_byte(scored), 'Markov': '–', 'licence': licence}
  if held_out != 'train' and 'train' in splits:
    counted = first_bytes(open_prepared(directory, 'train'), int(MARKOV_MB * 1e6))[0]
    bits = markov_bits_per_byte(counted, scored, ORDERS)
    best = min(bits, key=bits.get)
    row['Markov'] = f'{bits[best]:.3f} (order {best})'
  return row


def find(root: pathlib.Path, names: Sequence[str] = ()) -> dict[str, pathlib.Path]:
  """{NAME or NAME/PART: its newest version's directory} under a root, in order; of the names (all where none is given).

  Raises OSError where there is none, ValueError for a name that is not there.
  """
  found = {
    path.parent.parent.relative_to(root).as_posix(): path.parent
    for depth in ('*/*', '*/*/*')
    for path in sorted(root.glob(f'{depth}/corpus.json'))
  }
  if not found:
    raise FileNotFoundError(f"there is no prepared corpus in '{root}': fetch some with `python -m text.corpora fetch`")
  for name in names:
    if not any(name in (corpus, corpus.partition('/')[0]) for corpus in found):
      raise ValueError(f"there is no corpus '{name}' in '{root}', only {', '.join(sorted(found))}")
  wanted = lambda corpus: not names or corpus in names or corpus.partition('/')[0] in names
  return {corpus: found[corpus] for corpus in sorted(found) if wanted(corpus)}


def _notes() -> str:
  return (
    'documents, bytes: of all splits, without exact duplicates; unique: the share of the documents read that stayed. '
    f'gzip -9, xz -9, Markov: bits per byte on the first {HELD_OUT_MB} MB of the split that is held out. Markov: the '
    f'best order of {ORDERS[0]} to {ORDERS[-1]} (interpolated Witten-Bell), counted on the first {MARKOV_MB} MB of '
    'train; – where there is no training text.'
  )


def main(arguments: list[str]) -> None:
  """The command."""
  parser = argparse.ArgumentParser(prog='python -m evaluation.corpora', description=__doc__, allow_abbrev=False)
  parser.add_argument('--root', default='data/corpora', help='(%(default)s)')
  parser.add_argument('names', nargs='*', metavar='NAME', help='NAME or NAME/PART; default: every corpus there is')
  flags = parser.parse_args(arguments)
  rows = []
  for name, directory in find(paths.of(flags.root, '--root'), flags.names).items():
    print(name, file=sys.stderr, flush=True)
    rows.append(describe(directory, name))
  print(f'`{shlex.join(["python", "-m", "evaluation.corpora", *arguments])}`\n')
  texts, golds = ([row for row in rows if kind in row] for kind in ('source', 'gold'))
  if texts:
    print(f'{markdown(texts)}\n\n{_notes()}\n')
  if golds:
    print(f'{markdown(golds)}\n\nunits: words, morphemes, or the two forms of a misspelling; bytes: of the units.')


if __name__ == '__main__':
  command_line.run(main)
