"""XLA's GPU compiler on a machine without a GPU, told about the device by a file."""

import importlib.metadata
import os
import pathlib
import re

import jax
from jax.experimental import topologies

FOLDER = pathlib.Path(__file__).parent
DEVICES = tuple(path.stem for path in sorted(FOLDER.glob('*.textproto')))  # what is known of each, from its own driver
PACKAGES = ('jax-cuda12-plugin', 'jax-cuda12-pjrt')


def prepare() -> None:
  """Sets what the compiler needs where there is no GPU; call it before anything touches jax's devices."""
  jax.config.update('jax_platforms', 'cpu')
  # Autotuning would measure, and there is nothing to measure on. Since jax 0.11 a product in XLA's own Triton form is
  # an error then, where the tuner has no tiles for it without a GPU: products are those of the vendor's library.
  flags = [os.environ.get('XLA_FLAGS', ''), '--xla_gpu_autotune_level=0']
  flags += ['--xla_gpu_enable_triton_gemm=false'] if jax.__version_info__ >= (0, 11) else []
  os.environ['XLA_FLAGS'] = ' '.join(flags).strip()
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


def problem() -> str | None:
  """What is wrong with the installed CUDA plugin, in one sentence; None if it is that of this jax."""
  remedy = f'install {" and ".join(f"{name}=={jax.__version__}" for name in PACKAGES)}, or run `make test-gpu`.'
  for name in PACKAGES:
    try:
      version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      return f'{name}, which holds the GPU compiler, is not installed: {remedy}'
    if version != jax.__version__:
      return f'{name} {version} is installed beside jax {jax.__version__}: {remedy}'
  return None


def devices(kind: str, count: int = 1) -> list[jax.Device]:
  """GPUs of a kind, to compile for.

  ValueError: an unknown kind of GPU, or no fitting plugin.
  """
  if kind not in DEVICES:
    raise ValueError(f'device {kind!r}: no {FOLDER.name}/{kind}.textproto describes it; write {", ".join(DEVICES)}.')
  if problem():
    raise ValueError(problem())
  target = (FOLDER / f'{kind}.textproto').read_text()
  description = topologies.get_topology_desc(
    platform='cuda', topology_name=kind, target_config=target, topology=f'1x1x{count}'
  )
  return list(description.devices)


def memory(device: str) -> int:
  """Bytes of memory of one GPU of this kind."""
  return int(re.search(r'device_memory_size: (\d+)', (FOLDER / f'{device}.textproto').read_text())[1])


def bytes_accessed(compiled: jax.stages.Compiled) -> int:
  """Of a program compiled for a GPU, as XLA counts them over its fusions; a kernel's own bytes are not among them.

  The plugin has no cost analysis for devices that are not there; the one for hosts counts any program.
  """
  from jaxlib import _jax  # nothing public counts a module that another compiler has made

  module = compiled.runtime_executable().hlo_modules()[0]
  return int(_jax.hlo_module_cost_analysis(jax.devices('cpu')[0].client, module)['bytes accessed'])
