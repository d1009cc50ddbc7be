"""MAGNET at the quickstart's size: dynamic-pooling with a network and a target for each of three scripts.

The quickstart's text is English and code, where 'latin' does nearly all; other scripts go to it, too.

  python train.py --config=configs/quickstart_magnet.py --workdir=runs/quickstart_magnet
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model.update(
    {'chunking': 'magnet(others=latin,evaluation=sample)', 'ratio_targets': None, 'bytes_per_chunk': (5.0,)}
  )
  config.loss_weights = {'binomial': 1.0}
  return config
