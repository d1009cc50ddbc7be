"""The byte model whose entropies cut patches for BLT: flat, half a million parameters, a window of 128 bytes.

  python train.py --config=configs/quickstart_entropy_lm.py --workdir=runs/quickstart_entropy_lm
  python -m studies.calibrate --workdir=runs/quickstart_entropy_lm --size=4.5

Its sizes are those that the boundary `entropy(lm=runs/quickstart_entropy_lm)` has by default.
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The quickstart with another model."""
  config = quickstart.get_config(arg)
  config.model = {
    'family': 'hnet',
    'arch_layout': ('T3',),
    'd_model': (128,),
    'd_intermediate': (256,),
    'attn_cfg': {'num_heads': (4,), 'rotary_emb_dim': (32,), 'window_size': (127,)},
  }
  return config
