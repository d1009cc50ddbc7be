"""The config tree, whole and checked: what `train.py` reads becomes frozen dataclasses, and as plain data config.json.

The dataclasses hold the defaults, each in this one place; a new branch is a new dataclass and a field of `Config`. The
keys of the `model` branch, and their defaults, are those of its family (`byte_models.complete`), which also checks it
(`byte_models.parse`). A mistyped key, a missing one that has no default or an impossible value is a ValueError with one
sentence that names the full dotted key, before anything is built.
"""

import dataclasses
import functools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import byte_models
import text
from kernels.mesh import AXES
from layers import checks
from training.superposition import Superposition

# May differ when a run goes on in its old work directory: they do not change what a step computes, except
# `num_steps`, whose fractions place warm-up and decay; extending a run is too common to forbid, so the change is
# allowed and reported; and `skip_norm`, for a run that turns out to need it. `data` may: the text itself is compared on
# resume, wherever it lies now.
FREE_TO_CHANGE = ('num_steps', 'log', 'checkpoint', 'eval', 'data', 'mesh', 'optimizer.skip_norm')


@dataclasses.dataclass(frozen=True)
class Data:
  """source: training text, or a mixture, a list of (source, weight); validation: a source or a list of them, each
  scored apart, '' = the held-out parts of `source` (which documents these are: text/texts.py); workers: loader
  processes, 0 = in this one; prefetch: batches made ahead.
  """

  source: Any
  validation: Any = ''
  workers: int = 0
  prefetch: int = 8


@dataclasses.dataclass(frozen=True)
class Schedule:
  """name: 'wsd' | 'cosine' | 'constant'; warmup and decay: fractions of num_steps (decay is read by wsd only);
  final: last learning rate as a fraction of the peak (read by wsd and cosine)."""

  name: str = 'wsd'
  warmup: float = 0.1
  decay: float = 0.2
  final: float = 0.0


@dataclasses.dataclass(frozen=True)
class Group:
  """Parameters whose path matches `pattern` (a regular expression, found anywhere in it): they stand still for the
  first frozen_steps steps, decay included, and then move at `multiplier` times their learning rate.
  """

  pattern: str
  multiplier: float = 1.0
  frozen_steps: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
  """learning_rate: peak; weight_decay: decoupled, times the learning rate; decay_exempt: 'default' | 'official', who
  is spared; clip_norm: global gradient norm, 0 = off; skip_norm: an update whose gradient norm is above so many times
  the usual one is left out, 0 = none is; lr_multipliers: None, 'paper' or one number per stage;
  accumulate: micro-batches per step, the m-th of the rows r with r % accumulate = m; ema: decay of the averaged
  parameters that evaluation uses, 0 = none; groups: parameters with a rate of their own, by any name.

  The H-Net paper names AdamW and no more; the other defaults are the customary values of the Mamba line.
  """

  name: str = 'adamw'
  learning_rate: float
  schedule: Schedule
  weight_decay: float = 0.1
  decay_exempt: str = 'default'
  betas: tuple[float, ...] = (0.9, 0.95)
  eps: float = 1e-8
  clip_norm: float = 1.0
  skip_norm: float = 0.0
  lr_multipliers: Any = None
  accumulate: int = 1
  ema: float = 0.0
  groups: Mapping[str, Group] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Mesh:
  """shape: devices along the axes data, fsdp and tensor, one of them may be -1 = all that are left; without the last
  axes, these have one device.
  """

  shape: tuple[int, ...] = (-1, 1, 1)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """every_steps: 0 = only at the end; keep_latest: newest ones kept; keep_best: best by validation bits per byte kept
  beside them (only steps that are both saved and evaluated compete); rollbacks: how often a run that diverged may go
  back to the checkpoint before and pass over the data on which it did.
  """

  every_steps: int = 100
  keep_latest: int = 2
  keep_best: int = 1
  rollbacks: int = 0


@dataclasses.dataclass(frozen=True)
class Eval:
  """every_steps: 0 = only at the end; max_bytes: of each validation source, 0 = all; seq_len and batch_size: 0 = as in
  training.
  """

  every_steps: int = 200
  max_bytes: int = 50_000
  seq_len: int = 0
  batch_size: int = 0


@dataclasses.dataclass(frozen=True)
class Log:
  """every_steps: a line of metrics is written at every multiple."""

  every_steps: int = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The whole tree. batch_size: rows of the global batch; seq_len: bytes per row; init_from: '' or where the first
  parameters come from, see `workdir.initial_params`; loss_weights: weight of each auxiliary loss by its name, by
  default the H-Net paper's alpha.
  """

  seed: int = 0
  num_steps: int
  batch_size: int
  seq_len: int
  init_from: str = ''
  loss_weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: {'ratio': 0.03})
  superposition: Superposition
  data: Data
  model: Mapping[str, Any]
  optimizer: Optimizer
  mesh: Mesh
  checkpoint: Checkpoint
  eval: Eval
  log: Log

  @property
  def eval_rows(self) -> dict[str, int]:
    """seq_len and batch_size of validation, as in training where they are not given."""
    return {'seq_len': self.eval.seq_len or self.seq_len, 'batch_size': self.eval.batch_size or self.batch_size}


def whole(config: Any) -> Any:
  """A ConfigDict or mapping as a dict with every key that has a default; nothing in it is checked."""
  tree = _filled(Config, config.to_dict() if hasattr(config, 'to_dict') else config)
  return {**tree, 'model': byte_models.complete(tree['model'])} if isinstance(tree, dict) and 'model' in tree else tree


def resolve(config: Any) -> dict[str, Any]:
  """The whole tree as plain JSON data (dicts, lists, numbers, strings, None), as a work directory keeps it.

  Raises ValueError for a value that JSON cannot hold.
  """
  try:
    return _without_axes(json.loads(json.dumps(whole(config), allow_nan=False)))
  except (TypeError, ValueError, RecursionError) as error:
    raise ValueError(
      f'the config holds a value that JSON cannot save ({error}); use numbers, strings, lists, dicts or None'
    ) from None


def _without_axes(tree: Any) -> Any:
  """Configs of an earlier version name the axes of the mesh, which are always the same."""
  mesh = tree.get('mesh') if isinstance(tree, Mapping) else None
  if not isinstance(mesh, Mapping) or 'axes' not in mesh:
    return tree
  axes, shape = mesh['axes'], mesh.get('shape')
  if not isinstance(shape, list) or axes != list(AXES)[: len(shape)]:
    raise ValueError(
      f'config key mesh.axes {axes!r}: mesh.shape gives devices along {", ".join(AXES)} in this order; leave mesh.axes '
      'out'
    )
  return {**tree, 'mesh': {key: value for key, value in mesh.items() if key != 'axes'}}


def parse(config: Any) -> Config:
  """Checked dataclasses from a ConfigDict or mapping; raises ValueError naming the key (see the module)."""
  parsed = _branch(Config, resolve(config), '')
  _check(parsed)
  return parsed


def differences(old: Mapping, new: Mapping, prefix: str = '') -> dict[str, tuple[Any, Any]]:
  """{dotted key: (old value, new value)} where two resolved configs differ; '(absent)' stands for a key that one
  lacks.
  """
  found = {}
  for key in sorted({*old, *new}):
    before, after = (side.get(key, '(absent)') for side in (old, new))
    if isinstance(before, Mapping) and isinstance(after, Mapping):
      found |= differences(before, after, f'{prefix}{key}.')
    elif before != after:
      found[prefix + key] = (before, after)
  return found


def refuse_changes(old: Mapping, new: Mapping, workdir: str) -> list[str]:
  """Raises ValueError if a run of config `old` may not go on with `new`; otherwise one phrase for each changed key."""
  changed = differences(old, new)
  phrases = {key: f'{key}: {before!r} -> {after!r}' for key, (before, after) in changed.items()}
  refused = [text for key, text in phrases.items() if not any(f'{key}.'.startswith(f'{f}.') for f in FREE_TO_CHANGE)]
  if refused:
    raise ValueError(
      f'{workdir} was trained with another config ({"; ".join(refused)}): restore these values, or use a new '
      f'--workdir, with init_from={workdir!r} to begin from its parameters'
    )
  return list(phrases.values())


def _filled(hint: Any, values: Any) -> Any:
  if not isinstance(values, Mapping):
    return values
  if typing.get_origin(hint) is Mapping:
    return {name: _filled(typing.get_args(hint)[1], item) for name, item in values.items()}
  if not dataclasses.is_dataclass(hint):
    return values
  hints, found = typing.get_type_hints(hint), {}
  for field in dataclasses.fields(hint):
    if field.name in values or dataclasses.is_dataclass(hints[field.name]):
      found[field.name] = _filled(hints[field.name], values.get(field.name, {}))
    elif field.default is not dataclasses.MISSING:
      found[field.name] = field.default
    elif field.default_factory is not dataclasses.MISSING:
      found[field.name] = field.default_factory()
  return {**found, **{key: values[key] for key in values if key not in found}}


def _branch(kind: type, values: Any, prefix: str) -> Any:
  if not isinstance(values, Mapping):
    raise ValueError(f'config key {prefix[:-1] or "(the whole config)"} must be a branch with keys, got {values!r}')
  hints = typing.get_type_hints(kind)
  checks.known(values, hints, prefix[:-1])
  for name in hints:
    if name not in values:
      raise ValueError(f'missing config key {prefix}{name}')
  return kind(**{name: _value(hint, values[name], prefix + name) for name, hint in hints.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
  if dataclasses.is_dataclass(hint):
    return _branch(hint, value, f'{key}.')
  if typing.get_origin(hint) is tuple:
    if isinstance(value, str) or not isinstance(value, Sequence):
      raise ValueError(f'config key {key} must be a list, got {value!r}')
    return tuple(_value(typing.get_args(hint)[0], item, key) for item in value)
  if typing.get_origin(hint) is Mapping:
    if not isinstance(value, Mapping):
      raise ValueError(f'config key {key} must be a branch with keys, got {value!r}')
    item_hint = typing.get_args(hint)[1]
    return {name: _value(item_hint, item, f'{key}.{name}') for name, item in value.items()}
  if hint is Any:
    return value
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if hint is float and number and abs(value) < 1e300:  # integers may be above every float
    return float(value)
  if hint is int and number and isinstance(value, int):
    return value
  if hint is str and isinstance(value, str):
    return value
  wanted = {float: 'a finite number', int: 'a whole number', str: 'a string'}[hint]
  raise ValueError(f'config key {key} must be {wanted}, got {value!r}')


def _check(config: Config) -> None:
  for key, holds, requirement in _RULES:
    value = functools.reduce(getattr, key.split('.'), config)
    if not holds(value):
      raise ValueError(f'config key {key} must be {requirement}, got {value!r}')
  try:
    texts = text.Texts.of(config.data.source, config.data.validation)
  except ValueError as error:
    raise ValueError(f'config key {error}') from None
  texts.check()
  schedule, accumulate = config.optimizer.schedule, config.optimizer.accumulate
  if schedule.name == 'wsd' and schedule.warmup + schedule.decay > 1:
    raise ValueError(
      f'optimizer.schedule.warmup {schedule.warmup} and decay {schedule.decay} are fractions of num_steps and must not '
      'exceed 1 together'
    )
  for name, group in config.optimizer.groups.items():
    try:
      re.compile(group.pattern)
    except re.error as error:
      raise ValueError(
        f'config key optimizer.groups.{name}.pattern {group.pattern!r} is not a regular expression ({error})'
      ) from None
    for key in ('multiplier', 'frozen_steps'):
      if getattr(group, key) < 0:
        raise ValueError(f'config key optimizer.groups.{name}.{key} must be 0 or more, got {getattr(group, key)!r}')
  if config.seq_len % config.superposition.size:
    raise ValueError(f'superposition.size {config.superposition.size} does not divide seq_len {config.seq_len}')
  if config.batch_size % accumulate:
    raise ValueError(f'batch_size {config.batch_size} is not divisible by optimizer.accumulate {accumulate}')


def _are_multipliers(value: Any) -> bool:
  if isinstance(value, Sequence) and not isinstance(value, str):
    return all(isinstance(item, int | float) and not isinstance(item, bool) and 0 < item < 1e300 for item in value)
  return value is None or value == 'paper'


_RULES = (
  ('seed', lambda v: 0 <= v < 2**32, 'between 0 and 2**32 - 1'),
  ('num_steps', lambda v: v >= 1, 'at least 1'),
  ('batch_size', lambda v: v >= 1, 'at least 1'),
  ('seq_len', lambda v: v >= 2, 'at least 2 (the first byte of a row is only context)'),
  ('superposition.size', lambda v: v >= 1, '1 (bytes) or more'),
  ('superposition.until', lambda v: 0 <= v <= 1, 'a fraction between 0 and 1'),
  ('data.source', bool, 'a source of text or a list of (source, weight)'),
  ('data.workers', lambda v: v >= 0, '0 (load in this process) or more'),
  ('data.prefetch', lambda v: v >= 1, 'at least 1'),
  ('optimizer.name', lambda v: v == 'adamw', "'adamw'"),
  ('optimizer.learning_rate', lambda v: v > 0, 'above 0'),
  ('optimizer.schedule.name', lambda v: v in ('wsd', 'cosine', 'constant'), "'wsd', 'cosine' or 'constant'"),
  ('optimizer.schedule.warmup', lambda v: 0 <= v <= 1, 'a fraction between 0 and 1'),
  ('optimizer.schedule.decay', lambda v: 0 <= v <= 1, 'a fraction between 0 and 1'),
  ('optimizer.schedule.final', lambda v: 0 <= v <= 1, 'a fraction between 0 and 1'),
  ('optimizer.weight_decay', lambda v: v >= 0, '0 or more'),
  ('optimizer.decay_exempt', lambda v: v in ('default', 'official'), "'default' or 'official'"),
  (
    'optimizer.betas',
    lambda v: len(v) == 2 and all(0 <= beta < 1 for beta in v),
    'two numbers, at least 0 and below 1',
  ),
  ('optimizer.eps', lambda v: v > 0, 'above 0'),
  ('optimizer.clip_norm', lambda v: v >= 0, '0 (no clipping) or more'),
  ('optimizer.skip_norm', lambda v: v == 0 or v > 1, '0 (none is skipped) or above 1'),
  ('optimizer.lr_multipliers', _are_multipliers, "None, 'paper' or a list of numbers above 0 and below 1e300"),
  ('optimizer.accumulate', lambda v: v >= 1, 'at least 1'),
  ('optimizer.ema', lambda v: 0 <= v < 1, '0 (no average) or a decay below 1'),
  ('checkpoint.every_steps', lambda v: v >= 0, '0 (only at the end) or more'),
  ('checkpoint.keep_latest', lambda v: v >= 1, 'at least 1'),
  ('checkpoint.keep_best', lambda v: v >= 0, '0 or more'),
  ('checkpoint.rollbacks', lambda v: v >= 0, '0 (none) or more'),
  ('eval.every_steps', lambda v: v >= 0, '0 (only at the end) or more'),
  ('eval.max_bytes', lambda v: v >= 0, '0 (all of it) or more'),
  ('eval.seq_len', lambda v: v == 0 or v >= 2, '0 (as in training) or at least 2'),
  ('eval.batch_size', lambda v: v >= 0, '0 (as in training) or more'),
  ('log.every_steps', lambda v: v >= 1, 'at least 1'),
)
