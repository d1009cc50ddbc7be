"""The registry: a `model` branch of a config in, a model out; all families share one contract (layers/contract.py)."""

import importlib
import os
import re
from collections.abc import Mapping
from typing import Any, Protocol

from flax import nnx

from layers import checks, weights
from layers.contract import EVAL, Context, ModelOutput

__all__ = [
  'EVAL', 'Context', 'Family', 'ModelOutput', 'Official', 'build', 'complete', 'families', 'from_pretrained',
  'official', 'official_family', 'parse',
]  # fmt: skip


class Family(Protocol):
  """What a family's module offers: `complete` gives a branch the keys that it leaves out, whatever the others hold;
  `parse` checks a branch, complete or not, and returns a frozen config; `build` makes its model.
  """

  def complete(self, branch: Mapping[str, Any]) -> dict[str, Any]: ...

  def parse(self, branch: Mapping[str, Any]) -> Any: ...

  def build(self, config: Any, *, rngs: nnx.Rngs) -> nnx.Module: ...


class Official(Protocol):
  """What the module of a family's official weights offers: keys that only its config.json has, and its loader."""

  CONFIG_KEYS: tuple[str, ...]

  def from_pretrained(self, directory: str | os.PathLike, **overrides: Any) -> nnx.Module: ...


# family -> module (imported when first asked for) or object
families: dict[str, str | Family] = {
  'hnet': 'hnet',
  'tfree_hat': 'byte_models.tfree_hat',
  'word_ar': 'byte_models.word_ar',
}
official: dict[str, str | Official] = {
  'hnet': 'hnet.official',
  'tfree_hat': 'byte_models.tfree_hat.official',
}


def complete(branch: Any) -> Any:
  """A `model` branch with every key of its family, those that it leaves out at their defaults; what is no branch of a
  known family stays as it is, for `parse` to refuse.
  """
  name = branch.get('family') if isinstance(branch, Mapping) else None
  return _family(name).complete(branch) if isinstance(name, str) and name in families else branch


def parse(branch: Mapping[str, Any]) -> Any:
  """The frozen configuration of a `model` branch; ValueError with one sentence on what is wrong, its key in full."""
  if not isinstance(branch, Mapping):
    raise ValueError(f'model {branch!r:.50} must have keys and values, of which family is one.')
  family = _family(branch.get('family'))
  try:
    return family.parse(checks.shallow(branch, 'model'))
  except ValueError as error:
    key = re.match(r'\w*', str(error))[0]  # families begin with it, as in the config.json that they read, too
    raise ValueError(f'model.{error}' if key in branch else str(error)) from None


def build(config: Any, *, rngs: nnx.Rngs) -> nnx.Module:
  """The model of a configuration from `parse`."""
  return _family(config.family).build(config, rngs=rngs)


def from_pretrained(directory: str | os.PathLike, **overrides: Any) -> nnx.Module:
  """The model in a directory with official weights, whose config.json tells the family.

  overrides: keys of the `model` branch, such as dtype='bfloat16'. Raises FileNotFoundError for a missing file,
  ValueError for one that is damaged or of no family that is known here, and for weights that do not fit.
  """
  file = weights.directory(directory) / weights.CONFIG
  values = weights.read_json(file)
  family = official_family(values)
  if family is None:
    keys = '; '.join(f'{name} has {", ".join(_module(entry).CONFIG_KEYS)}' for name, entry in official.items())
    kind = f'model_type {values["model_type"]!r}' if 'model_type' in values else 'no model_type'
    raise ValueError(f'{file} ({kind}) is of no family with official weights: {keys}.')
  return _module(official[family]).from_pretrained(directory, **overrides)


def official_family(values: Mapping[str, Any]) -> str | None:
  """The family whose official config.json has keys like these, if any."""
  return next((name for name, entry in official.items() if values.keys() & {*_module(entry).CONFIG_KEYS}), None)


def _family(name: str | None) -> Family:
  if not isinstance(name, str) or name not in families:
    raise ValueError(f'model.family {name!r} is not known; families: {", ".join(sorted(families))}.')
  return _module(families[name])


def _module(entry: Any) -> Any:
  return importlib.import_module(entry) if isinstance(entry, str) else entry
