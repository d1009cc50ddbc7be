"""What every model reads: rows of bytes with documents told apart by segment ids. B: rows, L: positions of a row."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Symbols that begin and end documents; neither occurs in UTF-8.
BOS = 254
EOS = 255


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
  """Rows of bytes, on the host (numpy) or on devices (jax); a pytree.

  bytes: [B, L] uint8; where a BOS or EOS belongs it stands here, models add nothing.
  segment_ids: [B, L] int32; the documents of a row are 1, 2, 3, ... from the left, 0 is padding, at the right only.
  marks: [B, L] each, what the host knows of a byte beside its value, by the names that a model has for them in its
  attribute `marks`; see text.marks.
  specials: [B, L] bool, True where a BOS or EOS stands and not a byte of raw text with that value: a document that a
  row cuts may end there with a byte 255, or go on in the next row behind a byte 254. None where nobody says it: then
  the first position of a segment with BOS's value and the last one with EOS's are taken for these.
  bags: [B, L, S] uint8 where a position is several bytes, of which `bytes` has the first; None: it is one. Models whose
  attribute `superposes` is True read them as the mean of their embeddings.
  """

  bytes: jax.Array | np.ndarray
  segment_ids: jax.Array | np.ndarray
  marks: dict[str, jax.Array | np.ndarray] = dataclasses.field(default_factory=dict)
  specials: jax.Array | np.ndarray | None = None
  bags: jax.Array | np.ndarray | None = None

  @classmethod
  def of(cls, rows: Sequence[bytes], length: int | None = None) -> 'Batch':
    """One row per item with exactly its bytes, segment id 1, padded at the right to `length` or to the longest item.

    Raises ValueError for no rows, for one bare bytes or str object, and for an item longer than `length`.
    """
    if isinstance(rows, (bytes, bytearray, str)) or not len(rows):
      raise ValueError(f'Batch.of needs a list of at least one bytes object, not {rows!r:.80}: write [b"..."]')
    longest = max(len(row) for row in rows)
    length = longest if length is None else length
    if longest > length:
      raise ValueError(f'Batch.of got a row of {longest} bytes for length={length}: cut the row or raise the length')
    bytes_BxL = np.zeros((len(rows), length), np.uint8)
    segment_ids_BxL = np.zeros((len(rows), length), np.int32)
    for index, row in enumerate(rows):
      bytes_BxL[index, : len(row)] = np.frombuffer(row, np.uint8)
      segment_ids_BxL[index, : len(row)] = 1
    return cls(bytes_BxL, segment_ids_BxL)

  @classmethod
  def begun(cls, documents: Sequence[bytes], length: int | None = None) -> 'Batch':
    """As `of`, with each document behind a BOS and without an end, whatever its last byte is: more may follow."""
    batch = cls.of([bytes([BOS]) + document for document in documents], length)
    specials_BxL = np.zeros(batch.bytes.shape, bool)
    specials_BxL[:, 0] = True
    return dataclasses.replace(batch, specials=specials_BxL)

  def up_to(self, length_B: jax.Array | np.ndarray) -> 'Batch':
    """The first so many symbols of every row as the beginning of one document, whose end is not seen: a prompt."""
    index_1xL = jnp.arange(self.bytes.shape[1])[None]
    # A last byte of EOS's value is one like others: more may follow it.
    specials_BxL = (index_1xL == 0) & (jnp.asarray(self.bytes) == BOS)
    segment_ids_BxL = (index_1xL < jnp.asarray(length_B)[:, None]).astype(jnp.int32)
    return dataclasses.replace(self, segment_ids=segment_ids_BxL, specials=specials_BxL)

  @property
  def scored(self) -> jax.Array | np.ndarray:
    """[B, L] bool: in the same segment as the position before. The first position of a segment is only context."""
    return self._pad(self._same, left=1) & (self.segment_ids != 0)

  @property
  def ends(self) -> jax.Array | np.ndarray:
    """[B, L] bool: the last position of its segment."""
    return ~self._pad(self._same, right=1) & (self.segment_ids != 0)

  @property
  def bos(self) -> jax.Array | np.ndarray:
    """[B, L] bool: where documents begin, before their first byte."""
    begins = ~self._pad(self._same, left=1) & (self.segment_ids != 0)
    return (self.bytes == BOS) & (begins if self.specials is None else self.specials)

  @property
  def eos(self) -> jax.Array | np.ndarray:
    """[B, L] bool: where documents end, behind their last byte."""
    return (self.bytes == EOS) & (self.ends if self.specials is None else self.specials)

  def text_and_ends(self, scored: jax.Array | np.ndarray | None = None) -> tuple[Any, Any]:
    """Two [B, L] bool: where a byte of text stands and where a document ends, of the scored positions or of these.

    Bits per byte are those of the first; ends of documents are told apart from a raw byte 255 as in `eos`.
    """
    scored, eos = self.scored if scored is None else scored, self.eos
    return scored & ~eos, scored & eos

  @property
  def _same(self):
    return self.segment_ids[:, 1:] == self.segment_ids[:, :-1]

  def _pad(self, mask, left: int = 0, right: int = 0):
    array_module = np if isinstance(mask, np.ndarray) else jnp  # a host batch must not be moved to a device
    return array_module.pad(mask, ((0, 0), (left, right)))
