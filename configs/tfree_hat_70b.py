"""Llama-3.1-70B-TFree-HAT as far as it is known: a 68.45B backbone, and an encoder of 477M with its pooling.

  python train.py --config=configs/tfree_hat_70b.py --describe

Its configuration was not at hand. Twice the local width of the 8B gives the published 477M; the decoder is that of the
8B at this width. Text is expected in data/train and data/validation.
"""

import ml_collections

from configs.tfree_hat_8b import tfree_hat


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The blocks of Llama-3.1-70B, and local models of width 2048."""
  del arg
  return tfree_hat(width=2048, intermediate_size=5632, heads=(16, 64), backbone=(8192, 80, 28_672), norms={})
