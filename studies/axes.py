"""What a sweep changes: the runs of a config's get_sweep() and of axes given in a command, each with a name."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from studies import kept
from training import config_flag

Changes = dict[str, str]  # key -> value as a flag has it
_PLAIN = re.compile(r'(?!(?:True|False|None|true|false|null|inf|nan)$)[A-Za-z_][\w:/.@#-]*')
LONGEST = 100  # letters of a name that is made of changes


def entries(config: str, axes: Sequence[str]) -> list[tuple[str, Changes]]:
  """(name, changes) of each run of FILE.py[:ARGUMENT] with further axes, 'KEY=VALUE,VALUE'; names differ.

  Raises ValueError, or OSError for the file, with one sentence for what is no sweep.
  """
  found = _of_config(config_flag.sweep(config), config)
  for axis in axes:
    key, separator, values = axis.partition('=')
    if not separator or not key or not values:
      raise ValueError(f'--axis={axis}: write --axis KEY=VALUE,VALUE, e.g. --axis seed=0,1,2')
    if any(key in changes for _, changes in found):
      raise ValueError(f'--axis={axis}: {key} is swept already, by the config or an --axis: leave one out')
    choices = _parts(values)
    found = [(name, {**changes, key: value}) for name, changes in found for value in choices]
  if found == [('', {})]:
    raise ValueError(f'--config={config}: the file has no get_sweep(): give it one, or give --axis KEY=VALUE,VALUE')
  keys = {key for _, changes in found for key in changes}
  short = {key: key.rpartition('.')[2] for key in keys}
  ambiguous = {part for part in short.values() if sum(part == other for other in short.values()) > 1}
  short = {key: key if part in ambiguous else part for key, part in short.items()}
  given = {axis.partition('=')[0] for axis in axes}  # what an entry's own name does not say
  names = [
    _name(name, {short[key]: value for key, value in changes.items() if not name or key in given})
    for name, changes in found
  ]
  if twice := sorted({name for name in names if names.count(name) > 1}):
    raise ValueError(f"--config={config}: two runs of the sweep are called '{twice[0]}': give them names that differ")
  return [(name, changes) for name, (_, changes) in zip(names, found, strict=True)]


def _of_config(sweep: Any, config: str) -> list[tuple[str, Changes]]:
  """What a get_sweep() gave, as (name or '', changes); one run without changes where there is none."""
  where = f'--config={config}: get_sweep() must return {{KEY: values}}, or a list of (name, {{KEY: value}})'
  if sweep is None:
    return [('', {})]
  if isinstance(sweep, Mapping):
    if not sweep or not all(_is_list(values) and len(values) for values in sweep.values()):
      raise ValueError(f'{where} with a list of values for each key, got {sweep!r:.200}')
    crossed = itertools.product(*([(key, spelled(value)) for value in values] for key, values in sweep.items()))
    return [('', dict(changes)) for changes in crossed]
  if not _is_list(sweep) or not len(sweep):
    raise ValueError(f'{where}, got {sweep!r:.200}')
  found = []
  for entry in sweep:
    is_pair = _is_list(entry) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], Mapping)
    if not is_pair:
      raise ValueError(f'{where}, got {entry!r:.200} in it')
    if entry[0] != _safe(entry[0]):
      raise ValueError(f"{where}: '{entry[0]:.100}' is no name of a directory: use letters, digits and ._+=,-")
    found.append((entry[0], {key: spelled(value) for key, value in entry[1].items()}))
  return found


def _is_list(value: Any) -> bool:
  return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def spelled(value: Any) -> str:
  """A value as --config.KEY=VALUE has it, which reads it back as it was."""
  value = value.item() if hasattr(value, 'item') else value  # of numpy
  if isinstance(value, str):
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
  return repr(value)


def _parts(values: str) -> list[str]:
  """'1,(2,3),"a,b"' at the commas outside of brackets and quotes."""
  found, depth, quote = [''], 0, ''
  for letter in values:
    quote = '' if letter == quote else quote or (letter if letter in '\'"' else '')
    depth += 0 if quote else (letter in '([{') - (letter in ')]}')
    if letter == ',' and not depth and not quote:
      found.append('')
    else:
      found[-1] += letter
  return found


def _name(name: str, changes: Mapping[str, str]) -> str:
  """Of a run: its own and what else is changed, as the name of a directory."""
  whole = ','.join([*([name] if name else []), *(f'{key}={_safe(value)}' for key, value in changes.items())])
  return whole if len(whole) <= LONGEST else f'{whole[: LONGEST - 9]}-{kept.digest(changes)[:8]}'


def _safe(value: str) -> str:
  return re.sub(r'[^A-Za-z0-9._+=,-]+', '_', value).strip('_').lstrip('.')
