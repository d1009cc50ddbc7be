"""Our parts against tensors of the published chunkers' own code: folders with config.json, io.safetensors, most with
model.safetensors and grads.safetensors, too.

`python -m tests.goldens.chunkers DIR…` compares any folders of this form; all sizes and options are read from them.
"""

import pathlib
from collections.abc import Callable
from typing import Any

from tests.goldens.chunkers import aunet, blt, entropy, pooling, spacebyte
from tests.goldens.chunkers.difference import Difference, config

# name -> (whether a config.json is of this kind, the comparison: tensor -> difference)
CHECKS: dict[str, tuple[Callable[[dict[str, Any]], bool], Callable[[pathlib.Path], dict[str, Difference]]]] = {
  'aunet': (aunet.knows, aunet.check),
  'blt': (blt.knows, blt.check),
  'entropy': (entropy.knows, entropy.check),
  'pooling': (pooling.knows, pooling.check),
  'spacebyte': (spacebyte.knows, spacebyte.check),
}


def compare(folder: pathlib.Path) -> dict[str, Difference]:
  """Tensor -> difference of a folder; ValueError for one of no known kind."""
  found = config(folder)
  for knows, check in CHECKS.values():
    if knows(found):
      return check(folder)
  kinds = ', '.join(CHECKS)
  raise ValueError(f'{folder}/config.json has the keys {", ".join(found)}: no comparison of {kinds} knows it')
