"""Hourglass at the quickstart's size: the mean of every 5 bytes, without gradients to where they end.

python train.py --config=configs/quickstart_hourglass.py --workdir=runs/quickstart_hourglass
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model.update({'chunking': 'hourglass(5)', 'ratio_targets': None})
  return config
