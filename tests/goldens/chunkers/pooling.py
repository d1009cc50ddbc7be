"""dynamic-pooling, MAGNET and FLEXITOKENS: boundary predictor, pool, repeat and losses, with their gradients."""

import pathlib
from typing import Any

from tests.goldens.chunkers.difference import Difference


def knows(config: dict[str, Any]) -> bool:
  """By the kind of the boundaries, or the cases of pooling alone."""
  return 'boundaries_type' in config.get('model', {}) or isinstance(config.get('cases'), list)


def check(folder: pathlib.Path) -> dict[str, Difference]:
  """See the module."""
  raise NotImplementedError(folder)
