"""What every tokenizer is to the rest of the code: ids for any bytes, and the bytes of every id."""

import functools
from collections.abc import Sequence

import numpy as np


class Tokenizer:
  """Ids whose bytes, laid end to end, are the document, whatever its bytes. A subclass has `_cut`.

  name: its kind. path: where it was read from. digest: hex, of what decides the encoding. vocabulary: the bytes of
  every id, b'' for a special token, which no text gives. stock: whether a tokenizer.json says all of it.
  """

  stock = False

  def __init__(self, name: str, path: str, digest: str, vocabulary: Sequence[bytes]):
    self.name, self.path, self.digest, self.vocabulary = name, path, digest, tuple(vocabulary)

  def __repr__(self) -> str:
    return f'Tokenizer({self.name!r}, {self.path!r}, {len(self.vocabulary):,} ids, digest={self.digest!r})'

  def __reduce__(self):
    from text.tokenizers.loading import load

    return load, (self.path, self.digest)

  def encode(self, document: bytes) -> np.ndarray:
    """Its ids, int32. Raises ValueError for bytes that it has no token for, and text that it would change."""
    return np.asarray(self._cut(document)[0], np.int32)

  def decode(self, ids: Sequence[int]) -> bytes:
    """The bytes of ids; special tokens have none. Raises ValueError for an id that is not there."""
    ids = np.asarray(ids, np.int64).ravel()
    if ids.size and not 0 <= ids.min() <= ids.max() < len(self.vocabulary):
      raise ValueError(f"tokenizer '{self.path}': ids are from 0 to {len(self.vocabulary) - 1}, not {ids.max()}")
    return b''.join(map(self.vocabulary.__getitem__, ids.tolist()))

  def pretokens(self, document: bytes) -> np.ndarray | None:
    """Where it cuts before it makes tokens, as ends in bytes, int64 and rising: no token reaches over one. None where
    it has no such rule. Raises as `encode`.
    """
    ends = self._cut(document, True)[1]
    return None if ends is None else np.asarray(ends, np.int64)

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """Bytes of every id, int32; 0 for special tokens."""
    return np.fromiter(map(len, self.vocabulary), np.int32, len(self.vocabulary))

  @functools.cached_property
  def missing(self) -> tuple[int, ...]:
    """Bytes that no token is: a document with one that stands in no other token cannot be encoded."""
    return tuple(sorted(set(range(256)) - {token[0] for token in self.vocabulary if len(token) == 1}))

  def _cut(self, document: bytes, with_ends: bool = False) -> tuple[Sequence[int], Sequence[int] | None]:
    """(ids, ends of pretokens; without them as it likes)."""
    raise NotImplementedError
