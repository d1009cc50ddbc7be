"""The compressed text storage of the package bible-kjv: windows of 64 KiB, each packed by the LZW of Unix compress."""

import itertools
import struct

_CLEAR = 256


def decompress_text_storage(content: bytes) -> bytes:
  """The text of a file of the Text Storage Library of bible-kjv.

  The head is 'EC02Compressed Data File' and zeros up to byte 84, then big endian the size of a window, the number of
  windows, their positions and the end of the last one; the first window carries the three bytes of `compress`.

  Raises:
    ValueError: other content.
  """
  if not content.startswith(b'EC02Compressed Data File') or len(content) < 92:
    raise ValueError('the text of the Bible is packed in another way than in the pinned version')
  _, count = struct.unpack_from('>II', content, 84)
  ends = struct.unpack_from(f'>{count + 1}I', content, 92)
  return b''.join(decompress(content[start:end]) for start, end in itertools.pairwise(ends))


def decompress(data: bytes, largest: int = 16) -> bytes:
  """LZW as `compress` writes it, after its header: block mode, codes from 9 to `largest` bits, low bit first."""
  table = [bytes([byte]) for byte in range(256)] + [b'']  # entry 256 is the code that clears the table
  pieces, previous = [], b''
  width, position, run = 9, 0, 0  # bits; `run` is where codes of this width began

  while position + width <= 8 * len(data):
    first = position >> 3
    code = int.from_bytes(data[first : first + 4], 'little') >> (position & 7) & (1 << width) - 1
    position += width
    if code == _CLEAR:
      del table[_CLEAR + 1 :]
      previous = b''
    else:
      if code > len(table) or (code == len(table) and not previous):
        raise ValueError('the compressed text has a code that its table lacks')
      entry = table[code] if code < len(table) else previous + previous[:1]
      pieces.append(entry)
      if previous and len(table) < 1 << largest:
        table.append(previous + entry[:1])
      previous = entry
    if code == _CLEAR or (len(table) == 1 << width and width < largest):
      # Codes are written in groups of eight of one width, and the rest of a group is skipped.
      position = run + -(-(position - run) // (8 * width)) * 8 * width
      run = position
      width = 9 if code == _CLEAR else width + 1
  return b''.join(pieces)
