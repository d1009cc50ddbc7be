"""How far two tensors lie apart, and how far they may."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file


class Difference(NamedTuple):
  """largest: absolute difference of a tensor, inf for other shapes or what is not finite. tolerance: what it may be."""

  largest: float
  tolerance: float

  @property
  def is_small(self) -> bool:
    """Whether it is within the tolerance."""
    return self.largest <= self.tolerance


def absolute(ours: Any, theirs: Any, tolerance: float = 2e-5) -> Difference:
  """Of activations and losses; with a tolerance of 0 of what must be equal, such as boundaries."""
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  if ours.shape != theirs.shape:
    return Difference(np.inf, tolerance)
  largest = float(np.max(np.abs(ours - theirs), initial=0.0))
  return Difference(largest if np.isfinite(largest) else np.inf, tolerance)


def relative(ours: Any, theirs: Any, share: float = 1e-4) -> Difference:
  """Of gradients: the tolerance is a share of the largest value of theirs."""
  return absolute(ours, theirs, share * float(np.max(np.abs(theirs), initial=0.0)))


def tensors(folder: pathlib.Path, *names: str) -> tuple[dict[str, np.ndarray], ...]:
  """The tensors of FOLDER/NAME.safetensors for each name, such as 'model', 'io', 'grads'."""
  return tuple(load_file(folder / f'{name}.safetensors') for name in names)


def config(folder: pathlib.Path) -> dict[str, Any]:
  """The folder's config.json."""
  return json.loads((folder / 'config.json').read_text())
