"""The stacks of an H-Net's stages, from the authors' keys."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from hnet.checks import at_stage
from layers import checks
from layers.stack import StackConfig, height, parse_layout

SSM, ATTENTION = ('chunk_size', 'd_conv', 'd_state', 'expand'), ('num_heads', 'rotary_emb_dim', 'window_size')
_MOST_STAGES = 16


def layout_stacks(layout: Any, depth: int = 0) -> list[tuple[str, ...]]:
  """[enc, [inner], dec] nested -> [(enc, dec), ..., (main,)], outermost first."""
  if depth == _MOST_STAGES:
    raise ValueError(f'arch_layout has more than {_MOST_STAGES} stages, one inside the other.')
  if not isinstance(layout, str) and isinstance(layout, Sequence):
    if len(layout) == 1 and isinstance(layout[0], str):
      height(layout[0])
      return [(layout[0],)]
    if len(layout) == 3 and isinstance(layout[0], str) and isinstance(layout[2], str):
      height(layout[0]), height(layout[2])
      return [(layout[0], layout[2]), *layout_stacks(layout[1], depth + 1)]
  raise ValueError(
    f'arch_layout {layout!r}: a stage is [encoder, [inner], decoder] or, innermost, [main], such as '
    '["m4", ["T22"], "m4"].'
  )


def widths_of(values: Any, count: int) -> tuple[int, ...]:
  """d_model of every stage; ValueError unless they are as many and rise inwards."""
  widths = _integers(values, 'd_model', count)
  for outer, inner in itertools.pairwise(widths):
    if inner < outer:
      raise ValueError(
        f'd_model {list(widths)} decreases from {outer} to {inner}: a stage is at least as wide as the one around it.'
      )
  return widths


def mlp_widths_of(values: Any, widths: tuple[int, ...], multiple: int) -> tuple[int, ...]:
  """d_intermediate of every stage, up to a multiple; ValueError unless they are as many."""
  if isinstance(values, (list, tuple)):  # None: the official default
    values = [8 * w // 3 if v is None else v for v, w in zip(values, widths, strict=False)] + list(
      values[len(widths) :]
    )
  chosen = _integers(values, 'd_intermediate', len(widths), least=0)
  return tuple(math.ceil(value / multiple) * multiple for value in chosen)


def _integers(values: Any, name: str, count: int, least: int = 1) -> tuple[int, ...]:
  if not isinstance(values, (list, tuple)) or len(values) != count:
    raise ValueError(f'{name} {values!r}: arch_layout has {count} stages, so {name} is a list of {count} integers.')
  return tuple(checks.integer(value, name, least) for value in values)


def attention_of(values: Any, layouts: list[tuple[str, ...]]) -> dict[str, Any]:
  """attn_cfg with all its keys, which may be left out where nothing attends; ValueError for one that is missing."""
  attention = checks.known(values, ATTENTION, 'model.attn_cfg')
  attends = any(kind in 'tT' for of_stage in layouts for layout in of_stage for kind, _ in parse_layout(layout))
  for key in ATTENTION:
    if attention[key] is None and not attends:
      attention[key] = -1 if key == 'window_size' else 0
    if attention[key] is None:
      raise ValueError(f'model.attn_cfg.{key} is missing: one value for each stage, or one for all.')
  return attention


def stack_of(
  values: dict, ssm: dict, attention: dict, widths: tuple, mlp_widths: tuple, layout: str, stage: int
) -> StackConfig:
  """A stack of a stage, by the keys of the branch; ValueError, with the key, for what does not fit."""
  count = len(widths)
  at = lambda name, value, least=1: checks.integer(at_stage(value, stage, count, name), name, least)
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
    rotary_base=_base(at_stage(values['rotary_base'], stage, count, 'rotary_base')),
    remat=checks.boolean(values['remat'], 'remat'),
    scan=checks.boolean(values['scan_layers'], 'scan_layers'),
    dtype=values['dtype'],
  )
  try:
    return StackConfig(**sizes)
  except ValueError as error:
    of_attention = str(error).startswith(ATTENTION)
    raise ValueError(f'attn_cfg.{error}' if of_attention else str(error)) from None


def _base(value: Any) -> float:
  if checks.number(value, 'rotary_base') <= 0:
    raise ValueError(f'rotary_base {value}: must be above 0.')
  return float(value)
