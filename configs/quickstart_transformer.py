"""A flat byte transformer of the quickstart's size: what chunking has to beat.

python train.py --config=configs/quickstart_transformer.py --workdir=runs/quickstart_transformer
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model = {
    'family': 'hnet',
    'arch_layout': ('T4',),
    'd_model': (144,),
    'd_intermediate': (384,),
    'attn_cfg': {'num_heads': (4,), 'rotary_emb_dim': (36,), 'window_size': (-1,)},
  }
  return config
