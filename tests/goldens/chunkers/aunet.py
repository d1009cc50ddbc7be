"""AU-Net: levels of bytes, and whole models: what they compute on the way, loss and the gradients of all parameters."""

import copy
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import hnet
from hnet.config import HNetConfig
from hnet.stage import Stage
from layers import objectives, weights
from layers.chunks import Level
from layers.contract import EVAL
from layers.paths import flatten, rebuild
from layers.stack import Stack, StackConfig, parse_layout
from layers.weights import Part, linear
from tests.goldens.chunkers.difference import Difference, absolute, config, relative, tensors
from text import levels

BUFFERS = ('features_weight', 'expand_idx', 'position', 'freqs_cis')
# Embeddings and heads, of 258 symbols: bytes, BOS and EOS
OUTSIDE = ('tok_embeddings.weight', 'vocab.weight', 'level_mask_norm.weight', 'level_mask.weight')


def knows(config: dict[str, Any]) -> bool:
  """By the class of the model, or the texts and strategies of masks."""
  return 'aunet' in config.get('model_class', '') or {'texts', 'strategies'} <= config.keys()


def check(folder: pathlib.Path) -> dict[str, Difference]:
  """See the module."""
  found = config(folder)
  return _model(folder, found['args']) if 'args' in found else _masks(folder, found)


def _masks(folder: pathlib.Path, found: dict[str, Any]) -> dict[str, Difference]:
  """The published levels, and where those of the text up to a byte differ."""
  (io,) = tensors(folder, 'io')
  result = {}
  for text, content in ((name, text.encode()) for name, text in found['texts'].items()):
    for strategy, rules in found['strategies'].items():
      case, rules = f'{text}.{strategy}', levels.check([*map(_rule, rules.items())])
      whole, causal = (np.pad(levels.levels(content, rules, published), 1) for published in (True, False))
      differ = [[int(at), content[at - 1], int(whole[at]), int(causal[at])] for at in np.flatnonzero(whole != causal)]
      expected = found.get('causality_mismatches', {}).get(case, differ)
      result[f'{case}.up_to_a_byte'] = Difference(0.0 if differ == expected else np.inf, 0.0)
      result[f'{case}.eval_levels'] = absolute(whole, io[f'{case}.eval_levels'], 0.0)
      whole[0] = whole.max()  # of BOS, which opens a chunk of every stage here
      for key in ('train_levels', 'prefill_force_first'):
        result[f'{case}.{key}'] = absolute(whole, io[f'{case}.{key}'], 0.0)
  return result


def _rule(item: tuple[str, str]) -> str:
  """('word2', '2@1') -> 'word2'; only the key 'word' has what stands behind the @."""
  key, value = item
  if not key.startswith('word'):
    return next(name for name in ('pretok', 'punct') if key.startswith(name))
  return f'word{value}' if key == 'word' else f'word{value.split("@")[0]}'


def _model(folder: pathlib.Path, args: dict[str, Any]) -> dict[str, Difference]:
  theirs, io, gradients = tensors(folder, 'model', 'io', 'grads')
  parsed = hnet.parse(branch(args))
  parts = [part for part in _parts(parsed) if part.name in theirs]
  stage = jax.eval_shape(lambda: hnet.build(parsed, rngs=nnx.Rngs(0)).backbone)
  inside = {part.name: _turned(part.name, parsed, theirs[part.name]) for part in parts}
  stage = rebuild(stage, weights.gather(parts, inside))
  outside = {name: jnp.asarray(theirs[name]) for name in OUTSIDE if name in theirs}
  unknown = {name for name in theirs if not name.endswith(BUFFERS)} - inside.keys() - outside.keys()
  if unknown:
    raise ValueError(f'{folder}/model.safetensors: no part of ours is {min(unknown)}')
  level = Level.of_bytes(
    jnp.ones(io['tokens'].shape, jnp.int32), {name: jnp.asarray(io['level_mask']) for name, _ in parsed.marks}
  )

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def run(stage, outside):
    embed = lambda ids: outside['tok_embeddings.weight'][ids]
    y, _ = stage(embed(io['tokens']), level, (None,) * (len(args['layers']) - 1), EVAL)
    logits = y @ outside['vocab.weight'].T
    total = nll = _cross_entropy(logits, io['targets'])
    tapped = {}
    last = _tapped(stage, embed(io['tokens']), level, tapped)
    if 'level_mask.weight' in outside:  # the level of what comes next, told its embedding
      given = {
        'norm.scale': outside['level_mask_norm.weight'], 'out.kernel': outside['level_mask.weight'].T,
      }  # fmt: skip
      (head,) = objectives.build(parsed.objectives, last.shape[-1], 258, rngs=nnx.Rngs(0))
      of_levels = rebuild(head, given).logits(last, embed(jnp.maximum(io['targets'], 0)))
      total += args['lambda_level'] * _cross_entropy(of_levels, io['target_level_mask'])
    return total, tapped | {'logits': logits, 'logits_f64': logits, 'loss': nll, 'loss_f64': nll}

  (_, ours), (of_stage, of_outside) = jax.device_get(run(stage, outside))
  result = {}
  for name in io.keys() & ours.keys():
    found, wanted = ours[name], io[name]
    if found.ndim > 1:  # behind a level's slots their buffers hold others, which nothing reads
      valid = ours.get(f'{name}.valid', ours.get(f'{name.split(".")[0]}.valid', np.ones(found.shape[:2], bool)))
      valid = valid[:, : wanted.shape[1]].reshape(*wanted.shape[:2], *(1,) * (found.ndim - 2))
      found, wanted = found[:, : wanted.shape[1]] * valid, wanted * valid
    tolerance = 0.0 if wanted.dtype.kind in 'ib' else 2e-5 * max(1.0, float(np.abs(wanted).max()))
    result[name] = absolute(found, wanted, tolerance)
  of_inside = weights.scatter(parts, flatten(of_stage))
  for name, value in gradients.items():
    found = of_outside[name] if name in OUTSIDE else _turned(name, parsed, of_inside[name], back=True)
    result[f'gradient of {name}'] = relative(found, value)
  return dict(sorted(result.items()))


def branch(args: dict[str, Any]) -> dict[str, Any]:
  """Our `model` branch of a published one, and of the levels that it is given."""
  widths, block, kind = args['dimensions'], args.get('block', {}), args['pooling_type'].lower()
  layout: list = [f'T{args["layers"][-1]}']
  for layers in args['layers'][-2::-1]:
    layout = [f'T{layers}', layout, f'T{layers}']
  hidden = [int(int(8 * width / 3) * (block.get('ffn_dim_multiplier') or 1.0)) for width in widths]
  windows = args.get('sliding_windows') or [None] * len(widths)
  by = 'matrix' if 'indexed_matmul' in kind else 'embedding' if 'repeat' in kind else 'start'
  pool, narrow = ('mixed', 'mean') if 'non_param' in kind else ('linear', 'linear')
  rules = ','.join(('word1', 'word2', 'word4')[: len(widths) - 1])
  assert all(args.get('residuals') or [True]), 'stages without a residual are not ours'
  return {
    'family': 'hnet',
    'arch_layout': layout,
    'd_model': widths,
    'd_intermediate': hidden,
    'mlp_multiple': block.get('multiple_of', 256),
    'attn_cfg': {
      'num_heads': [width // head for width, head in zip(widths, args['head_dims'], strict=True)],
      'rotary_emb_dim': args['head_dims'],
      'window_size': [-1 if window is None else window - 1 for window in windows],
    },
    'num_kv_heads': block.get('n_kv_heads') or 0,
    'rotary_base': block.get('rope_theta', 10000.0),
    'post_norm': 'head',
    'chunking': [
      {
        'boundary': f'levels({stage},{rules})',
        'pool': f'first(widen={pool})',
        'unpool': f'indexed(by={by},narrow={narrow})',
        'combine': 'sum',
      }
      for stage in range(1, len(widths))
    ],
    'objectives': [f'levels({rules})'] if args.get('lambda_level') else [],
    'fixed_capacity': [(most - 0.5) / args['max_seqlens'][0] for most in args['max_seqlens'][1:]],
  }


def _cross_entropy(logits: jax.Array, targets: np.ndarray) -> jax.Array:
  log_p = jax.nn.log_softmax(logits, -1)
  is_scored = targets >= 0
  return (
    -jnp.sum(jnp.take_along_axis(log_p, jnp.maximum(targets, 0)[..., None], -1)[..., 0] * is_scored) / is_scored.sum()
  )


def _tapped(stage: Any, x: jax.Array, level: Level, taps: dict[str, Any], index: int = 0) -> jax.Array:
  """What a stage gives, part by part, before the norm at its end."""
  if not isinstance(stage, Stage):
    taps['trunk.out'], taps['trunk.valid'] = stage(x, level, (), EVAL)[0], level.valid
    return taps['trunk.out']
  e = _stack(stage.encoder, f'encoder{index}', x, level, taps)
  cut, segments = stage._cut(e, level, EVAL, None, stage.limit)
  g = stage.pool(e, cut, segments)
  z = _tapped(stage.inner, g, segments.inner, taps, index + 1)
  name = f'trans{index}'
  taps |= {f'{of}{index}.valid': level.valid for of in ('encoder', 'trans', 'decoder')}
  taps[f'{name}.down.valid'] = segments.inner.valid
  taps |= {f'{name}.down': g, f'{name}.up': stage.unpool(z, cut, segments, None, None), f'{name}.mask': cut.emit}
  taps |= {f'{name}.repeat_idx': segments.index_BxC, f'{name}.position': segments.offset_BxC % 16}
  y, _ = stage.combine(e, cut, functools.partial(stage.unpool, z, cut, segments))
  return _stack(stage.decoder, f'decoder{index}', y, level, taps)


def _stack(stack: Stack, name: str, x: jax.Array, level: Level, taps: dict[str, Any]) -> jax.Array:
  """Without the norm at its end; what each block gives is what the next one meets."""
  stack = copy.copy(stack)
  stack.config = dataclasses.replace(stack.config, final_norm=False)

  def inject(block, stream):
    if block:
      taps[f'{name}.layer{block - 1}'] = stream

  y = stack(x, level.segment_ids_BxC, inject)
  taps[f'{name}.out'] = taps[f'{name}.layer{_blocks(stack.config) - 1}'] = y
  return y


def _blocks(config: StackConfig) -> int:
  return sum(count for _, count in parse_layout(config.layout))


def _turned(name: str, parsed: HNetConfig, value: Any, back: bool = False) -> np.ndarray:
  """Channels that turn together: theirs are neighbours, ours half a head apart. Maps by offset: theirs [out, in]."""
  value = np.asarray(value)
  if name.endswith('indexed_linear.weight'):
    return value.swapaxes(1, 2)
  if name.endswith(('attention.wq.weight', 'attention.wk.weight')):
    place = name.split('.')
    config = parsed.stages[-1].main if place[0] == 'trunk' else parsed.stages[int(place[1])].encoder
    pairs = (config.attention.head // 2, 2)[:: -1 if back else 1]
    return value.reshape(-1, *pairs, value.shape[-1]).swapaxes(1, 2).reshape(value.shape)
  return value


def _parts(parsed: HNetConfig) -> Iterator[Part]:
  """Tensors inside, by their names and in our places."""
  for index, stage in enumerate(parsed.stages):
    path = 'inner.' * index
    if stage.main:
      yield from _layers(stage.main, 'trunk', f'{path}main')
      continue
    (d_in, d_out, _), theirs = stage.sizes, f'transitions.{index}.'
    yield from _layers(stage.encoder, f'encoders.{index}', f'{path}encoder')
    yield from _layers(stage.decoder, f'decoders.{index}', f'{path}decoder')
    yield Part(f'{theirs}down_norm.weight', (d_in,), f'{path}pool.norm.scale')
    yield linear(f'{theirs}trans_down.weight', f'{path}pool.map.kernel', d_in, d_out)
    yield Part(f'{theirs}up_norm.weight', (d_out,), f'{path}unpool.norm.scale')
    yield linear(f'{theirs}trans_up.weight', f'{path}unpool.map.kernel', d_out, d_in)
    yield Part(f'{theirs}indexed_linear.weight', (16, d_out, d_in), f'{path}unpool.maps_OxExD')
    yield Part(f'{theirs}indexed_norm.weight', (d_out,), f'{path}unpool.maps_norm.scale')
    yield Part(f'{theirs}pos_encoding.weight', (16, d_out), f'{path}unpool.places_OxE')
    if not index:
      yield Part('vocab_norm.weight', (d_in,), 'decoder.norm.scale')


def _layers(config: StackConfig, theirs: str, ours: str) -> Iterator[Part]:
  width, hidden, heads = config.width, config.mlp_width, config.attention
  inner, shared = heads.num_heads * heads.head, heads.kv_heads * heads.head
  for layer in range(_blocks(config)):
    name, path = f'{theirs}.layers.{layer}', f'{ours}.runs.0'
    yield Part(f'{name}.attention_norm.weight', (width,), f'{path}.norm1.scale', layer)
    for key, size in (('wq', inner), ('wk', shared), ('wv', shared)):
      yield linear(f'{name}.attention.{key}.weight', f'{path}.mixer.qkv.kernel', width, size, layer)
    yield linear(f'{name}.attention.wo.weight', f'{path}.mixer.out.kernel', inner, width, layer)
    yield Part(f'{name}.ffn_norm.weight', (width,), f'{path}.norm2.scale', layer)
    for key in ('w3', 'w1'):  # the gate is our second half
      yield linear(f'{name}.feed_forward.{key}.weight', f'{path}.mlp.fc1.kernel', width, hidden, layer)
    yield linear(f'{name}.feed_forward.w2.weight', f'{path}.mlp.fc2.kernel', hidden, width, layer)
