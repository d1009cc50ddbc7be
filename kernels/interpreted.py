"""Kernels on a device that cannot run them: Pallas' interpreter, wherever a model or an operation calls one."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

KERNELS = {'route': 'cosines', 'chunk': 'chunk', 'dechunk': 'dechunk', 'ssd': 'ssd', 'attention': 'attention'}


def interpret(implementation: str, setattr: Callable[[Any, str, Any], None] = setattr) -> None:
  """From now on the kernels of 'pallas_tpu' or 'pallas_gpu' run on any device; setattr: pytest's, to undo it.

  `kernels.choice.platform` says as before what the devices are, and so which kernels may be asked for.
  """
  for operation, name in KERNELS.items():
    module = importlib.import_module(f'kernels.{operation}.{implementation}')
    setattr(module, name, _interpreted(getattr(module, name)))


def _interpreted(kernel: Callable) -> Callable:
  signature = inspect.signature(kernel)

  def run(*arguments, **more):
    bound = signature.bind(*arguments, **more)
    bound.arguments['interpret'] = True
    return kernel(*bound.args, **bound.kwargs)

  return run
