"""Which implementation of an operation runs: decided once, from the devices of the mesh in force."""

import functools
import importlib
import warnings

import jax

PLATFORM = {'pallas_tpu': 'tpu', 'pallas_gpu': 'gpu'}
IMPLEMENTATIONS = ('xla', *PLATFORM)
# Operations whose kernel is what runs where nobody asks for an implementation: those that move fewer bytes than XLA's
# form in every row of `python -m benchmarks.kernels`; and JAX's splash attention, which that table cannot show.
DEFAULTS = {'tpu': ('route', 'chunk', 'dechunk', 'ssd', 'attention'), 'gpu': ()}


def platform() -> str | None:
  """'tpu', 'gpu' or 'cpu' of the mesh in force (`jax.set_mesh`), or None without a mesh.

  Traces of one process may be meant for several devices, so the default backend says nothing here.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  if device is None:
    return None
  return 'gpu' if device.platform in ('cuda', 'rocm') else device.platform


def missing(operation: str, implementation: str) -> str:
  """What this jax lacks for an implementation of an operation, as a phrase; '' where it has all."""
  if implementation not in PLATFORM:
    return ''
  try:
    importlib.import_module(f'kernels.{operation}.{implementation}')
  except ImportError as error:
    return str(error)
  return ''


def choose(operation: str, implementation: str | None, option: str = '') -> str:
  """The implementation that runs: the one asked for, or the default of the mesh's platform; 'xla' without a mesh.

  option: what a call asks for that no kernel has, only XLA's form, which is then the default on every device. Where
  this jax lacks what the kernel is written in, it is 'xla' too, and one warning says so.
  ValueError: an unknown implementation, one that the devices of the mesh cannot run, or one that lacks the option.
  """
  if option and implementation is None:
    return 'xla'
  name = _wanted(operation, implementation)
  if option and name != 'xla':
    raise ValueError(f"{operation}: implementation {name!r} has no {option}; write implementation='xla' or None.")
  if lacks := missing(operation, name):
    _warn(f"{operation}: XLA's form runs instead of '{name}', since {lacks}")
    return 'xla'
  return name


@functools.cache
def _warn(sentence: str) -> None:
  warnings.warn(sentence, stacklevel=4)  # at the call of the operation; once, however often programs are traced


def _wanted(operation: str, implementation: str | None) -> str:
  here = platform()
  if implementation is None:
    return next((name for name, where in PLATFORM.items() if where == here and operation in DEFAULTS[where]), 'xla')
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(f'{operation}: implementation {implementation!r} is none of {", ".join(IMPLEMENTATIONS)}.')
  if PLATFORM.get(implementation, here) != here:
    where = f'the mesh in force is of {here} devices' if here else 'no mesh is in force (jax.set_mesh)'
    raise ValueError(
      f'{operation}: implementation {implementation!r} runs on {PLATFORM[implementation]} devices and {where}; '
      "write implementation='xla' or None."
    )
  return implementation
