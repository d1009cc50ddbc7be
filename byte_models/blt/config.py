"""BLT's configuration: the keys of the authors' ByteLatentTransformerArgs, and what this code adds to them."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from hnet import systems
from hnet.checks import check_part, inputs_of, labels_of, limits_of, marks_of, sizes_of, with_targets
from hnet.config import HNetConfig
from hnet.parts import Sizes
from hnet.parts.inputs import ROWS, VOCABULARY
from hnet.stage_config import StageConfig
from layers import checks, objectives
from layers.stack import StackConfig


@dataclasses.dataclass(frozen=True)
class BLTConfig(HNetConfig):
  """A whole model, an H-Net of one stage that cuts; `parse` builds it, and names what is wrong.

  mlp_multiple: what widths of MLPs are multiples of. published: the branch in the authors' keys, as JSON.
  """

  mlp_multiple: int = 256
  published: str = '{}'
  family: str = 'blt'


_OURS = {
  'family': 'blt',
  'boundary': 'space_end',
  'losses': (),
  'objectives': (),
  'bytes_per_chunk': None,
  'fixed_capacity': None,
  'patch_longest': 1024,
  'hash_across_documents': False,
  'mlp_widths': None,  # of encoder, global model and decoder; None: from multiple_of and ffn_dim_multiplier
  'dtype': 'float32',
  'remat': False,
  'scan_layers': False,
}
_REQUIRED = (
  'dim_global', 'dim_local_encoder', 'dim_local_decoder', 'n_layers_global', 'n_layers_local_encoder',
  'n_layers_local_decoder', 'n_heads_global', 'n_heads_local_encoder', 'n_heads_local_decoder',
)  # fmt: skip
_MODEL = {
  **dict.fromkeys(_REQUIRED),
  'vocab_size': VOCABULARY,
  'n_kv_heads': None,  # of both local models; None: as many as heads
  'n_kv_heads_global': None,
  'multiple_of': 256,
  'ffn_dim_multiplier': None,
  'norm_eps': 1e-5,
  'rope_theta': 10000.0,
  'local_attention_window_len': None,  # keys, the own included; None: all
  'cross_attn_encoder': True,
  'cross_attn_decoder': True,
  'downsampling_by_pooling': 'max',  # of 'avg', 'min', 'max', with commas between; one, 'max', with cross_attn_encoder
  'cross_attn_nheads': None,  # None: as many as the encoder has
  'cross_attn_k': 1,
  'cross_attn_window_encoder': None,  # patches, the own included; None: the own
  'cross_attn_window_decoder': None,
  'cross_attn_all_layers_encoder': False,
  'cross_attn_all_layers_decoder': False,
  'encoder_hash_byte_group_size': None,  # None: no n-grams
  'encoder_hash_byte_group_vocab': 30000,
  'encoder_hash_byte_group_nb_functions': 3,
}


def complete(branch: Mapping[str, Any]) -> dict[str, Any]:
  """The branch with all keys: one that it leaves out has its default, or None; what it holds is not looked at."""
  return checks.filled(branch, {**_OURS, **_MODEL})


def resize(
  branch: dict[str, Any], depth: int, *, width: int | None = None, mlp_width: int | None = None
) -> dict[str, Any]:
  """A `model` branch, changed in place: its global model has so many layers."""
  branch['n_layers_global'] = depth
  if width is not None:
    branch['dim_global'] = width
  if width is not None or mlp_width is not None:
    widths = branch.get('mlp_widths') or _mlp_widths(complete(branch))
    branch['mlp_widths'] = (widths[0], widths[1] if mlp_width is None else mlp_width, widths[2])
  return branch


def parse(branch: Mapping[str, Any]) -> BLTConfig:
  """The configuration of a `model` branch; ValueError with one sentence on what does not fit."""
  values = complete(checks.known(branch, {**_OURS, **_MODEL}, 'model'))
  for key in _REQUIRED:
    checks.integer(values[key], key, 1)
  width, inner = values['dim_local_encoder'], values['dim_global']
  if values['dim_local_decoder'] != width:
    raise ValueError(
      f'dim_local_decoder {values["dim_local_decoder"]} is not {width}, the dim_local_encoder: the decoder goes on '
      'with the states of the encoder.'
    )
  if inner < width:
    raise ValueError(f'dim_global {inner} is below {width}, the width of the local models.')
  if checks.boolean(values['cross_attn_all_layers_encoder'], 'cross_attn_all_layers_encoder'):
    raise ValueError(
      'cross_attn_all_layers_encoder True is not supported: patches attend to the states behind the last layer of the '
      'encoder, as in the released models; set it to False.'
    )
  if values['vocab_size'] != VOCABULARY:
    raise ValueError(f'vocab_size {values["vocab_size"]!r}: a BLT has the ids of 256 bytes and 4 others, {VOCABULARY}.')
  checks.one_of(values['dtype'], ('float32', 'bfloat16'), 'dtype')
  widths = values['mlp_widths'] or _mlp_widths(values)
  if not isinstance(widths, list | tuple) or len(widths) != 3:
    raise ValueError(f'mlp_widths {widths!r}: three integers, of encoder, global model and decoder.')
  stages = _stages(values, tuple(checks.integer(size, 'mlp_widths', 1) for size in widths))
  aims = objectives.parse(values['objectives'])
  return BLTConfig(
    arch_layout=(stages[0].encoder.layout, (stages[1].main.layout,), stages[0].decoder.layout),
    d_model=(width, inner),
    d_intermediate=tuple(widths[:2]),
    vocab_size=VOCABULARY,
    tie_embeddings=False,
    ssm_cfg=(),
    attn_cfg=(),
    stages=stages,
    bytes_per_chunk=sizes_of(values['bytes_per_chunk'], stages),
    marks=marks_of(stages),
    labels=labels_of(stages, aims),
    objectives=aims,
    inputs=inputs_of(_inputs(values), width),
    rows=ROWS,
    dtype=values['dtype'],
    mlp_multiple=checks.integer(values['multiple_of'], 'multiple_of', 1),
    published=json.dumps(
      {key: values[key] for key in _MODEL} | ({'mlp_widths': widths} if values['mlp_widths'] else {})
    ),
  )


def _stages(values: dict[str, Any], mlp_widths: tuple[int, ...]) -> tuple[StageConfig, StageConfig]:
  width, inner = values['dim_local_encoder'], values['dim_global']
  window = values['local_attention_window_len']
  window = -1 if window is None else checks.integer(window, 'local_attention_window_len', 1) - 1  # ours: before its own
  stack = lambda where, i, *more, **norm: _stack(values, where, mlp_widths[i], *more, **norm)
  encoder = stack('local_encoder', 0, 'n_kv_heads', window, final_norm=False)
  main = stack('global', 1, 'n_kv_heads_global', -1, final_norm=False)
  decoder = stack('local_decoder', 2, 'n_kv_heads', window, final_norm=True)
  sizes = Sizes(width, inner, values['n_layers_local_decoder'])
  heads = values['cross_attn_nheads'] or values['n_heads_local_encoder']
  for key in ('cross_attn_k', 'cross_attn_nheads', 'cross_attn_window_encoder', 'cross_attn_window_decoder'):
    checks.integer(values[key] or 1, key, 1)
  checks.integer(values['patch_longest'], 'patch_longest', 1)
  checks.number(values['norm_eps'], 'norm_eps')
  common = f'queries={values["cross_attn_k"]},heads={heads},norm_epsilon={values["norm_eps"]},window='
  layers = 0 if checks.boolean(values['cross_attn_all_layers_decoder'], 'cross_attn_all_layers_decoder') else 1
  pool = f'attend({common}{values["cross_attn_window_encoder"] or 1},longest={values["patch_longest"]})'
  pool = _pool(
    values['downsampling_by_pooling'], pool, checks.boolean(values['cross_attn_encoder'], 'cross_attn_encoder')
  )
  unpool, combine = f'attend({common}{values["cross_attn_window_decoder"] or 1},layers={layers})', 'through'
  if not checks.boolean(values['cross_attn_decoder'], 'cross_attn_decoder'):
    unpool, combine = f'repeat(narrow={"first" if inner == width else "linear"})', 'sum'
  chosen = systems.parse(
    {
      'boundary': values['boundary'],
      'pool': pool,
      'unpool': unpool,
      'combine': combine,
      'losses': values['losses'],
    }
  )
  if chosen['boundary'].make.lookahead:
    raise ValueError(
      f'boundary {chosen["boundary"].name} reads the slot behind its own, so the head would have to tell with each '
      'byte what it decides: use one that does not, or the family hnet.'
    )
  (chosen,) = with_targets([chosen], None, 'global')
  for key in ('boundary', 'pool', 'unpool', 'combine'):
    check_part(chosen[key], sizes)
  (limit,) = limits_of(values['fixed_capacity'], 1)
  local = values['n_layers_local_encoder'] + values['n_layers_local_decoder']
  deviations = [0.02 * (2 * layers) ** -0.5 for layers in (local, local + values['n_layers_global'])]
  return (
    StageConfig(sizes, deviations[0], None, encoder, decoder, **chosen, limit=limit),
    StageConfig(Sizes(inner, inner, values['n_layers_global']), deviations[1], main=main),
  )


def _pool(kinds: Any, attend: str, cross: bool) -> str:
  """`attend`, or what BLT has without cross attention."""
  if cross and kinds == 'max':
    return attend
  given = kinds.split(',') if isinstance(kinds, str) else [kinds]
  if cross or not all(kind in ('avg', 'min', 'max') for kind in given) or len({*given}) < len(given):
    among = "'max' with cross_attn_encoder" if cross else "one or several of avg, min, max, such as 'avg,max'"
    raise ValueError(f'downsampling_by_pooling {kinds!r} must be {among}.')
  return f'reduce({"+".join(given).replace("avg", "mean")})'


def _stack(
  values: dict[str, Any], where: str, mlp_width: int, kv_heads: str, window: int, *, final_norm: bool
) -> StackConfig:
  width, heads = values[f'dim_{where}'], values[f'n_heads_{where}']
  if width % heads or width // heads % 2:
    raise ValueError(f'n_heads_{where} {heads} does not divide dim_{where} {width} into heads of an even size.')
  shared = values[kv_heads] or 0
  if heads % (checks.integer(shared, kv_heads, 0) or heads):
    raise ValueError(f'{kv_heads} {shared} does not divide n_heads_{where} {heads}.')
  return StackConfig(
    layout=f'T{values[f"n_layers_{where}"]}',
    width=width,
    mlp_width=mlp_width,
    num_heads=heads,
    rotary_dim=width // heads,
    window=window,
    num_kv_heads=0 if shared == heads else shared,
    rotary_base=checks.number(values['rope_theta'], 'rope_theta'),
    norm_epsilon=checks.number(values['norm_eps'], 'norm_eps'),
    final_norm=final_norm,
    remat=checks.boolean(values['remat'], 'remat'),
    scan=checks.boolean(values['scan_layers'], 'scan_layers'),
    dtype=values['dtype'],
  )


def _mlp_widths(values: dict[str, Any]) -> tuple[int, ...]:
  """2/3 of 4 times the width, times the multiplier, up to a multiple (bytelatent/base_transformer.py, FeedForward)."""
  multiple, factor = checks.integer(values['multiple_of'], 'multiple_of', 1), values['ffn_dim_multiplier']
  factor = 1.0 if factor is None else checks.number(factor, 'ffn_dim_multiplier')
  hidden = (int(factor * int(8 * values[f'dim_{where}'] / 3)) for where in ('local_encoder', 'global', 'local_decoder'))
  return tuple(math.ceil(size / multiple) * multiple for size in hidden)


def _inputs(values: dict[str, Any]) -> tuple[str, ...]:
  sizes = values['encoder_hash_byte_group_size']
  if not sizes:
    return ()
  if not isinstance(sizes, list | tuple):
    raise ValueError(f'encoder_hash_byte_group_size {sizes!r} must be a list of lengths in bytes, such as [3, 4, 5].')
  across = str(checks.boolean(values['hash_across_documents'], 'hash_across_documents')).lower()
  options = {
    'sizes': '+'.join(str(checks.integer(size, 'encoder_hash_byte_group_size', 1)) for size in sizes),
    'functions': checks.integer(
      values['encoder_hash_byte_group_nb_functions'], 'encoder_hash_byte_group_nb_functions', 1
    ),
    'rows': checks.integer(values['encoder_hash_byte_group_vocab'], 'encoder_hash_byte_group_vocab', 1),
    'across': across,
  }
  return (f'hash_ngrams({",".join(f"{key}={value}" for key, value in options.items())})',)
