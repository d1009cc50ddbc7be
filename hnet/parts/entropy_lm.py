"""The entropy model of another run that a boundary has with it: its sizes, its parameters, its threshold."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.inputs import ROWS, VOCABULARY
from layers import checks, paths, stack, weights
from layers.linear import Linear, normal
from layers.stack import Stack, StackConfig

CALIBRATION = 'calibration.json'  # beside the checkpoints of an entropy model
IDS = {'bytes': (256, None), 'blt': (VOCABULARY, ROWS)}  # name -> (how many symbols, the row of each byte)
RULE = {'size': 4.5, 'mode': 'threshold', 'add': None, 'most': 0}  # what a threshold was found for, and its defaults


class ByteLM(nnx.Module):
  """A flat byte model, with the parameters of an H-Net of one stage: embedding, stack, head. rows: of the embeddings,
  that of each byte; None: 256 in order.
  """

  def __init__(
    self, config: StackConfig, *, vocabulary: int = 256, rows: tuple[int, ...] | None = None, rngs: nnx.Rngs
  ):
    self.rows = rows
    self.embeddings = nnx.Param(normal(1.0)(rngs.params(), (vocabulary, config.width)))
    self.main = Stack(config, output_deviation=0.02 * stack.height(config.layout) ** -0.5, rngs=rngs)
    self.lm_head = Linear(config.width, vocabulary, kernel_init=normal(0.02), rngs=rngs)

  def __call__(self, bytes_BxL: Array, segment_ids_BxL: Array) -> Array:
    """Logits of what follows every position, documents apart: [B, L, V] float32."""
    with jax.default_matmul_precision('highest'):  # a rounding would move boundaries
      return self.lm_head(self.main(self.embed(bytes_BxL), segment_ids_BxL)).astype(jnp.float32)

  def embed(self, bytes_: Array) -> Array:
    """[..., D] float32."""
    bytes_ = bytes_.astype(jnp.int32)
    return self.embeddings[bytes_ if self.rows is None else jnp.asarray(self.rows)[bytes_]]


class Frozen(nnx.Module):
  """What the boundary takes of another run. threshold: only where it is the calibrated one."""

  def __init__(self, config: StackConfig, ids: str, calibrated: bool, *, rngs: nnx.Rngs):
    vocabulary, rows = IDS[checks.one_of(ids, tuple(IDS), 'boundary entropy: ids')]
    self.lm = ByteLM(config, vocabulary=vocabulary, rows=rows, rngs=rngs)
    if calibrated:
      self.threshold = nnx.Param(jnp.zeros((), jnp.float32))


def lm_config(
  layout: str, width: int, mlp_width: int, heads: int, rotary: int, window: int, d_state: int, kv_heads: int,
  rotary_base: float, **others: Any,
) -> StackConfig:  # fmt: skip
  """Of the stack; ValueError, in a sentence, for sizes that do not fit together."""
  del others
  attends = any(kind in 'tT' for kind, _ in stack.parse_layout(layout))
  if attends and window < 0:
    raise ValueError(f'boundary entropy: window={window}: an entropy model with attention has a window, of 0 or more.')
  try:
    more = {'d_state': d_state, 'num_kv_heads': kv_heads, 'rotary_base': rotary_base}
    return StackConfig(layout, width, mlp_width, heads, rotary, max(window, 0), **more)
  except ValueError as error:
    raise ValueError(f'boundary entropy: {error}') from None


_OF_KINDS = {  # what the blocks of a layout have
  'mM': ('d_state', 'd_conv', 'expand'),
  'tT': ('num_heads', 'rotary_dim', 'window', 'num_kv_heads', 'rotary_base', 'head_size'),
  'MT': ('mlp_width',),
}
_OPTIONS = {'num_heads': 'heads', 'num_kv_heads': 'kv_heads', 'rotary_dim': 'rotary'}  # of another name


def taken(found: Any, wanted: StackConfig, directory: str | os.PathLike, ids: str) -> dict[str, Array]:
  """The parameters of an entropy model as those of `Entropy`; ValueError, in a sentence, for what is no such model."""
  if found.alphabet:
    raise ValueError(
      f'the entropy model in {directory} has another alphabet ({", ".join(found.alphabet)}): it must read and predict '
      'bytes, as this model does.'
    )
  if found.config.family != 'hnet' or len(found.config.stages) != 1:
    raise ValueError(
      f'{directory} holds no flat byte model: an entropy model is of family hnet with one stage, such as '
      'configs/quickstart_entropy_lm.py.'
    )
  of_lm = found.config.stages[0].main
  names = [name for kinds, names in _OF_KINDS.items() if {*kinds} & {*of_lm.layout} for name in names]
  names = ('layout', 'width', *names, 'norm_epsilon')
  differ = [name for name in names if getattr(of_lm, name) != getattr(wanted, name)]
  if not of_lm.final_norm or {'d_conv', 'expand', 'head_size', 'norm_epsilon'} & {*differ}:
    raise ValueError(
      f'the entropy model in {directory} must have post_norm, heads that share its width, norms with an epsilon of '
      '1e-5, and d_conv 4 and expand 2 in ssm_cfg.'
    )
  given = [f'{_OPTIONS.get(name, name)}={getattr(of_lm, name)}' for name in differ]
  if found.config.rows != IDS[ids][1]:
    given.append(f'ids={next(name for name, (_, rows) in IDS.items() if rows == found.config.rows)}')
  if given:
    raise ValueError(
      f'the entropy model in {directory} has other sizes than the boundary that reads it: write entropy(lm={directory},'
      f'{",".join(given)}) and the rest as it is.'
    )
  flat = {path.removeprefix('backbone.'): leaf for path, leaf in paths.flatten(found).items()}
  if 'lm_head.kernel' not in flat:  # tied
    flat['lm_head.kernel'] = flat['embeddings'].T
  return {f'frozen.lm.{path}': leaf for path, leaf in flat.items()}


def calibrated(directory: str | os.PathLike, step: int | None, options: Mapping[str, Any]) -> Array:
  """The threshold that studies.calibrate found for a size and mode, float32; ValueError, in a sentence, for none."""
  if step is None:
    raise ValueError(f'{directory} has published weights and no threshold: give it, such as threshold=1.3354.')
  rule = {name: options[name] for name in RULE}
  file = pathlib.Path(directory) / CALIBRATION
  entries = weights.read_json(file).get('thresholds', []) if file.is_file() else []
  given = ''.join(f' --{name}={value}' for name, value in rule.items() if value != RULE[name])
  command = f'python -m studies.calibrate --workdir={directory}{given}'
  for entry in entries:
    if {name: entry.get(name) for name in RULE} == rule:
      if entry.get('step') != step:
        raise ValueError(
          f'{file} has the threshold of step {entry.get("step")} of the entropy model, whose newest is {step}: run '
          f'`{command}`, or give the threshold.'
        )
      return jnp.float32(checks.number(entry.get('threshold'), f'{file}: threshold'))
  raise ValueError(
    f'boundary entropy has no threshold for {options["size"]:g} slots a patch in {file}: run `{command}`, or give the '
    'threshold.'
  )
