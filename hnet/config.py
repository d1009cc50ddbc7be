"""H-Net's configuration: the authors' notation (config.json), and what this code adds to it."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from hnet import parts, systems
from hnet.parts import Part, Sizes
from hnet.parts.base import ENDS
from hnet.parts.losses import Ratio, TargetSchedule
from layers import checks, objectives
from layers.objectives import Objective
from layers.stack import StackConfig, height, parse_layout
from text import marks

OFFICIAL_KEYS = ('arch_layout', 'd_model', 'd_intermediate', 'vocab_size', 'ssm_cfg', 'attn_cfg', 'tie_embeddings')


@dataclasses.dataclass(frozen=True)
class StageConfig:
  """One stage, sizes resolved. `main` is set for the innermost stage, all else but output_deviation for the others.

  limit: the most chunks of a row as a share of its bytes, beyond which they are dropped; None: none is.
  output_deviation: of the initial output projections.
  """

  sizes: Sizes
  output_deviation: float
  main: StackConfig | None = None
  encoder: StackConfig | None = None
  decoder: StackConfig | None = None
  boundary: Part | None = None
  pool: Part | None = None
  unpool: Part | None = None
  combine: Part | None = None
  losses: tuple[Part, ...] = ()
  scratch: Part | None = None
  limit: float | None = None

  @property
  def parts(self) -> tuple[Part, ...]:
    """Those that it has, but for losses."""
    return tuple(filter(None, (self.boundary, self.pool, self.unpool, self.combine, self.scratch)))

  def rows(self, slots: float) -> float:
    """Steps of the stage inside for a chunk of so many slots: one, and those of scratch rows."""
    return 1.0 + (self.scratch.make.rows(slots, **dict(self.scratch.options)) if self.scratch else 0.0)

  @property
  def target(self) -> TargetSchedule | None:
    """Bytes (or chunks) per chunk that a loss pulls to, if one does."""
    targets = (getattr(loss.loss(), 'target', None) for loss in self.losses)
    return next((target for target in targets if target is not None), None)


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
  'objectives': (),
  'dtype': 'float32',
  'remat': False,
  'scan_layers': False,
  'ssd_tile': 64,
}
_SSM, _ATTENTION = tuple(_DEFAULTS['ssm_cfg']), tuple(_DEFAULTS['attn_cfg'])
_MOST_STAGES = 16
_ONLY_WITH_CHUNKS = ('chunking', 'ratio_targets', 'bytes_per_chunk', 'fixed_capacity')
_OWN_MARKS = ('bytes', 'scratch', ENDS)  # of levels, beside those that parts ask for
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
  layouts = _layout_stacks(values['arch_layout'])
  widths = _widths(values['d_model'], len(layouts))
  mlp_multiple = checks.integer(values['mlp_multiple'], 'mlp_multiple', 1)
  mlp_widths = _mlp_widths(values['d_intermediate'], widths, mlp_multiple)
  if values['post_norm'] != 'head':
    checks.boolean(values['post_norm'], "post_norm, if not 'head',")
  ssm = checks.known(values['ssm_cfg'], _SSM, 'model.ssm_cfg')
  checks.integer(ssm['chunk_size'], 'ssm_cfg.chunk_size', 1)  # of the authors' kernel; ours has ssd_tile
  attention = _attention(values['attn_cfg'], layouts)
  stack = functools.partial(_stack, values, ssm, attention, widths, mlp_widths)
  stages = _stages(values, layouts, widths, stack)
  aims = objectives.parse(values['objectives'])
  return HNetConfig(
    arch_layout=_as_tuple(values['arch_layout']),
    d_model=widths,
    d_intermediate=tuple(values['d_intermediate']),
    vocab_size=values['vocab_size'],
    tie_embeddings=checks.boolean(values['tie_embeddings'], 'tie_embeddings'),
    ssm_cfg=tuple((k, _as_tuple(ssm[k])) for k in _SSM),
    attn_cfg=tuple((k, _as_tuple(attention[k])) for k in _ATTENTION),
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
  _check_scratch([of_stage['scratch'] for of_stage in chosen], layouts[-1][0], limits)
  _check_ahead(
    [of_stage['boundary'] for of_stage in chosen], checks.boolean(values['tie_embeddings'], 'tie_embeddings')
  )
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
      stages.append(StageConfig(sizes, deviation, None, encoder, decoder, **chosen[index], limit=limits[index]))
      for key in ('boundary', 'pool', 'unpool', 'combine', 'scratch'):
        if chosen[index][key] is not None:
          check_part(chosen[index][key], sizes)
  return tuple(stages)


def _check_scratch(chosen: list[Part | None], main: str, limits: tuple[float | None, ...]) -> None:
  for index, scratch in enumerate(chosen):
    if scratch is None:
      continue
    name = f'model.chunking: scratch {scratch.name} of stage {index}'
    if index < len(chosen) - 1:
      raise ValueError(f'{name} needs the main network inside, and stage {index + 1} cuts again: give it to that one.')
    if any(kind in 'mM' for kind, _ in parse_layout(main)):
      raise ValueError(
        f'{name}: Mamba-2 in the main network {main!r} would pass scratch rows on to those behind them; write blocks t '
        'or T there.'
      )
    if limits[index] is not None:
      raise ValueError(
        f'{name}: with fixed_capacity {limits[index]} scratch rows would take the room of chunks; write None there.'
      )


def _check_ahead(chosen: list[Part], tie_embeddings: bool) -> None:
  for boundary in chosen:
    if not boundary.make.lookahead:
      continue
    reads = f'model.chunking: boundary {boundary.name} reads {boundary.make.lookahead} slots behind its own'
    if boundary.make.lookahead != 1 or boundary.make.emits != 'ends':
      raise ValueError(f'{reads}, and the head can tell with a byte if a chunk ends there: emit at ends and read 1.')
    if len(chosen) > 1:
      raise ValueError(
        f'{reads}, so the head predicts with each byte if a chunk of one stage ends there: {len(chosen)} stages cut, '
        'write an arch_layout with one, such as ["m4", ["T22"], "m4"].'
      )
    if tie_embeddings:
      raise ValueError(f'tie_embeddings: {reads}, so the head has two rows for each byte: write False.')


@functools.cache
def check_part(part: Part, sizes: Sizes) -> None:
  """Builds an abstract part: what is wrong with its options is an error here."""
  jax.eval_shape(lambda: part.build(sizes, rngs=nnx.Rngs(0)))


def _stack(
  values: dict, ssm: dict, attention: dict, widths: tuple, mlp_widths: tuple, layout: str, stage: int
) -> StackConfig:
  count = len(widths)
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
    final_norm=values['post_norm'] is True,
    num_kv_heads=at('num_kv_heads', values['num_kv_heads'], 0),
    rotary_base=_base(_at_stage(values['rotary_base'], stage, count, 'rotary_base')),
    remat=checks.boolean(values['remat'], 'remat'),
    scan=checks.boolean(values['scan_layers'], 'scan_layers'),
    dtype=values['dtype'],
  )
  try:
    return StackConfig(**sizes)
  except ValueError as error:
    of_attention = str(error).startswith(_ATTENTION)
    raise ValueError(f'attn_cfg.{error}' if of_attention else str(error)) from None


def _base(value: Any) -> float:
  if checks.number(value, 'rotary_base') <= 0:
    raise ValueError(f'rotary_base {value}: must be above 0.')
  return float(value)


def _attention(values: Any, layouts: list[tuple[str, ...]]) -> dict[str, Any]:
  attention = checks.known(values, _ATTENTION, 'model.attn_cfg')
  attends = any(kind in 'tT' for of_stage in layouts for layout in of_stage for kind, _ in parse_layout(layout))
  for key in _ATTENTION:
    if attention[key] is None and not attends:
      attention[key] = -1 if key == 'window_size' else 0
    if attention[key] is None:
      raise ValueError(f'model.attn_cfg.{key} is missing: one value for each stage, or one for all.')
  return attention


def _widths(values: Any, count: int) -> tuple[int, ...]:
  widths = _integers(values, 'd_model', count)
  for outer, inner in itertools.pairwise(widths):
    if inner < outer:
      raise ValueError(
        f'd_model {list(widths)} decreases from {outer} to {inner}: a stage is at least as wide as the one around it.'
      )
  return widths


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


def _mlp_widths(values: Any, widths: tuple[int, ...], multiple: int) -> tuple[int, ...]:
  if isinstance(values, (list, tuple)):  # None: the official default
    values = [8 * w // 3 if v is None else v for v, w in zip(values, widths, strict=False)] + list(
      values[len(widths) :]
    )
  chosen = _integers(values, 'd_intermediate', len(widths), least=0)
  return tuple(math.ceil(value / multiple) * multiple for value in chosen)


def _at_stage(value: Any, stage: int, count: int, name: str) -> Any:
  """A scalar is shared by all stages; a list has one entry for each."""
  if isinstance(value, (list, tuple)):
    if len(value) != count:
      raise ValueError(f'{name} {list(value)} has {len(value)} entries for {count} stages: one each, or one for all.')
    return value[stage]
  return value


def with_targets(chosen: list[Mapping[str, Any]], values: Any, scope: Any) -> list[dict[str, Any]]:
  """The parts of the stages, with ratio_targets and ratio_scope as options of their ratio losses.

  None means the paper's targets: 6 for one stage that cuts, 3 for each of several.
  """
  checks.one_of(scope, ('global', 'per_document'), 'ratio_scope')
  result = []
  for stage, of_stage in enumerate(chosen):
    value = _at_stage(values, stage, len(chosen), 'ratio_targets')
    losses = []
    for loss in of_stage['losses']:
      options = dict(loss.options)
      if loss.make is Ratio:
        if options['target'] is None:
          options |= _target(value, 6.0 if len(chosen) == 1 else 3.0)
        elif value is not None:
          raise ValueError(f'ratio_targets {values!r}: stage {stage} has a target in model.chunking, {loss.name}.')
        options['scope'] = options['scope'] or scope
      losses.append(dataclasses.replace(loss, options=tuple(options.items())))
      losses[-1].loss()  # what is wrong with its options is an error here
    result.append({**of_stage, 'losses': tuple(losses)})
  without = [
    stage for stage, of_stage in enumerate(result) if not any(loss.make is Ratio for loss in of_stage['losses'])
  ]
  is_listed = isinstance(values, list | tuple)  # else it is one value for the stages that have a ratio loss
  for stage in without if is_listed or len(without) == len(chosen) else ():
    if _at_stage(values, stage, len(chosen), 'ratio_targets') is not None:
      raise ValueError(f'ratio_targets {values!r}: stage {stage} has no ratio loss, so its target must be None.')
  return result


def _target(value: Any, default: float) -> dict[str, Any]:
  if not isinstance(value, Mapping):
    return {'target': default if value is None else checks.number(value, 'ratio_targets')}
  checks.known(value, ('start', 'end', 'until', 'since'), 'model.ratio_targets')
  if 'start' not in value or 'end' not in value:
    raise ValueError(f'ratio_targets {dict(value)!r}: a schedule has start and end, and may have since and until.')
  numbers = {key: checks.number(number, f'ratio_targets.{key}') for key, number in value.items()}
  rest = {'until': numbers.get('until', 1.0), 'since': numbers.get('since')}
  return {'target': numbers['end'], 'start': numbers['start'], **rest}


def limits_of(values: Any, cuts: int) -> tuple[float | None, ...]:
  """The fixed capacity of each level inside as a share of the bytes of a row; None: no chunk is ever dropped."""
  if values is None:
    return (None,) * cuts
  if not isinstance(values, list | tuple) or len(values) != cuts:
    raise ValueError(f'fixed_capacity {values!r}: a list with one share, or None, for each of {cuts} stages that cut.')
  for value in values:
    if value is not None and not 0 < checks.number(value, 'fixed_capacity') <= 1:
      raise ValueError(f'fixed_capacity {value}: chunks of a row as a share of its bytes, above 0 and at most 1.')
  return tuple(values)


def marks_of(stages: Sequence[StageConfig]) -> tuple[tuple[str, str], ...]:
  """What all parts but losses read; ValueError where one name stands for two marks, or for what is not known.

  What decides where chunks are, and what goes into them, may not depend on later bytes.
  """
  found = _read(stages)
  read = {name: found[name] for stage in stages for part in stage.parts for name in part.marks}
  for name, kind in marks.parse(read).items():
    if kind.lookahead and not kind.leaks:
      what = f"'{name}'" if name == found[name] else f"'{name}' ({found[name]})"
      raise ValueError(
        f'model.chunking: the mark {what} of a byte depends on later bytes, which it would tell the '
        f'loss: {kind.remedy}.'
      )
  return tuple(read.items())


def labels_of(stages: Sequence[StageConfig], aims: Sequence[Objective] = ()) -> tuple[tuple[str, str], ...]:
  """What losses and objectives alone read, which may depend on later bytes: nothing else sees it, and decoding does
  without.

  So the files that labels are made with are not looked for here, but where text is marked.
  """
  read = dict(marks_of(stages))
  found = _read(stages) | objectives.labels(aims)
  return tuple((name, spec) for name, spec in found.items() if name not in read)


def _read(stages: Sequence[StageConfig]) -> dict[str, str]:
  found: dict[str, str] = {}
  of_stages = list(itertools.chain.from_iterable(stage.parts for stage in stages))
  for part in itertools.chain(of_stages, itertools.chain.from_iterable(stage.losses for stage in stages)):
    for name, spec in part.marks.items():
      if found.setdefault(name, spec) != spec:
        raise ValueError(
          f"model.chunking: {part.kind} {part.name} reads the mark '{name}' as {spec} and another part as "
          f'{found[name]}: give them one specification, or two names.'
        )
  for name in found.keys() & _OWN_MARKS:
    raise ValueError(f"model.chunking: the mark '{name}' ({found[name]}) has a name of ours: give it another.")
  marks.check_kinds(found)
  return found


def inputs_of(values: Any, width: int) -> tuple[Part, ...]:
  """The parts that add to the vectors of bytes."""
  if isinstance(values, str) or not isinstance(values, Sequence):
    raise ValueError(f'inputs {values!r} must be a list of specifications, such as ["hash_ngrams"].')
  found = tuple(parts.parse('input', value) for value in values)
  for part in found:
    check_part(part, Sizes(width, width))
  return found


def sizes_of(values: Any, stages: list[StageConfig]) -> tuple[float, ...]:
  """As given, or what targets and rules promise; the paper reports 6.0 bytes a chunk for the space rule."""
  by_rule = [stage.boundary.make.chunk_size(**dict(stage.boundary.options)) for stage in stages[:-1]]
  if values is None:
    sizes = [
      stage.target.end if stage.target else size or 1.0 for stage, size in zip(stages[:-1], by_rule, strict=True)
    ]
    return tuple(math.prod(sizes[: index + 1]) for index in range(len(sizes)))
  if not isinstance(values, (list, tuple)) or len(values) != len(stages) - 1:
    raise ValueError(
      f'bytes_per_chunk {values!r}: a list with one number for each of {len(stages) - 1} stages that cut.'
    )
  if min([checks.number(value, 'bytes_per_chunk') for value in values], default=1) < 1:
    raise ValueError(f'bytes_per_chunk {list(values)}: a chunk has at least one byte.')
  return tuple(float(value) for value in values)


def _as_tuple(value: Any) -> Any:
  return tuple(_as_tuple(v) for v in value) if isinstance(value, (list, tuple)) else value
