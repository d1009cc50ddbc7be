"""A token model of the quickstart's size: what chunking has to beat.

  mkdir -p runs/tokenizers
  python -m text.tokenizers train bpe --source=python_docs --vocab_size=2048 --out=runs/tokenizers/bpe
  python train.py --config=configs/quickstart_bpe.py --workdir=runs/quickstart_bpe

Another tokenizer, or a published tokenizer.json, is named behind a colon: --config=configs/quickstart_bpe.py:DIR.
Training on other tokens of the same text: --config.model.stochastok=0.1 or --config.model.bpe_dropout=0.1.
"""

import json
import pathlib

import ml_collections

from configs import quickstart
from text.specification import quoted


def get_config(arg: str = 'runs/tokenizers/bpe') -> ml_collections.ConfigDict:
  """The quickstart with another model. arg: where its tokenizer is, a directory or a tokenizer.json."""
  config = quickstart.get_config()
  config.model = {
    'family': 'token_lm',
    'units': f'tokens(file={quoted(arg)})',  # a run copies it, so that another one is an error later
    'hidden_size': 192,
    'intermediate_size': 512,
    'num_hidden_layers': 5,
    'num_attention_heads': 4,
    'bytes_per_chunk': _bytes_per_token(pathlib.Path(arg)),
  }
  return config


def _bytes_per_token(directory: pathlib.Path) -> tuple[float, ...] | None:
  """What the card beside a tokenizer says of held-out text; None without one."""
  try:
    return (float(json.loads((directory / 'card.json').read_bytes())['held_out']['bytes_per_token']),)
  except (OSError, ValueError, KeyError, TypeError):
    return None
