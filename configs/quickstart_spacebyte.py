"""SpaceByte with Mamba-2 outside (SpaceByte++ of the H-Net paper) at the quickstart's size.

Chunks at space-like bytes, zeros to widen, the main network's output added where a chunk starts, no norm at the end of
a stack and no residual projection (SpaceByte, arXiv 2404.14408).

  python train.py --config=configs/quickstart_spacebyte.py --workdir=runs/quickstart_spacebyte
"""

import ml_collections

from configs import quickstart_space


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """H-Net (space) with SpaceByte's parts."""
  config = quickstart_space.get_config(arg)
  config.model.update({'chunking': 'spacebyte', 'post_norm': False})
  return config
