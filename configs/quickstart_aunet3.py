"""AU-Net of three stages (arXiv 2506.14761) at the quickstart's size: words, and pairs of words.

python train.py --config=configs/quickstart_aunet3.py --workdir=runs/quickstart_aunet3
"""

import ml_collections

from configs import quickstart_aunet2


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """A stage more."""
  config = quickstart_aunet2.get_config(arg)
  config.model.update(
    {
      'arch_layout': ('T1', ('T1', ('T2',), 'T1'), 'T1'),
      'd_model': (128, 192, 256),
      'd_intermediate': (384, 512, 768),
      'attn_cfg': {'num_heads': (4, 4, 4), 'rotary_emb_dim': (32, 48, 64), 'window_size': (63, -1, -1)},
      'chunking': 'aunet3',
      'bytes_per_chunk': (5.3, 7.5),
    }
  )
  return config
