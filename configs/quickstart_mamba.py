"""A flat Mamba-2 byte model of the quickstart's size.

python train.py --config=configs/quickstart_mamba.py --workdir=runs/quickstart_mamba
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model = {
    'family': 'hnet',
    'arch_layout': ('m5',),
    'd_model': (160,),
    'd_intermediate': (0,),
    'ssm_cfg': {'d_state': 64},
    'attn_cfg': {'num_heads': (4,), 'rotary_emb_dim': (32,), 'window_size': (-1,)},
  }
  return config
