"""What the experiments share: the training branches, and the recipe of the released models."""

from collections.abc import Sequence

import ml_collections


def training(*, num_steps: int, batch_size: int, seq_len: int, learning_rate: float) -> ml_collections.ConfigDict:
  """Every branch but `model`, with the values that most experiments keep."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = num_steps
  config.batch_size = batch_size
  config.seq_len = seq_len
  config.init_from = ''
  config.loss_weights = {'ratio': 0.03}  # the paper's alpha
  config.data = {'source': 'python_docs', 'validation': 'python_docs', 'workers': 0, 'prefetch': 8}
  config.optimizer = {
    'name': 'adamw',
    'learning_rate': learning_rate,
    'schedule': {'name': 'wsd', 'warmup': 0.1, 'decay': 0.2, 'final': 0.0},
    # The paper names AdamW and no more; these are the customary values of the Mamba line.
    'weight_decay': 0.1,
    'decay_exempt': 'default',
    'betas': (0.9, 0.95),
    'eps': 1e-8,
    'clip_norm': 1.0,
    'skip_norm': 0.0,
    'lr_multipliers': None,
    'accumulate': 1,
    'ema': 0.0,
  }
  config.mesh = {'shape': (-1, 1, 1)}
  config.checkpoint = {'every_steps': 100, 'keep_latest': 2, 'keep_best': 1, 'rollbacks': 0}
  config.eval = {'every_steps': 200, 'max_bytes': 50_000}
  config.log = {'every_steps': 10}
  return config


def released(
  *,
  arch_layout: tuple,
  d_model: Sequence[int],
  d_intermediate: Sequence[int],
  rotary_emb_dim: Sequence[int],
  window_size: Sequence[int],
  ratio_targets: Sequence[float],
  bytes_per_chunk: Sequence[float],
  learning_rate: float,
) -> ml_collections.ConfigDict:
  """A released H-Net with the paper's recipe: 256 x 8,192 bytes a step, WSD, learning rates by stage (eq. 11)."""
  config = training(num_steps=218_000, batch_size=256, seq_len=8192, learning_rate=learning_rate)
  config.data.source = 'files:data/train/*.jsonl.gz#text'
  config.data.validation = 'files:data/validation/*.jsonl.gz#text'
  config.optimizer.lr_multipliers = 'paper'
  config.mesh.shape = (1, -1, 1)  # parameters, gradients and moments shared out among all devices
  config.checkpoint.every_steps = 1000
  config.eval.every_steps = 5000
  config.eval.max_bytes = 10_000_000
  config.model = {
    'family': 'hnet',
    'arch_layout': arch_layout,
    'd_model': tuple(d_model),
    'd_intermediate': tuple(d_intermediate),
    'ssm_cfg': {'chunk_size': 256, 'd_conv': 4, 'd_state': 128, 'expand': 2},
    'attn_cfg': {
      'num_heads': (16,) * len(d_model),
      'rotary_emb_dim': tuple(rotary_emb_dim),
      'window_size': tuple(window_size),
    },
    'ratio_targets': tuple(ratio_targets),
    'bytes_per_chunk': tuple(bytes_per_chunk),
    'dtype': 'bfloat16',
    'remat': True,
    'scan_layers': True,
    'ssd_tile': 256,
  }
  return config
