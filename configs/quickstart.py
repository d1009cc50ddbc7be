"""H-Net, one stage, on Python's own documentation and library.

  python train.py --config=configs/quickstart.py --workdir=runs/quickstart

2 CPU cores: five to six minutes; 1.771 bits per byte on the validation text (gzip -9 on the same bytes: 1.923), 5.0
bytes a chunk with a target of 5.
"""

import ml_collections

from configs.common import training


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Small rows and small batches: at this budget, more updates on more documents beat longer contexts."""
  del arg
  config = training(num_steps=1800, batch_size=8, seq_len=256, learning_rate=3e-3)
  config.model = {
    'family': 'hnet',
    'arch_layout': ('m2', ('T2',), 'm2'),
    'd_model': (128, 256),
    'd_intermediate': (0, 768),
    'ssm_cfg': {'d_state': 64},
    'attn_cfg': {'num_heads': (4, 4), 'rotary_emb_dim': (16, 32), 'window_size': (-1, -1)},
    'ratio_targets': (5.0,),
  }
  config.checkpoint.every_steps = 200
  config.eval.every_steps = 400
  config.log.every_steps = 20
  return config
