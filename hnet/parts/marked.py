"""Boundaries at what the host marks (text/marks): AU-Net's levels, regular expressions, words that have ended."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import Sizes
from hnet.parts.boundaries import Mark
from text.marks import Levels as LevelMarks
from text.specification import canonical


class Levels(Mark):
  """A chunk ends at bytes of level `at` or above, by AU-Net's rules (arXiv 2506.14761; text/levels.py).

  Stage i of an AU-Net, from the outside, has at=i; one, two and three are the rules of all stages. published: the
  levels that the published code trains with, which depend on later bytes; a model that is to read them says leaks=true.
  """

  OPTIONS = {'at': 1, **LevelMarks.OPTIONS}
  emits = 'ends'

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, at: int, **rules: Any):
    del sizes, rngs
    (self.name,), self.at = self.marks(at, **rules), at
    count = len([rule for rule in (rules['one'], rules['two'], rules['three']) if rule])
    if not 1 <= at <= count:
      raise ValueError(
        f'boundary levels: at={at}, but {count} rules give levels from 1 to {count}: name a rule for each stage.'
      )

  @staticmethod
  def marks(at: int, **rules: Any) -> dict[str, str]:
    """The same for all stages with the same rules."""
    del at
    given = [str(value) if isinstance(value, str) else f'{key}=true' for key, value in rules.items() if value]
    return {f'levels({",".join(given)})': f'levels({",".join(given)})'}

  def _is_at(self, values: Array) -> Array:
    return values.astype(jnp.int8) >= self.at

  @staticmethod
  def chunk_size(at: int, **rules: Any) -> None:
    """The text decides."""


class Regex(Mark):
  """A chunk ends with every match of a regular expression within a line; the text up to a byte must decide that
  (text/pattern.py), unless leaks=true.
  """

  OPTIONS = {'pattern': ' ', 'leaks': False}
  emits, _side = 'ends', 'end'

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **options: Any):
    del sizes, rngs
    (self.name,) = self.marks(**options)

  @classmethod
  def marks(cls, pattern: str, leaks: bool) -> dict[str, str]:
    """The one."""
    spec = canonical('regex', {'pattern': pattern, 'at': cls._side, 'leaks': leaks})
    return {spec: spec}

  @staticmethod
  def chunk_size(**options: Any) -> None:
    """The text decides."""


class RegexStart(Regex):
  """A chunk starts with every match."""

  emits, _side = 'starts', 'start'


class Ended(Mark):
  """A chunk starts with the byte that says that a word has ended, 'hat', 'whitespace' or 'uax29' (text/words.py): most
  often at the next word, at its first character's last byte.
  """

  OPTIONS = {'by': 'hat'}

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, by: str):
    del sizes, rngs
    (self.name,) = self.marks(by)

  @staticmethod
  def marks(by: str) -> dict[str, str]:
    """The one."""
    return {f'ended({by})': f'ended({by})'}

  @staticmethod
  def chunk_size(by: str) -> None:
    """The text decides."""
