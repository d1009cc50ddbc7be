"""The quickstart's model on one of the fetched corpora, for about ten minutes on 2 CPU cores.

  python -m text.corpora fetch english_wiki --out=data/corpora
  python train.py --config=configs/quickstart_corpus.py:english_wiki --workdir=runs/english_wiki

The argument is any corpus or part (`english_large/austen`); scores stand in docs/data.md.
"""

import ml_collections

from configs import quickstart


def get_config(arg: str = 'english_wiki') -> ml_collections.ConfigDict:
  """arg: name of a corpus, as in `corpus:NAME`."""
  config = quickstart.get_config()
  config.data.source = f'corpus:{arg}'
  config.data.validation = ''
  config.num_steps = 4000
  config.checkpoint.every_steps = 500
  config.eval.every_steps = 1000
  config.log.every_steps = 50
  return config
