"""Plots and tables of several runs as one page, in HTML and Markdown.

  python -m studies.report 'runs/*' --out=report
  python -m studies.report 'runs/*' --results=results --out=report

Runs whose configs differ in the seed alone are one model: its numbers are means, with the range of the seeds. DIR of
--out gets report.html, which holds all of it, and report.md with learning.svg (bits per byte against bytes, FLOPs and
seconds of training), domains.svg (bits per byte by text and model) and chunks.svg (size and enrichment of chunks over
training). Bits by text are those of the last validation, or with --results those that eval.py found, under each
condition.
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from studies import curves, kept, models, page, plots, results
from studies.models import Run
from text import command_line, paths

Rows = list[dict[str, Any]]
Scores = dict[str, dict[str, list[float]]]  # model -> text -> bits per byte of each seed


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """Runs by model; its name is that of its directory, without what all have before it and without the seed."""
  found: dict[str, list[Run]] = {}
  for run in runs:
    found.setdefault(run.group, []).append(run)
  above = os.path.commonpath([os.path.dirname(os.path.abspath(run.name)) for run in runs])
  named: dict[str, list[Run]] = {}
  for group in found.values():
    name = os.path.relpath(group[0].name, above)
    without = re.sub(r'(?:^|,)seed=\d+', '', name).strip(',') if len(group) > 1 else name
    named[name if not without or without in named else without] = group
  return named


def of_validation(groups: Mapping[str, Sequence[Run]]) -> tuple[Scores, bool]:
  """(bits per byte by the last validation of each run, whether all were validated on as many bytes)."""
  found: Scores = {name: {} for name in groups}
  amounts: dict[str, set] = {}
  for name, run in ((name, run) for name, group in groups.items() for run in group):
    for line in [line for line in curves.read(run.directory) if curves.by_text(line, run.config)][-1:]:
      for text, bits in curves.by_text(line, run.config).items():
        found[name].setdefault(text, []).append(bits)
        amounts.setdefault(text, set()).add(line.get(f'validation_bytes/{text}', line.get('validation_bytes')))
  return {name: of_model for name, of_model in found.items() if of_model}, all(len(a) == 1 for a in amounts.values())


def of_results(groups: Mapping[str, Sequence[Run]], table: Rows) -> tuple[Scores, bool]:
  """The same by a table of results, of each run its last step there; and whether text and rows were the same.

  Raises ValueError for a run that the table has not.
  """
  found: Scores = {name: {} for name in groups}
  measured: dict[str, set] = {}
  for name, run in ((name, run) for name, group in groups.items() for run in group):
    rows = [row for row in table if row['run'] == run.name and row['metric'] == 'bits_per_byte']
    if not rows:
      raise ValueError(f'the results have no bits per byte of {run.name}: name it as eval.py got it, or score it')
    last = max(row['step'] or 0 for row in rows)
    for row in rows:
      if (row['step'] or 0) == last and row['value'] is not None:
        text = row['source'] if row['condition'] == 'clean' else f'{row["source"]}, {row["condition"]}'
        found[name].setdefault(text, []).append(row['value'])
        measured.setdefault(text, set()).add((row['text'], row['bytes'], row['seq_len']))
  return found, all(len(of_text) == 1 for of_text in measured.values())


def summary(groups: Mapping[str, Sequence[Run]], spent: Mapping[str, plots.Group]) -> Rows:
  """A row a model: what it took, and where its last validation was."""
  rows = []
  for name, group in groups.items():
    ends = [lines[-1] for lines in spent[name] if lines]
    scored = [line for lines in spent[name] for line in [line for line in lines if line.get('validation_bpb')][-1:]]
    rows.append(
      {
        'model': name,
        'runs': len(group),
        'MB of training': _range([line['bytes'] / 1e6 for line in ends], '.2f'),
        'TFLOP': _range([line['flops'] / 1e12 for line in ends], '.2f'),
        'seconds': _range([line['seconds'] for line in ends], ',.0f'),
        'bits per byte': _range([line['validation_bpb'] for line in scored], '.4f'),
        'bytes a chunk': _of_stages(scored, 'bytes_per_chunk'),
        'B': _of_stages(scored, 'enrichment'),
      }
    )
  return rows


def _of_stages(scored: Sequence[Mapping[str, Any]], what: str) -> str:
  """Of each stage of one model, outermost first, by validations of its seeds."""
  stages = {key.rpartition('_')[2] for line in scored for key in line if re.fullmatch(r'bytes_per_chunk_\d+', key)}
  found = [[curves.validated(line, f'{what}_{stage}') for line in scored] for stage in sorted(stages)]
  return ', '.join(_range(of_stage, '.2f') for of_stage in found) or '–'


def _range(values: Sequence[float | None], form: str) -> str:
  """The mean, and the range where the values differ; '–' where there is none."""
  values = [value for value in values if value is not None]
  if not values:
    return '–'
  low, mean, high = (f'{value:{form}}' for value in (min(values), sum(values) / len(values), max(values)))
  return mean if low == high else f'{mean} ({low}–{high})'


def by_text(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> Rows:
  """A row a text, a column a model."""
  texts = dict.fromkeys(text for of_model in scores.values() for text in of_model)
  bits = lambda text: {name: _range(of_model.get(text, ()), '.4f') for name, of_model in scores.items()}
  return [{'text': text} | bits(text) for text in texts]


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m studies.report', description=__doc__)
  parser.add_argument('runs', nargs='+', help="work directories, also as globs in quotes: 'runs/*'")
  parser.add_argument('--out', required=True, help='directory of the page')
  parser.add_argument('--results', help='directory of a table that eval.py made, in place of the last validation')
  flags = parser.parse_args(arguments)
  plots.check()
  out = paths.of(flags.out, '--out')
  table = None if flags.results is None else results.read(paths.of(flags.results, '--results')).to_pylist()
  runs = [run for run in models.find(flags.runs, 'newest', command_line.tell) if run.config]
  if not runs:
    raise ValueError(f'{" ".join(flags.runs)}: official weights have no training to report: name runs')
  groups = grouped(runs)
  read = lambda run: curves.spent(curves.read(run.directory), run.config)
  spent = {name: list(map(read, group)) for name, group in groups.items()}
  scores, alike = of_validation(groups) if table is None else of_results(groups, table)
  measured = 'of the last validation of each run' if table is None else f'that eval.py found, in {flags.results}'
  seeds = ' Ranges are those of seeds.' if any(len(group) > 1 for group in groups.values()) else ''
  warning = '' if alike else ' Not all were measured on the same bytes and rows: they cannot be compared.'
  curve = 'Thin: bits of training, smoothed; dots: of validation. Seconds are those of steps alone.'
  chunked = plots.chunks(spent)
  sizes = 'Size in training, smoothed, and enrichment B at validations (docs/metrics.md).'
  parts = [
    page.Part('Learning curves', curve + seeds, 'learning.svg', plots.learning(spent), summary(groups, spent)),
    page.Part(
      'Bits per byte by text',
      f'Those {measured}.{seeds}{warning}' if scores else 'No run has a validation yet.',
      'domains.svg',
      plots.domains(scores, groups) if scores else '',
      by_text(scores),
    ),
    page.Part('Chunks over training', sizes if chunked else 'There are none.', 'chunks.svg', chunked),
  ]
  command = shlex.join(['python', '-m', 'studies.report', *arguments])
  written = page.markdown(command, parts)
  out.mkdir(parents=True, exist_ok=True)
  for part in parts:
    if part.picture:
      kept.write_page(out / part.file, part.picture)
  kept.write_page(out / 'report.md', written)
  kept.write_page(out / 'report.html', page.as_html('Runs', command, parts))
  print(f'{written}\n\nwritten to {out / "report.html"} and {out / "report.md"}')


if __name__ == '__main__':
  command_line.run(main)
