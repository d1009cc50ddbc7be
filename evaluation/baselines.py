"""What a trained model is compared with on the same bytes: general compressors and byte Markov models."""

import gzip
import lzma
from collections.abc import Iterable, Sequence

import numpy as np

from text import BOS


def compressed_bits_per_byte(documents: Sequence[bytes]) -> dict[str, float]:
  """Bits per byte of the documents, concatenated without separators, under `gzip -9` and `xz -9` (file headers
  included).

  Raises ValueError if the documents hold no byte.
  """
  data = b''.join(documents)
  if not data:
    raise ValueError('there is nothing to compress: the documents hold no byte')
  sizes = {'gzip -9': len(gzip.compress(data, 9, mtime=0)), 'xz -9': len(lzma.compress(data, preset=9))}
  return {name: 8 * size / len(data) for name, size in sizes.items()}


def markov_bits_per_byte(
  training: Iterable[bytes], held_out: Iterable[bytes], orders: Sequence[int] = (1, 2, 3)
) -> dict[int, float]:
  """Bits per byte on `held_out` of byte Markov models counted on `training`, one per order: {order: bits per byte}.

  Interpolated Witten-Bell smoothing (the strongest of the parameter-free ones for byte counts): with n(c) the count of
  context c, d(c) the number of different bytes seen after it, and c' the context without its oldest byte,

    P(x | c) = (n(cx) + d(c) · P(x | c')) / (n(c) + d(c)),   down to the uniform 1/256 below order 0.

  Every document is on its own: before its first byte stand as many BOS as the context is long. The end of a document
  is not predicted. Raises ValueError for an order outside 1..7 and for empty training or held-out text.
  """
  if not orders or not all(1 <= order <= 7 for order in orders):
    raise ValueError(
      f'orders must be between 1 and 7 (a context and its byte are packed in 64 bits), got {list(orders)}'
    )
  counted, scored = _windows(training, max(orders)), _windows(held_out, max(orders))
  if not len(counted) or not len(scored):
    raise ValueError('a Markov model needs at least one byte of training text and one of held-out text')
  probability = np.full(len(scored), 1 / 256)
  bits = {}
  for order in range(max(orders) + 1):
    mask = np.uint64(2 ** (8 * (order + 1)) - 1)
    probability = _witten_bell(counted & mask, scored & mask, probability)
    bits[order] = -float(np.mean(np.log2(probability)))
  return {order: bits[order] for order in orders}


def _windows(documents: Iterable[bytes], order: int) -> np.ndarray:
  """Each text byte with the `order` bytes before it, uint64 [bytes]: the byte itself lowest, its context above."""
  padding = bytes([BOS]) * order
  documents = list(documents)
  stream = np.frombuffer(b''.join(padding + document for document in documents), np.uint8)
  windows = np.zeros(max(len(stream) - order, 0), np.uint64)
  for back in range(order + 1):
    windows |= stream[order - back : len(stream) - back].astype(np.uint64) << np.uint64(8 * back)
  # A window whose last byte is padding predicts nothing. By position: raw text may hold the value of BOS.
  lengths = np.array([len(document) for document in documents], np.int64)
  starts = np.cumsum(lengths + order) - (lengths + order)
  text = np.ones(len(stream), bool)
  text[(starts[:, None] + np.arange(order)).reshape(-1)] = False
  return windows[text[order:]]


def _witten_bell(counted: np.ndarray, scored: np.ndarray, backoff: np.ndarray) -> np.ndarray:
  """One level of the interpolation: probabilities [scored], from windows counted and windows to score."""
  windows, counts = np.unique(counted, return_counts=True)
  contexts = windows >> np.uint64(8)
  first = np.flatnonzero(np.append(True, contexts[1:] != contexts[:-1]))  # where the next context begins
  contexts = contexts[first]
  distinct = np.diff(first, append=len(windows))
  totals = np.add.reduceat(counts, first)
  at, known = _find(windows, scored)
  count = np.where(known, counts[at], 0)
  at, known = _find(contexts, scored >> np.uint64(8))
  smoothed = (count + distinct[at] * backoff) / (totals[at] + distinct[at])
  return np.where(known, smoothed, backoff)


def _find(table: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Where each query stands in a sorted table, and whether it is there at all."""
  at = np.minimum(np.searchsorted(table, queries), len(table) - 1)
  return at, table[at] == queries
