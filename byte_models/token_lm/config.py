"""Configuration of a token model: a tokenizer, and a Llama by the keys of a Hugging Face config.json.

model = {
  'family': 'token_lm',
  'units': 'tokens(file=runs/bpe)',  # a directory of `python -m text.tokenizers train`, or a tokenizer.json
  'hidden_size': 192,
  'intermediate_size': 512,
  'num_hidden_layers': 4,
  'num_attention_heads': 4,
  'bytes_per_chunk': (3.7,),         # of a token, at which FLOPs a byte are counted
  'stochastok': 0.1,                 # in training only: tokens split in two, attempts a token (arXiv:2506.01687)
  'bpe_dropout': 0.0,                # in training only: merges left out (arXiv:1910.13267)
}
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from byte_models import llama
from layers import checks
from text import BOS, EOS, tokens
from text.specification import canonical

SIZES = ('hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads')
_OF_LLAMA = {
  **dict.fromkeys(SIZES),
  'num_key_value_heads': None,
  'head_dim': None,
  'rms_norm_eps': 1e-5,
  'rope_theta': 10000.0,
  'rope_scaling': None,
  'tie_word_embeddings': False,
  'max_position_embeddings': 2048,
}
_DEFAULTS = {
  'family': 'token_lm',
  'units': None,
  **_OF_LLAMA,
  'vocab_size': None,
  'bos_token_id': None,
  'eos_token_id': None,
  'bytes_per_chunk': None,
  'stochastok': 0.0,
  'bpe_dropout': 0.0,
  'dtype': 'float32',
  'remat': False,
  'scan_layers': False,
}
_BYTES_PER_TOKEN = 4.0  # where the configuration does not state it: English by a vocabulary of some ten thousand


@dataclasses.dataclass(frozen=True)
class TokenLMConfig:
  """A whole model. Build it with `from_dict`, which names what is wrong.

  units: the tokenizer, in full. llama: what runs over its tokens; its vocab_size may be above the tokenizer's. bos,
  eos: ids that stand for the beginning and the end of a document. bytes_per_chunk: bytes of a token. stochastok,
  bpe_dropout: see the module.
  """

  units: str
  llama: llama.LlamaConfig
  bos: int
  eos: int
  bytes_per_chunk: tuple[float, ...]
  stochastok: float
  bpe_dropout: float
  family: str = 'token_lm'

  @staticmethod
  def from_dict(branch: Mapping[str, Any]) -> 'TokenLMConfig':
    """Reads a `model` branch; ValueError with one sentence on what does not fit, OSError for a missing tokenizer."""
    return _parse(branch)

  def mark(self, **options: float) -> str:
    """The specification of the tokens; options: those of training."""
    file, digest = tokens.file_of(self.units)
    return canonical('tokens', {'file': file, 'digest': digest, 'bos': self.bos, 'eos': self.eos, **options})


def complete(branch: Mapping[str, Any]) -> dict[str, Any]:
  """The branch with all keys: one that it leaves out has its default, or None; what it holds is not looked at."""
  return checks.filled(branch, _DEFAULTS)


def _parse(branch: Mapping[str, Any]) -> TokenLMConfig:
  values = complete(checks.known(branch, _DEFAULTS, 'model'))
  for key in ('units', *SIZES):
    if values[key] is None:
      raise ValueError(f'model.{key} is missing; a token model needs units, {", ".join(SIZES)}.')
  if not isinstance(values['units'], str):
    raise ValueError(f"model.units {values['units']!r} must be a tokenizer, such as 'tokens(file=PATH)'.")
  try:
    found = tokens.parse(values['units'])
  except ValueError as error:
    raise ValueError(f'units: {error}') from None
  ids = {}
  for key, byte in (('bos_token_id', BOS), ('eos_token_id', EOS)):
    ids[key] = found.special(byte) if values[key] is None else checks.integer(values[key], key, 0)
  least = max(len(found.table), 1 + max(ids.values()))
  vocabulary = least if values['vocab_size'] is None else checks.integer(values['vocab_size'], 'vocab_size', 1)
  if vocabulary < least:
    raise ValueError(
      f"vocab_size {vocabulary}: the tokenizer '{found.file}' with its BOS and EOS has {least} tokens, so it is not "
      'that of this model.'
    )
  checks.one_of(values['dtype'], ('float32', 'bfloat16'), 'dtype')
  rates = {}
  for key in ('stochastok', 'bpe_dropout'):
    rates[key] = checks.number(values[key], key)
    if not 0 <= rates[key] <= 1:
      raise ValueError(f'{key} {rates[key]} must be from 0 to 1.')
  if all(rates.values()):
    raise ValueError(f'stochastok {rates["stochastok"]} and bpe_dropout {rates["bpe_dropout"]}: choose one of them.')
  return TokenLMConfig(
    units=found.name,
    llama=llama.parse(
      {key: values[key] for key in _OF_LLAMA} | {'vocab_size': vocabulary},
      dtype=values['dtype'],
      remat=checks.boolean(values['remat'], 'remat'),
      scan=checks.boolean(values['scan_layers'], 'scan_layers'),
    ),
    bos=ids['bos_token_id'],
    eos=ids['eos_token_id'],
    bytes_per_chunk=_bytes_per_token(values['bytes_per_chunk']),
    **rates,
  )


def _bytes_per_token(values: Any) -> tuple[float, ...]:
  if values is None:
    return (_BYTES_PER_TOKEN,)
  if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != 1:
    raise ValueError(f'bytes_per_chunk {values!r}: a list with one number, the bytes of a token.')
  if (size := checks.number(values[0], 'bytes_per_chunk')) < 1:
    raise ValueError(f'bytes_per_chunk {size}: a token has at least 1 byte.')
  return (size,)
