"""Llama blocks under their Hugging Face names, as the flat parameters of a `layers.stack.Stack` and back.

A parameter may hold several tensors side by side (queries, keys and values; the MLP's two inputs), and a run of blocks
holds its layers along a leading axis. `Part` says where one tensor is; everything else is a list of parts.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from layers.stack import StackConfig, parse_layout

DTYPES = ('float32', 'bfloat16', 'float16')


@dataclasses.dataclass(frozen=True)
class Part:
  """One named tensor: its shape, the path of the parameter that holds it, its layer in a run of stacked blocks (None
  outside runs), and whether ours is the transpose. Parts with the same path and layer lie side by side, in order.
  """

  name: str
  shape: tuple[int, ...]
  path: str
  layer: int | None = None
  transposed: bool = False

  def ours(self, value: np.ndarray) -> np.ndarray:
    """float32, in our orientation."""
    return np.asarray(value.T if self.transposed else value, np.float32)


def linear(name: str, path: str, d_in: int, d_out: int, layer: int | None = None) -> Part:
  """The part of a linear map: theirs is [out, in]."""
  return Part(name, (d_out, d_in), path, layer, transposed=True)


def stack_parts(config: StackConfig, prefix: str, path: str = '', layer_name: str = 'layers.{}.') -> Iterator[Part]:
  """The tensors of a stack of T blocks; layer i is named prefix + layer_name.format(i), its parameters start with path.

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
      kernel = lambda name, our, *sizes, t=theirs, o=ours, i=layer: linear(
        f'{t}{name}.weight', f'{o}{our}.kernel', *sizes, i
      )
      yield norm('input_layernorm', 'norm1.scale', config.width)
      yield kernel('self_attn.q_proj', 'mixer.qkv', config.width, inner)
      yield kernel('self_attn.k_proj', 'mixer.qkv', config.width, shared)
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


def check(parts: Iterable[Part], tensors: Mapping[str, object], where: object = 'weights') -> None:
  """Raises ValueError, naming the tensor, unless `tensors` (name -> shape and dtype) are exactly these parts."""
  parts = {part.name: part for part in parts}
  for odd, word in ((parts.keys() - tensors.keys(), 'lack'), (tensors.keys() - parts.keys(), 'have the surplus')):
    if odd:
      raise ValueError(f'{where} {word} tensor {min(odd)} ({len(odd)} such): it does not fit this configuration.')
  for name, part in parts.items():
    shape, dtype = tuple(tensors[name].shape), str(tensors[name].dtype)
    if shape != part.shape:
      raise ValueError(f'{where}: tensor {name} has shape {shape}, this configuration needs {part.shape}.')
    if dtype not in DTYPES:
      raise ValueError(f'{where}: tensor {name} is {dtype}; weights are {", ".join(DTYPES)}.')


def gather(parts: Iterable[Part], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Path -> float32 parameter, from tensors that `check` has passed."""
  paths: dict[str, dict[int | None, list[Part]]] = {}
  for part in parts:
    paths.setdefault(part.path, {}).setdefault(part.layer, []).append(part)
  flat = {}
  for path, layers in paths.items():
    values = (np.concatenate([part.ours(tensors[part.name]) for part in layers[layer]], -1) for layer in layers)
    flat[path] = next(values) if None in layers else np.stack(list(values))
  return flat


def scatter(parts: Iterable[Part], flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The inverse of `gather`: name -> float32 tensor."""
  used: dict[tuple[str, int | None], int] = {}
  tensors = {}
  for part in parts:
    value = np.asarray(flat[part.path]) if part.layer is None else np.asarray(flat[part.path][part.layer])
    first = used.get((part.path, part.layer), 0)
    last = first + part.shape[0 if part.transposed else -1]
    used[part.path, part.layer] = last
    value = value[..., first:last]
    tensors[part.name] = np.ascontiguousarray(value.T if part.transposed else value)
  return tensors


def read_stack(config: StackConfig, tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  """Path -> float32 parameter of a Stack, from the tensors whose names start with `prefix`; others are left alone.

  Raises ValueError naming a tensor that is missing, surplus (a layer or a final norm too many), misshapen, or not
  floating point.
  """
  parts = list(stack_parts(config, prefix))
  belongs = (f'{prefix}layers.', f'{prefix}norm.')
  found = {name: tensors[name] for name in tensors if name.startswith(belongs)}
  check(parts, found)
  return gather(parts, found)


def write_stack(config: StackConfig, flat: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  """The inverse of `read_stack`: name -> float32 tensor."""
  return scatter(stack_parts(config, prefix), flat)
