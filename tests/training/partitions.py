"""The partition of every parameter of every configuration on a mesh of 2 x 2 x 2 devices, as text.

python -m tests.training.partitions    # writes tests/training/golden/ anew
"""

import importlib
import pathlib

import configs
from training import sharding
from training.description import abstract_model
from training.state import flatten

FOLDER = pathlib.Path(__file__).parent / 'golden'
MESH = {'data': 2, 'fsdp': 2, 'tensor': 2}
# These hold models of others, or need a tokenizer of the user's.
OTHERS = ('chunkers', 'compare', 'quickstart_bpe', 'quickstart_corpus', 'sweep_compression', 'sweep_learning_rate')
NAMES = sorted(
  path.stem
  for path in pathlib.Path(configs.__file__).parent.glob('*.py')
  if path.stem not in ('__init__', 'common', *OTHERS)
)


def partitions(name: str) -> str:
  """A line a parameter: path, shape, and for each dimension its axes, `-` for none."""
  config = importlib.import_module(f'configs.{name}').get_config().to_dict()
  lines = []
  for path, leaf in flatten(abstract_model(config['model'])).items():
    spec = sharding.partition_spec(path, leaf.shape, MESH)
    axes = ('*'.join(axis) if isinstance(axis, tuple) else axis or '-' for axis in spec)
    lines.append(f'{path}  {"x".join(map(str, leaf.shape))}  {" ".join(axes)}\n')
  return ''.join(lines)


if __name__ == '__main__':
  FOLDER.mkdir(exist_ok=True)
  for old in FOLDER.glob('*.txt'):
    old.unlink()
  for config_name in NAMES:
    (FOLDER / f'{config_name}.txt').write_text(partitions(config_name))
