"""BLT of the quickstart's size: two vectors a patch by cross attention, n-grams as input, patches that end at spaces.

  python train.py --config=configs/quickstart_blt.py --workdir=runs/quickstart_blt

With patches by the entropy of another model, which is trained and calibrated first:

  python train.py --config=configs/quickstart_entropy_lm.py --workdir=runs/quickstart_entropy_lm
  python -m studies.calibrate --workdir=runs/quickstart_entropy_lm --size=4.5
  python train.py --config=configs/quickstart_blt.py:runs/quickstart_entropy_lm --workdir=runs/quickstart_blt_entropy
"""

import ml_collections

from configs import quickstart
from text.specification import quoted


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model. arg: the work directory of an entropy model, calibrated for 4.5 bytes."""
  config = quickstart.get_config()
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
    'boundary': f'entropy(lm={quoted(arg)})' if arg else 'space_end',
    'bytes_per_chunk': None if arg else (8.4,),  # Python's documentation and library
  }
  return config
