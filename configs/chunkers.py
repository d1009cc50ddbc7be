"""Ways to cut to be compared: equal work per byte, equal bytes, on English, Chinese and code.

  python -m text.corpora fetch english_wiki code_python multilingual/zh-CN --out=data/corpora
  python train.py --config=configs/chunkers.py:magnet --workdir=runs/chunkers/magnet

`blt_entropy` cuts by the entropies of another model, which is trained and calibrated before it:

  python train.py --config=configs/chunkers.py:entropy_lm --workdir=runs/chunkers/entropy_lm
  python -m studies.calibrate --workdir=runs/chunkers/entropy_lm --size=5

`python -m studies.compare --config=configs/chunkers.py --workdir=runs/chunkers --models NAME...` makes the tables.
"""

import ml_collections

from configs import (
  compare,
  quickstart_blt,
  quickstart_dynamic_pooling,
  quickstart_entropy_lm,
)
from text.specification import quoted

TEXT = (('corpus:english_wiki', 2.0), ('corpus:multilingual/zh-CN', 1.0), ('corpus:code_python', 1.0))
ENTROPY_LM = 'runs/chunkers/entropy_lm'
# Bytes a chunk of each stage on this text, where a rule or labels set them.
SIZES = {
  'aunet2': (5.4,),
  'aunet3': (5.4, 7.8),
  'blt': (5.1,),
  'bolmo_chunker': (5.4,),
  'dynamic_pooling_pieces': (5.4,),
  'hnet_space': (5.2,),
  'spacebyte': (5.2,),
}


def get_config(arg: str = 'hnet') -> ml_collections.ConfigDict:
  """arg: entropy_lm, blt_entropy, dynamic_pooling_entropy, dynamic_pooling_pieces (of what Bolmo's labels are by
  default), or one of configs/compare.py; all but the first are resized to the quickstart H-Net's FLOPs per byte.
  """
  config = _model(arg)
  config.data = {**config.data, 'source': TEXT, 'validation': ''}
  config.update({'num_steps': 1000, 'batch_size': 8, 'seq_len': 256})
  if config.model.get('bytes_per_chunk') and arg in SIZES:
    config.model.bytes_per_chunk = SIZES[arg]
  if arg != 'entropy_lm':
    config.model = compare.matched(config, SIZES.get(arg))
  config.checkpoint.every_steps = 200
  config.eval.every_steps = 500
  config.log.every_steps = 50
  return config


def _model(arg: str) -> ml_collections.ConfigDict:
  if arg == 'entropy_lm':
    config = quickstart_entropy_lm.get_config()
    config.model.update({'arch_layout': ('T2',), 'd_model': (96,), 'd_intermediate': (256,)})
    config.model.attn_cfg.rotary_emb_dim = (24,)
    return config
  if arg == 'blt_entropy':  # whose entropy model and patches cost together what those of the others do
    config = quickstart_blt.get_config(ENTROPY_LM)
    options = 'size=5.0,layout=T2,width=96,mlp_width=256,rotary=24'
    config.model.update({'boundary': f'entropy(lm={quoted(ENTROPY_LM)},{options})', 'n_layers_local_decoder': 1})
    return config
  if arg.startswith('dynamic_pooling_'):
    config = quickstart_dynamic_pooling.get_config('entropy')
    if arg == 'dynamic_pooling_pieces':
      config.model.chunking = r'dynamic_pooling_pieces(by=regex([ ]?\w+|[ ]?[^\w\s]+|\s+(?!\S)|\s+))'
    return config
  if arg not in compare.MODELS:
    raise ValueError(
      f"configs/chunkers.py has no model '{arg}': use entropy_lm, blt_entropy, dynamic_pooling_entropy, "
      f'dynamic_pooling_pieces or one of {", ".join(compare.MODELS)}'
    )
  config = compare.MODELS[arg][0].get_config()
  if arg == 'magnet':  # two Chinese characters as long as a chunk of Latin letters
    config.model.chunking = 'magnet(latin+cjk,5+6,others=latin,evaluation=sample)'
  return config
