"""Where a document lies in an ArrayRecord file, so that any part of it can be read without a decoder.

An ArrayRecord file is a Riegeli file (github.com/google/riegeli, doc/riegeli_records_file_format.md): blocks of 64 KiB,
each beginning with a block header of 24 bytes that interrupts whatever is being stored. Between these headers stand
chunks: a chunk header of 40 bytes (hash 8, size of the data 8, hash of the data 8, chunk type 1, number of records 7,
decoded size 8; little-endian), then the data. Written with OPTIONS, every record is a chunk of its own, uncompressed,
at the end of its data; the record is a tf.train.Example whose only feature is 'text', at the end of the record. So the
text is the tail of the chunk. Whoever writes a file checks it with `text_offsets`: nothing here is taken on trust.

An offset is a position that does not count the block headers.
"""

import functools
from collections.abc import Iterable

import numpy as np

OPTIONS = 'group_size:1,uncompressed'
BLOCK_BYTES = 65_536
BLOCK_HEADER = 24
USABLE_BYTES = BLOCK_BYTES - BLOCK_HEADER
CHUNK_HEADER = 40
LONGEST_DOCUMENT = 2**31 - 64  # a protocol buffer holds less than 2 GiB


def example(text: bytes) -> bytes:
  """The tf.train.Example {'text': text}, as the serialize_example of tfds.features.FeaturesDict writes it."""
  return _prefix(len(text)) + text


@functools.lru_cache(100_000)
def _prefix(size: int) -> bytes:
  prefix = b''
  # From the inside: BytesList.value, Feature.bytes_list, entry of the map (key 'text', value), Features, Example.
  for tag in (b'\n', b'\n', b'\n\x04text\x12', b'\n', b'\n'):
    prefix = tag + _varint(len(prefix) + size) + prefix
  return prefix


def _varint(number: int) -> bytes:
  groups = bytearray()
  while number > 127:
    groups.append(number & 127 | 128)
    number >>= 7
  groups.append(number)
  return bytes(groups)


def read_at(buffer, offset: int, size: int) -> bytes:
  """`size` bytes from an offset of a file (bytes or mmap); fewer where the file ends before."""
  block, within = divmod(offset, USABLE_BYTES)
  start = offset + BLOCK_HEADER * (block + 1)
  if within + size <= USABLE_BYTES:
    return buffer[start : start + size]
  parts = []
  while size > 0:
    part = min(size, USABLE_BYTES - within)
    parts.append(buffer[start : start + part])
    start, within, size = start + part + BLOCK_HEADER, 0, size - part
  return b''.join(parts)


def text_offsets(buffer, lengths: Iterable[int]) -> np.ndarray:
  """[N] int64: the offset of every text of a file, whose first N records are texts of these lengths.

  Raises ValueError where the file is shorter or laid out otherwise.
  """
  offset, offsets = _chunk_end(buffer, 0, b's', 0), []  # the signature at the beginning
  for length in lengths:
    offset = _chunk_end(buffer, offset, b'r', 1)
    offsets.append(offset - length)
  return np.array(offsets, np.int64)


def _chunk_end(buffer, offset: int, chunk_type: bytes, records: int) -> int:
  header = read_at(buffer, offset, CHUNK_HEADER)
  if header[24:25] != chunk_type or int.from_bytes(header[25:32], 'little') != records:
    raise ValueError(f'no chunk of type {chunk_type.decode()} with {records} records at offset {offset}')
  return offset + CHUNK_HEADER + int.from_bytes(header[8:16], 'little')
