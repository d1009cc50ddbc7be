"""The shape of BLT 7B as far as it is known: 10,553,570,560 parameters, of which 3.84 B are rows of n-grams.

  python train.py --config=configs/blt_7b.py --describe

Layers, widths, heads and vectors a patch are those of the paper's table for its largest model (arXiv 2412.09871), not
compared with the released file, whose own config `byte_models.from_pretrained` reads; tables, rotary base and window
are those of the 1B. The four vectors of a patch, 5,120 channels, are projected to 4,096.
"""

import ml_collections

from configs.blt_1b import blt


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Four vectors a patch."""
  del arg
  return blt(local=(1280, 20, 1, 6), main=(4096, 32, 32), queries=4)
