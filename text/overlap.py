"""How much of a held-out text stands in training text, as the very same documents."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator

import numpy as np

from text.corpus import Corpus

# What is beyond is not compared. All of it together takes some seconds and some 100 MB of memory.
MOST_DOCUMENTS = 2**24  # of a training text, whose lengths are looked at
MOST_CANDIDATES = 2**20  # of these of which a few bytes are read, since a held-out one is as long; and held-out ones
MOST_BYTES = 2**30  # of those that are read whole
_PART = 2**20  # documents at a time
_SAMPLE = 32  # bytes, from the middle on: beginnings repeat each other


@dataclasses.dataclass(frozen=True)
class Overlap:
  """documents, bytes: of the held-out text that stand in training text, too; of: its documents in all. is_complete:
  False where the texts are too large to be compared to the end.
  """

  documents: int
  of: int
  bytes: int
  is_complete: bool

  def sentences(self) -> tuple[str, ...]:
    """What there is to say, one sentence or none."""
    if not self.is_complete and not self.documents:
      return (f'its {self.of:,} documents were not compared with the training text: there is too much of it',)
    if not self.documents:
      return ()
    least = '' if self.is_complete else 'at least '
    found = f'{least}{self.documents:,} of {self.of:,} validation documents ({self.bytes:,} bytes)'
    return (f'{found} stand in the training text',)


def overlap(held_out: Corpus, training: Iterable[Corpus]) -> Overlap:
  """Compares every document of `held_out` with those of all training corpora.

  Only training documents that are as long as a held-out one are read: first a few bytes of each, then those that agree.
  A text with noise counts as what it was without. The same on every machine.
  """
  trained = [part for corpus in training for part in corpus.parts]
  indices = [_Index(part) for part in held_out.parts]
  candidates = read = 0
  is_complete = True
  for index in indices:
    for other in (other for other in trained if not _are_apart(index.corpus, other)):
      if len(index.corpus) > MOST_CANDIDATES or len(other) > MOST_DOCUMENTS:
        is_complete = False
        continue
      for document in index.candidates(other):
        if candidates == MOST_CANDIDATES or read > MOST_BYTES:
          is_complete = False
          break
        candidates += 1
        read += index.find(other, document)
  size = sum(int(index.corpus.lengths[document]) for index in indices for document in index.found)
  return Overlap(sum(len(index.found) for index in indices), len(held_out), size, is_complete)


def _are_apart(one: Corpus, other: Corpus) -> bool:
  return bool(one.side and other.side) and one.side[0] == other.side[0] and one.side[1] != other.side[1]


class _Index:
  """The documents of a corpus by length, a sample and a digest, each found out when it is asked for.

  found: those that stand elsewhere, too.
  """

  def __init__(self, corpus: Corpus):
    self.corpus, self.found = corpus, set()
    self._alike: dict[tuple[int, bool], dict[bytes, list[int]]] = {}
    self._equal: dict[tuple[int, bytes], dict[bytes, list[int]]] = {}

  @functools.cached_property
  def _by_length(self) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(self.corpus.original_lengths, kind='stable')
    return order, np.asarray(self.corpus.original_lengths)[order]

  def candidates(self, other: Corpus) -> Iterator[int]:
    """The documents of another corpus that are as long as one of this."""
    _, lengths = self._by_length
    for start in range(0, len(other), _PART):
      others_P = np.asarray(other.original_lengths[start : start + _PART])
      places_P = np.minimum(np.searchsorted(lengths, others_P), len(lengths) - 1)
      yield from (start + np.flatnonzero(lengths[places_P] == others_P)).tolist()

  def find(self, other: Corpus, document: int) -> int:
    """Notes the documents that equal that one; returns how many bytes were read whole."""
    length = int(other.original_lengths[document])
    is_clean = all(corpus.original_lengths is corpus.lengths for corpus in (self.corpus, other))
    sample = _sample(other, document) if is_clean else b''
    alike = self._as_long(length, is_clean).get(sample)
    if not alike:
      return 0
    read = length
    if (length, sample) not in self._equal:
      equal = self._equal.setdefault((length, sample), {})
      for mine in alike:
        equal.setdefault(self.corpus.original_digest(mine), []).append(mine)
        read += length
    self.found.update(self._equal[length, sample].get(other.original_digest(document), ()))
    return read

  def _as_long(self, length: int, is_clean: bool) -> dict[bytes, list[int]]:
    """The documents of a length, by a sample of each where there is no noise."""
    if (length, is_clean) not in self._alike:
      order, lengths = self._by_length
      alike = self._alike.setdefault((length, is_clean), {})
      for mine in order[slice(*np.searchsorted(lengths, [length, length + 1]))].tolist():
        alike.setdefault(_sample(self.corpus, mine) if is_clean else b'', []).append(mine)
    return self._alike[length, is_clean]


def _sample(corpus: Corpus, document: int) -> bytes:
  length = int(corpus.lengths[document])
  return corpus.read(document, length // 2, min(length // 2 + _SAMPLE, length))
