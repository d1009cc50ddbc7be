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
  """The inverse of `flatten`: a tree with the structure of `like` (abstract or not) and the leaves of `flat`.

  Raises ValueError if a path is missing or surplus, or an array's shape or dtype is not the one that `like` has.
  """
  paths = flatten(like)
  missing, surplus = sorted(paths.keys() - flat.keys()), sorted(flat.keys() - paths.keys())
  if missing or surplus:
    raise ValueError(f'parameters do not fit the model: missing {missing[:3]}, surplus {surplus[:3]}.')
  for path, leaf in paths.items():
    if (leaf.shape, leaf.dtype) != (flat[path].shape, flat[path].dtype):
      raise ValueError(
        f'parameter {path} is {flat[path].dtype}{list(flat[path].shape)}, the model has {leaf.dtype}{list(leaf.shape)}'
      )
  return jax.tree.unflatten(jax.tree.structure(like), [flat[path] for path in paths])
