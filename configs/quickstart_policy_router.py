"""Chunks drawn by a gate that policy gradient trains (arXiv 2602.13940), at the quickstart's size.

The paper's weights of the losses, and as many bytes a step as the quickstart in twice as many rows, since a reward is
compared with those of the other rows. Its own network has attention outside, and positions of bytes inside.

  python train.py --config=configs/quickstart_policy_router.py --workdir=runs/quickstart_policy_router
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with its parts."""
  config = quickstart.get_config(arg)
  config.update({'batch_size': 2 * config.batch_size, 'seq_len': config.seq_len // 2})
  config.model.update({'chunking': 'policy_router(5)', 'post_norm': False})
  config.model.update({'ratio_targets': None, 'bytes_per_chunk': (5.0,)})
  config.loss_weights = {'reinforce': 0.01, 'rate': 0.01, 'early': 0.1}
  return config
