"""HAT 7B (arXiv:2501.10322): 9.17 B parameters in the backbone, 55 M in encoder and decoder each; see hat_1b.

python train.py --config=configs/hat_7b.py --workdir=DIR
"""

import ml_collections

from configs.hat_1b import hat


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """36 layers of width 4608, as many heads; 4 local layers of width 1024."""
  del arg
  return hat(layers=36, d_intermediate=12_288, local=(4, 1024, 2730))
