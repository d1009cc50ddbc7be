"""Slots by script, for what has a predictor or a target for each (MAGNET, FLEXITOKENS).

There a text's script is told before it begins. Here a slot's is that of the last character up to it, in its document,
that has one of the scripts: spaces, digits and marks go with the letters before them. A slot before all of those has
the first script, or `others`, which stands for scripts that are not named; without it text in those is refused when its
marks are made (text/marks, 'only_scripts').
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from layers import segments
from text.marks import SCRIPTS

MARK = 'script'


def names(scripts: str, where: str) -> list[str]:
  """Those of 'latin+cyrillic'; ValueError for others than the mark has, and for one that is named twice."""
  found = [name.strip() for name in scripts.split('+')] if scripts else []
  known = [script.lower() for script in SCRIPTS]
  for name in found:
    if name not in known:
      raise ValueError(f"{where}: '{name}' is no script that text is marked with: there are {', '.join(known)}.")
  if len(set(found)) < len(found):
    raise ValueError(f"{where}: scripts='{scripts}' names one twice: name each once.")
  return found


def check(scripts: str, others: str, where: str) -> int:
  """How many kinds of slots there are, 1 without scripts; ValueError for what is not known or does not fit."""
  found = names(scripts, where)
  if others and others not in found:
    raise ValueError(f"{where}: others='{others}' is not one of scripts='{scripts}': name one that has its own.")
  return max(len(found), 1)


def marks(scripts: str, others: str) -> dict[str, str]:
  """The mark to be read, if any."""
  if not scripts:
    return {}
  return {MARK: 'script' if others else f'only_scripts(of={scripts})'}


def of_slots(scripts: str, others: str, marks_of_level: dict[str, Array], segment_ids_BxC: Array) -> Array:
  """The place of each slot's script among those named: [B, C] int32, 0 without scripts."""
  if not scripts:
    return jnp.zeros(segment_ids_BxC.shape, jnp.int32)
  own_BxC = _own(scripts, others, marks_of_level[MARK])
  index_1xC = jnp.arange(own_BxC.shape[1], dtype=jnp.int32)[None]
  last_BxC = jax.lax.cummax(jnp.where(own_BxC >= 0, index_1xC, -1), axis=1)
  is_own_BxC = last_BxC >= index_1xC - segments.positions(segment_ids_BxC)
  found_BxC = jnp.take_along_axis(own_BxC, jnp.maximum(last_BxC, 0), 1)
  return jnp.where(is_own_BxC, found_BxC, first(scripts, others))


def of_step(scripts: str, others: str, marks_of_slot: dict[str, Array], last_B: Array) -> Array:
  """The same of one slot behind one of `last_B`, which is `first` where a document begins."""
  if not scripts:
    return last_B
  own_B = _own(scripts, others, marks_of_slot[MARK])
  return jnp.where(own_B >= 0, own_B, last_B)


def first(scripts: str, others: str) -> int:
  """Of what has no script before it."""
  return scripts.split('+').index(others) if others else 0


def _own(scripts: str, others: str, mark: Array) -> Array:
  """-1 where a character has none of the scripts."""
  named = [name.strip() for name in scripts.split('+')]
  of_mark = [-1]
  for script in SCRIPTS:
    name = script.lower()
    is_other = others and name != 'digit'
    of_mark.append(named.index(name) if name in named else named.index(others) if is_other else -1)
  return jnp.asarray(np.array(of_mark, np.int32))[mark.astype(jnp.int32)]
