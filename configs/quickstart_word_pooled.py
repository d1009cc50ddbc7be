"""Word-Pooled of the quickstart's size: four vectors for every word, each a position of the main model.

  python train.py --config=configs/quickstart_word_pooled.py --workdir=runs/quickstart_word_pooled

Words are spelled with bytes. With characters, or with subwords that are trained first:

  python train.py --config=configs/quickstart_word_pooled.py:char --workdir=runs/word_pooled_char
  python -m text.subwords --source=python_docs --out=runs/subwords.json
  python train.py --config=configs/quickstart_word_pooled.py:subword=runs/subwords.json --workdir=runs/word_pooled_bpe
"""

import ml_collections

from configs import quickstart
from text.specification import quoted


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model. arg: '', 'char' (Latin letters; others as bytes) or 'subword=FILE'."""
  config = quickstart.get_config()
  sizes = {'d_model': 128, 'd_intermediate': 384, 'num_heads': 4}
  config.model = {
    'family': 'word_ar',
    'words': 'hat(max_bytes=64)',
    'units': _units(arg),
    'num_vectors': 4,
    'encoder': {'arch_layout': 'T1', **sizes},
    'backbone': {'arch_layout': 'T3', **sizes},
    'decoder': {'arch_layout': 'T1', **sizes},
  }
  return config


def _units(arg: str) -> str:
  name, _, file = arg.partition('=')
  if arg in ('', 'char'):
    return 'char(limit=0x250)' if arg else 'byte'
  if name != 'subword' or not file:
    raise ValueError(f"configs/quickstart_word_pooled.py has no variant '{arg}': use none, char or subword=FILE")
  return f'subword(file={quoted(file)})'  # a run copies it, so that another one is an error later
