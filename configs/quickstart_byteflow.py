"""ByteFlow's coding rate as a boundary that looks at no later byte, between the quickstart's stacks.

python train.py --config=configs/quickstart_byteflow.py --workdir=runs/quickstart_byteflow
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model.update({'chunking': 'byteflow_threshold(size=5.0)', 'ratio_targets': None})
  config.loss_weights = {'quantile': 1.0}
  return config
