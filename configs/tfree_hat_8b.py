"""The published Llama-3.1-8B-TFree-HAT: 7,192,495,104 parameters.

  python train.py --config=configs/tfree_hat_8b.py --describe

--config=configs/tfree_hat_8b.py:norms adds the norms of queries and keys of the 7B that was trained from scratch:
7,192,507,136 parameters. Sizes are those of the released weights; the numbers of heads follow from them, the rotary
bases are not confirmed. arXiv 2603.15953 trained on documents of up to 3,500 words, from scratch for a million steps;
this has not been repeated with this code. Text is expected in data/train and data/validation.
"""

import ml_collections

from configs.common import training


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """arg: 'norms' for norms of queries and keys in every attention."""
  if arg not in ('', 'norms'):
    raise ValueError(f"configs/tfree_hat_8b.py takes no argument or 'norms', not {arg!r}.")
  norms = {'key_query_norm': arg == 'norms', 'key_query_norm_per_head': arg == 'norms'}
  return tfree_hat(width=1024, intermediate_size=2816, heads=(8, 32), backbone=(4096, 32, 14_336), norms=norms)


def tfree_hat(
  *,
  width: int,
  intermediate_size: int,
  heads: tuple[int, int],
  backbone: tuple[int, int, int],
  norms: dict[str, bool],
) -> ml_collections.ConfigDict:
  """A T-Free-HAT with 6 encoder and 4 decoder layers around a Llama with 8 key and value heads.

  width, intermediate_size: of encoder and decoder. heads: of these, and of the backbone. backbone: width, layers and
  width of the MLP. norms: what the attention configurations have of query and key norms.
  """
  local = {
    'hidden_size': width,
    'num_attention_heads': heads[0],
    'intermediate_size': intermediate_size,
    'rms_norm_eps': 1e-5,
    'rope_theta': 1e5,
    'sliding_window': 768,
    **norms,
  }
  config = training(num_steps=1_000_000, batch_size=256, seq_len=16_384, learning_rate=3e-4)
  config.data.source = 'files:data/train/*.jsonl.gz#text'
  config.data.validation = 'files:data/validation/*.jsonl.gz#text'
  config.mesh.shape = (1, -1, 1)
  config.checkpoint.every_steps = 5000
  config.eval.every_steps = 5000
  config.eval.max_bytes = 10_000_000
  config.model = {
    'family': 'tfree_hat',
    'encoder_config': {
      **local,
      'num_hidden_layers': 6,
      'cross_attention_config': {'num_attention_heads': heads[1], **norms},
    },
    'backbone_config': {
      'hidden_size': backbone[0],
      'num_hidden_layers': backbone[1],
      'num_attention_heads': heads[1],
      'num_key_value_heads': 8,
      'intermediate_size': backbone[2],
      'rms_norm_eps': 1e-5,
      'rope_theta': 5e5,
      **norms,
    },
    'decoder_config': {
      **local,
      'num_hidden_layers': 4,
      'cross_attn_every_layer': True,
      'cross_attention_config': {'num_attention_heads': heads[0], **norms},
    },
    'max_word_size': 100,
    'keep_unused': True,  # as in the released files
    'bytes_per_word': 5.2,  # English
    'dtype': 'bfloat16',
    'remat': True,
    'scan_layers': True,
  }
  return config
