"""AU-Net of two stages (arXiv 2506.14761) at the quickstart's size: chunks end with words, marks and numbers.

A linear map into the main network, another one for each distance back to its slots, and a norm only before the head.

  python train.py --config=configs/quickstart_aunet2.py --workdir=runs/quickstart_aunet2
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model; without a limit to chunks."""
  config = quickstart.get_config(arg)
  config.model = {
    'family': 'hnet',
    'arch_layout': ('T1', ('T2',), 'T1'),
    'd_model': (128, 256),
    'd_intermediate': (384, 768),
    'attn_cfg': {'num_heads': (4, 4), 'rotary_emb_dim': (32, 64), 'window_size': (63, -1)},
    'rotary_base': 500_000.0,
    'chunking': 'aunet2',
    'post_norm': 'head',
    'bytes_per_chunk': (5.3,),
  }
  return config
