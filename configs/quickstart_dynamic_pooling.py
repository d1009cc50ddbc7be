"""Dynamic-pooling at the quickstart's size: ends of chunks by a small network, their means, a prior on how many.

  python train.py --config=configs/quickstart_dynamic_pooling.py --workdir=runs/quickstart_dynamic_pooling

It draws in evaluation as in training, as published: what p is above 1/2 alone would be fewer.
`:entropy` learns ends where the model's own entropy rises, `:pieces=FILE` those of a subword tokenizer's pieces (a
tokenizer.json, such as `python -m text.subwords` makes); what comes to it there is not pulled to a size.
"""

import ml_collections

from configs import quickstart
from text.specification import quoted


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model; arg: '', 'entropy' or 'pieces=FILE'."""
  config = quickstart.get_config()
  kind, _, file = arg.partition('=')
  if kind not in ('', 'entropy', 'pieces') or (kind == 'pieces') != bool(file):
    raise ValueError(f"configs/quickstart_dynamic_pooling.py:{arg}: write nothing, 'entropy' or 'pieces=FILE' there")
  chunking = {
    '': 'dynamic_pooling(5,evaluation=sample)',
    'entropy': 'dynamic_pooling_entropy',
    'pieces': f'dynamic_pooling_pieces(by=pieces(file={quoted(file)}))',
  }[kind]
  config.model.update({'chunking': chunking, 'ratio_targets': None, 'bytes_per_chunk': (5.0,)})
  config.loss_weights = {'bce' if kind else 'binomial': 1.0}
  return config
