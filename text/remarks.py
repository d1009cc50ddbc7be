"""What reading passes over or decides on its own, collected while text is read and said once, at the start."""

import contextlib
import contextvars
from collections.abc import Iterator

from text.command_line import sentence

_open: contextvars.ContextVar['Remarks | None'] = contextvars.ContextVar('remarks', default=None)


class Remarks:
  """Remarks by what they say: how often, and where first."""

  def __init__(self, found: dict[str, tuple[int, str]] | None = None):
    self.found = {} if found is None else found

  def add(self, what: str, place: str, count: int = 1) -> None:
    """One more, or several, of a kind."""
    before, first = self.found.get(what, (0, place))
    self.found[what] = (before + count, first)

  def sentences(self) -> tuple[str, ...]:
    """One for people a kind."""
    return tuple(sentence(f'{what}: {count:,} (the first: {place})') for what, (count, place) in self.found.items())


def remark(what: str, place: str) -> None:
  """Adds to what is being collected, if anything is: `what` is a phrase that a number can follow."""
  if (remarks := _open.get()) is not None:
    remarks.add(what, place)


@contextlib.contextmanager
def collected() -> Iterator[Remarks]:
  """The remarks made in a `with` block."""
  remarks = Remarks()
  token = _open.set(remarks)
  try:
    yield remarks
  finally:
    _open.reset(token)
