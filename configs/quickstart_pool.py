"""H-Net (pool): the quickstart with a chunk every 5 bytes instead of learned boundaries.

python train.py --config=configs/quickstart_pool.py --workdir=runs/quickstart_pool

2 CPU cores: four minutes; 1.772 bits per byte on the validation text, 4.9 bytes a chunk.
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model.update({'chunking': 'hnet_pool(5)', 'ratio_targets': None})
  return config
