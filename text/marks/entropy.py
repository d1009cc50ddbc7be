"""Marks of entropies that were computed before."""

import dataclasses

import numpy as np

from text import entropies
from text.marks.kind import Document, Kind, Specs
from text.specification import arguments


@dataclasses.dataclass(frozen=True)
class Entropy(Kind):
  """Of whole documents, which a directory knows by what they hold. model: the digest that it must have; '' for any.

  Not known of a text that is being written.
  """

  directory: str
  model: str

  DTYPE, EMPTY = np.float32, 0.0

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Entropy':
    del others
    _, values = arguments(spec, 'mark', {'entropy': {'directory': '', 'model': ''}})
    return cls(**values)

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    del first_scored
    found = entropies.opened(self.directory)
    if self.model and found.about.get('model') != self.model:
      raise ValueError(
        f"mark 'entropy': {self.directory} was made from the entropy model {found.about.get('model')} "
        f'({found.about.get("workdir")}, step {found.about.get("step")}) and not from {self.model}: make it again'
      )
    return np.array(found.of(document.read(0, document.length))[start:stop])

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    raise ValueError("mark 'entropy' is of documents that a model has read before: what is being written has none")
