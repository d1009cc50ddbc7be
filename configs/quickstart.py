"""H-Net, one stage, on Python's own documentation and library.

python train.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

import ml_collections


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart."""
  del arg
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 600
  config.batch_size = 8
  config.seq_len = 512
  config.init_from = ''
  config.loss_weights = {'ratio': 0.03}
  config.data = {'source': 'python_docs', 'validation': 'python_docs', 'workers': 0, 'prefetch': 8}
  config.model = {
    'family': 'hnet',
    'arch_layout': ('m2', ('T2',), 'm2'),
    'd_model': (128, 256),
    'd_intermediate': (0, 768),
    'ssm_cfg': {'chunk_size': 256, 'd_conv': 4, 'd_state': 64, 'expand': 2},
    'attn_cfg': {'num_heads': (4, 4), 'rotary_emb_dim': (16, 32), 'window_size': (-1, -1)},
    'ratio_targets': (5.0,),
  }
  config.optimizer = {
    'name': 'adamw',
    'learning_rate': 3e-3,
    'schedule': {'name': 'wsd', 'warmup': 0.1, 'decay': 0.2, 'final': 0.0},
    'weight_decay': 0.1,
    'decay_exempt': 'default',
    'betas': (0.9, 0.95),
    'eps': 1e-8,
    'clip_norm': 1.0,
    'lr_multipliers': None,
    'accumulate': 1,
    'ema': 0.0,
  }
  config.mesh = {'shape': (-1,), 'axes': ('data',)}
  config.checkpoint = {'every_steps': 100, 'keep_latest': 2, 'keep_best': 1}
  config.eval = {'every_steps': 200, 'max_bytes': 50_000}
  config.log = {'every_steps': 10}
  return config
