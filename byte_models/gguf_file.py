"""GGUF files (llama.cpp's format) of Llama models: configuration and weights as Hugging Face names and orders them, and
the tokenizer inside. Needs the libraries of requirements-gguf.txt.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layers import checks
from layers.rotary import RotaryScaling, frequencies
from text import paths, regular_file

if TYPE_CHECKING:
  from tokenizers import Tokenizer

_TENSORS = {'token_embd': 'model.embed_tokens', 'output_norm': 'model.norm', 'output': 'lm_head'}
_LAYER_TENSORS = {
  'attn_norm': 'input_layernorm',
  'attn_q': 'self_attn.q_proj',
  'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj',
  'attn_output': 'self_attn.o_proj',
  'ffn_norm': 'post_attention_layernorm',
  'ffn_gate': 'mlp.gate_proj',
  'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj',
}
_CONTROL = 3  # the type of a special token
_STRING, _ARRAY = 8, 9  # kinds of metadata, and the bytes of the others
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_SIZES = {
  'hidden_size': 'embedding_length',
  'intermediate_size': 'feed_forward_length',
  'num_hidden_layers': 'block_count',
  'num_attention_heads': 'attention.head_count',
  'rms_norm_eps': 'attention.layer_norm_rms_epsilon',
  'max_position_embeddings': 'context_length',
}


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """(what a config.json would hold, float32 tensors by Hugging Face name), dequantised.

  llama.cpp turns neighbouring channels of queries and keys, (2i, 2i + 1), where Hugging Face and this code turn (i, i +
  K/2): the rows of their weights are put back into the latter order. Raises FileNotFoundError, or ValueError for a file
  that is damaged, of another architecture, or quantised in a way that the gguf library cannot undo.
  """
  path = paths.of(path, 'the .gguf file')
  reader, metadata = _open(path)
  config = _config(path, metadata)
  tensors = {_name(tensor.name): tensor for tensor in reader.tensors}
  divisors = tensors.pop('rope_freqs.weight', None)
  values = {name: _dequantize(path, tensor) for name, tensor in tensors.items()}
  embeddings = values.get('model.embed_tokens.weight')
  if embeddings is None:
    raise ValueError(f'{path} has no tensor token_embd.weight: it is not a whole language model.')
  config |= {'vocab_size': len(embeddings), 'tie_word_embeddings': 'lm_head.weight' not in values}
  if divisors is not None:
    config['rope_scaling'] = _scaling(path, config, np.asarray(divisors.data, np.float32))
  for projection, heads in (('q_proj', config['num_attention_heads']), ('k_proj', config['num_key_value_heads'])):
    for name, value in values.items():
      # Another number of rows does not fit the configuration, and an odd head no rotation, which the caller says.
      is_whole = len(value) == heads * config['head_dim'] and config['head_dim'] % 2 == 0
      if name.endswith(f'.{projection}.weight') and is_whole:
        values[name] = _half_split(value, heads)
  return config, values


def tokenizer(path: str | os.PathLike) -> 'Tokenizer':
  """The byte-level BPE inside a GGUF file; names of special tokens that occur in a text are read as plain text.

  Raises ValueError for another kind of tokenizer.
  """
  try:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
  except ImportError:
    raise ValueError('tokenizing needs the tokenizers library: pip install -r requirements-gguf.txt') from None
  path = paths.of(path, 'the .gguf file')
  _, metadata = _open(path)
  model, split = metadata.get('tokenizer.ggml.model'), metadata.get('tokenizer.ggml.pre')
  byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)  # GPT-2's expression
  splits = {
    'gpt-2': byte_level,
    'smollm': pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
  }
  if model != 'gpt2' or split not in splits:
    known = ' or '.join(splits)
    raise ValueError(
      f'{path} has tokenizer {model!r} with pre-tokenizer {split!r}: only byte-level BPE (gpt2) with {known} is read.'
    )
  tokens, merges = metadata['tokenizer.ggml.tokens'], metadata['tokenizer.ggml.merges']
  try:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    result = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge.split(' ')) for merge in merges]))
  except Exception as error:  # `tokenizers` raises nothing more special
    raise ValueError(f'{path} has merges that do not fit its tokens ({error}): convert it again.') from None
  result.pre_tokenizer, result.decoder = splits[split], decoders.ByteLevel()
  kinds = metadata.get('tokenizer.ggml.token_type', [])
  result.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=False) if kind == _CONTROL])
  result.encode_special_tokens = True
  return result


class _Metadata:
  """The key-value pairs of a file, decoded when asked for: a vocabulary takes a second."""

  def __init__(self, fields: dict[str, Any]):
    self._fields = fields

  def get(self, key: str, default: Any = None) -> Any:
    return self[key] if key in self._fields else default

  def __getitem__(self, key: str) -> Any:
    if key not in self._fields:
      raise ValueError(f'the GGUF file has no metadata {key}: convert the model again with a newer llama.cpp.')
    try:
      return self._fields[key].contents()
    except UnicodeDecodeError as error:
      raise ValueError(f'the GGUF file has metadata {key} that are not UTF-8 ({error}): convert it again.') from None


def _open(path: str | os.PathLike) -> tuple[Any, _Metadata]:
  try:
    import gguf
  except ImportError:
    raise ValueError('reading GGUF needs the gguf library: pip install -r requirements-gguf.txt') from None
  regular_file.check(path, 'GGUF file')
  if not Path(path).is_file():
    raise FileNotFoundError(f'{path} is missing: give a .gguf file.')
  try:
    _check_counts(path)
    reader = gguf.GGUFReader(path)
  # also what numpy says of a truncated file, and of sizes that no file has
  except (ValueError, IndexError, KeyError, OSError, TypeError, OverflowError, struct.error) as error:
    raise ValueError(f'{path} is not a whole GGUF file: {error}.') from None
  return reader, _Metadata(reader.fields)


def _check_counts(path: str | os.PathLike) -> None:
  """Walks over metadata and names of tensors. Raises ValueError for a count that the file has no room for, which the
  gguf library would follow past the end of the file for ever.
  """
  with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    order = '>' if len(data) > 6 and data[4:6] == b'\0\0' else '<'  # as the library finds it: a version is small
    at = 8

    def take(form: str) -> int:
      nonlocal at
      (value,) = struct.unpack_from(order + form, data, at)
      at += struct.calcsize(form)
      return value

    def skip(count: int, size: int) -> None:
      nonlocal at
      if count * size > len(data) - at:
        raise ValueError(f'it claims {count} values where {len(data) - at} bytes are left')
      at += count * size

    def value(kind: int, depth: int) -> None:
      if kind == _STRING:
        skip(take('Q'), 1)
      elif kind == _ARRAY:
        inner, count = take('I'), take('Q')
        if depth or count > len(data) - at:
          raise ValueError(f'it has an array of {count} values, or of arrays')
        if inner in _WIDTHS:
          skip(count, _WIDTHS[inner])
        else:
          for _ in range(count):
            value(inner, depth + 1)
      elif kind in _WIDTHS:
        skip(1, _WIDTHS[kind])
      else:
        raise ValueError(f'it has a value of kind {kind}')

    tensors, pairs = take('Q'), take('Q')
    for _ in range(pairs):
      skip(take('Q'), 1)
      value(take('I'), 0)
    for _ in range(tensors):
      skip(take('Q'), 1)
      skip(take('I'), 8)
      skip(1, 12)


def _config(path: str | os.PathLike, metadata: _Metadata) -> dict[str, Any]:
  architecture = metadata['general.architecture']
  if architecture != 'llama':
    raise ValueError(f'{path} holds a model of architecture {architecture!r}: only llama is read.')
  get = lambda key, default=None: metadata.get(f'llama.{key}', default)
  config = {ours: metadata[f'llama.{theirs}'] for ours, theirs in _SIZES.items()}
  heads = config['num_attention_heads']
  if any(isinstance(value, list) for value in (*config.values(), get('attention.head_count_kv'))):
    raise ValueError(f'{path} has layers of different sizes: only equal layers are read.')
  for ours, theirs in _SIZES.items():
    if ours != 'rms_norm_eps':
      checks.integer(config[ours], f'{path}: llama.{theirs}', 1)
  head_dim = get('attention.key_length') or config['hidden_size'] // heads
  checks.integer(head_dim, f'{path}: llama.attention.key_length', 1)
  for key, plain in (
    ('expert_count', 0),
    ('rope.scaling.type', 'none'),
    ('rope.dimension_count', head_dim),
    ('attention.value_length', head_dim),
  ):
    if (value := get(key, plain)) != plain:
      raise ValueError(f'{path} has llama.{key} {value!r}: only {plain!r} is supported.')
  # the file holds float32, config.json the number that was meant
  for ours, value in (('rms_norm_eps', config['rms_norm_eps']), ('rope_theta', get('rope.freq_base', 10000.0))):
    config[ours] = _decimal(checks.number(value, f'{path}: {ours}'))
  ids = {f'{name}_token_id': metadata.get(f'tokenizer.ggml.{name}_token_id') for name in ('bos', 'eos')}
  groups = checks.integer(get('attention.head_count_kv', heads), f'{path}: llama.attention.head_count_kv', 1)
  return config | ids | {'num_key_value_heads': groups, 'head_dim': head_dim}


def _decimal(value: float) -> float:
  """The shortest decimal number that has this float32 value."""
  return float(str(np.float32(value)))


def _name(name: str) -> str:
  """'blk.3.attn_q.weight' -> 'model.layers.3.self_attn.q_proj.weight'; an unknown name stays."""
  parts = name.split('.')
  if parts[0] == 'blk' and len(parts) == 4 and parts[2] in _LAYER_TENSORS:
    return f'model.layers.{parts[1]}.{_LAYER_TENSORS[parts[2]]}.{parts[3]}'
  return '.'.join([_TENSORS.get(parts[0], parts[0]), *parts[1:]])


def _dequantize(path: str | os.PathLike, tensor: Any) -> np.ndarray:
  import gguf

  try:
    return gguf.dequantize(tensor.data, tensor.tensor_type)
  except NotImplementedError:
    raise ValueError(
      f'{path}: tensor {tensor.name} is quantised as {tensor.tensor_type.name}, which the gguf library cannot undo: '
      'convert the model to F16 or to another quantisation.'
    ) from None


def _half_split(weight: np.ndarray, heads: int) -> np.ndarray:
  """Rows [H, K/2, 2] of neighbouring pairs -> [H, 2, K/2]."""
  return weight.reshape(heads, -1, 2, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape)


def _scaling(path: str | os.PathLike, config: dict[str, Any], divisors: np.ndarray) -> dict[str, Any]:
  """Llama 3's scaling leaves only its divisors in a file: those of the factors of Llama 3.1 and 3.2 are recognised."""
  turn = lambda scaling: np.asarray(frequencies(config['head_dim'], config['rope_theta'], scaling))
  for factor in (8.0, 32.0):
    scaling = RotaryScaling(factor, low_frequency_factor=1.0, high_frequency_factor=4.0, original_max_positions=8192)
    if len(divisors) == len(turn(None)) and np.allclose(turn(None) / turn(scaling), divisors, rtol=1e-3):
      return scaling.published()
  raise ValueError(f'{path} scales its rotary frequencies in a way that is not that of Llama 3.1 or 3.2.')
