"""What every part of the input reads: documents with random access, or one after the other in groups."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np


class Corpus:
  """Documents with random access: `corpus[i]` is the bytes of document i, without BOS and EOS.

  name: for people. lengths: [N] int64, bytes per document, perhaps memory-mapped. fingerprint: hex SHA-256 that tells
  this text, its order and its split from any other, the same on every machine; a run refuses to resume on data with
  another one. A subclass sets these three and has `read`; worker processes receive it pickled, so one that lies on
  disk pickles as its path.

  whole: documents of the text that this is a part of; None where it is no part of another. side: (rule, split) where a
  rule sends each document to one split: two corpora of one rule and different splits share none. notes: what reading
  passed over, one sentence a kind.
  """

  name: str
  lengths: np.ndarray
  fingerprint: str
  whole: int | None = None
  side: tuple[str, str] | None = None
  notes: tuple[str, ...] = ()

  def read(self, document: int, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a document: a row needs a few hundred bytes of what may be one huge file."""
    raise NotImplementedError

  def __len__(self) -> int:
    return len(self.lengths)

  def __getitem__(self, document: int) -> bytes:
    return self.read(document, 0, int(self.lengths[document]))

  def __iter__(self) -> Iterator[bytes]:
    return (self[document] for document in range(len(self)))

  @property
  def original_lengths(self) -> np.ndarray:
    """[N] int64: bytes per document before it was perturbed."""
    return self.lengths

  def original_digest(self, document: int) -> bytes:
    """SHA-256 of a document before it was perturbed."""
    return hashlib.sha256(self[document]).digest()

  @property
  def parts(self) -> 'tuple[Corpus, ...]':
    """The corpora that this one joins, or itself."""
    return (self,)

  def title(self, max_bytes: int = 0) -> str:
    """The name, and how much of what it is: what is shown to people. max_bytes: that are scored of it, 0 = all."""
    documents = f'{len(self):,} documents' if self.whole is None else f'{len(self):,} of {self.whole:,} documents'
    size = int(self.lengths.sum(dtype=np.int64))
    scored = f', of which the first {max_bytes:,} are scored' if 0 < max_bytes < size else ''
    return f'{self.name}: {documents}, {size:,} bytes{scored}'

  def identity(self) -> dict[str, Any]:
    """What a checkpoint keeps of the text that it was trained on, as JSON data."""
    return {
      'name': self.name,
      'documents': len(self),
      'bytes': int(self.lengths.sum(dtype=np.int64)),
      'fingerprint': self.fingerprint,
    }


class MemoryCorpus(Corpus):
  """Documents held in memory, one after the other in a single buffer."""

  def __init__(
    self,
    documents: Iterable[bytes],
    name: str = '',
    split: str = '',
    *,
    whole: int | None = None,
    side: tuple[str, str] | None = None,
    notes: tuple[str, ...] = (),
  ):
    documents = list(documents)
    self.name, self.whole, self.side, self.notes = name, whole, side, notes
    self.lengths = np.array([len(document) for document in documents], np.int64)
    self._buffer = b''.join(documents)
    self._offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
    digest = hashlib.sha256(f'{split}\n{len(documents)}\n'.encode())
    digest.update(self.lengths.astype('<i8').tobytes())
    digest.update(self._buffer)
    self.fingerprint = digest.hexdigest()

  def read(self, document: int, start: int, stop: int) -> bytes:
    if not -len(self) <= document < len(self):
      raise IndexError(f'document {document} of a corpus of {len(self)}')
    offset = int(self._offsets[document % len(self)])
    return self._buffer[offset + start : offset + stop]


class Joined(Corpus):
  """Several corpora as one, one after the other."""

  def __init__(self, corpora: Iterable[Corpus], name: str):
    self._corpora = tuple(corpora)
    self.name = name
    self.lengths = np.concatenate([corpus.lengths for corpus in self._corpora])
    self._ends = np.cumsum([len(corpus) for corpus in self._corpora])
    self.fingerprint = hashlib.sha256('\n'.join(corpus.fingerprint for corpus in self._corpora).encode()).hexdigest()
    wholes = [corpus.whole for corpus in self._corpora]
    self.whole = None if None in wholes else sum(wholes)
    self.notes = tuple(note for corpus in self._corpora for note in corpus.notes)

  @property
  def parts(self) -> tuple[Corpus, ...]:
    return tuple(part for corpus in self._corpora for part in corpus.parts)

  def read(self, document: int, start: int, stop: int) -> bytes:
    if not -len(self) <= document < len(self):
      raise IndexError(f'document {document} of a corpus of {len(self)}')
    document %= len(self)
    part = int(np.searchsorted(self._ends, document, 'right'))
    return self._corpora[part].read(document - (int(self._ends[part - 1]) if part else 0), start, stop)


class Group(Protocol):
  """Documents of a source that can be read on their own, again and again, in any process: one file, one package.

  key: changes when the documents may have changed (path, size and time of a file; name and digest of a package).
  Iteration yields the documents in an order that never changes; a bad one raises ValueError, an unreadable file
  OSError, each with one sentence that names it.
  """

  key: str

  def __iter__(self) -> Iterator[bytes]: ...
