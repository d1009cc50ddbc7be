"""H-Net's configuration: the authors' notation (config.json), and what this code adds to it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from hnet import systems
from hnet.checks import (
  check_ahead,
  check_heads,
  check_part,
  check_scratch,
  inputs_of,
  labels_of,
  limits_of,
  marks_of,
  sizes_of,
  with_targets,
)  # fmt: skip
from hnet.parts import Part, Sizes
from hnet.stacks import ATTENTION, SSM, attention_of, layout_stacks, mlp_widths_of, stack_of, widths_of
from hnet.stage_config import StageConfig
from layers import checks, objectives
from layers.objectives import Objective
from layers.stack import height, parse_layout

OFFICIAL_KEYS = ('arch_layout', 'd_model', 'd_intermediate', 'vocab_size', 'ssm_cfg', 'attn_cfg', 'tie_embeddings')


@dataclasses.dataclass(frozen=True)
class HNetConfig:
  """A whole model. Build it with `from_dict`, which names what is wrong."""

  arch_layout: tuple
  d_model: tuple[int, ...]
  d_intermediate: tuple[int, ...]
  vocab_size: int
  tie_embeddings: bool
  ssm_cfg: tuple[tuple[str, Any], ...]
  attn_cfg: tuple[tuple[str, Any], ...]
  stages: tuple[StageConfig, ...]
  bytes_per_chunk: tuple[float, ...] = ()  # reached by each stage; what FLOPs a byte are counted at
  marks: tuple[tuple[str, str], ...] = ()  # that the parts read, name and specification
  labels: tuple[tuple[str, str], ...] = ()  # likewise, that losses and objectives alone read
  objectives: tuple[Objective, ...] = ()
  inputs: tuple[Part, ...] = ()  # what is added to a byte's vector
  rows: tuple[int, ...] | None = None  # of embeddings and head, that of each byte; None: 256 in order
  mlp_multiple: int = 128
  dtype: str = 'float32'
  family: str = 'hnet'

  @property
  def is_fused(self) -> bool:
    """Whether the head predicts with each byte if a chunk ends there, since a boundary reads the next one for that."""
    return any(stage.boundary.make.lookahead for stage in self.stages[:-1])

  @property
  def num_symbols(self) -> int:
    """That the head predicts."""
    return self.vocab_size * (1 + self.is_fused)

  @staticmethod
  def from_dict(branch: Mapping[str, Any]) -> 'HNetConfig':
    """Reads an official config.json or a `model` branch; ValueError with one sentence on what does not fit."""
    return _parse(dict(branch))

  def official(self) -> dict[str, Any]:
    """The official config.json."""
    as_list = lambda v: [as_list(x) for x in v] if isinstance(v, tuple) else v
    return {
      'arch_layout': as_list(self.arch_layout),
      'd_model': as_list(self.d_model),
      'd_intermediate': as_list(self.d_intermediate),
      'vocab_size': self.vocab_size,
      'ssm_cfg': {key: as_list(value) for key, value in self.ssm_cfg},
      'attn_cfg': {key: as_list(value) for key, value in self.attn_cfg},
      'tie_embeddings': self.tie_embeddings,
    }


def resize(
  branch: dict[str, Any], depth: int, *, width: int | None = None, mlp_width: int | None = None
) -> dict[str, Any]:
  """A `model` branch, changed in place: its main network has so many blocks, which must be of one kind."""
  layout = branch['arch_layout']
  while len(layout) == 3:
    layout = layout[1]
  kinds = parse_layout(layout[0])
  if len(kinds) > 1:
    raise ValueError(f'the main network {layout[0]!r} has blocks of several kinds: write one kind to have it resized')
  layout[0] = f'{kinds[0][0]}{depth}'
  for key, size in (('d_model', width), ('d_intermediate', mlp_width)):
    if size is not None:
      branch[key][-1] = size
  return branch


_REQUIRED = ('arch_layout', 'd_model', 'd_intermediate')
_DEFAULTS = {
  'family': 'hnet',
  **dict.fromkeys(_REQUIRED),
  'vocab_size': 256,
  'tie_embeddings': False,
  'ssm_cfg': {'chunk_size': 256, 'd_conv': 4, 'd_state': 128, 'expand': 2},
  'attn_cfg': {'num_heads': None, 'rotary_emb_dim': None, 'window_size': None},  # needed where there is attention
  'chunking': 'hnet',
  'post_norm': True,  # at the end of every stack; 'head': only of the outermost decoder, before the head
  'num_kv_heads': 0,  # these two as in StackConfig, one for each stage or one for all
  'rotary_base': 10000.0,
  'mlp_multiple': 128,  # to which widths of MLPs are rounded up, as the official code does
  'inputs': (),
  'ratio_targets': None,
  'ratio_scope': 'global',
  'bytes_per_chunk': None,
  'fixed_capacity': None,
  'heads': 1,  # that cut the outermost stage, each for itself
  'objectives': (),
  'dtype': 'float32',
  'remat': False,
  'scan_layers': False,
  'ssd_tile': 64,
}
_ONLY_WITH_CHUNKS = ('chunking', 'ratio_targets', 'bytes_per_chunk', 'fixed_capacity', 'heads')
_MOVED = ('boundary', 'unpool', 'combine', 'widen')


def complete(branch: Mapping[str, Any]) -> dict[str, Any]:
  """The branch with all keys: one that it leaves out has its default, or None; what it holds is not looked at."""
  return checks.filled(branch, _DEFAULTS)


def _parse(branch: dict[str, Any]) -> HNetConfig:
  for key in branch:
    if key in _MOVED:
      raise ValueError(
        f"model.{key} is part of model.chunking now: write 'hnet', 'hnet_pool(size=N)', 'hnet_space', 'spacebyte', or "
        "a mapping such as {'boundary': 'stride(5)'} there."
      )
    if key == 'ladder':
      raise ValueError(
        'model.ladder is gone: leave it out, room for chunks follows the text; fractions that ended below 1 are '
        'model.fixed_capacity now, a share of the bytes for each stage that cuts.'
      )
  values = complete(checks.known(branch, _DEFAULTS, 'model'))
  for key in _REQUIRED:
    if values[key] is None:
      raise ValueError(f'model.{key} is missing; an H-Net needs {", ".join(_REQUIRED)}.')
  if values['vocab_size'] != 256:
    raise ValueError(f'vocab_size {values["vocab_size"]!r}: an H-Net reads bytes, so it is 256.')
  checks.one_of(values['dtype'], ('float32', 'bfloat16'), 'dtype')
  layouts = layout_stacks(values['arch_layout'])
  widths = widths_of(values['d_model'], len(layouts))
  mlp_multiple = checks.integer(values['mlp_multiple'], 'mlp_multiple', 1)
  mlp_widths = mlp_widths_of(values['d_intermediate'], widths, mlp_multiple)
  if values['post_norm'] != 'head':
    checks.boolean(values['post_norm'], "post_norm, if not 'head',")
  ssm = checks.known(values['ssm_cfg'], SSM, 'model.ssm_cfg')
  checks.integer(ssm['chunk_size'], 'ssm_cfg.chunk_size', 1)  # of the authors' kernel; ours has ssd_tile
  attention = attention_of(values['attn_cfg'], layouts)
  stack = functools.partial(stack_of, values, ssm, attention, widths, mlp_widths)
  stages = _stages(values, layouts, widths, stack)
  aims = objectives.parse(values['objectives'])
  return HNetConfig(
    arch_layout=_as_tuple(values['arch_layout']),
    d_model=widths,
    d_intermediate=tuple(values['d_intermediate']),
    vocab_size=values['vocab_size'],
    tie_embeddings=checks.boolean(values['tie_embeddings'], 'tie_embeddings'),
    ssm_cfg=tuple((k, _as_tuple(ssm[k])) for k in SSM),
    attn_cfg=tuple((k, _as_tuple(attention[k])) for k in ATTENTION),
    stages=stages,
    bytes_per_chunk=sizes_of(values['bytes_per_chunk'], stages),
    marks=marks_of(stages),
    labels=labels_of(stages, aims),
    objectives=aims,
    inputs=inputs_of(values['inputs'], widths[0]),
    mlp_multiple=mlp_multiple,
    dtype=values['dtype'],
  )


def _stages(values: dict, layouts: list[tuple[str, ...]], widths: tuple[int, ...], stack: Any) -> tuple:
  """The stages, outermost first, with their parts."""
  cuts = len(layouts) - 1
  if not cuts:
    for key in _ONLY_WITH_CHUNKS:
      if values[key] != _DEFAULTS[key]:
        raise ValueError(
          f'model.{key} {values[key]!r}: with the single stage {values["arch_layout"]!r} nothing is cut.'
        )
  chosen = with_targets(systems.of_stages(values['chunking'], cuts), values['ratio_targets'], values['ratio_scope'])
  limits = limits_of(values['fixed_capacity'], cuts)
  check_scratch([of_stage['scratch'] for of_stage in chosen], layouts[-1][0], limits)
  check_ahead([of_stage['boundary'] for of_stage in chosen], checks.boolean(values['tie_embeddings'], 'tie_embeddings'))
  heads = check_heads(values['heads'], chosen)
  stages, additions = [], 0  # residual additions from the outside to the end of a stage
  for index, of_stage in enumerate(layouts):
    additions += sum(height(layout) for layout in of_stage)
    blocks = sum(count for _, count in parse_layout(of_stage[-1]))
    sizes, deviation = Sizes(widths[index], widths[min(index + 1, cuts)], blocks), 0.02 * additions**-0.5
    if index == cuts:
      main = stack(of_stage[0], index)
      if not cuts and values['post_norm'] == 'head':
        main = dataclasses.replace(main, final_norm=True)
      stages.append(StageConfig(sizes, deviation, main=main))
    else:
      encoder, decoder = (stack(layout, index) for layout in of_stage)
      if not index and values['post_norm'] == 'head':
        decoder = dataclasses.replace(decoder, final_norm=True)
      rest = {'limit': limits[index], 'heads': 1 if index else heads}
      stages.append(StageConfig(sizes, deviation, None, encoder, decoder, **chosen[index], **rest))
      for key in ('boundary', 'pool', 'unpool', 'combine', 'scratch'):
        if chosen[index][key] is not None:
          check_part(chosen[index][key], sizes)
  return tuple(stages)


def _as_tuple(value: Any) -> Any:
  return tuple(_as_tuple(v) for v in value) if isinstance(value, (list, tuple)) else value
