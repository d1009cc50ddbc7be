"""H-Net, two stages, small enough for a laptop.

python train.py --config=configs/hnet_2stage_small.py --workdir=runs/hnet_2stage_small
"""

import ml_collections

from configs.common import training


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Two learned levels of chunks, the inner one brought in slowly: small routers collapse less from a low target."""
  del arg
  config = training(num_steps=4000, batch_size=8, seq_len=1024, learning_rate=2e-3)
  config.model = {
    'family': 'hnet',
    'arch_layout': ('m2', ('T1m1', ('T4',), 'm1T1'), 'm2'),
    'd_model': (128, 192, 256),
    'd_intermediate': (0, 512, 768),
    'ssm_cfg': {'d_state': 64},
    'attn_cfg': {'num_heads': (2, 3, 4), 'rotary_emb_dim': (32, 32, 32), 'window_size': (127, 127, -1)},
    'ratio_targets': (3.0, {'start': 1.5, 'end': 3.0, 'until': 0.3}),
  }
  config.optimizer.lr_multipliers = (2.0, 1.5, 1.0)
  config.optimizer.learning_rate = 1e-3
  config.checkpoint.every_steps = 500
  config.eval.every_steps = 500
  return config
