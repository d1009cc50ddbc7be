"""BLT's entropy model with its published weights: a flat byte model, which a boundary `entropy(lm=DIR,ids=blt)` takes.

The authors' layout is params.json or config.json (its keys at the top or under 'args', 'model' or 'entropy_model') and
model.safetensors; a consolidated.pth becomes one by `python -m byte_models.blt.convert`. transformers keeps this model
among the tensors of a BLT; from there

  python -m byte_models.blt.entropy --weights weights/blt-1b-hf --out weights/blt_entropy

takes it. Its config.json has lost the window, so --window gives it: the keys that a position sees, its own included.
"""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from byte_models import llama_weights
from byte_models.blt.names import named, rope
from hnet.config import HNetConfig
from hnet.model import HNet
from hnet.parts import Sizes
from hnet.parts.inputs import ROWS, VOCABULARY
from hnet.stage_config import StageConfig
from layers import checks, weights
from layers.paths import rebuild
from layers.stack import StackConfig
from layers.weights import Part, linear
from text import command_line, paths

_DEFAULTS = {
  'mlp_width': None,  # ours; None: from the next two
  'n_kv_heads': None,
  'ffn_dim_multiplier': None,
  'multiple_of': 256,
  'norm_eps': 1e-5,
  'rope_theta': 10000.0,
  'sliding_window': None,  # keys, the own included; None: all
  'attn_bias_type': None,  # 'causal', without a window
  'vocab_size': VOCABULARY,
  'head_dim': None,
}
_OF_TRANSFORMERS = {'hidden_size': 768, 'num_hidden_layers': 14, 'num_attention_heads': 12, 'intermediate_size': 2048}
_PREFIX = 'model.patcher.'


def args_of(values: Mapping[str, Any]) -> Mapping[str, Any] | None:
  """The authors' keys of an entropy model in a published config; None: it is of another model."""
  found = values
  while isinstance(inner := found.get('args', found.get('model') or found.get('entropy_model')), Mapping):
    found = inner
  return found if {'dim', 'n_layers', 'n_heads'} <= found.keys() and 'dim_global' not in found else None


def parse(values: Mapping[str, Any]) -> HNetConfig:
  """The configuration, of an H-Net of one stage with BLT's ids; ValueError with one sentence on what does not fit."""
  args = {**_DEFAULTS, **(args_of(values) or {})}
  width, layers, heads = (checks.integer(args.get(key), key, 1) for key in ('dim', 'n_layers', 'n_heads'))
  if args['vocab_size'] != VOCABULARY:
    raise ValueError(f'vocab_size {args["vocab_size"]!r}: an entropy model has the ids of BLT, {VOCABULARY}.')
  head = checks.integer(args['head_dim'] or width // heads, 'head_dim', 1)
  shared, window = args['n_kv_heads'] or heads, args['sliding_window']
  is_whole = window is None or args['attn_bias_type'] in ('causal', 'block_causal')
  factor, multiple = args['ffn_dim_multiplier'], checks.integer(args['multiple_of'], 'multiple_of', 1)
  hidden = int((1.0 if factor is None else checks.number(factor, 'ffn_dim_multiplier')) * int(8 * width / 3))
  hidden = math.ceil(hidden / multiple) * multiple if args['mlp_width'] is None else args['mlp_width']
  main = StackConfig(
    f'T{layers}',
    width,
    checks.integer(hidden, 'mlp_width', 1),
    heads,
    head,
    -1 if is_whole else checks.integer(window, 'sliding_window', 1) - 1,
    num_kv_heads=0 if shared == heads else checks.integer(shared, 'n_kv_heads', 1),
    head_size=0 if head * heads == width else head,
    norm_epsilon=checks.number(args['norm_eps'], 'norm_eps'),
    rotary_base=checks.number(args['rope_theta'], 'rope_theta'),
  )
  stage = StageConfig(Sizes(width, width, layers), 0.02 * (2 * layers) ** -0.5, main=main)
  return HNetConfig(
    arch_layout=(main.layout,),
    d_model=(width,),
    d_intermediate=(main.mlp_width,),
    vocab_size=VOCABULARY,
    tie_embeddings=False,
    ssm_cfg=(),
    attn_cfg=(),
    stages=(stage,),
    rows=ROWS,
  )


def parts(config: HNetConfig, of_transformers: bool = False) -> Iterator[Part]:
  """Every tensor by its name in the authors' layout, or in transformers."""
  main, width = config.stages[0].main, config.d_model[0]
  tensors = [
    Part('embed_tokens.weight', (VOCABULARY, width), 'embeddings'),
    *llama_weights.stack_parts(main, '', 'backbone.main.', pairs=True),
    linear('lm_head.weight', 'lm_head.kernel', width, VOCABULARY),
  ]
  for part in tensors:
    name = f'{_PREFIX}{part.name}' if of_transformers else named(part.name, head='output')
    yield Part(name, part.shape, part.path, part.layer, part.layout, part.pairs)


def from_pretrained(directory: str | os.PathLike) -> HNet:
  """The model; raises as `byte_models.blt.from_pretrained`."""
  config = weights.read_config(weights.config_file(directory), parse)
  place = weights.directory(directory)
  tensors, wanted = weights.read_tensors(place), list(parts(config))
  weights.check(wanted, tensors, place)
  like = jax.eval_shape(lambda: HNet(config, rngs=nnx.Rngs(0)))
  return rebuild(like, weights.gather(wanted, tensors))


def extract(directory: str | os.PathLike, out: str | os.PathLike, window: int) -> None:
  """Writes the entropy model of a BLT in transformers' layout in that of the authors; ValueError where it has none."""
  place = weights.directory(directory)
  values = weights.read_json(place / weights.CONFIG)
  sizes = values.get('patcher_config')
  if not isinstance(sizes, Mapping):
    raise ValueError(f'{place / weights.CONFIG} has no patcher_config, which tells the sizes of an entropy model.')
  sizes = {**_OF_TRANSFORMERS, **sizes}
  args = {
    'dim': sizes['hidden_size'],
    'n_layers': sizes['num_hidden_layers'],
    'n_heads': sizes['num_attention_heads'],
    'n_kv_heads': sizes.get('num_key_value_heads'),
    'mlp_width': sizes['intermediate_size'],
    'norm_eps': sizes.get('rms_norm_eps', 1e-5),
    'rope_theta': rope('patcher_config', sizes, 10000.0),
    'sliding_window': window,
    'vocab_size': sizes.get('vocab_size', VOCABULARY),
  }
  config = parse(args)
  tensors = {name: tensor for name, tensor in weights.read_tensors(place).items() if name.startswith(_PREFIX)}
  wanted = list(parts(config, of_transformers=True))
  weights.check(wanted, tensors, place)
  pairs = zip(parts(config), wanted, strict=True)
  weights.write(out, {'args': args}, {ours.name: np.asarray(tensors[theirs.name]) for ours, theirs in pairs})


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m byte_models.blt.entropy', description=__doc__)
  parser.add_argument('--weights', required=True, help="a BLT's, as transformers has it")
  parser.add_argument('--out', required=True, help='directory to write to')
  parser.add_argument('--window', type=int, default=512, help='keys that a position sees (%(default)s)')
  flags = parser.parse_args(arguments)
  extract(paths.of(flags.weights, '--weights'), paths.of(flags.out, '--out'), flags.window)
  print(f'wrote {flags.out}/{weights.CONFIG} and {flags.out}/{weights.WEIGHTS}')


if __name__ == '__main__':
  command_line.run(main)
