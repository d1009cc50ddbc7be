"""What `eval.py` prints and writes."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from evaluation.accuracy import WordAccuracy
from evaluation.bits_per_byte import Result
from evaluation.boundaries import BoundaryScore
from evaluation.boundary_metrics import Agreement, BoundaryMetrics
from evaluation.flips import Flips


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
  """A bar on a terminal's stderr, nothing elsewhere; gives what `evaluate` calls with (done, total)."""
  with Progress(
    *Progress.get_default_columns(), console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
  ) as progress:
    task = progress.add_task('scoring')
    yield lambda done, total: progress.update(task, completed=done, total=total)


def table(model: str, result: Result, baselines: Mapping[str, float]) -> Table:
  """The scores for a terminal: the model and the baselines in bits per byte, then what else was measured."""
  grid = Table()
  grid.add_column('')
  grid.add_column('bits per byte', justify='right')
  for name, bits in {model: result.bits_per_byte, **baselines}.items():
    grid.add_row(name, f'{bits:.4f}')
  grid.add_section()
  for stage, size in enumerate(result.bytes_per_chunk):
    grid.add_row(f'bytes per chunk, stage {stage}', _number(size, '.2f'))
  for stage, pair in enumerate(result.bits_at_chunks):
    shown = ' / '.join('–' if bits is None else f'{bits:.2f}' for bits in pair)
    grid.add_row(f'bits where a chunk begins / one byte on, stage {stage}', shown)
  grid.add_row('bits per end of document', _number(result.eos_bits, '.2f'))
  grid.add_row('bytes of text', f'{result.text_bytes:,}')
  grid.add_row('documents' + (' (the last one in part)' if result.last_document_cut else ''), f'{result.documents:,}')
  grid.add_row('bytes per row / repeated as context', f'{result.seq_len:,} / {result.context:,}')
  grid.add_row('seconds', f'{result.seconds:.1f}')
  return grid


def boundary_table(units: str, scores: Sequence[BoundaryScore]) -> Table:
  """Boundary scores for a terminal; units: what the chunks are compared with, e.g. 'words'."""
  grid = Table()
  grid.add_column(f'chunks and {units}', no_wrap=True)
  for header in ('precision', 'recall', 'F1', 'F1 one\nbyte on', f'{units}\nfound', f'F1 of\n{units}', 'bytes/\nchunk'):
    grid.add_column(header, justify='right')
  for score in scores:
    shares = (score.precision, score.recall, score.f1, score.f1_1, score.unit_recall, score.unit_f1)
    grid.add_row(score.name, *(_number(share, '.3f') for share in shares), f'{score.bytes_per_chunk:.2f}')
  grid.add_section()
  grid.add_row('bytes per unit', *[''] * 6, f'{scores[0].bytes_per_unit:.2f}')
  return grid


def metrics_table(words: str, metrics: Sequence[BoundaryMetrics], flips: Sequence[Flips]) -> Table:
  """Boundary metrics for a terminal, a column a stage; words: the splitter. What they are: docs/metrics.md."""
  grid = Table()
  grid.add_column('boundaries', no_wrap=True)
  for stage in range(len(metrics)):
    grid.add_column(f'stage {stage}', justify='right')

  def row(name: str, form: str, values: Sequence[tuple[float | None, ...]]) -> None:
    grid.add_row(name, *(' '.join(_number(value, form) for value in of_stage) for of_stage in values))

  def agreement(name: str, found: Sequence[Agreement | None]) -> None:
    if None not in found:
      row(f'{name}: precision, recall, F1', '.2f', [(a.precision, a.recall, a.f1) for a in found])
      row('  at random', '.2f', [(a.random_precision, a.random_recall, a.random_f1) for a in found])

  row('enrichment behind the emission, z', '.2f', [(m.enrichment, m.enrichment_z) for m in metrics])
  row('enrichment at the emission, z', '.2f', [(m.enrichment_prev, m.enrichment_prev_z) for m in metrics])
  row('sizes: std / mean, at random', '.2f', [(m.size_cv, m.random_cv) for m in metrics])
  agreement('on white space', [m.whitespace_0 for m in metrics])
  agreement('behind white space', [m.whitespace_1 for m in metrics])
  agreement('at words', [m.words_0 for m in metrics])
  agreement('one byte into words', [m.words_1 for m in metrics])
  inside = [(m.inside_codepoint, m.random_inside_codepoint) for m in metrics]
  row('inside a character, at random', '.3f', inside)
  for scripts in zip(*(m.scripts for m in metrics), strict=True):
    row(f'  {scripts[0].script}', '.3f', [(script.inside, script.random) for script in scripts])
  row('entropy in bits, F − G', '.3f', [(m.entropy_bits, m.f_minus_g) for m in metrics])
  if flips:
    row('flips a boundary, a byte', '.4f', [(f.per_boundary, f.per_byte) for f in flips])
  grid.add_section()
  grid.add_row('words by', words, *[''] * (len(metrics) - 1))
  return grid


def accuracy_table(words: str, accuracies: Sequence[WordAccuracy]) -> Table:
  """Word accuracy for a terminal; words: the splitter, and what seen means."""
  grid = Table(title=f'words by {words}', title_justify='left')
  for header in ('seen in training', 'words', 'right (greedy)', 'right (sampled)'):
    grid.add_column(header, justify='left' if header == 'seen in training' else 'right')
  for accuracy in accuracies:
    shares = (_number(share, '.2%') for share in (accuracy.greedy, accuracy.sampled))
    grid.add_row(accuracy.kind, f'{accuracy.words:,}', *shares)
  return grid


def _number(value: float | None, form: str) -> str:
  return '–' if value is None else format(value, form)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
  """A Markdown table of rows with the same columns; numbers at the right."""
  right = [isinstance(value, int | float) for value in rows[0].values()]
  lines = [rows[0], ['---:' if is_number else '---' for is_number in right], *(row.values() for row in rows)]
  return '\n'.join(f'| {" | ".join(map(_cell, line))} |' for line in lines)


def _cell(value: Any) -> str:
  if isinstance(value, float):
    return f'{value:.3f}'
  return f'{value:,}' if isinstance(value, int) else str(value).replace('|', '\\|')


def values(score: Any) -> dict[str, Any]:
  """The fields of a score that have a value, by name."""
  return {name: value for name, value in dataclasses.asdict(score).items() if value is not None}


def as_json(scores: Mapping[str, Any]) -> dict[str, Any]:
  """Scores as JSON data: what is not a finite number (the bits of a text that a source never writes) is null."""
  return _finite(scores)


def check_writable(path: pathlib.Path, flag: str = '--output') -> None:
  """Raises OSError if a file cannot be written there, before hours are spent on its content."""
  if (path.exists() and not path.is_file()) or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
    raise OSError(f'{path} cannot be written: name another file with {flag}')


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes a file whole or not at all; raises OSError."""
  partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
  try:
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + '\n', encoding='utf-8')
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value
