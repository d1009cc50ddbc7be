"""What every check knows: the device, how large things may be, and which kernels there are."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from kernels import cases, choice
from kernels.interpreted import interpret

Row = dict[str, Any]  # of a report: 'what', what was found, and 'agrees' where that is a comparison
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
PLUGINS = ('jax-cuda', 'jax-rocm', 'libtpu', 'nvidia-cudnn', 'nvidia-cublas')
INTERPRETED = ('route', 'chunk')  # with --tiny, where the others would take too long


@dataclasses.dataclass(frozen=True)
class Context:
  """tiny: sizes for a CPU, where kernels are interpreted. kernel: the implementation that is not XLA's form. memory:
  bytes of the device, None if it does not say. known: the first row of every check before this one.
  """

  tiny: bool
  device: jax.Device
  kernel: str
  memory: int | None
  known: dict[str, Row] = dataclasses.field(default_factory=dict)

  @staticmethod
  def here(tiny: bool) -> 'Context':
    """The first device of this process. ValueError: only a CPU, and the sizes are not tiny."""
    device = jax.devices()[0]
    kind = 'gpu' if device.platform in ('cuda', 'rocm', 'gpu') else device.platform
    if tiny:
      interpret('pallas_gpu')
      choice.platform = lambda: 'gpu'
      return Context(tiny, device, 'pallas_gpu', None)
    kernel = next((name for name, where in choice.PLATFORM.items() if where == kind), '')
    if not kernel:
      raise ValueError(f'this machine has a {kind} and no GPU or TPU that jax sees: use --tiny, or install its plugin')
    return Context(tiny, device, kernel, (device.memory_stats() or {}).get('bytes_limit'))

  @property
  def peaks(self) -> Row:
    """See `timing.peaks`; empty where they could not be measured."""
    return self.known.get('peaks', {})

  def on_device(self) -> contextlib.AbstractContextManager:
    """Programs traced inside are for the device, and so are the kernels that run."""
    return jax.set_mesh(Mesh(np.array([self.device]), ('data',), axis_types=(AxisType.Auto,)))

  def implementations(self, operation: str) -> tuple[str, ...]:
    """That can run here: XLA's form, and the kernel if there is one."""
    base = 'attention' if operation == 'local_attention' else operation
    has = not (self.tiny and operation not in INTERPRETED) and not choice.missing(base, self.kernel)
    has &= operation != 'local_attention' or self.kernel == 'pallas_tpu'  # JAX's GPU kernel has no window
    return ('xla', self.kernel) if has else ('xla',)

  def kernels(self) -> tuple[str, ...]:
    """The operations that have a kernel here."""
    return tuple(name for name in cases.OPERATIONS if self.kernel in self.implementations(name))

  @contextlib.contextmanager
  def preferring(self, operations: tuple[str, ...]) -> Iterator[None]:
    """Where no implementation is asked for, these operations run their kernels and all others XLA's forms."""
    where = choice.PLATFORM[self.kernel]
    before = choice.DEFAULTS[where]
    choice.DEFAULTS[where] = operations
    try:
      yield
    finally:
      choice.DEFAULTS[where] = before


def facts(context: Context) -> dict[str, Any]:
  """Where a report was made."""
  device = context.device
  found = {(part.metadata['Name'] or '').lower(): part.version for part in importlib.metadata.distributions()}
  wanted = {name: version for name, version in sorted(found.items()) if name in PACKAGES or name.startswith(PLUGINS)}
  return {
    'device': device.device_kind,
    'platform': device.platform,
    'devices': jax.device_count(),
    'memory_bytes': context.memory,
    'runtime': device.client.platform_version,
    'driver': _driver(),
    'versions': {'python': platform.python_version(), **wanted},
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'commit': _said(['git', 'describe', '--always', '--dirty', '--abbrev=12'], cwd=pathlib.Path(__file__).parents[2]),
    'missing_kernels': {
      name: lacks for name in cases.OPERATIONS[:5] if (lacks := choice.missing(name, context.kernel))
    },
  }


def _driver() -> str:
  """Of an NVIDIA GPU; '' where there is none, or it does not say."""
  kernel_module = pathlib.Path('/proc/driver/nvidia/version')
  said = _said(['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'])
  return (said or (kernel_module.read_text() if kernel_module.exists() else '')).partition('\n')[0]


def _said(command: list[str], **more: Any) -> str:
  try:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, **more).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return ''
