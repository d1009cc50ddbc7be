"""Bolmo's chunks at the quickstart's size: ends that a boundary sees a byte ahead and the head predicts with each byte.

  python train.py --config=configs/quickstart_bolmo.py --workdir=runs/quickstart_bolmo

Its labels are ends of words, of spaces and of signs; `:FILE` learns those of a subword tokenizer's pieces (a
tokenizer.json, such as `python -m text.subwords` makes). As published one block before the chunks and more behind them,
here of Mamba-2 and not mLSTM, and from scratch and not from a model over those pieces.
"""

import ml_collections

from configs import quickstart
from text.specification import quoted


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model; arg: '' or FILE."""
  config = quickstart.get_config()
  chunking = f'bolmo_chunker(by=pieces(file={quoted(arg)}))' if arg else 'bolmo_chunker'
  config.model.update(
    {'arch_layout': ('m1', ('T2',), 'm3'), 'chunking': chunking, 'ratio_targets': None, 'bytes_per_chunk': (4.3,)}
  )
  config.loss_weights = {'bce': 4.0}
  return config
