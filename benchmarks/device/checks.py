"""The checks, the most valuable first: what is wrong matters more than what is slow."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from kernels.cases import OPERATIONS


@dataclasses.dataclass(frozen=True)
class Check:
  """function: of a module of this package, called with the context and `more`; imported in the process that runs it.

  least: seconds that must be left for it to begin. fresh: it needs a process of its own. again: as one before it, at
  other sizes, of which --tiny has none.
  """

  name: str
  module: str
  function: str
  more: dict[str, Any] = dataclasses.field(default_factory=dict)
  least: int = 10
  fresh: bool = False
  again: bool = False

  def load(self) -> Callable[[Any], Iterator[dict[str, Any]]]:
    """The check itself: a context in, rows out."""
    module = importlib.import_module(f'benchmarks.device.{self.module}')
    return functools.partial(getattr(module, self.function), **self.more)


def _operations(what: str, function: str, again: bool = False, **more: Any) -> list[Check]:
  return [
    Check(f'{name}: {what}', 'operations', function, {'operation': name, **more}, again=again)
    for name in OPERATIONS
    if function == 'agreement' or name != 'local_attention'
  ]


CHECKS = (
  *_operations('agreement', 'agreement'),
  Check('oracles', 'models', 'three_oracles', least=20),
  Check('peaks', 'timing', 'peaks'),
  Check('hnet training', 'models', 'training', {'name': 'hnet'}, 40, True),
  *_operations('speed', 'speed', dtype='bfloat16'),
  Check('flat training', 'models', 'training', {'name': 'flat'}, 40, True),
  Check('hnet decoding', 'models', 'decoding', {'name': 'hnet'}, 30),
  Check('flat decoding', 'models', 'decoding', {'name': 'flat'}, 30),
  Check('hnet training in the other forms', 'models', 'training', {'name': 'hnet', 'other': True}, 40, True, True),
  *_operations('agreement at odd sizes', 'agreement', again=True, odd=True),
  *_operations('speed in float32', 'speed', again=True, dtype='float32'),
)
