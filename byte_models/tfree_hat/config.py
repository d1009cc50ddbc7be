"""T-Free-HAT's configuration: the authors' config.json, and what this code adds to it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from layers import checks, objectives
from layers.cross import CrossConfig
from layers.objectives import Objective
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
  objectives: tuple[Objective, ...]
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
  'objectives': (),
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
_LOCAL = {'vocab_size': 256, 'cross_attention_config': None}  # of encoder and decoder, beside those of all layers
_DECODER = {'cross_attn_every_layer': True}
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


def complete(branch: Mapping[str, Any]) -> dict[str, Any]:
  """The branch with all keys: one that it leaves out has its default, or None; what it holds is not looked at."""
  values = checks.filled(branch, {**_OURS, **_MODEL})
  local = {**_LAYERS, 'sliding_window': values['sliding_window'], **_LOCAL}
  layers = {'encoder_config': local, 'backbone_config': _LAYERS, 'decoder_config': {**local, **_DECODER}}
  for name, defaults in layers.items():
    values[name] = checks.filled(values[name], defaults)
    if name != 'backbone_config' and isinstance(values[name], Mapping):
      cross = values[name]['cross_attention_config']
      values[name]['cross_attention_config'] = checks.filled(cross, _CROSS)
  return values


def _parse(branch: dict[str, Any]) -> TFreeHATConfig:
  values = complete(branch)
  ours = {key: values[key] for key in _OURS}
  _known(branch, {**_OURS, **_MODEL}, 'model')
  for key in ('encoder_config', 'backbone_config', 'decoder_config'):
    if values[key] is None:
      raise ValueError(f'model.{key} is missing: a T-Free-HAT has an encoder, a backbone and a decoder.')
  encoder = _known(values['encoder_config'], {**_LAYERS, **_LOCAL}, 'model.encoder_config')
  main = _known(values['backbone_config'], _LAYERS, 'model.backbone_config', 'vocab_size')
  decoder = _known(values['decoder_config'], {**_LAYERS, **_LOCAL, **_DECODER}, 'model.decoder_config')
  for name, sizes in (('encoder_config', encoder), ('decoder_config', decoder)):
    if sizes['vocab_size'] != 256:
      raise ValueError(f'model.{name}.vocab_size {sizes["vocab_size"]!r}: the model reads bytes, so it is 256.')
  if values['sliding_window'] is not None:  # of the layers that state none
    checks.integer(values['sliding_window'], 'sliding_window', 1)
  main['sliding_window'] = None  # the published code does not apply it
  stack = lambda name, sizes, scan=ours['scan_layers']: _stack(f'model.{name}', sizes, ours, scan)
  stacks = stack('encoder_config', encoder), stack('backbone_config', main), stack('decoder_config', decoder, False)
  widths = tuple(s.width for s in stacks)
  if widths[0] != widths[2]:
    raise ValueError(
      f'model.decoder_config.hidden_size {widths[2]} is not {widths[0]}, the encoder_config.hidden_size: the decoder '
      'goes on with what the encoder made of the bytes.'
    )
  every_layer = checks.boolean(decoder['cross_attn_every_layer'], 'decoder_config.cross_attn_every_layer')
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
    pool=_cross('model.encoder_config', encoder, widths[1], widths[0]),
    main=stacks[1],
    decoder=stacks[2],
    guide=_cross('model.decoder_config', decoder, widths[0], widths[1]),
    guided_layers=decoder['num_hidden_layers'] if every_layer else 1,
    words=spec,
    delivery=delivery,
    bos=bos,
    eos=eos,
    keep_unused=checks.boolean(ours['keep_unused'], 'keep_unused'),
    bytes_per_word=float(ours['bytes_per_word']),
    objectives=objectives.parse(ours['objectives']),
    dtype=checks.one_of(ours['dtype'], ('float32', 'bfloat16'), 'dtype'),
    published=json.dumps(_plain({key: value for key, value in branch.items() if key not in _OURS})),
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
  for key in ('window_counts_self', 'remat', 'scan_layers'):
    checks.boolean(ours[key], key)
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
      remat=ours['remat'],
      scan=scan,
      dtype=ours['dtype'],
    )
  except ValueError as error:
    raise ValueError(str(error) if where in str(error) else f'{where}: {error}') from None


def _cross(where: str, outer: dict[str, Any], width_q: int, width_kv: int) -> CrossConfig:
  where = f'{where}.cross_attention_config'
  if outer['cross_attention_config'] is None:
    raise ValueError(f'{where} is missing: it has num_attention_heads at least.')
  sizes = _known(outer['cross_attention_config'], _CROSS, where)
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
  keys = ('key_query_norm', 'key_query_norm_per_head')
  has_norms, of_heads = (checks.boolean(sizes[key], f'{where}.{key}') for key in keys)
  return ('head' if of_heads else 'full') if has_norms else ''


def _known(values: Any, names: Mapping[str, Any], where: str, *silent: str) -> dict[str, Any]:
  """A mapping with these keys, and perhaps those that say nothing or must have one value, as a dict."""
  found = checks.known(values, names, where, (*_SILENT, *_FIXED, *silent))
  for key, only in _FIXED.items():
    if found.get(key) not in (None, only):
      raise ValueError(f'{where}.{key} {found[key]!r}: only {only!r} is supported.')
  return found


def _plain(value: Any) -> Any:
  """As JSON has it; a locked configuration gives tuples and its own mappings."""
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
