"""What a config would train: parameters and FLOPs per byte by component, without allocating the model."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import nnx

import byte_models
from training import config as config_lib
from training.state import flatten

TABLES = ('embeddings', 'lm_head')  # attributes, and components of FLOPs, that papers count or leave out
BACKWARD = 2.0  # the backward pass costs twice the forward one: each product has two gradients


def abstract_model(model: Mapping[str, Any]) -> Any:
  """The model of a `model` branch with shapes in place of arrays. Raises ValueError as `byte_models.parse` does."""
  parsed = byte_models.parse(model)
  return jax.eval_shape(lambda: byte_models.build(parsed, rngs=nnx.Rngs(0)))


def describe(config: Any, model: Any = None) -> dict[str, Any]:
  """JSON data about a config: parameters, flops_per_byte, each also by component and without embeddings and head.

  flops_per_byte: forward pass, documents of seq_len bytes, at the bytes per chunk that the config states (by default
  those that the model is trained towards); a training step takes (1 + backward_over_forward) times as many. model: its
  abstract model, if the caller has it.
  """
  settings = config_lib.parse(config)
  model = abstract_model(settings.model) if model is None else model
  flat = flatten(model)
  parameters = parameters_by_component(flat)
  flops = model.flops_per_byte(settings.seq_len, None)
  return {
    'family': settings.model.get('family'),
    'parameters': sum(parameters.values()),
    'parameters_by_component': parameters,
    'parameters_without_tables': sum(leaf.size for path, leaf in flat.items() if not {*path.split('.')} & {*TABLES}),
    'flops_per_byte': sum(flops.values()),
    'flops_per_byte_by_component': dict(flops),
    'flops_per_byte_without_tables': sum(value for name, value in flops.items() if name not in TABLES),
    'backward_over_forward': BACKWARD,
    'seq_len': settings.seq_len,
    'batch_size': settings.batch_size,
    'num_steps': settings.num_steps,
  }


def table(description: Mapping[str, Any]) -> str:
  """The description as text; where it has a `config`, a line for each key of that comes first."""
  parameters, flops = (dict(description[f'{name}_by_component']) for name in ('parameters', 'flops_per_byte'))
  without = 'all but embeddings and head'
  parameters |= {'all': description['parameters'], without: description['parameters_without_tables']}
  flops |= {'all': description['flops_per_byte'], without: description['flops_per_byte_without_tables']}
  rows = [('component', 'parameters'), *((name, f'{count:,}') for name, count in parameters.items()), ('', '')]
  rows += [('component', 'FLOPs per byte'), *((name, f'{value:,.0f}') for name, value in flops.items())]
  left, right = (max(len(row[side]) for row in rows) for side in (0, 1))
  lines = [f'{key} = {value!r}' for key, value in leaves(description.get('config', {}))]
  lines += [''] if lines else []
  lines += [f'{name:<{left}}  {value:>{right}}'.rstrip() for name, value in rows]
  lines.append(f'(forward pass over {description["seq_len"]} bytes, at the bytes per chunk that the config states)')
  return '\n'.join(lines)


def leaves(tree: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """(key with dots, value) of all that is no branch, or a branch without keys."""
  for name, value in tree.items():
    if isinstance(value, Mapping) and value:
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def parameters_by_component(flat: Mapping[str, Any]) -> dict[str, int]:
  """{path prefix: number of parameters}, in the model's order.

  Components are the model's attributes; one that holds more than half of all parameters is shown by its parts, and
  these likewise, down to lists of layers.
  """
  sizes = {tuple(path.split('.')): leaf.size for path, leaf in flat.items()}
  total = sum(sizes.values())

  def split(prefix: tuple[str, ...]) -> list[tuple[str, ...]]:
    inside = [path for path in sizes if path[: len(prefix)] == prefix]
    depth = len(prefix)
    has_layers = any(part.isdecimal() for path in inside for part in path[depth : depth + 2])
    if prefix and (has_layers or prefix in sizes or 2 * sum(sizes[path] for path in inside) <= total):
      return [prefix]
    children = dict.fromkeys(path[: depth + 1] for path in inside)
    return [component for child in children for component in split(child)]

  components = split(())
  return {
    '.'.join(component): sum(size for path, size in sizes.items() if path[: len(component)] == component)
    for component in components
  }
