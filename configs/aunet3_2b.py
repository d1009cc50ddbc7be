"""AU-Net of three stages (arXiv 2506.14761; lingua, apps/aunet/configs/2B_2level.yaml): 2,503,622,016 parameters.

  python train.py --config=configs/aunet3_2b.py --workdir=DIR

Words, and pairs of words. What is said of configs/aunet2_1b.py holds here, too.
"""

import ml_collections

from configs.aunet2_1b import aunet


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """At most 1,600 words and 928 pairs in a row of 8,192 bytes; rows of 24 GPUs with 11 each."""
  del arg
  return aunet(
    chunking='aunet3',
    layers=(3, 6, 12),
    d_model=(512, 2048, 3456),
    heads=(8, 16, 27),
    windows=(512, 4096, 4096),
    chunks=(1600, 928),
    num_steps=300_000,
    batch_size=264,
    learning_rate=1.1e-3,
    final=0.001,
  )
