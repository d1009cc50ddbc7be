"""The registry: a `model` branch of a config in, a model out; all families share one contract (layers/contract.py)."""

import copy
import dataclasses
import importlib
import os
import re
from collections.abc import Mapping
from typing import Any, Protocol

import jax
from flax import nnx
from jax import Array

from byte_models import llama
from layers import checks, weights
from layers.contract import EVAL, Context, Model, ModelOutput
from layers.paths import flatten
from layers.stack import Backbone

__all__ = [
  'EVAL', 'Context', 'Family', 'Model', 'ModelOutput', 'Official', 'backbone', 'build', 'complete', 'families',
  'from_pretrained', 'graft', 'official', 'official_family', 'official_in', 'parse', 'resize',
]  # fmt: skip


class Family(Protocol):
  """What a family's module offers."""

  def complete(self, branch: Mapping[str, Any]) -> dict[str, Any]:
    """A `model` branch with the keys that it leaves out, whatever the others hold."""

  def parse(self, branch: Mapping[str, Any]) -> Any:
    """The frozen config of a branch, complete or not, with its family's name; ValueError with one sentence."""

  def build(self, config: Any, *, rngs: nnx.Rngs) -> Model:
    """A freshly initialised model."""

  def backbone(self, config: Any) -> Backbone | None:
    """Its main network, which may be resized and begin as that of another model; None: it has none."""

  def resize(self, branch: Mapping[str, Any], depth: int, **sizes: int) -> dict[str, Any]:
    """The branch, changed in place, with `depth` layers of the backbone and, in `sizes`, another `width` or `mlp_width`
    of it. ValueError where that cannot be.
    """


class Official(Protocol):
  """What the module of a family's official weights offers: keys that only its config.json has, and its loader."""

  CONFIG_KEYS: tuple[str, ...]

  def from_pretrained(self, directory: str | os.PathLike, **overrides: Any) -> Model: ...

  def overrides(self, config: Any) -> dict[str, Any]:
    """Of `from_pretrained`, with which its parameters are those of a model of this config, if they can be."""


# family -> module (imported when first asked for) or object
families: dict[str, str | Family] = {
  'blt': 'byte_models.blt',
  'hnet': 'hnet',
  'tfree_hat': 'byte_models.tfree_hat',
  'token_lm': 'byte_models.token_lm',
  'word_ar': 'byte_models.word_ar',
}
official: dict[str, str | Official] = {
  'blt': 'byte_models.blt.official',  # before those that have some of its keys
  'hnet': 'hnet.official',
  'tfree_hat': 'byte_models.tfree_hat.official',
  'token_lm': 'byte_models.token_lm.official',
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


def build(config: Any, *, rngs: nnx.Rngs) -> Model:
  """The model of a configuration from `parse`."""
  return _family(config.family).build(config, rngs=rngs)


def backbone(config: Any) -> Backbone | None:
  """The main network of a model; see `Family`."""
  return _family(config.family).backbone(config)


def resize(branch: Mapping[str, Any], depth: int, **sizes: int) -> dict[str, Any]:
  """A `model` branch with another backbone; see `Family`."""
  return _family(branch.get('family')).resize(copy.deepcopy(dict(branch)), depth, **sizes)


def graft(config: Any, source: str | os.PathLike, seed: int) -> dict[str, Array]:
  """Parameters of a model that the seed draws, but those of its backbone, which are the blocks of a Llama: a .gguf file
  or a directory.

  Raises ValueError for a model that has no backbone and for blocks that are not made as its own.
  """
  ours = backbone(config)
  if ours is None:
    raise ValueError(f'init_from {source!r} is a Llama: a model of family {config.family!r} has no place for it')
  stack, flat = llama.read_backbone(source)
  for field in dataclasses.fields(stack):
    theirs, wanted = getattr(stack, field.name), getattr(ours.stack, field.name)
    if theirs != wanted and field.name not in ('dtype', 'remat', 'scan'):
      raise ValueError(
        f'init_from {source!r}: its blocks have {field.name} {theirs!r} and the backbone of the model {wanted!r}; they '
        'must be the same'
      )
  fresh = jax.jit(lambda: flatten(build(config, rngs=nnx.Rngs(seed))))()
  return fresh | {f'{ours.path}.{path}': value for path, value in flat.items()}


def from_pretrained(directory: str | os.PathLike, *, like: Any = None, **overrides: Any) -> Model:
  """The model in a directory with official weights, whose config.json tells the family, or in a .gguf file of a Llama.

  overrides: keys of the `model` branch, such as dtype='bfloat16'. like: the config of a model of the same family, whose
  parameters it is to have, if it can. Raises FileNotFoundError for a missing file,
  ValueError for one that is damaged or of no family that is known here, and for weights that do not fit.
  """
  family = official_in(directory)
  if family is None:
    file = weights.config_file(directory)
    values = weights.read_json(file)
    keys = '; '.join(f'{name} has {", ".join(_module(entry).CONFIG_KEYS)}' for name, entry in official.items())
    kind = f'model_type {values["model_type"]!r}' if 'model_type' in values else 'no model_type'
    raise ValueError(f'{file} ({kind}) is of no family with official weights: {keys}.')
  if like is not None:
    if family != like.family:
      raise ValueError(f'init_from {directory!r} holds another model: its family is {family!r} and not {like.family!r}')
    overrides = _module(official[family]).overrides(like) | overrides
  return _module(official[family]).from_pretrained(directory, **overrides)


def official_in(source: str | os.PathLike) -> str | None:
  """The family of a .gguf file, which has Llamas only, or of a directory, by its config.json."""
  if os.fspath(source).endswith('.gguf'):
    return 'token_lm'
  return official_family(weights.read_json(weights.config_file(source)))


def official_family(values: Mapping[str, Any]) -> str | None:
  """The family whose official config.json has keys like these, if any."""
  return next((name for name, entry in official.items() if values.keys() & {*_module(entry).CONFIG_KEYS}), None)


def _family(name: str | None) -> Family:
  if not isinstance(name, str) or name not in families:
    raise ValueError(f'model.family {name!r} is not known; families: {", ".join(sorted(families))}.')
  return _module(families[name])


def _module(entry: Any) -> Any:
  return importlib.import_module(entry) if isinstance(entry, str) else entry
