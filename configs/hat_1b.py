"""HAT 1B (arXiv:2501.10322): 1.15 B parameters in the backbone, 23 M in encoder and decoder each.

  python train.py --config=configs/hat_1b.py --workdir=DIR

The paper trained it on DCLM-Baseline for 72,000 steps of 1,024 documents of at most 16,384 bytes; this has not been
repeated with this code. Rotary base and positions within a word are not published; ours are the customary ones. Text is
expected in data/train and data/validation; --config.data.source names another place.
"""

import ml_collections

from configs.common import training


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """18 layers of width 2304, as many heads; 3 local layers of width 768."""
  del arg
  return hat(layers=18, d_intermediate=6144, local=(3, 768, 2048))


def hat(*, layers: int, d_intermediate: int, local: tuple[int, int, int]) -> ml_collections.ConfigDict:
  """A HAT by the paper's rule: a backbone of n layers has n heads of 128 and learns at 3e-4 * 32 / n.

  local: layers, width and MLP width of encoder and decoder, which have two heads a layer. MLPs are 8/3 of the width.
  """
  config = training(num_steps=72_000, batch_size=1024, seq_len=16_384, learning_rate=3e-4 * 32 / layers)
  config.data.source = 'files:data/train/*.jsonl.gz#text'
  config.data.validation = 'files:data/validation/*.jsonl.gz#text'
  config.mesh.shape = (1, -1, 1)
  config.optimizer.schedule = {'name': 'cosine', 'warmup': 500 / 72_000, 'decay': 0.0, 'final': 0.1}
  config.checkpoint.every_steps = 1000
  config.eval.every_steps = 5000
  config.eval.max_bytes = 10_000_000
  depth, width, mlp_width = local
  small = {'arch_layout': f'T{depth}', 'd_model': width, 'd_intermediate': mlp_width, 'num_heads': 2 * depth}
  config.model = {
    'family': 'word_ar',
    'words': 'hat(max_bytes=100)',
    'num_vectors': 1,
    'encoder': small,
    'backbone': {
      'arch_layout': f'T{layers}',
      'd_model': 128 * layers,
      'd_intermediate': d_intermediate,
      'num_heads': layers,
    },
    'decoder': small,
    'bytes_per_chunk': (4.4,),
    'dtype': 'bfloat16',
    'remat': True,
    'scan_layers': True,
  }
  return config
