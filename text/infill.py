"""Fill-in-the-middle on bytes: a document as prefix, suffix and middle behind control bytes, so that a causal model
learns to write what stands between two texts (Bavarian et al. 2022, arXiv:2207.14255).

Cuts are at any two characters, as bytes have no tokens that a cut could break. The control bytes occur in no UTF-8, and
are bytes of the text like others: they are scored.
"""

import numpy as np

PREFIX, SUFFIX, MIDDLE = (bytes([value]) for value in (0xF8, 0xF9, 0xFA))


def rearranged(document: bytes, cuts: tuple[int, int], suffix_first: bool = False) -> bytes:
  """PREFIX p SUFFIX s MIDDLE m of a document p m s that is cut at two bytes; PREFIX SUFFIX s MIDDLE p m, suffix first.

  Raises ValueError for a document that has one of the control bytes.
  """
  if not is_free(document):
    raise ValueError(f'the document {document!r:.50} has one of the bytes F8, F9 and FA, which mark its parts')
  first, second = sorted(cuts)
  prefix, middle, suffix = document[:first], document[first:second], document[second:]
  if suffix_first:
    return PREFIX + SUFFIX + suffix + MIDDLE + prefix + middle
  return PREFIX + prefix + SUFFIX + suffix + MIDDLE + middle


def restored(document: bytes) -> bytes:
  """The document that `rearranged` was given; one that it did not make is returned as it is."""
  if not document.startswith(PREFIX) or document.count(SUFFIX) != 1 or document.count(MIDDLE) != 1:
    return document
  prefix, _, rest = document[1:].partition(SUFFIX)
  suffix, _, middle = rest.partition(MIDDLE)
  return prefix + middle + suffix


def prompt(prefix: bytes, suffix: bytes) -> bytes:
  """What a model is asked to continue with the text between prefix and suffix, up to its EOS."""
  return rearranged(prefix + suffix, (len(prefix), len(prefix)))


def is_free(document: bytes) -> bool:
  """Whether a document has no control byte."""
  return not any(mark in document for mark in (PREFIX, SUFFIX, MIDDLE))


def character_ends(document: bytes) -> np.ndarray:
  """Where a document may be cut, [0, ..., bytes]: not before a byte 80 to BF, which continues a character in UTF-8."""
  values = np.frombuffer(document, np.uint8)
  return np.append(np.flatnonzero((values & 0xC0) != 0x80), len(document))
