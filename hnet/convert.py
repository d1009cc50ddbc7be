"""Converts a published H-Net checkpoint (a torch state dict) to the official format in safetensors.

  python -m hnet.convert --config hnet_1stage_L.json --checkpoint hnet_1stage_L.pt --out weights/hnet_1stage_L

A .pt file is a pickle, so it is read with `weights_only=True`: tensors and plain containers. The published files also
carry a few omegaconf objects; their names resolve to empty stand-ins that do nothing. A file that needs anything else
is refused. Needs torch (pip install -r requirements-torch.txt), which nothing else here does.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from hnet import official
from layers import weights
from text import paths, regular_file

# What a pickled omegaconf ListConfig or DictConfig names, metadata included.
_INERT_NAMES = (
  'omegaconf.listconfig.ListConfig',
  'omegaconf.dictconfig.DictConfig',
  'omegaconf.base.ContainerMetadata',
  'omegaconf.base.Metadata',
  'omegaconf.nodes.AnyNode',
  'typing.Any',
  'builtins.list',
  'builtins.dict',
  'builtins.int',
  'collections.defaultdict',
)


class Inert:
  """Stands for a foreign class while a file is read: takes any arguments and any state, and keeps nothing."""

  def __new__(cls, *args: Any, **kwargs: Any) -> 'Inert':
    del args, kwargs
    return super().__new__(cls)

  def __init__(self, *args: Any, **kwargs: Any):
    del args, kwargs

  def __setstate__(self, state: Any) -> None:
    del state

  def __setitem__(self, key: Any, value: Any) -> None:
    del key, value


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
  """Tensors of a torch state dict by name. Raises ValueError, in a sentence, for a file that is not one."""
  try:
    import torch
  except ImportError:
    raise ValueError('hnet.convert reads .pt files with torch: pip install -r requirements-torch.txt') from None
  regular_file.check(path, '--checkpoint')
  if not path.is_file():
    raise FileNotFoundError(f'{path} is missing: --checkpoint names a published .pt file.')
  try:
    with torch.serialization.safe_globals([(Inert, name) for name in _INERT_NAMES]):
      state = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # torch raises several kinds: unpickling, zip, end of file
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    raise ValueError(
      f'{path} is refused: it is no plain torch state dict, or it needs more than tensors ({reason}).'
    ) from None
  if not isinstance(state, dict):
    raise ValueError(f'{path} is refused: it holds a {type(state).__name__} and not a state dict of tensors.')
  if isinstance(state.get('model'), dict):  # beside what else a training keeps
    state = state['model']
  result = {}
  for name, value in state.items():
    if isinstance(value, Inert):
      print(f'dropped {name}: an omegaconf object, not a tensor', file=sys.stderr)
    elif not isinstance(name, str) or not isinstance(value, torch.Tensor):
      raise ValueError(f'{path} is refused: entry {name!r} is a {type(value).__name__} and not a tensor.')
    elif value.dtype == torch.bfloat16:  # numpy knows it only through ml_dtypes
      result[name] = value.detach().contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    elif value.dtype in (torch.float32, torch.float16):
      result[name] = value.detach().contiguous().numpy()
    else:
      raise ValueError(f'{path} is refused: tensor {name} is {value.dtype}; weights are {", ".join(weights.DTYPES)}.')
  return result


def convert(config_file: Path, checkpoint: Path, out: Path) -> None:
  """Checks every name and shape against the configuration, then writes config.json and model.safetensors."""
  regular_file.check(config_file, '--config')
  if not config_file.is_file():
    raise FileNotFoundError(f'{config_file} is missing: --config names an official config.json.')
  config = weights.read_config(config_file, official.parse)
  state = read_state_dict(checkpoint)
  official.check_tensors(config, state, checkpoint)
  weights.write(out, config.official(), state)


def command(
  name: str, description: str, convert: Callable[[Path, Path, Path], None], arguments: list[str] | None
) -> int:
  """The command line of a conversion, (config, checkpoint, out) -> None; the exit code."""
  parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
  for flag in ('config', 'checkpoint', 'out'):
    parser.add_argument(f'--{flag}', required=True)
  options = parser.parse_args(arguments)
  try:
    out = paths.of(options.out, '--out')
    convert(paths.of(options.config, '--config'), paths.of(options.checkpoint, '--checkpoint'), out)
  except (ValueError, OSError) as error:
    print(f'{name}: {error}', file=sys.stderr)
    return 1
  print(f'wrote {out}/config.json and {out}/model.safetensors')
  return 0


def main(arguments: list[str] | None = None) -> int:
  """The command."""
  return command('hnet.convert', __doc__, convert, arguments)


if __name__ == '__main__':
  sys.exit(main())
