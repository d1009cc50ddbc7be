"""AU-Net of two stages (arXiv 2506.14761; lingua, apps/aunet/configs/2B_1level.yaml): 1,324,200,960 parameters.

  python train.py --config=configs/aunet2_1b.py --workdir=DIR

That is 2,048 less than theirs, which have rows of embeddings and head for 258 symbols; ours are 256 bytes, two of which
never occur in UTF-8 and begin and end documents. It was published without weights, and trained on DCLM; this has not
been repeated with this code. Published are sizes, windows, the most chunks of a row, and the recipe; how many bytes a
chunk has is not, and stated here as if rows were full of chunks. Text is expected in data/train and data/validation;
--config.data.source names another place. Documents do not see each other here; in their packed rows they do.
"""

from collections.abc import Sequence

import ml_collections

from configs.common import training


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """At most 3,200 chunks in a row of 8,192 bytes; rows of 16 GPUs with 12 each."""
  del arg
  return aunet(
    chunking='aunet2',
    layers=(3, 25),
    d_model=(512, 2048),
    heads=(8, 16),
    windows=(512, 4096),
    chunks=(3200,),
    num_steps=180_000,
    batch_size=192,
    learning_rate=1.65e-3,
    final=0.01,
  )


def aunet(
  *,
  chunking: str,
  layers: Sequence[int],
  d_model: Sequence[int],
  heads: Sequence[int],
  windows: Sequence[int],
  chunks: Sequence[int],
  num_steps: int,
  batch_size: int,
  learning_rate: float,
  final: float,
) -> ml_collections.ConfigDict:
  """layers, d_model, heads, windows: of every stage, from the outside; chunks: the most of a row, of every cut."""
  config = training(num_steps=num_steps, batch_size=batch_size, seq_len=8192, learning_rate=learning_rate)
  config.data.source = 'files:data/train/*.jsonl.gz#text'
  config.data.validation = 'files:data/validation/*.jsonl.gz#text'
  config.optimizer.weight_decay = 0.1
  config.optimizer.clip_norm = 0.2
  config.optimizer.schedule = {'name': 'cosine', 'warmup': 10_000 / num_steps, 'decay': 0.0, 'final': final}
  config.mesh.shape = (1, -1, 1)
  config.checkpoint.every_steps = 2000
  config.eval.every_steps = 5000
  config.eval.max_bytes = 10_000_000
  layout: tuple = (f'T{layers[-1]}',)
  for count in reversed(layers[:-1]):
    layout = (f'T{count}', layout, f'T{count}')
  config.model = {
    'family': 'hnet',
    'arch_layout': layout,
    'd_model': tuple(d_model),
    'd_intermediate': tuple(int(8 * width / 3) for width in d_model),
    'mlp_multiple': 256,
    'attn_cfg': {
      'num_heads': tuple(heads),
      'rotary_emb_dim': tuple(width // count for width, count in zip(d_model, heads, strict=True)),
      'window_size': tuple(window - 1 for window in windows),  # theirs count the key of the query itself
    },
    'rotary_base': 500_000.0,
    'chunking': chunking,
    'post_norm': 'head',
    'fixed_capacity': tuple(count / 8192 for count in chunks),
    'bytes_per_chunk': tuple(8192 / count for count in chunks),
    'dtype': 'bfloat16',
    'remat': True,
    'scan_layers': True,
  }
  return config
