"""The TPU compiler, libtpu, on a machine without a TPU."""

import importlib.metadata
import os

import jax
from jax.experimental import topologies

TOPOLOGIES = ('v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2')  # the smallest host of each kind


def prepare() -> None:
  """Sets what libtpu needs where there is no TPU; call it before anything touches jax's devices."""
  jax.config.update('jax_platforms', 'cpu')
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # no questions to the cloud's metadata server
  os.environ.setdefault('TPU_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')  # several compilers may run: none of them holds a TPU


def problem() -> str | None:
  """What is wrong with the installed libtpu, in one sentence; None if it is the one that this jax asks for."""
  wanted = next(
    (r.split(';')[0].strip() for r in importlib.metadata.requires('jax') or () if r.startswith('libtpu')), 'libtpu'
  )
  remedy = f'pip install "{wanted}", or run `make test-tpu`, which has its own environment.'
  try:
    version = importlib.metadata.version('libtpu')
  except importlib.metadata.PackageNotFoundError:
    return f'libtpu, the TPU compiler, is not installed: {remedy}'
  series = wanted.partition('==')[2].removesuffix('*')
  if not version.startswith(series):
    return f'libtpu {version} is installed and jax {jax.__version__} needs {wanted}: {remedy}'
  return None


def devices(topology: str) -> list[jax.Device]:
  """The devices of a TPU topology such as 'v5e:2x2', to compile for.

  ValueError: a topology that libtpu does not know, or no fitting libtpu.
  """
  if problem():
    raise ValueError(problem())
  try:
    description = topologies.get_topology_desc(platform='tpu', topology_name=topology)
  except Exception as error:  # libtpu has no error type of its own
    raise ValueError(
      f'topology {topology!r}: libtpu says {str(error).splitlines()[0]!r}; write one such as {", ".join(TOPOLOGIES)}.'
    ) from error
  return list(description.devices)
