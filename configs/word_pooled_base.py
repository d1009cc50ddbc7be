"""Word-Pooled at the sizes of "Learn Your Tokens" (Thawani et al. 2023): width 512, k = 4 vectors a word.

  python train.py --config=configs/word_pooled_base.py --workdir=DIR

2 + 8 + 2 layers with 4, 8 and 8 heads. Blocks are pre-norm, rotary and gated (MLPs of as many parameters as the
authors'), rows hold about their 192 words. This has not been trained with this code. Text is expected in data/train and
data/validation; --config.data.source names another place.
"""

import ml_collections

from configs.common import training


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The authors' optimizer and sizes; more rows than their two, since nothing here is padded to the longest word."""
  del arg
  config = training(num_steps=100_000, batch_size=32, seq_len=1024, learning_rate=1e-4)
  config.data.source = 'files:data/train/*.jsonl.gz#text'
  config.data.validation = 'files:data/validation/*.jsonl.gz#text'
  config.optimizer.schedule = {'name': 'constant', 'warmup': 0.0, 'decay': 0.0, 'final': 1.0}
  config.checkpoint.every_steps = 1000
  config.eval.every_steps = 5000
  config.eval.max_bytes = 1_000_000
  sizes = {'d_model': 512, 'd_intermediate': 1365}
  config.model = {
    'family': 'word_ar',
    'words': 'hat(max_bytes=64)',
    'num_vectors': 4,
    'encoder': {'arch_layout': 'T2', 'num_heads': 4, **sizes},
    'backbone': {'arch_layout': 'T8', 'num_heads': 8, **sizes},
    'decoder': {'arch_layout': 'T2', 'num_heads': 8, **sizes},
  }
  return config
