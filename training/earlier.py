"""Work directories of earlier versions: their configs in today's keys, and what their parameters are called today."""

import re
from collections.abc import Mapping
from typing import Any

_SYSTEMS = {  # (boundary, unpool, combine, widen) -> model.chunking
  ('cosine', 'ema', 'ste', 'learned'): 'hnet',
  ('space', 'repeat', 'ste', 'learned'): 'hnet_space',
  ('space', 'scatter', 'sum', 'zeros'): 'spacebyte',
}
_CHUNKING = {'boundary': 'cosine', 'unpool': None, 'combine': 'ste', 'widen': 'learned'}  # keys that it replaced
_MOVED = ((re.compile(r'\.combine(?=\.residual\.)'), ''), (re.compile(r'\.pool(?=\.pad$)'), '.inner'))


def stored_path(path: str) -> str:
  """What a parameter, or a moment of it, was called where the parts of a stage had no names."""
  for pattern, earlier in _MOVED:
    path = pattern.sub(earlier, path)
  return path


def current(config: Mapping[str, Any]) -> dict[str, Any]:
  """A saved config with `model.chunking` for what boundary, unpool, combine and widen said, and without a
  `model.ladder` that dropped no chunk.
  """
  if not isinstance(config['model'], Mapping) or config['model'].get('family', 'hnet') != 'hnet':
    return dict(config)  # BLT's `boundary` is a key of today's
  model = dict(config['model'])
  if ((model.get('ladder') or {}).get('fractions') or [1.0])[-1] == 1:
    model.pop('ladder', None)
  if moved := {key: model.pop(key) for key in _CHUNKING if key in model}:
    parts = {**_CHUNKING, **moved}
    count = max(len(value) if isinstance(value, list) else 1 for value in parts.values())
    at = lambda value, stage: value[stage] if isinstance(value, list) else value
    stages = [_of_stage(*(at(value, stage) for value in parts.values())) for stage in range(count)]
    model['chunking'] = stages if count > 1 else stages[0]
  return {**config, 'model': model}


def _of_stage(boundary: str, unpool: str | None, combine: str, widen: str) -> Any:
  name, _, size = boundary.partition(':')
  unpool = unpool or ('ema' if name == 'cosine' else 'repeat')
  if (name, unpool, combine, widen) == ('stride', 'repeat', 'ste', 'learned'):
    return f'hnet_pool({size})'
  if system := _SYSTEMS.get((name, unpool, combine, widen)):
    return system
  return {
    'boundary': f'stride({size})' if size else name,
    'pool': f'first(widen={widen})',
    'unpool': f'{unpool}(narrow={"last" if widen == "zeros" else "first"})',
    'combine': combine,
  }
