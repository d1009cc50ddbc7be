"""FLEXITOKENS at the quickstart's size: dynamic-pooling whose rate is free between one end in 5 bytes and one in 10.

python train.py --config=configs/quickstart_flexitokens.py --workdir=runs/quickstart_flexitokens
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model.update(
    {'chunking': 'flexitokens(0.2,0.05,2,evaluation=sample)', 'ratio_targets': None, 'bytes_per_chunk': (5.0,)}
  )
  config.loss_weights = {'hinge': 1.0}
  return config
