"""Published BLT weights: the authors' names or those of transformers, as safetensors beside a config.

The authors' layout is params.json (or a config.json that has it under 'args') and model.safetensors; a consolidated.pth
becomes one by `python -m byte_models.blt.convert`. Rotary pairs of channels (2i, 2i + 1) become ours, (i, i + K/2).
"""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from byte_models import llama_weights
from byte_models.blt import entropy
from byte_models.blt.config import BLTConfig, complete, parse
from byte_models.blt.names import named, rope
from hnet.model import HNet
from hnet.parts.inputs import VOCABULARY
from layers import checks, weights
from layers.paths import flatten, rebuild
from layers.weights import Part, linear

CONFIG_KEYS = ('args', 'dim_global', 'global_config', 'entropy_model')
HASHES, TABLES = 'encoder_hash_tok_embedding', 'inputs.0.tables_TxVxD'
# Options of the published code that this one has in one way only
_FIXED = {
  'cross_attn_init_by_pooling': True,
  'use_local_encoder_transformer': True,
  'use_rope': True,
  'tie_local_encoder_decoder': False,
  'tie_local_encoder_decoder_logits': False,
  'share_encoder_decoder_emb': False,
}


def parts(config: BLTConfig, fused: bool = False) -> Iterator[Part]:
  """Every tensor by its name in transformers, there with all hash tables in one; else in the authors' layout."""
  for part in _parts(config):
    name = part.name
    if fused:
      name = name if name.startswith('lm_head') else f'model.{name}'
    else:
      name = named(name, head='local_decoder.output')
    yield Part(name, part.shape, part.path, part.layer, part.layout, part.pairs)
  if config.inputs:
    options = dict(config.inputs[0].options)
    rows, count = options['rows'], options['functions'] * len(options['sizes'].split('+'))
    width = config.d_model[0]
    if fused:
      yield Part(f'model.{HASHES}.weight', (count * rows, width), TABLES)
    else:
      yield from (Part(f'{HASHES}.{i}.weight', (rows, width), TABLES, i) for i in range(count))


def _parts(config: BLTConfig) -> Iterator[Part]:
  width, inner = config.d_model
  stage, main = config.stages[0], config.stages[1].main
  pool, unpool = dict(stage.pool.options), dict(stage.unpool.options)
  yield Part('local_encoder.embed_tokens.weight', (VOCABULARY, width), 'embeddings')
  yield from llama_weights.stack_parts(stage.encoder, 'local_encoder.', 'backbone.encoder.', pairs=True)
  if 'queries' in pool:
    first = 'local_encoder.patch_embedding_projection.weight'
    yield linear(first, 'backbone.pool.first.kernel', width, pool['queries'] * width)
    yield from _cross('local_encoder.cross_attn_layers.0.', 'backbone.pool.attention.', width)
  beside = width * (pool['queries'] if 'queries' in pool else len(pool['of'].split('+')))
  if beside != inner:
    widen = 'global_transformer.token_embedding_projection.weight'
    yield linear(widen, 'backbone.pool.widen.kernel', beside, inner)
  yield from llama_weights.stack_parts(main, 'global_transformer.', 'backbone.inner.main.', pairs=True)
  vectors = 'local_decoder.patch_embedding_projection.weight'
  if 'queries' in unpool:
    yield linear(vectors, 'backbone.unpool.vectors.kernel', inner, unpool['queries'] * width)
    for layer in range(unpool['layers'] or stage.sizes.blocks):
      theirs, ours = f'local_decoder.cross_attn_layers.{layer}.', f'backbone.unpool.attentions.{layer}.'
      yield from _cross(theirs, ours, width)
  elif inner != width:
    yield linear(vectors, 'backbone.unpool.map.kernel', inner, width)
  yield from llama_weights.stack_parts(stage.decoder, 'local_decoder.', 'backbone.decoder.', pairs=True)
  yield linear('lm_head.weight', 'lm_head.kernel', width, VOCABULARY)


def _cross(theirs: str, ours: str, width: int) -> Iterator[Part]:
  yield Part(f'{theirs}q_norm.weight', (width,), f'{ours}query_norm.scale')
  yield Part(f'{theirs}k_norm.weight', (width,), f'{ours}key_norm.scale')
  yield linear(f'{theirs}q_proj.weight', f'{ours}query.kernel', width, width)
  yield linear(f'{theirs}k_proj.weight', f'{ours}key_value.kernel', width, width)
  yield linear(f'{theirs}v_proj.weight', f'{ours}key_value.kernel', width, width)
  yield linear(f'{theirs}o_proj.weight', f'{ours}out.kernel', width, width)


def overrides(config: BLTConfig) -> dict[str, Any]:
  """The boundary, which has no parameters in these files."""
  return {'boundary': config.stages[0].boundary.name}


def from_pretrained(directory: str | os.PathLike, **overrides: Any) -> HNet:
  """Loads config.json or params.json and model.safetensors, whole or in parts with an index.

  overrides: keys of the `model` branch, such as dtype='bfloat16', and boundary='…': what cuts patches is no part of
  these weights (the published models' is another model, see `boundary_of`). The file of the config may hold such keys,
  too. Parameters become float32; the dtypes of the file are remembered for `save_pretrained`. Raises FileNotFoundError
  for a missing file and ValueError for a configuration or a tensor that does not fit. What is BLT's entropy model
  becomes a flat byte model (byte_models/blt/entropy.py).
  """
  place = weights.directory(directory)
  if not overrides and entropy.args_of(weights.read_json(weights.config_file(directory))) is not None:
    return entropy.from_pretrained(directory)
  config = weights.read_config(weights.config_file(directory), lambda values: parse(branch_of(values, **overrides)))
  tensors = {
    name: tensor
    for name, tensor in weights.read_tensors(place).items()
    if not name.startswith('model.patcher.')  # the entropy model's
  }
  wanted = list(parts(config, is_fused(tensors)))
  weights.check(wanted, tensors, place)
  flat = weights.gather(wanted, tensors)
  like = jax.eval_shape(lambda: HNet(config, rngs=nnx.Rngs(0)))
  if config.inputs:
    flat[TABLES] = flat[TABLES].reshape(flatten(like)[TABLES].shape)
  model = rebuild(like, flat)
  model.stored_dtypes = tuple((name, tensors[name].dtype) for name in sorted(tensors))
  return model


def is_fused(tensors: Mapping[str, Any]) -> bool:
  """Whether names are those of transformers."""
  return 'lm_head.weight' in tensors


def branch_of(values: Mapping[str, Any], **overrides: Any) -> dict[str, Any]:
  """A `model` branch of a published config, of either layout; ValueError for options that there are not here."""
  args = values
  while isinstance(args.get('args', args.get('model')), Mapping):  # 'model' of the authors' TrainArgs
    args = args.get('args', args.get('model'))
  for key, value in _FIXED.items():
    if args.get(key, value) not in (value, None):
      raise ValueError(f'{key} {args[key]!r} is not supported: it must be {value!r}.')
  known = complete({}).keys() - {'family', 'dtype'}  # transformers' dtype is that of the file
  of_file = _of_transformers(values) if 'global_config' in values else args
  found = {key: value for key, value in {**of_file, **values}.items() if key in known and value is not None}
  found |= overrides
  if 'boundary' not in found:
    found['boundary'] = boundary_of(args.get('patching_mode'))
  return found


def boundary_of(mode: Any) -> str:
  """What cuts patches as a patching mode of the published code; ValueError where that is not in its config."""
  if mode == 'space':
    return 'space_end'
  raise ValueError(
    f"patching_mode {mode!r}: what cuts patches is not among these weights; name it, such as boundary='space_end', or "
    'write it into the file as "boundary".'
  )


# What transformers leaves out of a config.json: its defaults (configuration_blt.py)
_LOCAL = {'hidden_size': 1024, 'num_attention_heads': 16, 'intermediate_size': 2816, 'num_key_value_heads': None}
_COMMON = {'rms_norm_eps': 1e-5, 'cross_attn_all_layers': False}
_DEFAULTS = {
  'encoder_config': {**_LOCAL, **_COMMON, 'num_hidden_layers': 1},
  'decoder_config': {**_LOCAL, **_COMMON, 'num_hidden_layers': 9, 'cross_attn_all_layers': True},
  'global_config': {
    **_LOCAL, **_COMMON, 'hidden_size': 2048, 'intermediate_size': 5632, 'num_hidden_layers': 25,
  },
  'cross_attn_k': 2,
  'encoder_hash_byte_group_size': [3, 4, 5, 6, 7, 8],
  'encoder_hash_byte_group_vocab': 500002,
  'encoder_hash_byte_group_nb_functions': 1,
}  # fmt: skip
_ROPE = 500000.0


def _of_transformers(values: Mapping[str, Any]) -> dict[str, Any]:
  """The authors' keys of a config.json of transformers, whose local attention has no window."""
  filled = checks.filled(values, _DEFAULTS)
  of_part = {name: filled[name] for name in ('encoder_config', 'global_config', 'decoder_config')}
  for name, sizes in of_part.items():
    if not isinstance(sizes, Mapping):
      raise ValueError(f'{name} {sizes!r:.80} must be a mapping.')
  encoder, main, decoder = of_part.values()
  found = {key: filled[key] for key in _DEFAULTS if not isinstance(_DEFAULTS[key], Mapping)}
  for where, sizes in (('local_encoder', encoder), ('global', main), ('local_decoder', decoder)):
    found |= {
      f'dim_{where}': sizes['hidden_size'],
      f'n_layers_{where}': sizes['num_hidden_layers'],
      f'n_heads_{where}': sizes['num_attention_heads'],
    }
  bases = {json.dumps(rope(name, sizes, _ROPE)) for name, sizes in of_part.items()}
  if len(bases) > 1:
    raise ValueError(f'rope_theta {", ".join(sorted(bases))}: one for encoder, global model and decoder.')
  return found | {
    'n_kv_heads': encoder['num_key_value_heads'],
    'n_kv_heads_global': main['num_key_value_heads'],
    'mlp_widths': tuple(sizes['intermediate_size'] for sizes in of_part.values()),
    'norm_eps': _same(of_part, 'rms_norm_eps'),
    'rope_theta': json.loads(bases.pop()),
    'cross_attn_nheads': encoder['num_attention_heads'],
    'cross_attn_all_layers_encoder': encoder['cross_attn_all_layers'],
    'cross_attn_all_layers_decoder': decoder['cross_attn_all_layers'],
  }


def _same(of_part: Mapping[str, Mapping[str, Any]], key: str) -> Any:
  found = [sizes[key] for sizes in of_part.values()]
  if any(value != found[0] for value in found):
    raise ValueError(f'{key} {found}: one for encoder, global model and decoder.')
  return found[0]


def save_pretrained(model: HNet, directory: str | os.PathLike) -> None:
  """Writes the authors' layout, as read or in float32: config.json with 'args', and model.safetensors."""
  names = dict(model.stored_dtypes)
  flat = {path: np.asarray(value) for path, value in flatten(model).items()}
  tensors = weights.scatter(parts(model.config), flat, {} if is_fused(names) else names)
  weights.write(directory, {'args': json.loads(model.config.published)}, tensors)
