"""Official H-Net weights: the authors' state dict as safetensors beside their config.json."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hnet.config import HNetConfig, StageConfig
from hnet.model import HNet
from layers.paths import flatten, rebuild
from layers.stack import StackConfig, parse_layout

DTYPES = ('float32', 'bfloat16', 'float16')


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One official tensor: its name and shape, the path of the parameter that holds it, its place in a run of stacked
  blocks, and how the layouts differ ('same', 'transpose', 'conv': [channels, 1, taps] against [taps, channels]).
  """

  name: str
  path: str
  index: int | None
  layout: str
  shape: tuple[int, ...]

  def ours(self, value: np.ndarray) -> np.ndarray:
    """From the official layout."""
    return {'same': lambda v: v, 'transpose': lambda v: v.T, 'conv': lambda v: v[:, 0].T}[self.layout](value)

  def theirs(self, value: np.ndarray) -> np.ndarray:
    """To the official layout."""
    back = {'same': lambda v: v, 'transpose': lambda v: v.T, 'conv': lambda v: v.T[:, None]}[self.layout]
    return np.ascontiguousarray(back(value))


def tensors(config: HNetConfig) -> Iterator[Tensor]:
  """Every tensor of the official state dict, stage by stage."""
  width, vocabulary = config.d_model[0], config.vocab_size
  yield Tensor('embeddings.weight', 'embeddings', None, 'same', (vocabulary, width))
  for index, stage in enumerate(config.stages):
    theirs, ours = 'backbone' + '.main_network' * index, 'backbone' + '.inner' * index
    if stage.width > stage.width_in:
      yield Tensor(f'{theirs}.pad_dimension', f'{ours}.pad', None, 'same', (stage.width - stage.width_in,))
    if stage.main:
      yield from _stack_tensors(stage.main, f'{theirs}.main_network', f'{ours}.main')
      continue
    yield from _stack_tensors(stage.encoder, f'{theirs}.encoder', f'{ours}.encoder')
    square = (stage.width, stage.width)
    yield Tensor(
      f'{theirs}.routing_module.q_proj_layer.weight', f'{ours}.boundary.query.kernel', None, 'transpose', square
    )
    yield Tensor(
      f'{theirs}.routing_module.k_proj_layer.weight', f'{ours}.boundary.key.kernel', None, 'transpose', square
    )
    yield Tensor(f'{theirs}.residual_proj.weight', f'{ours}.residual.kernel', None, 'transpose', square)
    yield Tensor(f'{theirs}.residual_proj.bias', f'{ours}.residual.bias', None, 'same', square[:1])
    yield from _stack_tensors(stage.decoder, f'{theirs}.decoder', f'{ours}.decoder')
  if config.tie_embeddings:
    yield Tensor('lm_head.weight', 'embeddings', None, 'same', (vocabulary, width))
  else:
    yield Tensor('lm_head.weight', 'lm_head.kernel', None, 'transpose', (vocabulary, width))


def _stack_tensors(config: StackConfig, theirs: str, ours: str) -> Iterator[Tensor]:
  width, mlp, layer = config.width, config.mlp_width, 0
  inner = config.expand * width
  channels, heads = inner + 2 * config.d_state, inner // 64
  for run, (kind, count) in enumerate(parse_layout(config.layout)):
    for index in range(count):
      their, our = f'{theirs}.layers.{layer}', f'{ours}.runs.{run}'
      tensor = lambda name, path, layout, *shape, i=index, t=their, o=our: Tensor(
        f'{t}.{name}', f'{o}.{path}', i, layout, shape
      )
      yield tensor('norm1.weight', 'norm1.scale', 'same', width)
      if kind in 'mM':
        for name in ('dt_bias', 'A_log', 'D'):
          yield tensor(f'mixer.{name}', f'mixer.{name}', 'same', heads)
        yield tensor('mixer.in_proj.weight', 'mixer.in_proj.kernel', 'transpose', inner + channels + heads, width)
        yield tensor('mixer.conv1d.weight', 'mixer.conv_kernel', 'conv', channels, 1, config.d_conv)
        yield tensor('mixer.conv1d.bias', 'mixer.conv_bias', 'same', channels)
        yield tensor('mixer.norm.weight', 'mixer.norm.scale', 'same', inner)
        yield tensor('mixer.out_proj.weight', 'mixer.out_proj.kernel', 'transpose', width, inner)
      else:
        yield tensor('mixer.Wqkv.weight', 'mixer.qkv.kernel', 'transpose', 3 * width, width)
        yield tensor('mixer.out_proj.weight', 'mixer.out.kernel', 'transpose', width, width)
      if kind.isupper():
        yield tensor('norm2.weight', 'norm2.scale', 'same', width)
        yield tensor('mlp.fc1.weight', 'mlp.fc1.kernel', 'transpose', 2 * mlp, width)
        yield tensor('mlp.fc2.weight', 'mlp.fc2.kernel', 'transpose', width, mlp)
      layer += 1
  yield Tensor(f'{theirs}.rmsnorm.weight', f'{ours}.norm.scale', None, 'same', (width,))


def check_official(config: HNetConfig) -> None:
  """Raises ValueError unless the official code could run this configuration."""

  def plain(stage: StageConfig) -> bool:
    stacks = [s for s in (stage.encoder, stage.decoder, stage.main) if s]
    parts = (stage.boundary, stage.unpool, stage.combine, stage.widen)
    return all(s.final_norm for s in stacks) and (bool(stage.main) or parts == ('cosine', 'ema', 'ste', 'learned'))

  for index, stage in enumerate(config.stages):
    if not plain(stage):
      raise ValueError(
        f'stage {index} uses boundary {stage.boundary!r}, unpool {stage.unpool!r}, combine {stage.combine!r}, widen '
        f'{stage.widen!r}: the official format knows only the published H-Net; keep such a model as a training '
        'checkpoint.'
      )


def from_pretrained(directory: str | os.PathLike, **overrides: Any) -> HNet:
  """Loads `config.json` (official format) and `model.safetensors` (official names).

  overrides: keys of the `model` branch, such as dtype='bfloat16' or ratio_targets=(3.0, 2.5). Parameters become
  float32; the dtypes of the file are remembered for `save_pretrained`. Raises FileNotFoundError for a missing file and
  ValueError for a tensor that is missing, surplus, misshapen, or not float32, bfloat16 or float16.
  """
  directory = Path(directory)
  config_file, weights_file = directory / 'config.json', directory / 'model.safetensors'
  for file in (config_file, weights_file):
    if not file.is_file():
      raise FileNotFoundError(
        f'{file} is missing: official weights are a directory with config.json and model.safetensors.'
      )
  config = read_config(config_file, **overrides)
  check_official(config)
  try:
    with safe_open(weights_file, framework='numpy') as file:
      return _read(config, file, weights_file)
  except SafetensorError as error:
    raise ValueError(f'{weights_file} is not a whole safetensors file: {error}.') from None


def read_config(file: Path, **overrides: Any) -> HNetConfig:
  """The configuration in an official config.json; ValueError naming the file if it is not one."""
  try:
    branch = json.loads(file.read_bytes())
  except ValueError as error:
    raise ValueError(f'{file} is not JSON: {error}.') from None
  if not isinstance(branch, dict):
    raise ValueError(f'{file} holds a {type(branch).__name__} and not the mapping of an official config.json.')
  return HNetConfig.from_dict({**branch, **overrides})


def check_tensors(config: HNetConfig, state: Mapping[str, Any], where: Any) -> list[Tensor]:
  """The tensors that `state` (name -> anything with a shape and a dtype) holds for this configuration, in order.

  Raises ValueError naming a tensor that is missing, surplus, misshapen, or not floating point.
  """
  wanted = list(tensors(config))
  if config.tie_embeddings and 'lm_head.weight' not in state:
    wanted.pop()
  names = {tensor.name for tensor in wanted}
  for odd, word in ((names - set(state), 'lacks'), (set(state) - names, 'has the surplus')):
    if odd:
      raise ValueError(f'{where} {word} tensor {min(odd)} ({len(odd)} such): it does not belong to this config.json.')
  for tensor in wanted:
    found = state[tensor.name]
    if tuple(found.shape) != tensor.shape:
      raise ValueError(
        f'{where}: tensor {tensor.name} has shape {tuple(found.shape)}, this config.json needs {tensor.shape}.'
      )
    if str(found.dtype) not in DTYPES:
      raise ValueError(f'{where}: tensor {tensor.name} is {found.dtype}; weights are {", ".join(DTYPES)}.')
  return wanted


class _Header:
  """Shapes and dtypes of an open safetensors file, without its data."""

  def __init__(self, shape: tuple[int, ...], dtype: str):
    self.shape, self.dtype = shape, {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}.get(dtype, dtype)


def _read(config: HNetConfig, file: Any, where: Path) -> HNet:
  slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, a file is not a mapping
  headers = {name: _Header(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
  wanted = check_tensors(config, headers, where)
  flat: dict[str, Any] = {}
  for tensor in wanted:
    value = tensor.ours(file.get_tensor(tensor.name)).astype(np.float32)
    if tensor.index is not None:
      flat.setdefault(tensor.path, []).append(value)
    elif tensor.path in flat and not np.array_equal(value, flat[tensor.path]):
      raise ValueError(f'{where}: {tensor.name} differs from embeddings.weight, but config.json ties them.')
    else:
      flat[tensor.path] = value
  stacked = {path: jnp.asarray(np.stack(v) if isinstance(v, list) else v) for path, v in flat.items()}
  model = rebuild(jax.eval_shape(lambda: HNet(config, rngs=nnx.Rngs(0))), stacked)
  model.stored_dtypes = tuple((tensor.name, headers[tensor.name].dtype) for tensor in wanted)
  return model


def state_dict(model: HNet) -> dict[str, np.ndarray]:
  """Official name -> array, in the dtypes of the file that the model came from (float32 for a trained one)."""
  check_official(model.config)
  flat = {path: np.asarray(value) for path, value in flatten(model).items()}
  dtypes = dict(model.stored_dtypes)
  result = {}
  for tensor in tensors(model.config):
    if dtypes and tensor.name not in dtypes:
      continue  # a tied head that the file left out
    value = flat[tensor.path]
    value = tensor.theirs(value if tensor.index is None else value[tensor.index])
    result[tensor.name] = value.astype(jnp.dtype(dtypes.get(tensor.name, 'float32')))
  return result


def save_pretrained(model: HNet, directory: str | os.PathLike) -> None:
  """Writes config.json and model.safetensors; a file is replaced only by a whole one. ValueError if the official code
  could not run the configuration."""
  write(model.config, state_dict(model), Path(directory))


def write(config: HNetConfig, weights: Mapping[str, np.ndarray], directory: Path) -> None:
  """Official tensors and configuration into a directory, each file put in place once it is whole."""
  directory.mkdir(parents=True, exist_ok=True)
  text = json.dumps(config.official(), indent=1) + '\n'
  for name, fill in (
    ('model.safetensors', lambda file: save_file(dict(weights), file)),
    ('config.json', lambda file: file.write_text(text)),
  ):
    partial = directory / f'{name}.partial'
    try:
      fill(partial)
      os.replace(partial, directory / name)
    finally:
      partial.unlink(missing_ok=True)
