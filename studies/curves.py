"""What runs wrote while they trained."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from training.description import BACKWARD


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of metrics.jsonl, in the order of steps; none where there is no such file.

  A last line that is not whole is left out: the run is writing it, or was killed as it did. Raises ValueError for
  another one.
  """
  path = workdir / 'metrics.jsonl'
  lines = path.read_bytes().splitlines() if path.exists() else []
  found = []
  for number, line in enumerate(lines, 1):
    try:
      values = json.loads(line)
      found.append(values | {'step': int(values['step'])})
    except (ValueError, KeyError, TypeError):
      if number < len(lines):
        raise ValueError(f'{path}: line {number} is no JSON object with a step: restore or remove it') from None
  return found


def spent(lines: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The lines, each with what the run had spent by then: `bytes`, `flops` of forward and backward passes, `seconds`.

  FLOPs and speeds are those of the line that ends a stretch of steps, so that validation and saving are not in the
  seconds; where a line has none, the ones before hold on.
  """
  found, before = [], {'step': 0, 'bytes': 0, 'flops': 0.0, 'seconds': 0.0}
  forward = speed = None
  for line in lines:
    forward, speed = line.get('flops_per_byte') or forward, line.get('bytes_per_second') or speed
    more = (line['step'] - before['step']) * config['batch_size'] * config['seq_len']
    before = {
      'step': line['step'],
      'bytes': before['bytes'] + more,
      'flops': before['flops'] + (1 + BACKWARD) * more * (forward or 0.0),
      'seconds': before['seconds'] + (more / speed if speed else 0.0),
    }
    found.append({**line, **before})
  return found


def validated(line: Mapping[str, Any], name: str) -> float | None:
  """A line's `validation_NAME`; of several texts the mean by bytes; None where there is none."""
  name = f'validation_{name}'
  if line.get(name) is not None:
    return line[name]
  texts = {text: line[key] for key, text in _texts(line, name) if line[key] is not None}
  sizes = {text: line.get(f'validation_bytes/{text}') or 1.0 for text in texts}
  return sum(value * sizes[text] for text, value in texts.items()) / sum(sizes.values()) if texts else None


def by_text(line: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, float]:
  """Text -> bits per byte of a validation, for as many as there are."""
  several = {text: line[key] for key, text in _texts(line, 'validation_bpb') if line[key] is not None}
  if several or line.get('validation_bpb') is None:
    return several
  data = config['data']
  named = data['validation'] or data['source']
  only = named if isinstance(named, str) else named[0] if isinstance(named[0], str) else named[0][0]
  return {only: line['validation_bpb']}


def _texts(line: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
  """(key, text) of a metric of several texts."""
  return [(key, key.removeprefix(f'{name}/')) for key in line if key.startswith(f'{name}/')]
