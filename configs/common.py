"""What the experiments share: the training branches, and the recipe of the released models."""

from collections.abc import Sequence

import ml_collections

from training import config as config_lib


def training(*, num_steps: int, batch_size: int, seq_len: int, learning_rate: float) -> ml_collections.ConfigDict:
  """Every branch but `model`: Python's documentation, and the defaults of training/config.py."""
  return ml_collections.ConfigDict(
    config_lib.whole(
      {
        'num_steps': num_steps,
        'batch_size': batch_size,
        'seq_len': seq_len,
        'data': {'source': 'python_docs', 'validation': 'python_docs'},
        'optimizer': {'learning_rate': learning_rate},
      }
    )
  )


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
