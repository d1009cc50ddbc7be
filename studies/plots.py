"""Plots of runs for `studies.report`, as SVG: a colour for each model, its seeds alike."""

import importlib.util
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studies import curves

SMOOTHED = 0.05  # of a run, over which the bits of training are a mean
SPENT = {'bytes': 'bytes', 'flops': 'FLOPs', 'seconds': 'seconds'}

Group = Sequence[Sequence[Mapping[str, Any]]]  # of each seed, lines as `curves.spent` gives them


def check() -> None:
  """Raises ValueError where there is no matplotlib."""
  if importlib.util.find_spec('matplotlib') is None:
    raise ValueError('plots need matplotlib: pip install -r requirements-plot.txt')


def learning(groups: Mapping[str, Group]) -> str:
  """Bits per byte against what was spent; thin: of training, smoothed; with dots: of validation."""
  pyplot, styles = _pyplot(), _styles(groups)
  figure, panels = pyplot.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout='constrained')
  shown: list[float] = []
  lowest: list[float] = []  # of training
  for name, group in groups.items():
    for seed, lines in enumerate(group):
      trained = _points(lines, lambda line: line.get('bpb'))
      smooth = _smoothed([bits for _, bits in trained])
      scored = _points(lines, lambda line: line.get('validation_bpb'))
      lowest += [min(smooth, default=math.inf)]
      shown += [bits for _, bits in scored] or smooth[len(smooth) // 10 :]
      for panel, spent in zip(panels, SPENT, strict=True):
        label = name if seed == 0 and panel is panels[0] else None
        panel.plot([line[spent] for line, _ in trained], smooth, linewidth=0.7, alpha=0.5, **styles[name])
        panel.plot(
          [line[spent] for line, _ in scored], [bits for _, bits in scored], marker='o', markersize=3, label=label,
          **styles[name],
        )  # fmt: skip
  for panel, what in zip(panels, SPENT.values(), strict=True):
    _count(panel, f'{what} of training')
    panel.grid(alpha=0.3)
  panels[0].set_ylabel('bits per byte')
  if shown:
    low, high = min(*shown, *lowest), max(shown)
    panels[0].set_ylim(low - 0.05 * (high - low) - 0.02, high + 0.1 * (high - low) + 0.02)
  return _svg(figure)


def domains(scores: Mapping[str, Mapping[str, Sequence[float]]], names: Iterable[str]) -> str:
  """Bits per byte, {model: {text: of each seed}}: means, and the range of the seeds. names: of all models, in their
  order in the other plots.
  """
  pyplot, styles = _pyplot(), _styles(names)
  texts = list(dict.fromkeys(text for of_model in scores.values() for text in of_model))
  height = 0.6 + len(texts) * max(0.4, 0.16 * len(scores))
  figure, panel = pyplot.subplots(figsize=(10, max(2.4, height)), layout='constrained')
  for number, (name, of_model) in enumerate(scores.items()):
    at = [texts.index(text) + (number - (len(scores) - 1) / 2) * 0.8 / len(scores) for text in of_model]
    means = [sum(values) / len(values) for values in of_model.values()]
    below, above = ([abs(f(v) - m) for v, m in zip(of_model.values(), means, strict=True)] for f in (min, max))
    style = {**styles[name], 'linestyle': 'none'}
    panel.errorbar(means, at, xerr=(below, above), marker='o', markersize=4, capsize=3, label=name, **style)
  panel.set_yticks(range(len(texts)), texts)
  panel.set_ylim(len(texts) - 0.5, -0.5)
  panel.set_xlabel('bits per byte')
  panel.grid(axis='x', alpha=0.3)
  for edge in range(1, len(texts)):
    panel.axhline(edge - 0.5, color='gray', linewidth=0.5)
  return _svg(figure)


def chunks(groups: Mapping[str, Group]) -> str:
  """Over the bytes of training, of each stage: the size of chunks and the enrichment B; '' where none has chunks."""
  stages = list(itertools.takewhile(lambda stage: _has(groups, f'bytes_per_chunk_{stage}'), itertools.count()))
  if not stages:
    return ''
  pyplot, styles = _pyplot(), _styles(groups)
  figure, panels = pyplot.subplots(
    len(stages), 2, figsize=(10, 0.6 + 2.8 * len(stages)), squeeze=False, sharex=True, layout='constrained'
  )
  for stage, (size, enrichment) in zip(stages, panels, strict=True):
    for name, group in groups.items():
      for seed, lines in enumerate(group):
        found = _points(lines, lambda line, stage=stage: line.get(f'bytes_per_chunk_{stage}'))
        label = name if found and seed == 0 and stage == 0 else None
        at = [line['bytes'] for line, _ in found]
        size.plot(at, _smoothed([value for _, value in found]), label=label, **styles[name])
        found = _points(lines, lambda line, stage=stage: curves.validated(line, f'enrichment_{stage}'))
        at = [line['bytes'] for line, _ in found]
        enrichment.plot(at, [value for _, value in found], marker='o', markersize=3, **styles[name])
    size.set_ylabel(f'stage {stage}: bytes a chunk')
    enrichment.set_ylabel('enrichment B')
    enrichment.axhline(1, color='gray', linestyle=':')
    for panel in (size, enrichment):
      panel.grid(alpha=0.3)
      _count(panel, 'bytes of training' if stage == stages[-1] else '')
  return _svg(figure)


def _count(panel: Any, label: str) -> None:
  from matplotlib.ticker import EngFormatter

  panel.set_xlabel(label)
  panel.xaxis.set_major_formatter(EngFormatter(sep=''))


def _has(groups: Mapping[str, Group], name: str) -> bool:
  return any(line.get(name) is not None for group in groups.values() for lines in group for line in lines)


def _points(lines, value) -> list[tuple[Mapping[str, Any], float]]:
  return [(line, value(line)) for line in lines if value(line) is not None]


def _smoothed(values: Sequence[float]) -> list[float]:
  """Means over the last SMOOTHED of all values."""
  window = max(1, round(SMOOTHED * len(values)))
  return [sum(part) / len(part) for end in range(1, len(values) + 1) if (part := values[max(0, end - window) : end])]


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
  lines = itertools.product(('-', '--', ':', '-.'), range(10))
  return {name: {'color': f'C{color}', 'linestyle': line} for name, (line, color) in zip(names, lines, strict=False)}


def _pyplot() -> Any:
  import matplotlib

  matplotlib.use('svg')
  matplotlib.rcParams |= {'svg.hashsalt': 'report', 'svg.fonttype': 'none', 'font.size': 9}
  from matplotlib import pyplot

  return pyplot


def _svg(figure: Any) -> str:
  from matplotlib import pyplot

  handles, labels = figure.axes[0].get_legend_handles_labels()
  columns = max(1, min(4, 130 // max(12, 6 + max(map(len, labels), default=0))))
  figure.legend(handles, labels, loc='outside lower center', ncols=columns, frameon=False)
  file = io.StringIO()
  figure.savefig(file, format='svg', metadata={'Date': None})
  pyplot.close(figure)
  return file.getvalue()
