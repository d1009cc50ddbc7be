"""The registry: a `model` branch of a config in, a model out; all families share one contract (layers/contract.py)."""

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

from flax import nnx

from layers.contract import EVAL, Context, ModelOutput

__all__ = ['EVAL', 'Context', 'Family', 'ModelOutput', 'build', 'families', 'parse']


class Family(Protocol):
  """What a family's module offers: `parse` checks a branch and returns a frozen config, `build` makes its model."""

  def parse(self, branch: Mapping[str, Any]) -> Any: ...

  def build(self, config: Any, *, rngs: nnx.Rngs) -> nnx.Module: ...


# family -> module (imported when first asked for) or object
families: dict[str, str | Family] = {
  'hnet': 'hnet',
  'tfree_hat': 'byte_models.tfree_hat',
  'word_ar': 'byte_models.word_ar',
}


def parse(branch: Mapping[str, Any]) -> Any:
  """The frozen configuration of a `model` branch; ValueError with one sentence on what is wrong."""
  return _family(branch.get('family')).parse(branch)


def build(config: Any, *, rngs: nnx.Rngs) -> nnx.Module:
  """The model of a configuration from `parse`."""
  return _family(config.family).build(config, rngs=rngs)


def _family(name: str | None) -> Family:
  if name not in families:
    raise ValueError(f'model.family {name!r} is not known; families: {", ".join(sorted(families))}.')
  entry = families[name]
  return importlib.import_module(entry) if isinstance(entry, str) else entry
