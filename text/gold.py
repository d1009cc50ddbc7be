"""Gold units of a text: words, morphemes, or a misspelling and its correction, joined to one document."""

from collections.abc import Sequence

SEPARATOR = b'\x1f'  # ASCII unit separator


def join(units: Sequence[bytes]) -> bytes:
  """The document of some units.

  Raises:
    ValueError: no units, an empty one, or one that contains the separator.
  """
  for unit in units:
    if not unit or SEPARATOR in unit:
      raise ValueError(f'a gold unit must be non-empty and free of the byte 0x1F, got {bytes(unit)!r}')
  if not units:
    raise ValueError('a gold document needs at least one unit')
  return SEPARATOR.join(units)


def units(document: bytes) -> tuple[bytes, ...]:
  """The units of a document of a gold corpus, in order; of a segmentation they concatenate to the text.

  Raises:
    ValueError: the document is empty or has an empty unit, so it is none of a gold corpus.
  """
  found = tuple(document.split(SEPARATOR))
  if not all(found):
    raise ValueError(f'{document[:60]!r} is no document of a gold corpus: it has an empty unit')
  return found
