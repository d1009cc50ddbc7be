"""H-Net's configuration: the authors' notation (config.json), and what this code adds to it."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hnet import boundary
from hnet.losses import TargetSchedule
from layers import checks
from layers.ladder import LadderConfig
from layers.stack import StackConfig, height, parse_layout

OFFICIAL_KEYS = ('arch_layout', 'd_model', 'd_intermediate', 'vocab_size', 'ssm_cfg', 'attn_cfg', 'tie_embeddings')
_SSM = {'chunk_size': 256, 'd_conv': 4, 'd_state': 128, 'expand': 2}
_ATTENTION = ('num_heads', 'rotary_emb_dim', 'window_size')


@dataclasses.dataclass(frozen=True)
class StageConfig:
  """One stage, sizes resolved. `main` is set for the innermost stage, `encoder` and `decoder` for the others."""

  width: int
  width_in: int  # of the stage around it, or its own for stage 0
  encoder: StackConfig | None
  decoder: StackConfig | None
  main: StackConfig | None
  boundary: str
  unpool: str  # 'ema' | 'repeat' | 'scatter'
  combine: str  # 'ste' | 'sum'
  widen: str  # 'learned' | 'zeros'
  target: TargetSchedule | None
  encoder_residuals: int  # residual additions from the outside to the end of this stage: scales output projections


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
  ratio_scope: str = 'global'
  ladder: LadderConfig = dataclasses.field(default_factory=LadderConfig)
  dtype: str = 'float32'
  family: str = 'hnet'

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


_OPTIONAL = {
  'family': 'hnet',
  'vocab_size': 256,
  'tie_embeddings': False,
  'ssm_cfg': {},
  'attn_cfg': {},
  'boundary': 'cosine',
  'unpool': None,
  'combine': 'ste',
  'widen': 'learned',
  'post_norm': True,
  'ratio_targets': None,
  'ratio_scope': 'global',
  'bytes_per_chunk': None,
  'ladder': {},
  'dtype': 'float32',
  'remat': False,
  'scan_layers': False,
  'ssd_tile': 64,
}
_MOST_STAGES = 16
_REQUIRED = ('arch_layout', 'd_model', 'd_intermediate')


def _parse(branch: dict[str, Any]) -> HNetConfig:
  checks.known(branch, (*_REQUIRED, *_OPTIONAL), 'model')
  for key in _REQUIRED:
    if key not in branch:
      raise ValueError(f'model.{key} is missing; an H-Net needs {", ".join(_REQUIRED)}.')
  values = {**_OPTIONAL, **branch}
  stacks = _layout_stacks(values['arch_layout'])
  count = len(stacks)
  widths = _integers(values['d_model'], 'd_model', count)
  for outer, inner in itertools.pairwise(widths):
    if inner < outer:
      raise ValueError(
        f'd_model {list(widths)} decreases from {outer} to {inner}: a stage is at least as wide as the one around it.'
      )
  mlp_widths = _mlp_widths(values['d_intermediate'], widths)
  ssm = {**_SSM, **checks.known(values['ssm_cfg'], _SSM, 'model.ssm_cfg')}
  attention = checks.known(values['attn_cfg'], _ATTENTION, 'model.attn_cfg')
  attends = any(kind in 'tT' for layouts in stacks for layout in layouts for kind, _ in parse_layout(layout))
  for key in _ATTENTION:
    if not attends:
      attention.setdefault(key, -1 if key == 'window_size' else 0)
    if key not in attention:
      raise ValueError(f'model.attn_cfg.{key} is missing: one value for each stage, or one for all.')
  if values['vocab_size'] != 256:
    raise ValueError(f'vocab_size {values["vocab_size"]}: an H-Net reads bytes, so it is 256.')
  checks.one_of(values['ratio_scope'], ('global', 'per_document'), 'ratio_scope')
  checks.one_of(values['dtype'], ('float32', 'bfloat16'), 'dtype')
  ladder = LadderConfig.from_dict(values['ladder'])

  def stack(layout: str, stage: int) -> StackConfig:
    at = lambda name, value, least=1: checks.integer(_at_stage(value, stage, count, name), name, least)
    sizes = dict(
      layout=layout,
      width=widths[stage],
      mlp_width=mlp_widths[stage],
      num_heads=at('attn_cfg.num_heads', attention['num_heads'], 0),
      rotary_dim=at('attn_cfg.rotary_emb_dim', attention['rotary_emb_dim'], 0),
      window=at('attn_cfg.window_size', attention['window_size'], -1),
      d_state=at('ssm_cfg.d_state', ssm['d_state']),
      d_conv=at('ssm_cfg.d_conv', ssm['d_conv']),
      expand=at('ssm_cfg.expand', ssm['expand']),
      tile=checks.integer(values['ssd_tile'], 'ssd_tile', 1),
      final_norm=checks.boolean(values['post_norm'], 'post_norm'),
      remat=checks.boolean(values['remat'], 'remat'),
      scan=checks.boolean(values['scan_layers'], 'scan_layers'),
      dtype=values['dtype'],
    )
    try:
      return StackConfig(**sizes)
    except ValueError as error:
      of_attention = str(error).startswith(_ATTENTION)
      raise ValueError(f'attn_cfg.{error}' if of_attention else str(error)) from None

  if count == 1:
    for key in ('boundary', 'unpool', 'ratio_targets', 'bytes_per_chunk'):
      if values[key] != _OPTIONAL[key]:
        raise ValueError(
          f'model.{key} {values[key]!r}: with the single stage {values["arch_layout"]!r} nothing is cut.'
        )
  targets = _targets(values['ratio_targets'], values['boundary'], count)
  stages, additions = [], 0
  for stage, layouts in enumerate(stacks):
    additions += sum(height(layout) for layout in layouts)
    inner = len(layouts) == 1
    spec = 'cosine' if inner else _at_stage(values['boundary'], stage, count - 1, 'boundary')
    name, _ = boundary.parse(spec)
    if name == 'space' and stage > 0:
      raise ValueError(f"boundary 'space' at stage {stage}: the rule reads bytes, so it works at stage 0 only.")
    unpool = _at_stage(values['unpool'], stage, count - 1, 'unpool') or ('ema' if name == 'cosine' else 'repeat')
    stages.append(
      StageConfig(
        width=widths[stage],
        width_in=widths[max(stage - 1, 0)],
        encoder=None if inner else stack(layouts[0], stage),
        decoder=None if inner else stack(layouts[1], stage),
        main=stack(layouts[0], stage) if inner else None,
        boundary=spec,
        unpool=checks.one_of(unpool, ('ema', 'repeat', 'scatter'), 'unpool'),
        combine=checks.one_of(values['combine'], ('ste', 'sum'), 'combine'),
        widen=checks.one_of(values['widen'], ('learned', 'zeros'), 'widen'),
        target=None if inner else targets[stage],
        encoder_residuals=additions,
      )
    )
  return HNetConfig(
    arch_layout=_as_tuple(values['arch_layout']),
    d_model=widths,
    d_intermediate=tuple(values['d_intermediate']),
    vocab_size=values['vocab_size'],
    tie_embeddings=checks.boolean(values['tie_embeddings'], 'tie_embeddings'),
    ssm_cfg=tuple((k, _as_tuple(ssm[k])) for k in _SSM),
    attn_cfg=tuple((k, _as_tuple(attention[k])) for k in _ATTENTION),
    stages=tuple(stages),
    bytes_per_chunk=_bytes_per_chunk(values['bytes_per_chunk'], stages),
    ratio_scope=values['ratio_scope'],
    ladder=ladder,
    dtype=values['dtype'],
  )


def _layout_stacks(layout: Any, depth: int = 0) -> list[tuple[str, ...]]:
  """[enc, [inner], dec] nested -> [(enc, dec), ..., (main,)], outermost first."""
  if depth == _MOST_STAGES:
    raise ValueError(f'arch_layout has more than {_MOST_STAGES} stages, one inside the other.')
  if not isinstance(layout, str) and isinstance(layout, Sequence):
    if len(layout) == 1 and isinstance(layout[0], str):
      height(layout[0])
      return [(layout[0],)]
    if len(layout) == 3 and isinstance(layout[0], str) and isinstance(layout[2], str):
      height(layout[0]), height(layout[2])
      return [(layout[0], layout[2]), *_layout_stacks(layout[1], depth + 1)]
  raise ValueError(
    f'arch_layout {layout!r}: a stage is [encoder, [inner], decoder] or, innermost, [main], such as '
    '["m4", ["T22"], "m4"].'
  )


def _integers(values: Any, name: str, count: int, least: int = 1) -> tuple[int, ...]:
  if not isinstance(values, (list, tuple)) or len(values) != count:
    raise ValueError(f'{name} {values!r}: arch_layout has {count} stages, so {name} is a list of {count} integers.')
  return tuple(checks.integer(value, name, least) for value in values)


def _mlp_widths(values: Any, widths: tuple[int, ...]) -> tuple[int, ...]:
  if isinstance(values, (list, tuple)):  # None: the official default
    values = [8 * w // 3 if v is None else v for v, w in zip(values, widths, strict=False)] + list(
      values[len(widths) :]
    )
  chosen = _integers(values, 'd_intermediate', len(widths), least=0)
  return tuple(math.ceil(value / 128) * 128 for value in chosen)  # the official code rounds up to 128


def _at_stage(value: Any, stage: int, count: int, name: str) -> Any:
  """A scalar is shared by all stages; a list has one entry for each."""
  if isinstance(value, (list, tuple)):
    if len(value) != count:
      raise ValueError(f'{name} {list(value)} has {len(value)} entries for {count} stages: one each, or one for all.')
    return value[stage]
  return value


def _targets(values: Any, boundaries: Any, count: int) -> list[TargetSchedule | None]:
  """None means the paper's targets: 6 for one stage, 3 for each of several. Rules have none."""
  targets = []
  for stage in range(count - 1):
    learned = boundary.parse(_at_stage(boundaries, stage, count - 1, 'boundary'))[0] == 'cosine'
    value = _at_stage(values, stage, count - 1, 'ratio_targets')
    if not learned and not isinstance(values, (list, tuple)):
      value = None  # one value for all means all that learn
    elif not learned and value is not None:
      raise ValueError(f'ratio_targets {values!r}: stage {stage} cuts by a rule, so its target must be None.')
    if learned and value is None:
      value = 6.0 if count == 2 else 3.0
    if isinstance(value, Mapping):
      checks.known(value, ('start', 'end', 'until'), 'ratio_targets')
      if 'start' not in value or 'end' not in value:
        raise ValueError(f'ratio_targets {dict(value)!r}: a schedule has start and end, and may have until.')
      targets.append(
        TargetSchedule(**{key: checks.number(number, f'ratio_targets.{key}') for key, number in value.items()})
      )
    else:
      number = None if value is None else checks.number(value, 'ratio_targets')
      targets.append(None if number is None else TargetSchedule(number, number))
  return targets


def _bytes_per_chunk(values: Any, stages: list[StageConfig]) -> tuple[float, ...]:
  """As given, or what targets and rules promise; the paper reports 6.0 bytes a chunk for the space rule."""
  if values is None:
    ratios = [
      stage.target.end
      if stage.target
      else 6.0
      if stage.boundary == 'space'
      else boundary.parse(stage.boundary)[1] or 1.0
      for stage in stages[:-1]
    ]
    return tuple(math.prod(ratios[: index + 1]) for index in range(len(ratios)))
  if not isinstance(values, (list, tuple)) or len(values) != len(stages) - 1:
    raise ValueError(
      f'bytes_per_chunk {values!r}: a list with one number for each of {len(stages) - 1} stages that cut.'
    )
  if min([checks.number(value, 'bytes_per_chunk') for value in values], default=1) < 1:
    raise ValueError(f'bytes_per_chunk {list(values)}: a chunk has at least one byte.')
  return tuple(float(value) for value in values)


def _as_tuple(value: Any) -> Any:
  return tuple(_as_tuple(v) for v in value) if isinstance(value, (list, tuple)) else value
