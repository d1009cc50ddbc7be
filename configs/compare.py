"""Models to be compared: equal work per byte, equal bytes, one text, one recipe.

  python -m text.corpora fetch english_wiki --out=data/corpora
  python train.py --config=configs/compare.py:hat --workdir=runs/compare/hat

`python -m studies.compare --workdir=runs/compare` trains all of them and makes the table. Token models need a tokenizer
of the same text, `bpe` for `bpe` and `stochastok`, `superbpe`, `unigram`:

  python -m text.tokenizers train bpe --source=corpus:english_wiki --vocab_size=2048 --out=runs/tokenizers/bpe
  python train.py --config=configs/compare.py:bpe --workdir=runs/compare/bpe

or another one by name, --config=configs/compare.py:bpe=DIR.
"""

from collections.abc import Sequence
from typing import Any

import ml_collections

from configs import (
  quickstart,
  quickstart_aunet2,
  quickstart_aunet3,
  quickstart_blt,
  quickstart_bolmo,
  quickstart_bpe,
  quickstart_byteflow,
  quickstart_dynamic_pooling,
  quickstart_flexitokens,
  quickstart_hat,
  quickstart_hourglass,
  quickstart_magnet,
  quickstart_mamba,
  quickstart_megabyte,
  quickstart_policy_router,
  quickstart_pool,
  quickstart_scratch,
  quickstart_sombrero,
  quickstart_space,
  quickstart_spacebyte,
  quickstart_tfree_hat,
  quickstart_transformer,
  quickstart_word_pooled,
)
from training import flops

# Model -> its config and the bytes of its chunks or words on english_wiki, where a rule sets them: what the metrics of
# a run print as bytes_per_word or bytes_per_chunk. None: no chunks, or their target.
MODELS = {
  'hnet': (quickstart, None),
  'hnet_space': (quickstart_space, 6.1),
  'transformer': (quickstart_transformer, None),
  'hat': (quickstart_hat, 6.05),
  'word_pooled': (quickstart_word_pooled, 6.05),
  'megabyte': (quickstart_megabyte, 7.94),
  'tfree_hat': (quickstart_tfree_hat, 6.05),
  'hnet_pool': (quickstart_pool, None),
  'aunet2': (quickstart_aunet2, None),
  'aunet3': (quickstart_aunet3, None),
  'spacebyte': (quickstart_spacebyte, 6.1),
  'mamba': (quickstart_mamba, None),
  'dynamic_pooling': (quickstart_dynamic_pooling, None),
  'flexitokens': (quickstart_flexitokens, None),
  'hourglass': (quickstart_hourglass, None),
  'magnet': (quickstart_magnet, None),
  'policy_router': (quickstart_policy_router, None),
  'scratch': (quickstart_scratch, None),
  'sombrero': (quickstart_sombrero, None),
  'blt': (quickstart_blt, 6.1),
  'bolmo_chunker': (quickstart_bolmo, None),
  'byteflow_threshold': (quickstart_byteflow, None),
  'bpe': (quickstart_bpe, None),
  'superbpe': (quickstart_bpe, None),
  'unigram': (quickstart_bpe, None),
  'stochastok': (quickstart_bpe, None),
}
TOKENIZERS = {'bpe': 'bpe', 'superbpe': 'superbpe', 'unigram': 'unigram', 'stochastok': 'bpe'}


def get_config(arg: str = 'hnet') -> ml_collections.ConfigDict:
  """arg: one of MODELS, its backbone resized to the quickstart H-Net's forward FLOPs per byte (within 5 %); behind a
  '=', where the tokenizer of a token model is.
  """
  name, _, directory = arg.partition('=')
  if name not in MODELS or (directory and name not in TOKENIZERS):
    raise ValueError(f"configs/compare.py has no model '{arg}': use one of {', '.join(MODELS)}")
  module, size = MODELS[name]
  config = module.get_config(*([directory or f'runs/tokenizers/{TOKENIZERS[name]}'] if name in TOKENIZERS else []))
  if name == 'stochastok':
    config.model.stochastok = 0.1
  config.model = matched(config, None if size is None else [size])
  config.data.source = 'corpus:english_wiki'
  config.data.validation = ''
  config.num_steps = 11_000
  config.checkpoint.every_steps = 500
  config.eval.every_steps = 1000
  config.log.every_steps = 50
  return config


def matched(config: ml_collections.ConfigDict, sizes: Sequence[float] | None) -> dict[str, Any]:
  """Its model with the backbone resized to the quickstart H-Net's forward FLOPs per byte, at bytes of chunks or words
  of each stage, where a rule sets them.
  """
  return _with_tuples(flops.match(config, quickstart.get_config(), sizes)['model'])


def _with_tuples(value: Any) -> Any:
  """Lists as tuples, as other configs have them."""
  if isinstance(value, dict):
    return {key: _with_tuples(part) for key, part in value.items()}
  return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
