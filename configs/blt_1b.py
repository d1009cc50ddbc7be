"""The shape of the released BLT 1B: 4,533,879,808 parameters, of which 3.07 B are rows of n-grams.

  python train.py --config=configs/blt_1b.py --describe

Sizes are those of transformers' BltConfig, whose defaults they are (and of the paper's table for 1B: arXiv 2412.09871):
1 + 9 local layers of width 1024, 25 of width 2048 over patches, 500,002 rows for each of 6 lengths. The window of the
local layers is not in that file; 512 is what the paper says. Patches by entropy, which released weights come with, need
that model: here they end at spaces. The training, on 4 T bytes, has not been repeated with this code. Text is expected
in data/train and data/validation.
"""

import ml_collections

from configs.common import training


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Two vectors a patch, as wide together as the global model."""
  del arg
  return blt(local=(1024, 16, 1, 9), main=(2048, 16, 25), queries=2)


def blt(*, local: tuple[int, int, int, int], main: tuple[int, int, int], queries: int) -> ml_collections.ConfigDict:
  """local: width, heads, layers of the encoder and of the decoder. main: width, heads and layers over patches."""
  config = training(num_steps=500_000, batch_size=256, seq_len=8192, learning_rate=4e-4)
  config.data.source = 'files:data/train/*.jsonl.gz#text'
  config.data.validation = 'files:data/validation/*.jsonl.gz#text'
  config.mesh.shape = (1, -1, 1)
  config.checkpoint.every_steps = 1000
  config.eval.every_steps = 5000
  config.eval.max_bytes = 10_000_000
  width, heads, encoder, decoder = local
  config.model = {
    'family': 'blt',
    'dim_global': main[0],
    'dim_local_encoder': width,
    'dim_local_decoder': width,
    'n_layers_global': main[2],
    'n_layers_local_encoder': encoder,
    'n_layers_local_decoder': decoder,
    'n_heads_global': main[1],
    'n_heads_local_encoder': heads,
    'n_heads_local_decoder': heads,
    'rope_theta': 500_000.0,
    'local_attention_window_len': 512,
    'cross_attn_k': queries,
    'cross_attn_all_layers_decoder': True,
    'encoder_hash_byte_group_size': (3, 4, 5, 6, 7, 8),
    'encoder_hash_byte_group_vocab': 500_002,
    'encoder_hash_byte_group_nb_functions': 1,
    'boundary': 'space_end',
    'bytes_per_chunk': (4.5,),
    'dtype': 'bfloat16',
    'remat': True,
    'scan_layers': True,
  }
  return config
