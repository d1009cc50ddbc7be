"""What two texts have in common: a longest common subsequence, by bits of whole rows at once.

Row i of the table of lengths is one integer, bit j of which is 0 where b's character j makes the subsequence longer; a
row follows from the one before in four operations on integers (Hyyrö 2004, "Bit-parallel LCS-length computation
revisited"). Tables too large to be kept are cut in two at a row by Hirschberg's method (1975, CACM 18:6).
"""

from collections.abc import Iterator

import numpy as np

_LARGEST = 2**27  # bits of a table that is kept


def common(a_N: np.ndarray, b_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(places in a, places in b) of a longest common subsequence of two arrays of integers: int64 [K], both rising."""
  found_a, found_b, waiting = [], [], [(0, len(a_N), 0, len(b_M))]
  while waiting:
    first, last, begin, end = waiting.pop()
    a, b = a_N[first:last], b_M[begin:end]
    if not len(a) or not len(b):
      continue
    if len(a) == 1 or len(a) * len(b) <= _LARGEST:
      pairs = _traced(a, b)
      found_a += [first + i for i, _ in pairs]
      found_b += [begin + j for _, j in pairs]
    else:
      middle = len(a) // 2
      before, behind = _lengths(a[:middle], b), _lengths(a[: middle - 1 : -1], b[::-1])[::-1]
      cut = int(np.argmax(before + behind))
      waiting += [(first + middle, last, begin + cut, end), (first, first + middle, begin, begin + cut)]
  return np.array(found_a, np.int64), np.array(found_b, np.int64)


def _rows(a: np.ndarray, b: np.ndarray) -> Iterator[int]:
  """The row behind each of a."""
  everything = (1 << len(b)) - 1
  places = {
    value: int.from_bytes(np.packbits(b == value, bitorder='little').tobytes(), 'little') for value in np.unique(a)
  }
  row = everything
  for value in a.tolist():
    met = row & places[value]
    row = ((row + met) | (row - met)) & everything
    yield row


def _lengths(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Of a longest common subsequence of a and each beginning of b: int64 [len(b) + 1]."""
  for row in _rows(a, b):
    last = row
  bits = np.frombuffer(last.to_bytes(-(-len(b) // 8), 'little'), np.uint8)
  return np.append(0, np.cumsum(np.unpackbits(bits, count=len(b), bitorder='little') == 0))


def _traced(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int]]:
  """The pairs of places, from a table that is kept."""
  rows, pairs = [(1 << len(b)) - 1, *_rows(a, b)], []
  i, j = len(a), len(b)
  while i and j:
    bit = 1 << (j - 1)
    if rows[i] & bit:  # b's last adds nothing
      j -= 1
    elif rows[i - 1] & bit:  # it does with a's last only
      i, j = i - 1, j - 1
      pairs.append((i, j))
    else:
      i -= 1
  return pairs[::-1]
