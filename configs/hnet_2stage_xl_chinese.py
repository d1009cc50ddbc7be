"""The released hnet_2stage_xl_chinese: 1,755,285,888 parameters.

  python train.py --config=configs/hnet_2stage_xl_chinese.py --workdir=DIR

The paper trained it on FineWeb-Edu-Chinese-V2.1, 256 rows of 8,192 bytes for about 218,000 steps,
and reports 0.7032 bits per byte (validation). This has not been repeated with this code. Text is expected
in data/train and data/validation; --config.data.source names another place.

The paper reports 5.81 bytes a chunk of the inner stage; the outer stage's, not given, is stated as its square root.
"""

import ml_collections

from configs.common import released


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """The architecture of the authors' config.json, trained as the paper describes."""
  del arg
  return released(
    arch_layout=('m4', ('T1m4', ('T30',), 'm4T1'), 'm4'),
    d_model=(1024, 1536, 2048),
    d_intermediate=(0, 4096, 5504),
    rotary_emb_dim=(32, 48, 64),
    window_size=(1023, 1023, -1),
    ratio_targets=(3.0, 3.0),
    bytes_per_chunk=(2.41, 5.81),
    learning_rate=0.0005,
  )
