"""BLT of the quickstart's size: two vectors a patch by cross attention, n-grams as input, patches that end at spaces.

python train.py --config=configs/quickstart_blt.py --workdir=runs/quickstart_blt
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model = {
    'family': 'blt',
    'dim_global': 256,
    'dim_local_encoder': 128,
    'dim_local_decoder': 128,
    'n_layers_global': 2,
    'n_layers_local_encoder': 1,
    'n_layers_local_decoder': 2,
    'n_heads_global': 4,
    'n_heads_local_encoder': 4,
    'n_heads_local_decoder': 4,
    'multiple_of': 128,
    'local_attention_window_len': 64,
    'cross_attn_k': 2,
    'cross_attn_all_layers_decoder': True,
    'encoder_hash_byte_group_size': (3, 4, 5, 6, 7, 8),
    'encoder_hash_byte_group_vocab': 2048,
    'encoder_hash_byte_group_nb_functions': 1,
    'boundary': 'space_end',
    'bytes_per_chunk': (8.4,),  # Python's documentation and library
  }
  return config
