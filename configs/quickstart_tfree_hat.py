"""T-Free-HAT of the quickstart's size: words by rule, pooled by a latent query, their vectors in every decoder layer.

python train.py --config=configs/quickstart_tfree_hat.py --workdir=runs/quickstart_tfree_hat
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  local = {
    'hidden_size': 128,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'intermediate_size': 384,
    'rms_norm_eps': 1e-5,
    'sliding_window': 64,
  }
  config.model = {
    'family': 'tfree_hat',
    'encoder_config': {**local, 'num_hidden_layers': 1, 'cross_attention_config': {'num_attention_heads': 8}},
    'backbone_config': {
      'hidden_size': 256,
      'num_hidden_layers': 2,
      'num_attention_heads': 4,
      'intermediate_size': 768,
      'rms_norm_eps': 1e-5,
    },
    'decoder_config': {**local, 'cross_attention_config': {'num_attention_heads': 4}},
    'max_word_size': 64,
    'bytes_per_word': 3.9,  # Python's documentation and library
  }
  return config
