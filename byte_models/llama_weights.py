"""Llama blocks under their Hugging Face names, as the flat parameters of a `layers.stack.Stack` and back."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jax import Array

from layers import weights
from layers.stack import StackConfig, parse_layout
from layers.weights import Part, linear


def stack_parts(
  config: StackConfig, prefix: str, path: str = '', layer_name: str = 'layers.{}.', pairs: bool = False
) -> Iterator[Part]:
  """The tensors of a stack of T blocks; layer i is named prefix + layer_name.format(i), its parameters start with path.
  pairs: rotary positions turn channels 2i and 2i + 1, as in Meta's code, and not i and i + K/2.

  Raises ValueError for a stack that has other blocks than attention with an MLP.
  """
  attention, number = config.attention, 0
  inner, shared = attention.num_heads * attention.head, attention.kv_heads * attention.head
  for run, (kind, count) in enumerate(parse_layout(config.layout)):
    if kind != 'T':
      raise ValueError(f'layout {config.layout!r}: Llama weights have attention with an MLP in every layer, as "T32".')
    for layer in range(count):
      theirs, ours = prefix + layer_name.format(number), f'{path}runs.{run}.'
      norm = lambda name, our, width, t=theirs, o=ours, i=layer: Part(f'{t}{name}.weight', (width,), f'{o}{our}', i)
      kernel = lambda name, our, *sizes, turned=0, t=theirs, o=ours, i=layer: linear(
        f'{t}{name}.weight', f'{o}{our}.kernel', *sizes, i, turned
      )
      turned = attention.head * pairs
      yield norm('input_layernorm', 'norm1.scale', config.width)
      yield kernel('self_attn.q_proj', 'mixer.qkv', config.width, inner, turned=turned)
      yield kernel('self_attn.k_proj', 'mixer.qkv', config.width, shared, turned=turned)
      yield kernel('self_attn.v_proj', 'mixer.qkv', config.width, shared)
      yield kernel('self_attn.o_proj', 'mixer.out', inner, config.width)
      if config.qk_norm:
        full = config.qk_norm == 'full'
        yield norm('self_attn.norm_query', 'mixer.query_norm.scale', inner if full else attention.head)
        yield norm('self_attn.norm_key', 'mixer.key_norm.scale', shared if full else attention.head)
      yield norm('post_attention_layernorm', 'norm2.scale', config.width)
      yield kernel('mlp.up_proj', 'mlp.fc1', config.width, config.mlp_width)
      yield kernel('mlp.gate_proj', 'mlp.fc1', config.width, config.mlp_width)
      yield kernel('mlp.down_proj', 'mlp.fc2', config.mlp_width, config.width)
      number += 1
  if config.final_norm:
    yield Part(f'{prefix}norm.weight', (config.width,), f'{path}norm.scale')


def read_stack(config: StackConfig, tensors: Mapping[str, Any], prefix: str, where: object) -> dict[str, Array]:
  """Path -> float32 parameter of a Stack, from the tensors whose names start with `prefix`; others are left alone.

  Raises ValueError naming `where` and a tensor that is missing, surplus (a layer or a final norm too many), misshapen,
  or not floating point.
  """
  parts = list(stack_parts(config, prefix))
  belongs = (f'{prefix}layers.', f'{prefix}norm.')
  found = {name: tensors[name] for name in tensors if name.startswith(belongs)}
  weights.check(parts, found, where)
  return weights.gather(parts, found)


def write_stack(config: StackConfig, flat: Mapping[str, Any], prefix: str) -> dict[str, np.ndarray]:
  """The inverse of `read_stack`: name -> float32 tensor."""
  return weights.scatter(stack_parts(config, prefix), flat)
