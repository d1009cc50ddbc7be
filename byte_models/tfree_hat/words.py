"""Where the words of packed rows are, and from which byte on the vector of a word may be used.

Whether a byte begins a word depends on the whole character that it begins: 'a\\xa0b' and 'aµb' share two bytes, and the
second is a new word in the first text only. The published model gives a word's bytes the vector of the words before it
from the first byte on, so that what predicts the second byte of a character has seen that character: its loss is not a
code length. Delivery 'causal' waits for the character's last byte, and the bytes before it keep the vector before.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from layers import segments
from layers.chunks import Level, Segments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WordSegments(Segments):
  """The bytes of rows cut into words. delivered_BxL: the word whose vector each byte gets, 0 in padding."""

  delivered_BxL: Array


def locate(
  bytes_BxL: Array, segment_ids_BxL: Array, word_starts_BxL: Array, delivery: str, capacity: int | None = None
) -> WordSegments:
  """Words from where they begin, at most `capacity` of a row; the first position of a document always begins one."""
  level = Level.of_bytes(segment_ids_BxL, {})
  first_BxL = segments.starts(segment_ids_BxL)
  cut = level.cut((word_starts_BxL | first_BxL) & level.valid, capacity)
  delivered_BxL = jnp.maximum(cut.index_BxC, 0)
  if delivery == 'causal':
    back_BxL = unfinished(bytes_BxL, segment_ids_BxL)
    # Where a document begins is no secret: an unfinished character there gets what its document begins with.
    back_BxL = jnp.minimum(back_BxL, segments.positions(segment_ids_BxL))
    delivered_BxL = jnp.select([back_BxL == k for k in range(4)], [_before(delivered_BxL, k) for k in range(4)])
  return WordSegments(**vars(cut), delivered_BxL=delivered_BxL)


def unfinished(bytes_BxL: Array, segment_ids_BxL: Array) -> Array:
  """How many bytes, 0 to 3, at each position end the text so far as the beginning of a character: [B, L].

  They count as long as Python's decoder waits for more: while they can become valid, and for two bytes of a surrogate.
  """
  byte = bytes_BxL.astype(jnp.int32)
  same = lambda count: _before(segment_ids_BxL, count) == segment_ids_BxL
  continues = (byte >= 0x80) & (byte <= 0xBF)
  lead, lead2 = _before(byte, 1), _before(byte, 2)
  second = continues & same(1)  # a valid second byte of a character of three or four
  second &= (lead >= 0xE0) & (lead <= 0xF4)
  second &= ~((lead == 0xE0) & (byte < 0xA0)) & ~((lead == 0xF0) & (byte < 0x90)) & ~((lead == 0xF4) & (byte > 0x8F))
  third = continues & same(2) & _before(second, 1) & (lead2 >= 0xF0)
  first = (byte >= 0xC2) & (byte <= 0xF4)
  return jnp.select([first, second, third], [1, 2, 3], 0) * (segment_ids_BxL > 0)


def _before(values_BxL: Array, count: int) -> Array:
  """The value `count` positions earlier, 0 where there is none; a row may be shorter than that."""
  return jnp.pad(values_BxL, ((0, 0), (count, 0)))[:, : values_BxL.shape[1]]
