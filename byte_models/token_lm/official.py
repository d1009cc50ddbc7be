"""Published Llamas with their tokenizers: a Hugging Face directory with its tokenizer.json, or a .gguf file."""

import os
from typing import Any

import jax
from flax import nnx

from byte_models import llama
from byte_models.token_lm.config import TokenLMConfig
from byte_models.token_lm.model import TokenLM
from layers import checks
from text import tokens

CONFIG_KEYS = ('num_hidden_layers',)  # others have it, too: they come before in the registry
_OPTIONS = {'dtype': 'float32', 'remat': False, 'scan_layers': True}
_OURS = ('bytes_per_chunk', 'bos_token_id', 'eos_token_id', 'stochastok', 'bpe_dropout')


def overrides(config: TokenLMConfig) -> dict[str, Any]:
  """Nothing of a configuration changes which parameters there are."""
  del config
  return {}


def from_pretrained(path: str | os.PathLike, **overrides: Any) -> TokenLM:
  """The model in a directory or .gguf file, over its tokenizer; see `llama.from_pretrained` and `llama.from_gguf`.

  overrides: keys of the `model` branch, such as dtype='bfloat16' or stochastok=0.1. A document begins with the token
  that the weights name for it, or the one that ends it, and ends with the first that they name for that. Raises
  FileNotFoundError for a missing file, ValueError for weights or a tokenizer that do not fit.
  """
  checks.known(overrides, (*_OPTIONS, *_OURS), 'overrides')
  dtype, remat, scan = ({**_OPTIONS, **overrides}[key] for key in _OPTIONS)
  options = {'dtype': dtype, 'remat': remat, 'scan': scan}
  path = os.fspath(path)
  if path.endswith('.gguf'):
    model, units = llama.from_gguf(path, **options), _of_gguf(path)
  else:
    model, units = llama.from_pretrained(path, **options), tokens.parse(tokens.in_file(path, '')).name
  of = model.config
  end = of.eos_token_id[0] if isinstance(of.eos_token_id, tuple) else of.eos_token_id
  begin = end if of.bos_token_id is None else of.bos_token_id
  names = {'hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads', 'num_key_value_heads'}
  names |= {'head_dim', 'rms_norm_eps', 'rope_theta', 'tie_word_embeddings', 'max_position_embeddings', 'vocab_size'}
  branch = {name: getattr(of, name) for name in names}
  branch |= {'family': 'token_lm', 'units': units, 'bos_token_id': begin, 'eos_token_id': end}
  branch |= {'rope_scaling': of.rope_scaling.published() if of.rope_scaling else None}
  branch |= {'dtype': dtype, 'remat': remat, 'scan_layers': scan}
  try:
    config = TokenLMConfig.from_dict(branch | {key: overrides[key] for key in _OURS if key in overrides})
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None
  found = jax.eval_shape(lambda: TokenLM(config, rngs=nnx.Rngs(0)))
  found.llama = model
  return found


def _of_gguf(path: str) -> str:
  """The specification of the tokenizer in the file, which is kept for this process."""
  from byte_models import gguf_file  # needs optional libraries
  from text.tokenizers import Stock

  return tokens.hold(Stock(gguf_file.tokenizer(path).to_str().encode(), path), path)
