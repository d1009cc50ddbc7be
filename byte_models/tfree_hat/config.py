"""T-Free-HAT's configuration: the authors' config.json, and what this code adds to it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from layers import checks
from layers.cross import CrossConfig
from layers.rotary import RotaryScaling
from layers.stack import StackConfig
from text import words

SPECIAL = '<|begin_of_text|>'


@dataclasses.dataclass(frozen=True)
class TFreeHATConfig:
  """A whole model. Build it with `from_dict`, which names what is wrong.

  pool: attention of a word's latent query to its bytes. guide: attention of bytes to their word's vector, in
  guided_layers of the decoder. words: the splitter. delivery: from which byte of a word on its vector is used (see
  `byte_models.tfree_hat.words`). bos, eos: the ids that stand for BOS and EOS. keep_unused: hold the parameters that
  the published model has and never uses. bytes_per_word: at which FLOPs a byte are counted. published: config.json.
  """

  encoder: StackConfig
  pool: CrossConfig
  main: StackConfig
  decoder: StackConfig
  guide: CrossConfig
  guided_layers: int
  words: str
  delivery: str
  bos: int
  eos: int
  keep_unused: bool
  bytes_per_word: float
  dtype: str
  published: str
  family: str = 'tfree_hat'

  @staticmethod
  def from_dict(branch: Mapping[str, Any]) -> 'TFreeHATConfig':
    """Reads an official config.json or a `model` branch; ValueError with one sentence on what does not fit."""
    return _parse(dict(branch))


_OURS = {
  'family': 'tfree_hat',
  'words': None,  # 'hat(max_bytes=<max_word_size>)'
  'delivery': 'causal',
  'window_counts_self': False,
  'keep_unused': False,
  'bytes_per_word': 5.0,
  'dtype': 'float32',
  'remat': False,
  'scan_layers': False,
}
_MODEL = {
  'encoder_config': None,
  'backbone_config': None,
  'decoder_config': None,
  'special_token_dict': None,
  'max_word_size': 100,
  'sliding_window': 768,
  'eos_token_id': None,
}
_LAYERS = {
  'hidden_size': None,
  'num_hidden_layers': None,
  'num_attention_heads': None,
  'intermediate_size': None,
  'num_key_value_heads': None,
  'head_dim': None,
  'rms_norm_eps': 1e-6,  # this and the next as in transformers' Llama
  'rope_theta': 10000.0,
  'rope_scaling': None,
  'sliding_window': None,
  'key_query_norm': False,
  'key_query_norm_per_head': False,
}
_CROSS = {
  'hidden_size': None,
  'hidden_size_q': None,
  'hidden_size_kv': None,
  'num_attention_heads': None,
  'attention_num_kv_heads': None,
  'key_query_norm': False,
  'key_query_norm_per_head': False,
}
# Keys that say nothing about the calculation, and keys that must have one value if they are there.
_SILENT = (
  '_attn_implementation', '_attn_implementation_autoset', '_name_or_path', 'architectures', 'attention_dropout',
  'auto_map', 'bos_token_id', 'initializer_range', 'is_neox_style', 'max_position_embeddings', 'pad_token_id',
  'pretraining_tp', 'torch_dtype', 'transformers_version', 'use_cache', 'word_window_size',
)  # fmt: skip
_FIXED = {
  'model_type': 'hierarchical_autoregressive_transformer',
  'hidden_act': 'silu',
  'attention_bias': False,
  'mlp_bias': False,
}


def _parse(branch: dict[str, Any]) -> TFreeHATConfig:
  ours = {**_OURS, **{key: branch.pop(key) for key in _OURS if key in branch}}
  published = json.dumps(_plain(branch))
  for key in ('encoder_config', 'backbone_config', 'decoder_config'):
    if branch.get(key) is None:
      raise ValueError(f'model.{key} is missing: a T-Free-HAT has an encoder, a backbone and a decoder.')
  values = _known(branch, _MODEL, 'model', (*_SILENT, *_FIXED))
  part = lambda name, *more: _known(values[name], _LAYERS, f'model.{name}', (*_SILENT, *_FIXED, 'vocab_size', *more))
  encoder = part('encoder_config', 'cross_attention_config')
  main = part('backbone_config')
  decoder = part('decoder_config', 'cross_attention_config', 'cross_attn_every_layer')
  for name, sizes in (('encoder_config', encoder), ('decoder_config', decoder)):
    if values[name].get('vocab_size', 256) != 256:
      raise ValueError(f'model.{name}.vocab_size {values[name]["vocab_size"]}: the model reads bytes, so it is 256.')
    if 'sliding_window' not in values[name]:
      sizes['sliding_window'] = values['sliding_window']
  main['sliding_window'] = None  # the published code does not apply it
  stack = lambda name, sizes, scan=ours['scan_layers']: _stack(f'model.{name}', sizes, ours, scan)
  stacks = stack('encoder_config', encoder), stack('backbone_config', main), stack('decoder_config', decoder, False)
  widths = tuple(s.width for s in stacks)
  if widths[0] != widths[2]:
    raise ValueError(
      f'model.decoder_config.hidden_size {widths[2]} is not {widths[0]}, the encoder_config.hidden_size: the decoder '
      'goes on with what the encoder made of the bytes.'
    )
  every_layer = values['decoder_config'].get('cross_attn_every_layer', True)
  checks.boolean(every_layer, 'decoder_config.cross_attn_every_layer')
  spec, delivery = _words(ours['words'], values['max_word_size'], ours['delivery'])
  eos = values['eos_token_id']
  specials = values['special_token_dict'] or {}
  if not isinstance(specials, Mapping):
    raise ValueError(f'model.special_token_dict {specials!r} must be a mapping from a string to an id, or None.')
  bos = specials.get(SPECIAL, 254)
  eos = (192 if specials else 255) if eos is None else eos  # 192: what the published class falls back to
  for name, value in (('eos_token_id', eos), (f'special_token_dict[{SPECIAL!r}]', bos)):
    if checks.integer(value, name, 0) > 255 or bos == eos:
      raise ValueError(f'model.{name} {value}: begin and end of text are two different bytes, from 0 to 255.')
  if checks.number(ours['bytes_per_word'], 'bytes_per_word') < 1:
    raise ValueError(f'model.bytes_per_word {ours["bytes_per_word"]}: a word has at least one byte.')
  return TFreeHATConfig(
    encoder=stacks[0],
    pool=_cross('model.encoder_config', values['encoder_config'], encoder, widths[1], widths[0]),
    main=stacks[1],
    decoder=stacks[2],
    guide=_cross('model.decoder_config', values['decoder_config'], decoder, widths[0], widths[1]),
    guided_layers=decoder['num_hidden_layers'] if every_layer else 1,
    words=spec,
    delivery=delivery,
    bos=bos,
    eos=eos,
    keep_unused=checks.boolean(ours['keep_unused'], 'keep_unused'),
    bytes_per_word=float(ours['bytes_per_word']),
    dtype=checks.one_of(ours['dtype'], ('float32', 'bfloat16'), 'dtype'),
    published=published,
  )


def _words(spec: str | None, limit: Any, delivery: str) -> tuple[str, str]:
  checks.integer(limit, 'max_word_size', 1)
  try:
    splitter = words.parse(f'hat(max_bytes={limit})' if spec is None else spec)
  except ValueError as error:
    raise ValueError(f'words: {error}') from None
  checks.one_of(delivery, ('causal', 'published'), 'delivery')
  if not splitter.causal:
    raise ValueError(
      f'model.words {spec!r}: this splitter looks at the character after a word, so a vector delivered with the next '
      "word's first character would know too much; use 'hat', 'whitespace' or 'fixed'."
    )
  return splitter.name, delivery


def _stack(where: str, sizes: dict[str, Any], ours: dict[str, Any], scan: Any) -> StackConfig:
  for key in ('hidden_size', 'num_hidden_layers', 'num_attention_heads', 'intermediate_size'):
    if sizes[key] is None:
      raise ValueError(f'{where}.{key} is missing.')
    checks.integer(sizes[key], f'{where}.{key}', 1)
  width, heads, window = sizes['hidden_size'], sizes['num_attention_heads'], sizes['sliding_window']
  if sizes['head_dim'] is None and width % heads:
    raise ValueError(f'{where}.num_attention_heads {heads} does not divide hidden_size {width}.')
  head = checks.integer(sizes['head_dim'] or width // heads, f'{where}.head_dim', 1)
  shared = checks.integer(sizes['num_key_value_heads'] or heads, f'{where}.num_key_value_heads', 1)
  if heads % shared:
    raise ValueError(f'{where}.num_key_value_heads {shared} does not divide num_attention_heads {heads}.')
  if head % 2:
    raise ValueError(f'{where}.head_dim {head} must be even (by default hidden_size / num_attention_heads).')
  if window is not None:
    window = checks.integer(window, f'{where}.sliding_window', 1) - ours['window_counts_self']
  try:
    return StackConfig(
      layout=f'T{sizes["num_hidden_layers"]}',
      width=width,
      mlp_width=sizes['intermediate_size'],
      num_heads=heads,
      num_kv_heads=shared,
      head_size=head,
      rotary_dim=head,
      rotary_base=checks.number(sizes['rope_theta'], f'{where}.rope_theta'),
      rotary_scaling=RotaryScaling.of_published(sizes['rope_scaling'], f'{where}.rope_scaling'),
      window=-1 if window is None else window,
      qk_norm=_qk_norm(where, sizes),
      norm_epsilon=checks.number(sizes['rms_norm_eps'], f'{where}.rms_norm_eps'),
      final_norm=False,
      remat=checks.boolean(ours['remat'], 'remat'),
      scan=checks.boolean(scan, 'scan_layers'),
      dtype=ours['dtype'],
    )
  except ValueError as error:
    raise ValueError(str(error) if where in str(error) else f'{where}: {error}') from None


def _cross(where: str, values: Mapping[str, Any], outer: dict[str, Any], width_q: int, width_kv: int) -> CrossConfig:
  where = f'{where}.cross_attention_config'
  if values.get('cross_attention_config') is None:
    raise ValueError(f'{where} is missing: it has num_attention_heads at least.')
  sizes = _known(values['cross_attention_config'], _CROSS, where, _SILENT)
  for key, width in (('hidden_size', width_q), ('hidden_size_q', width_q), ('hidden_size_kv', width_kv)):
    if sizes[key] not in (None, width):
      raise ValueError(f'{where}.{key} {sizes[key]!r} is not {width}, the width of what it reads or writes.')
  if sizes['num_attention_heads'] is None:
    raise ValueError(f'{where}.num_attention_heads is missing.')
  heads = checks.integer(sizes['num_attention_heads'], f'{where}.num_attention_heads', 1)
  shared = checks.integer(sizes['attention_num_kv_heads'] or heads, f'{where}.attention_num_kv_heads', 1)
  head = outer['head_dim'] or outer['hidden_size'] // outer['num_attention_heads']
  if width_q != heads * head:
    raise ValueError(
      f'{where}.num_attention_heads {heads}: heads of size {width_q / heads:g}, but the rotary table of the layers '
      f'around it has {head}; {width_q / head:g} heads fit.'
    )
  if heads % shared:
    raise ValueError(f'{where}.attention_num_kv_heads {shared} does not divide num_attention_heads {heads}.')
  return CrossConfig(
    width_q=width_q,
    width_kv=width_kv,
    num_heads=heads,
    num_kv_heads=shared,
    head=head,
    qk_norm=_qk_norm(where, sizes),
    norm_epsilon=float(outer['rms_norm_eps']),
    rotary_base=float(outer['rope_theta']),
    rotary_scaling=RotaryScaling.of_published(outer['rope_scaling'], f'{where}.rope_scaling'),
  )


def _qk_norm(where: str, sizes: dict[str, Any]) -> str:
  if not checks.boolean(sizes['key_query_norm'], f'{where}.key_query_norm'):
    return ''
  return 'head' if checks.boolean(sizes['key_query_norm_per_head'], f'{where}.key_query_norm_per_head') else 'full'


def _known(values: Any, defaults: Mapping[str, Any], where: str, silent: tuple[str, ...] = ()) -> dict[str, Any]:
  """The values of the keys of `defaults`; other keys must be among `silent`, with their one value if they have one."""
  if not isinstance(values, Mapping):
    raise ValueError(f'{where} {values!r} must be a mapping with {", ".join(defaults)}.')
  for key, value in values.items():
    if key not in defaults and key not in silent:
      raise ValueError(f'{where}.{key} is not a key of this configuration; it has {", ".join(defaults)}.')
    if key in _FIXED and value not in (None, _FIXED[key]):
      raise ValueError(f'{where}.{key} {value!r}: only {_FIXED[key]!r} is supported.')
  return {**defaults, **{key: values[key] for key in defaults if key in values}}


def _plain(value: Any) -> Any:
  """As JSON has it; a locked configuration gives tuples and its own mappings."""
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
