"""The released hnet_1stage_xl: 1,270,833,920 parameters.

  python train.py --config=configs/hnet_1stage_xl.py --workdir=DIR

The paper trained it on FineWeb-Edu, 256 rows of 8,192 bytes for about 218,000 steps,
and reports 0.728 bits per byte (validation). This has not been repeated with this code. Text is expected
in data/train and data/validation; --config.data.source names another place.
"""

import ml_collections

from configs.common import released


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The architecture of the authors' config.json, trained as the paper describes."""
  del arg
  return released(
    arch_layout=('m4', ('T24',), 'm4'),
    d_model=(1024, 2048),
    d_intermediate=(0, 5504),
    rotary_emb_dim=(32, 64),
    window_size=(1023, -1),
    ratio_targets=(6.0,),
    bytes_per_chunk=(4.7,),
    learning_rate=0.0005,
  )
