"""What the parts of an H-Net's stages need of each other and of the rest of a `model` branch, and what they promise."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from hnet import parts
from hnet.parts import Part, Sizes
from hnet.parts.base import ENDS
from hnet.parts.losses import Ratio
from hnet.stage_config import StageConfig
from layers import checks, objectives
from layers.objectives import Objective
from layers.stack import parse_layout
from text import marks

_OWN_MARKS = ('bytes', 'scratch', ENDS)  # of levels, beside those that parts ask for


def with_targets(chosen: list[Mapping[str, Any]], values: Any, scope: Any) -> list[dict[str, Any]]:
  """The parts of the stages, with ratio_targets and ratio_scope as options of their ratio losses.

  None means the paper's targets: 6 for one stage that cuts, 3 for each of several.
  """
  checks.one_of(scope, ('global', 'per_document'), 'ratio_scope')
  result = []
  for stage, of_stage in enumerate(chosen):
    value = at_stage(values, stage, len(chosen), 'ratio_targets')
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
    if at_stage(values, stage, len(chosen), 'ratio_targets') is not None:
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


def check_scratch(chosen: list[Part | None], main: str, limits: tuple[float | None, ...]) -> None:
  """ValueError for scratch rows of any but the last stage, around Mamba-2, or beside a limit."""
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


def check_ahead(chosen: list[Part], tie_embeddings: bool) -> None:
  """ValueError for boundaries with a lookahead that the head cannot tell."""
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


def check_heads(heads: Any, chosen: list[Mapping[str, Any]]) -> int:
  """As given; ValueError for heads that would all cut alike, or that do not come together again."""
  if checks.integer(heads, 'heads', 1) == 1:
    return 1
  boundary, combine = chosen[0]['boundary'], chosen[0]['combine']
  if not boundary.make.learned or boundary.make.lookahead:
    raise ValueError(
      f'heads {heads}: boundary {boundary.name} has nothing that differs from head to head, or reads ahead: use a '
      "learned one, such as 'cosine', or heads=1."
    )
  if combine.name == 'through':
    raise ValueError(f'heads {heads}: combine through brings vectors of one head to the decoder: use ste or sum.')
  return heads


@functools.cache
def check_part(part: Part, sizes: Sizes) -> None:
  """Builds an abstract part: what is wrong with its options is an error here."""
  jax.eval_shape(lambda: part.build(sizes, rngs=nnx.Rngs(0)))


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


def at_stage(value: Any, stage: int, count: int, name: str) -> Any:
  """A scalar is shared by all stages; a list has one entry for each."""
  if isinstance(value, (list, tuple)):
    if len(value) != count:
      raise ValueError(f'{name} {list(value)} has {len(value)} entries for {count} stages: one each, or one for all.')
    return value[stage]
  return value
