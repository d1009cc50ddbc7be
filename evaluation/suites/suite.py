"""What a suite is: a way to measure a model, whose numbers `eval.py` puts in one long table."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from text import Corpus


class Refused(ValueError):
  """A model or text that a suite cannot measure; the sentence says why. It is told, and the suite left out for it."""


@dataclasses.dataclass(frozen=True)
class Row:
  """One number.

  metric: its name. value: None where there is nothing to measure it on. stage: of a metric of one stage, outermost 0.
  bytes: of text that it was measured on. extras: what else tells it from others of its name, as JSON data.
  """

  metric: str
  value: float | None
  stage: int | None = None
  bytes: int | None = None
  extras: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Options:
  """seq_len, batch_size: rows of `evaluate`. max_bytes: of each text, from its beginning; 0 = all. own: the suite's
  own options, all of them.
  """

  seq_len: int
  batch_size: int
  max_bytes: int = 0
  own: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def rows(self) -> dict[str, int]:
    """seq_len and batch_size."""
    return {'seq_len': self.seq_len, 'batch_size': self.batch_size}


@dataclasses.dataclass(frozen=True)
class Suite:
  """measure(model, config, corpus, options) -> rows; config: resolved, {} of official weights. It raises `Refused` for
  what it cannot measure, and other ValueErrors with one sentence.

  version: higher where the same model gets another number on the same text: such numbers are not compared, and measured
  again. defaults: its own options, with values of their types (text/specification.py). reads: whether it is of a text:
  called for each, with its corpus; if not, once for a model, with None. headline: the metric that a terminal shows.
  """

  measure: Callable[[Any, Mapping[str, Any], Corpus | None, Options], Iterable[Row]]
  version: int
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  reads: bool = True
  headline: str = ''
