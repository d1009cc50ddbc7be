"""The tokens of a vocabulary in the order of their bytes, where those that begin alike stand together.

The nodes of the trie of the tokens are so intervals, and what a model gives to each child of a node and to the tokens
that end there are sums over stretches of it (as in Marathe et al., arXiv 2609.12303, whose symbols are these 257).
"""

import bisect
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

END = 256  # behind the 256 bytes: the token ends there


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
  """Tokens with a common beginning: places lo..hi - 1 of the order, of which those before `first` are no longer than it
  (several where a vocabulary has the same bytes twice). edges [258]: lo, then where the tokens that go on with byte 0,
  1, … begin, then hi.
  """

  edges: np.ndarray

  @property
  def lo(self) -> int:
    return int(self.edges[0])

  @property
  def first(self) -> int:
    return int(self.edges[1])

  @property
  def hi(self) -> int:
    return int(self.edges[-1])


class Prefixes:
  """The table of a vocabulary. `ids` [M]: the tokens in order; `spelled`: their bytes, likewise.

  vocabulary: the bytes of every id, b'' for what is no text. Of the latter only the ids `end` are in the table: they
  end a text, and stand at the root as tokens without bytes. Raises ValueError where nothing is left.
  """

  def __init__(self, vocabulary: Sequence[bytes], end: Sequence[int] = ()):
    kept = [index for index, spelled in enumerate(vocabulary) if spelled or index in set(end)]
    self.ids = np.array(sorted(kept, key=lambda index: vocabulary[index]), np.int32)
    self.spelled = [vocabulary[index] for index in self.ids]
    if not self.spelled or not self.spelled[-1]:
      raise ValueError(f'the vocabulary of {len(vocabulary)} tokens has none that spells a byte')
    self.at = functools.lru_cache(2**16)(self._at)

  def _at(self, prefix: bytes) -> Node | None:
    """The node of the tokens that begin with these bytes, None where there is none."""
    depth, begins = len(prefix), lambda token: token[: len(prefix)]
    lo, hi = (side(self.spelled, prefix, key=begins) for side in (bisect.bisect_left, bisect.bisect_right))
    if lo == hi:
      return None
    first = bisect.bisect_right(self.spelled, prefix, lo, hi)
    after = np.fromiter((token[depth] for token in self.spelled[first:hi]), np.uint8, hi - first)
    return Node(np.concatenate([[lo], first + np.searchsorted(after, np.arange(256)), [hi]]))


def bins(log_p: np.ndarray, node: Node) -> tuple[float, np.ndarray]:
  """(s, [257] float64): e^s times these is what the children of a node and, at END, the tokens equal to it have.

  log_p [hi - lo]: of the tokens of the node, in order. Sums are relative to the largest of them, so that they are exact
  where all are small; s is -inf where all are 0.
  """
  top = float(log_p.max())
  if top == -np.inf:
    return top, np.zeros(257)
  begins, sizes, sums = node.edges[:-1] - node.lo, np.diff(node.edges), np.zeros(257)
  sums[sizes > 0] = np.add.reduceat(np.exp(log_p.astype(np.float64) - top), begins[sizes > 0])
  return top, np.roll(sums, -1)
