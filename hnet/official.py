"""Official H-Net weights: the authors' state dict as safetensors beside their config.json."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from hnet import systems
from hnet.config import HNetConfig
from hnet.model import HNet
from hnet.stage_config import StageConfig
from layers import weights
from layers.paths import flatten, rebuild
from layers.stack import StackConfig, parse_layout
from layers.weights import Part, linear

CONFIG_KEYS = ('arch_layout',)
_PARTS = ('boundary', 'pool', 'unpool', 'combine')
_PUBLISHED = systems.parse('hnet')
_TIED = 'lm_head.weight', 'embeddings.weight'  # two names of one tensor where config.json ties them


def parts(config: HNetConfig) -> Iterator[Part]:
  """Every tensor of the official state dict, stage by stage, but for the second name of tied embeddings."""
  width, vocabulary = config.d_model[0], config.vocab_size
  yield Part('embeddings.weight', (vocabulary, width), 'embeddings')
  for index, stage in enumerate(config.stages):
    theirs, ours = 'backbone' + '.main_network' * index, 'backbone' + '.inner' * index
    extra = stage.sizes.width - config.stages[max(index - 1, 0)].sizes.width
    if extra:
      yield Part(f'{theirs}.pad_dimension', (extra,), f'{ours.removesuffix(".inner")}.pool.pad')
    if stage.main:
      yield from _stack_parts(stage.main, f'{theirs}.main_network', f'{ours}.main')
      continue
    square = (stage.sizes.width,) * 2
    yield from _stack_parts(stage.encoder, f'{theirs}.encoder', f'{ours}.encoder')
    yield linear(f'{theirs}.routing_module.q_proj_layer.weight', f'{ours}.boundary.query.kernel', *square)
    yield linear(f'{theirs}.routing_module.k_proj_layer.weight', f'{ours}.boundary.key.kernel', *square)
    yield linear(f'{theirs}.residual_proj.weight', f'{ours}.combine.residual.kernel', *square)
    yield Part(f'{theirs}.residual_proj.bias', square[:1], f'{ours}.combine.residual.bias')
    yield from _stack_parts(stage.decoder, f'{theirs}.decoder', f'{ours}.decoder')
  if not config.tie_embeddings:
    yield linear('lm_head.weight', 'lm_head.kernel', width, vocabulary)


def _stack_parts(config: StackConfig, theirs: str, ours: str) -> Iterator[Part]:
  width, mlp, number = config.width, config.mlp_width, 0
  inner = config.expand * width
  channels, heads = inner + 2 * config.d_state, inner // 64
  for run, (kind, count) in enumerate(parse_layout(config.layout)):
    for layer in range(count):
      their, our = f'{theirs}.layers.{number}.', f'{ours}.runs.{run}.'
      part = lambda name, path, *shape, i=layer, t=their, o=our, **more: Part(t + name, shape, o + path, i, **more)
      kernel = lambda name, path, *sizes, i=layer, t=their, o=our: linear(f'{t}{name}.weight', o + path, *sizes, i)
      yield part('norm1.weight', 'norm1.scale', width)
      if kind in 'mM':
        for name in ('dt_bias', 'A_log', 'D'):
          yield part(f'mixer.{name}', f'mixer.{name}', heads)
        yield kernel('mixer.in_proj', 'mixer.in_proj.kernel', width, inner + channels + heads)
        yield part('mixer.conv1d.weight', 'mixer.conv_kernel', channels, 1, config.d_conv, layout='conv')
        yield part('mixer.conv1d.bias', 'mixer.conv_bias', channels)
        yield part('mixer.norm.weight', 'mixer.norm.scale', inner)
        yield kernel('mixer.out_proj', 'mixer.out_proj.kernel', inner, width)
      else:
        yield kernel('mixer.Wqkv', 'mixer.qkv.kernel', width, 3 * width)
        yield kernel('mixer.out_proj', 'mixer.out.kernel', width, width)
      if kind.isupper():
        yield part('norm2.weight', 'norm2.scale', width)
        yield kernel('mlp.fc1', 'mlp.fc1.kernel', width, 2 * mlp)
        yield kernel('mlp.fc2', 'mlp.fc2.kernel', mlp, width)
      number += 1
  yield Part(f'{theirs}.rmsnorm.weight', (width,), f'{ours}.norm.scale')


def check_official(config: HNetConfig) -> None:
  """Raises ValueError unless the official code could run this configuration."""

  def plain(stage: StageConfig) -> bool:
    stacks = [s for s in (stage.encoder, stage.decoder, stage.main) if s]
    chosen = tuple(getattr(stage, key) for key in _PARTS)
    as_published = (s.final_norm and not s.num_kv_heads and s.rotary_base == 10000.0 for s in stacks)
    is_cut_so = bool(stage.main) or chosen == tuple(_PUBLISHED[key] for key in _PARTS)
    return config.mlp_multiple == 128 and all(as_published) and is_cut_so

  for index, stage in enumerate(config.stages):
    if not plain(stage):
      names = ', '.join(f'{key} {getattr(stage, key).name}' for key in _PARTS if getattr(stage, key))
      raise ValueError(
        f'stage {index} uses {names or "stacks of another form"} (or a post_norm, num_kv_heads, rotary_base or '
        'mlp_multiple of its own): the official format knows only the published H-Net; keep such a model as a training '
        'checkpoint.'
      )


def overrides(config: HNetConfig) -> dict[str, Any]:
  """None: the file has the parameters of every H-Net of its sizes."""
  del config
  return {}


def from_pretrained(directory: str | os.PathLike, **overrides: Any) -> HNet:
  """Loads `config.json` (official format) and `model.safetensors` (official names), whole or in parts with an index.

  overrides: keys of the `model` branch, such as dtype='bfloat16' or ratio_targets=(3.0, 2.5). Parameters become
  float32; the dtypes of the file are remembered for `save_pretrained`. Raises FileNotFoundError for a missing file and
  ValueError for a tensor that is missing, surplus, misshapen, or not float32, bfloat16 or float16.
  """
  directory, config, tensors = weights.read(directory, lambda values: parse({**values, **overrides}))
  check_tensors(config, tensors, directory)
  model = rebuild(jax.eval_shape(lambda: HNet(config, rngs=nnx.Rngs(0))), weights.gather(parts(config), tensors))
  model.stored_dtypes = tuple((name, tensors[name].dtype) for name in sorted(tensors))
  return model


def parse(values: Mapping[str, Any]) -> HNetConfig:
  """The configuration of an official config.json; ValueError if it is not that of a published H-Net."""
  config = HNetConfig.from_dict(values)
  check_official(config)
  return config


def check_tensors(config: HNetConfig, tensors: Mapping[str, Any], where: object) -> None:
  """Raises ValueError, naming a tensor, unless these (name -> anything with values, shape and dtype) are the state dict
  of this configuration.
  """
  if config.tie_embeddings:
    tensors = weights.without_tied(tensors, *_TIED, where)
  weights.check(parts(config), tensors, where)


def state_dict(model: HNet) -> dict[str, np.ndarray]:
  """Official name -> array, in the dtypes of the file that the model came from (float32 for a trained one)."""
  check_official(model.config)
  flat, dtypes = flatten(model), dict(model.stored_dtypes)
  tensors = weights.scatter(parts(model.config), flat, dtypes)
  second, first = _TIED
  if model.config.tie_embeddings and (second in dtypes or not dtypes):  # some files leave it out
    tensors |= weights.scatter([Part(second, tensors[first].shape, 'embeddings')], flat, dtypes)
  return tensors


def save_pretrained(model: HNet, directory: str | os.PathLike) -> None:
  """Writes config.json and model.safetensors; a file is replaced only by a whole one. ValueError if the official code
  could not run the configuration."""
  weights.write(directory, model.config.official(), state_dict(model))
