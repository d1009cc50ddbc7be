"""HAT of the quickstart's size: words by rule, an encoder and a decoder for each alone, a backbone over words.

python train.py --config=configs/quickstart_hat.py --workdir=runs/quickstart_hat
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  local = {'arch_layout': 'T1', 'd_model': 128, 'd_intermediate': 384, 'num_heads': 4}
  config.model = {
    'family': 'word_ar',
    'words': 'hat(max_bytes=64)',
    'num_vectors': 1,
    'encoder': local,
    'backbone': {'arch_layout': 'T2', 'd_model': 256, 'd_intermediate': 768, 'num_heads': 4},
    'decoder': {**local, 'arch_layout': 'T2'},
  }
  return config
