"""MegaByte of the quickstart's size: patches of eight bytes, and a local model for each.

python train.py --config=configs/quickstart_megabyte.py --workdir=runs/quickstart_megabyte
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model = {
    'family': 'word_ar',
    'words': 'fixed(size=8)',
    'backbone': {'arch_layout': 'T5', 'd_model': 256, 'd_intermediate': 768, 'num_heads': 4},
    'decoder': {'arch_layout': 'T2', 'd_model': 128, 'd_intermediate': 384, 'num_heads': 4},
  }
  return config
