"""How fast text is read, packed and batched on one core, and what it costs to plan an epoch.

  python -m benchmarks.input_pipeline --source=corpus:code_c --source=corpus:english_wiki
  python -m benchmarks.input_pipeline --plan=100000000

The first prints, for each source and row length, megabytes of text and documents a second (median of several stretches,
all in this process, which is bound to one core), and the share of positions that are padding. --trained=WORKDIR sets
beside them the bytes per second that a run trains at; --words='hat(max_bytes=64)' marks words, too. The second draws
that many document lengths, plans a whole epoch part by part, and prints seconds and peak memory.
"""

import itertools
import json
import os
import pathlib
import resource
import statistics
import time

import numpy as np
from absl import app, flags
from rich.console import Console
from rich.table import Table

import text
from text import paths
from text.packing import RowStream, number_of_parts

_SOURCE = flags.DEFINE_multi_string('source', ['python_docs'], 'Sources to read, each on its own.')
_SEQ_LEN = flags.DEFINE_multi_integer('seq_len', [256, 8192], 'Row lengths.')
_BATCH_BYTES = flags.DEFINE_integer('batch_bytes', 2**18, 'Positions of a batch.')
_SECONDS = flags.DEFINE_float('seconds', 2.0, 'Length of a stretch.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Stretches, of which the median counts.')
_TRAINED = flags.DEFINE_string('trained', None, 'Work directory of a run, to compare with its training speed.')
_WORDS = flags.DEFINE_string('words', None, 'Splitter that marks words.')
_PLAN = flags.DEFINE_integer('plan', 0, 'Plan an epoch of this many documents instead.')
_MEAN_LENGTH = flags.DEFINE_integer('mean_length', 2000, 'Bytes per document for --plan (exponentially distributed).')


def main(_: list[str]) -> None:
  """Prints one of the two tables."""
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  console = Console(markup=False, highlight=False, width=120)
  console.print(plan_table(_PLAN.value, _MEAN_LENGTH.value, _SEQ_LEN.value) if _PLAN.value else speed_table())


def speed_table() -> Table:
  """Reading speed of every source at every row length."""
  trained = None if _TRAINED.value is None else _training_speed(paths.of(_TRAINED.value, '--trained'))
  table = Table()
  for name in ('source', 'row length', 'MB/s', 'documents/s', 'padding', *(('x training',) if trained else ())):
    table.add_column(name, justify='left' if name == 'source' else 'right')
  for source in _SOURCE.value:
    corpus = text.open_corpus(source, 'train')
    for seq_len in _SEQ_LEN.value:
      speeds = measure(corpus, seq_len)
      megabytes, documents, padding = (statistics.median(speed) for speed in zip(*speeds, strict=True))
      cells = [source, f'{seq_len:,}', f'{megabytes:.1f}', f'{documents:,.0f}', f'{padding:.3%}']
      table.add_row(*cells, *([f'{megabytes * 1e6 / trained:,.0f}'] if trained else []))
  return table


def measure(corpus: text.Corpus, seq_len: int) -> list[tuple[float, float, float]]:
  """(megabytes of text per second, documents begun per second, share of padding) of each stretch."""
  batch_size = max(1, _BATCH_BYTES.value // seq_len)
  rows = text.pipeline(
    corpus, batch_size=batch_size, seq_len=seq_len, seed=0, marks={'words': _WORDS.value} if _WORDS.value else {}
  )
  first = next(rows)  # plans the epoch
  batch_positions = first.bytes.size
  found = []
  for _ in range(_REPEATS.value):
    began, batches = time.perf_counter(), []
    while time.perf_counter() - began < _SECONDS.value:
      batches.append(next(rows))
    seconds = time.perf_counter() - began
    padded = sum(int((batch.segment_ids == 0).sum()) for batch in batches)
    # a row's first symbol is context, the others are text but for one BOS and one EOS a document
    segments = sum(int(batch.segment_ids.max(1).sum()) for batch in batches)
    begun = sum(int(batch.bos.sum()) for batch in batches)
    positions = len(batches) * batch_positions
    found.append(((positions - padded - segments - begun) / 1e6 / seconds, begun / seconds, padded / positions))
  rows.close()
  return found


def plan_table(documents: int, mean_length: int, seq_lens: list[int]) -> Table:
  """Seconds and memory for planning one epoch, and until the first row is there."""
  rng = np.random.default_rng(0)
  lengths = np.empty(documents, np.int64)
  for part in np.array_split(lengths, -(-documents // 2**22)):  # without a second copy, which would hide the peak
    part[:] = rng.exponential(mean_length, len(part)) + 1
  table = Table(title=f'{documents:,} documents, {lengths.sum(dtype=np.int64) / 1e9:,.1f} GB of text')
  for name in ('row length', 'parts', 'rows', 'first row (s)', 'whole epoch (s)', 'memory above the lengths (MB)'):
    table.add_column(name, justify='right')
  for seq_len in seq_lens:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parts = number_of_parts(lengths, seq_len)
    stream = RowStream(lengths, seq_len, 0)
    began = time.perf_counter()
    stream.pieces(np.arange(1))
    first = time.perf_counter() - began
    rows = len(stream.plan(0)) + sum(len(stream.plan(part)) for part in range(1, parts))
    seconds = time.perf_counter() - began
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    table.add_row(f'{seq_len:,}', str(parts), f'{rows:,}', f'{first:.1f}', f'{seconds:.1f}', f'{peak:,.0f}')
  return table


def _training_speed(workdir: pathlib.Path) -> float:
  """Median bytes per second of a run's metrics."""
  lines = (workdir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
  speeds = [json.loads(line)['bytes_per_second'] for line in itertools.islice(lines, 1, None)]
  return statistics.median(speeds)


if __name__ == '__main__':
  app.run(main)
