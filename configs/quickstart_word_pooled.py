"""Word-Pooled of the quickstart's size: four vectors for every word, each a position of the main model.

python train.py --config=configs/quickstart_word_pooled.py --workdir=runs/quickstart_word_pooled
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  sizes = {'d_model': 128, 'd_intermediate': 384, 'num_heads': 4}
  config.model = {
    'family': 'word_ar',
    'words': 'hat(max_bytes=64)',
    'num_vectors': 4,
    'encoder': {'arch_layout': 'T1', **sizes},
    'backbone': {'arch_layout': 'T3', **sizes},
    'decoder': {'arch_layout': 'T1', **sizes},
    'ladder': {'fractions': (0.25, 0.375, 0.5, 1.0)},
  }
  return config
