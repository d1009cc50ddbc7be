"""H-Net (space): the quickstart with a chunk at every space-like byte that follows another byte.

python train.py --config=configs/quickstart_space.py --workdir=runs/quickstart_space
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model.update({'boundary': 'space', 'ratio_targets': None})
  return config
