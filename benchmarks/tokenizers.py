"""How fast tokenizers encode, beside the library that opens the same file, and their bytes per token.

  python -m benchmarks.tokenizers tokenizers/bpe tokenizers/picky --source=corpus:english_wiki

Each is a directory that `python -m text.tokenizers train` wrote, or a tokenizer.json. MB/s are millions of bytes of the
validation split a second in one thread, the median of several passes over the first documents of it; `first pass`
has no pretoken in memory yet. The library is called document by document on text, as ours calls it.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence

from absl import app, flags
from rich.console import Console
from rich.table import Table

import text
from text import tokenizers

_SOURCE = flags.DEFINE_string('source', 'python_docs', 'Text to encode.')
_MAX_BYTES = flags.DEFINE_integer('max_bytes', 500_000, 'Of it, in whole documents.')
_REPEATS = flags.DEFINE_integer('repeats', 3, 'Passes behind the first.')


def main(arguments: list[str]) -> None:
  """Prints the table."""
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'
  documents, size = [], 0
  for document in text.open_corpus(_SOURCE.value, 'validation'):
    if size >= _MAX_BYTES.value:
      break
    documents.append(document)
    size += len(document)
  Console(markup=False, highlight=False, width=120).print(table(arguments[1:], documents, _REPEATS.value))


def table(paths: Sequence[str], documents: Sequence[bytes], repeats: int) -> Table:
  """Speed and bytes per token of every tokenizer."""
  texts, size = [document.decode(errors='replace') for document in documents], sum(map(len, documents))
  result = Table(title=f'{len(documents):,} documents, {size:,} bytes')
  for name in ('tokenizer', 'kind', 'ids', 'bytes per token', 'MB/s, first pass', 'MB/s', 'library, MB/s'):
    result.add_column(name, justify='left' if name in ('tokenizer', 'kind') else 'right')
  for path in paths:
    tokenizer = tokenizers.load(path)
    tokens = sum(len(tokenizer.encode(document)) for document in documents)
    tokenizer = tokenizers.load(path)  # one that remembers no pretoken
    first, *later = passes(tokenizer.encode, documents, size, 1 + repeats)
    theirs = '—'
    if isinstance(tokenizer, tokenizers.Stock):
      library = tokenizer.library
      theirs = f'{statistics.median(passes(library.encode, texts, size, 1 + repeats)[1:]):.2f}'
    cells = [
      f'{len(tokenizer.vocabulary):,}',
      f'{size / tokens:.3f}',
      f'{first:.2f}',
      f'{statistics.median(later):.2f}',
    ]
    result.add_row(path, tokenizer.name, *cells, theirs)
  return result


def passes(encode: Callable, documents: Sequence, size: int, count: int) -> list[float]:
  """Millions of bytes a second of each pass over documents."""
  speeds = []
  for _ in range(count):
    start = time.perf_counter()
    for document in documents:
      encode(document)
    speeds.append(size / (time.perf_counter() - start) / 1e6)
  return speeds


if __name__ == '__main__':
  app.run(main)
