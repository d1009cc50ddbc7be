"""Checks of values from a configuration: each returns the value, or raises ValueError with one sentence."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

DEEPEST = 64  # levels; a layout has at most 16 stages inside each other
MOST = 2**24  # no size of a model is above it, and products of some such sizes can still be counted


def integer(value: Any, name: str, least: int) -> int:
  """A whole number from `least` to MOST."""
  if isinstance(value, bool) or not isinstance(value, int) or value < least:
    raise ValueError(f'{name} {value!r} must be an integer of at least {least}.')
  if value > MOST:
    raise ValueError(f'{name} {value!r:.50} must be an integer of at most {MOST}.')
  return value


def number(value: Any, name: str) -> float:
  """A finite number, as a float."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise ValueError(f'{name} {value!r} must be a number.')
  if not -1e300 < value < 1e300:  # integers of JSON may be above every float
    raise ValueError(f'{name} {value!r:.50} must be a finite number.')
  return float(value)


def boolean(value: Any, name: str) -> bool:
  """True or False, and nothing that only counts as such."""
  if not isinstance(value, bool):
    raise ValueError(f'{name} {value!r} must be True or False.')
  return value


def one_of(value: Any, choices: Sequence[str], name: str) -> Any:
  """One of a few."""
  if value not in choices:
    raise ValueError(f'{name} {value!r} is not one of {", ".join(choices)}.')
  return value


def known(values: Any, names: Collection[str], where: str, also: Collection[str] = ()) -> dict[str, Any]:
  """A mapping whose keys are all among `names`, as a dict; where: its own key, '' for the whole tree; also: keys that
  may be there and of which no sentence speaks.
  """
  if not isinstance(values, Mapping):
    raise ValueError(f'{where} {values!r} must be a mapping with {", ".join(names)}.')
  full = lambda name: f'{where}.{name}' if where else name
  for key in values:
    if key not in names and key not in also:
      near = difflib.get_close_matches(str(key)[:100], names, n=1, cutoff=0.5)
      advice = f'Did you mean "{full(near[0])}"?' if near else f'There are {", ".join(map(full, names))}.'
      raise ValueError(f'unknown config key {full(key)}. {advice}')
  return dict(values)


def filled(values: Any, defaults: Mapping[str, Any]) -> Any:
  """A mapping with the keys that it leaves out, and so in the branches that have defaults; what is no mapping stays as
  it is, for who reads it to refuse.
  """
  if not isinstance(values, Mapping):
    return values
  found = {**defaults, **values}
  return found | {key: filled(found[key], default) for key, default in defaults.items() if isinstance(default, Mapping)}


def shallow(value: Any, name: str) -> Any:
  """Anything whose lists and mappings lie at most DEEPEST inside each other, so that it can be walked by recursion."""
  level = [value]
  for _ in range(DEEPEST):
    branches = [item.values() if isinstance(item, Mapping) else item for item in level if _is_branch(item)]
    if not branches:
      return value
    level = [item for branch in branches for item in branch]
  raise ValueError(f'{name} has lists or mappings inside each other at more than {DEEPEST} levels.')


def _is_branch(value: Any) -> bool:
  return isinstance(value, Mapping | list | tuple)
