"""Results that a study keeps for its next call, each with what it was measured on: another text, step, machine or code
is measured again.
"""

import functools
import hashlib
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax

from evaluation import report
from training import checkpoint
from training.workdir import CHECKPOINTS

HOME = pathlib.Path(__file__).parent.parent
MODELS = ('byte_models', 'hnet', 'kernels', 'layers')  # packages that decide what a model computes, and how fast


@functools.cache
def code(*packages: str) -> str:
  """SHA-256 over the source of packages: path and content of every .py file, 16 hex digits."""
  digest = hashlib.sha256()
  for package in packages:
    for path in sorted((HOME / package).rglob('*.py')):
      digest.update(f'{path.relative_to(HOME).as_posix()}\n'.encode() + path.read_bytes())
  return digest.hexdigest()[:16]


def machine() -> dict[str, Any]:
  """What speeds are of, as JSON data."""
  return {
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'cores': os.cpu_count(),
    'host': platform.node(),
    'jax': jax.__version__,
  }


def trained(workdir: pathlib.Path, step: int | None = None) -> dict[str, Any]:
  """Which parameters a run has come to: a step, by default the newest, and a checksum of what that saved.

  Raises FileNotFoundError where there is none, ValueError where it is damaged.
  """
  directory = workdir / CHECKPOINTS
  steps = checkpoint.all_steps(directory)
  if not steps:
    raise FileNotFoundError(f'there is no checkpoint in {directory}: the run has not saved one yet')
  step = steps[-1] if step is None else step
  return {'step': step, 'weights': digest(checkpoint.sums_of(checkpoint.read_record(directory, step)))}


def digest(value: Any) -> str:
  """SHA-256 of JSON data, 16 hex digits."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def read(path: pathlib.Path, measured: Mapping[str, Any]) -> dict[str, Any] | None:
  """What `write` kept in a file, if it was measured on exactly this."""
  try:
    found = json.loads(path.read_bytes())
  except (FileNotFoundError, ValueError):
    return None
  return found if isinstance(found, dict) and found.get('measured') == json.loads(json.dumps(measured)) else None


def write(path: pathlib.Path, measured: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
  """Keeps a result with what it was measured on; returns it as `read` does. Raises OSError."""
  report.write_json(path, report.as_json({**found, 'measured': measured}))
  return json.loads(path.read_bytes())


def write_page(path: pathlib.Path, page: str) -> None:
  """Writes a text whole or not at all. Raises OSError."""
  partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
  partial.write_text(page + '\n', encoding='utf-8')
  os.replace(partial, path)
