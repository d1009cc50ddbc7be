"""HAT 3B (arXiv:2501.10322): 4.31 B parameters in the backbone, 24 M in encoder and decoder each; see hat_1b.

python train.py --config=configs/hat_3b.py --workdir=DIR
"""

import ml_collections

from configs.hat_1b import hat


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """28 layers of width 3584, as many heads; 3 local layers of width 768."""
  del arg
  return hat(layers=28, d_intermediate=9557, local=(3, 768, 2048))
