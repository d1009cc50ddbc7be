"""Modules as flat dictionaries `path -> array`: the form that optimizers, checkpoints and official weights share."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from jax import Array

Tree = TypeVar('Tree')


def path_name(path: tuple[Any, ...]) -> str:
  """A key path as text, such as 'backbone.encoder.runs.0.mixer.in_proj.kernel'."""
  names = []
  for key in path:
    name = getattr(key, 'name', getattr(key, 'key', getattr(key, 'idx', None)))
    if name != 'value':  # the array inside an nnx.Param
      names.append(str(name))
  return '.'.join(names)


def flatten(tree: Any) -> dict[str, Array]:
  """Every leaf of a module (or another pytree) by its path."""
  return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def rebuild(like: Tree, flat: Mapping[str, Array]) -> Tree:
  """A tree with the structure of `like` (abstract or not) and the leaves of `flat`; ValueError if the paths differ."""
  leaves, structure = jax.tree_util.tree_flatten_with_path(like)
  names = [path_name(path) for path, _ in leaves]
  missing, surplus = set(names) - set(flat), set(flat) - set(names)
  if missing or surplus:
    raise ValueError(f'parameters do not fit the model: missing {sorted(missing)[:3]}, surplus {sorted(surplus)[:3]}.')
  return jax.tree.unflatten(structure, [flat[name] for name in names])
