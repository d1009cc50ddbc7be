"""Scratch rows (arXiv 2605.09630) at the quickstart's size: a chunk every 5 bytes, and in it one more step of the main
network, at its fourth byte, which leaves nothing behind.

It tells what comes of better boundaries and what of computing more often. Its parameters are quickstart_pool's: with
rows=every(size=5) it is that model, with rows=every(size=1) the main network works at every byte.

  python train.py --config=configs/quickstart_scratch.py --workdir=runs/quickstart_scratch
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  chunking = 'scratchpad(boundary=stride(size=5),rows=every(size=3))'
  config.model.update({'chunking': chunking, 'ratio_targets': None})
  return config
