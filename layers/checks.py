"""Checks of values from a configuration: each returns the value, or raises ValueError with one sentence."""

from collections.abc import Mapping, Sequence
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


def known(values: Any, names: Sequence[str], where: str) -> dict[str, Any]:
  """A mapping whose keys are all among `names`, as a dict."""
  if not isinstance(values, Mapping):
    raise ValueError(f'{where} {values!r} must be a mapping with {", ".join(names)}.')
  for key in values:
    if key not in names:
      raise ValueError(f'{where}.{key} is not a key of this configuration; it has {", ".join(names)}.')
  return dict(values)


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
