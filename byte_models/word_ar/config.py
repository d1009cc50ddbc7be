"""Configuration of a word model: three stacks, and how a word goes from one to the next.

  model = {
    'family': 'word_ar',
    'words': 'hat(max_bytes=64)',      # a splitter of text.words; its cap is the longest word
    'units': 'byte',                   # what words are encoded from and decoded to, of text.units: also char, subword
    'num_vectors': 1,                  # k: vectors that the encoder pools a word into
    'concatenate_vectors': False,      # True: one backbone position of width k * d_model instead of k positions
    'encoder': {'arch_layout': 'T2', 'd_model': 128, 'd_intermediate': 384, 'num_heads': 4},
    'backbone': {'arch_layout': 'T4', 'd_model': 256, 'd_intermediate': 768, 'num_heads': 4},
    'decoder': {'arch_layout': 'T2', 'd_model': 128, 'd_intermediate': 384, 'num_heads': 4},
  }

k = 1 is HAT, k = 4 with one width everywhere is Word-Pooled. Without an encoder a word is the concatenation of its byte
embeddings, words are patches of fixed size, and no symbol ends them: MegaByte.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from layers import checks
from layers.stack import StackConfig, parse_layout
from text import units, words

WORD_END = 0xC0  # the symbol that ends a word, written [W]: a byte that UTF-8 never has

_REQUIRED = ('words', 'backbone', 'decoder')
_DEFAULTS = {
  'family': 'word_ar',
  'words': None,
  'units': 'byte',
  'num_vectors': None,
  'concatenate_vectors': False,
  'encoder': None,
  'backbone': None,
  'decoder': None,
  'bytes_per_chunk': None,
  'units_per_byte': None,
  'dtype': 'float32',
  'remat': False,
  'scan_layers': False,
}
_STACK_REQUIRED = ('arch_layout', 'd_model', 'd_intermediate', 'num_heads')
_STACK = {
  **dict.fromkeys(_STACK_REQUIRED),
  'num_kv_heads': 0,  # as many as num_heads
  'rotary_emb_dim': None,  # the whole head
  'rotary_base': 10000.0,
  'qk_norm': '',
  'window_size': None,  # backbone: full attention; local: as long as the longest word
}
# Where the configuration does not state them: bytes of a word in English, and units a byte (of 4,096 subwords).
_ENGLISH = {'hat': 4.4, 'whitespace': 6.0, 'uax29': 3.0}
_UNITS_PER_BYTE = {'byte': 1.0, 'char': 1.0, 'subword': 0.35}


@dataclasses.dataclass(frozen=True)
class WordARConfig:
  """A whole model. Build it with `from_dict`, which names what is wrong.

  words: the splitter, in full. longest: the most bytes of a word. units: what spells words, in full; vocab_size: their
  number. num_vectors: of a word into the backbone; 0 without an encoder. bytes_per_chunk: bytes of a word, and
  units_per_byte: units of a byte, at which FLOPs a byte are counted.
  """

  words: str
  longest: int
  units: str
  vocab_size: int
  num_vectors: int
  concatenate_vectors: bool
  encoder: StackConfig | None
  backbone: StackConfig
  decoder: StackConfig
  bytes_per_chunk: tuple[float, ...]
  units_per_byte: float
  dtype: str
  family: str = 'word_ar'

  @staticmethod
  def from_dict(branch: Mapping[str, Any]) -> 'WordARConfig':
    """Reads a `model` branch; ValueError with one sentence on what does not fit."""
    return _parse(branch)

  @property
  def marks(self) -> dict[str, str]:
    """The words, and the units where these are not bytes; none for patches, which are counted."""
    return {} if not self.encoder else {'words': self.words} | ({} if self.units == 'byte' else {'units': self.units})

  @property
  def positions(self) -> int:
    """Backbone positions of a word."""
    return 1 if self.concatenate_vectors or not self.encoder else self.num_vectors

  @property
  def inputs(self) -> int:
    """Vectors of the decoder's width that a word's backbone outputs become: one before each slot, or one a byte."""
    return self.num_vectors or self.longest


def complete(branch: Mapping[str, Any]) -> dict[str, Any]:
  """The branch with all keys: one that it leaves out has its default, or None; what it holds is not looked at."""
  stacks = {key: _STACK for key in ('encoder', 'backbone', 'decoder') if branch.get(key) is not None}
  return checks.filled(branch, {**_DEFAULTS, **stacks})


def _parse(branch: Mapping[str, Any]) -> WordARConfig:
  values = complete(checks.known(branch, _DEFAULTS, 'model'))
  for key in _REQUIRED:
    if values[key] is None:
      raise ValueError(f'model.{key} is missing; a word model needs {", ".join(_REQUIRED)}.')
  if not isinstance(values['words'], str):
    raise ValueError(f"model.words {values['words']!r} must be a splitter, such as 'hat(max_bytes=64)'.")
  try:
    splitter = words.parse(values['words'])
  except ValueError as error:
    raise ValueError(f'words: {error}') from None
  if not isinstance(values['units'], str):
    raise ValueError(f"model.units {values['units']!r} must be units of words, such as 'byte' or 'char(limit=0x3000)'.")
  spelling = units.parse(values['units'])
  if values['encoder'] is None:
    for key in ('num_vectors', 'concatenate_vectors'):
      if values[key]:
        raise ValueError(f'model.{key} {values[key]!r}: without an encoder there is nothing to pool into vectors.')
    if spelling.name != 'byte':
      raise ValueError(f"model.units '{spelling.name}': without an encoder words are patches of bytes, units 'byte'.")
    if splitter.kind != 'fixed':
      raise ValueError(
        f"model.words '{splitter.name}': without an encoder words are patches of one size, such as 'fixed(size=8)'."
      )
    vectors = 0
  else:
    vectors = checks.integer(1 if values['num_vectors'] is None else values['num_vectors'], 'num_vectors', 1)
  checks.one_of(values['dtype'], ('float32', 'bfloat16'), 'dtype')
  options = {
    'remat': checks.boolean(values['remat'], 'remat'),
    'scan': checks.boolean(values['scan_layers'], 'scan_layers'),
    'dtype': values['dtype'],
  }
  local = vectors + splitter.limit - 1  # keys that the last slot of the longest word sees before it
  encoder = None if not vectors else _stack(values['encoder'], 'encoder', local, causal=False, **options)
  backbone = _stack(values['backbone'], 'backbone', **options)
  decoder = _stack(values['decoder'], 'decoder', local, **options)
  if encoder and encoder.width != decoder.width:
    raise ValueError(
      f'encoder.d_model {encoder.width} and decoder.d_model {decoder.width} must be equal: they share the embeddings.'
    )
  joined = checks.boolean(values['concatenate_vectors'], 'concatenate_vectors')
  if joined and vectors * decoder.width != backbone.width:
    raise ValueError(
      f'backbone.d_model {backbone.width} must be num_vectors {vectors} x encoder.d_model {decoder.width} = '
      f'{vectors * decoder.width} where the vectors of a word are concatenated.'
    )
  return WordARConfig(
    words=splitter.name,
    longest=splitter.limit,
    units=spelling.name,
    vocab_size=len(spelling.table),
    num_vectors=vectors,
    concatenate_vectors=joined,
    encoder=encoder,
    backbone=backbone,
    decoder=decoder,
    bytes_per_chunk=_bytes_per_chunk(values['bytes_per_chunk'], splitter),
    units_per_byte=_units_per_byte(values['units_per_byte'], spelling),
    dtype=values['dtype'],
  )


def _stack(branch: Any, name: str, local: int | None = None, causal: bool = True, **options: Any) -> StackConfig:
  """One stack; `local` is the window that a stack over single words needs, None for the backbone."""
  values = checks.known(branch, _STACK, f'model.{name}')
  for key in _STACK_REQUIRED:
    if values[key] is None:
      raise ValueError(f'model.{name}.{key} is missing; a stack needs {", ".join(_STACK_REQUIRED)}.')
  try:
    kinds = {kind for kind, _ in parse_layout(values['arch_layout'])}
  except ValueError as error:
    raise ValueError(f'{name}.{error}') from None
  if kinds & set('mM'):
    raise ValueError(f'{name}.arch_layout {values["arch_layout"]!r}: a word model is made of attention, t or T.')
  size = lambda key, least=1: checks.integer(values[key], f'{name}.{key}', least)
  width, heads, mlp_width = size('d_model'), size('num_heads'), size('d_intermediate', 0)
  num_kv_heads = size('num_kv_heads', 0)
  window = -1 if values['window_size'] is None else size('window_size', -1)
  if local is not None and 0 <= window < local:
    raise ValueError(
      f'{name}.window_size {window} is shorter than a word of model.words: the last slot of the longest looks {local} '
      'back; lower the cap, raise the window or leave it out.'
    )
  rotary = width // heads if values['rotary_emb_dim'] is None else size('rotary_emb_dim', 0)
  base = checks.number(values['rotary_base'], f'{name}.rotary_base')
  if base <= 0:
    raise ValueError(f'{name}.rotary_base {base} must be above 0.')
  try:
    return StackConfig(
      layout=values['arch_layout'],
      width=width,
      mlp_width=mlp_width,
      num_heads=heads,
      rotary_dim=rotary,
      window=window if local is None else local,
      num_kv_heads=num_kv_heads,
      rotary_base=base,
      qk_norm=checks.one_of(values['qk_norm'], ('', 'head', 'full'), f'{name}.qk_norm'),
      causal=causal,
      **options,
    )
  except ValueError as error:
    raise ValueError(f'model.{name}.{error}') from None


def _bytes_per_chunk(values: Any, splitter: Any) -> tuple[float, ...]:
  if values is None:
    return (float(min(_ENGLISH.get(splitter.kind, splitter.limit), splitter.limit)),)
  if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != 1:
    raise ValueError(f'bytes_per_chunk {values!r}: a list with one number, the bytes of a word.')
  if not 1 <= (size := checks.number(values[0], 'bytes_per_chunk')) <= splitter.limit:
    raise ValueError(f"bytes_per_chunk {size}: a word of '{splitter.name}' has 1 to {splitter.limit} bytes.")
  return (size,)


def _units_per_byte(value: Any, spelling: Any) -> float:
  if value is None:
    return _UNITS_PER_BYTE[spelling.name.partition('(')[0]]
  if not 0 < (rate := checks.number(value, 'units_per_byte')) <= 1 or (spelling.name == 'byte' and rate != 1):
    raise ValueError(f"units_per_byte {rate}: units '{spelling.name}' have at least one byte, and 'byte' exactly one.")
  return rate
