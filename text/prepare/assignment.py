"""Which documents stay, in which split, and in which shard: arrays over all documents of a corpus, no bytes of text.

N: documents as read; G: groups; P: pieces that are written (the documents that stay; one that a border between splits
cuts is several pieces).
"""

import dataclasses
import math

import numpy as np

SPLITS = ('train', 'validation', 'test')
TRAIN, VALIDATION, TEST = range(3)


@dataclasses.dataclass(frozen=True)
class Pieces:
  """In the order of the documents; all arrays are [P]. splits: index into SPLITS."""

  documents: np.ndarray
  starts: np.ndarray
  lengths: np.ndarray
  splits: np.ndarray

  def __len__(self) -> int:
    return len(self.documents)


@dataclasses.dataclass(frozen=True)
class _Shares:
  validation: float = 0.05
  test: float = 0.05

  def __post_init__(self):
    if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
      raise ValueError(
        f'the shares validation={self.validation} and test={self.test} must be at least 0 and together below 1: '
        'train is what they leave'
      )


@dataclasses.dataclass(frozen=True)
class ByHash(_Shares):
  """The SHA-256 of a document decides: the same text is in the same split in every corpus, whatever stands beside it.

  Its first 8 bytes, as a big-endian fraction of 2^64: below `validation`, then below `validation + test`, else train.
  """

  def pieces(self, kept: np.ndarray, lengths_N: np.ndarray, digests_Nx32: np.ndarray) -> Pieces:
    """kept: [K], the documents that stay, in order."""
    keys_K = np.ascontiguousarray(digests_Nx32[kept, :8]).view('>u8')[:, 0].astype(np.uint64)
    splits_K = np.full(len(kept), TRAIN, np.int8)
    splits_K[keys_K < np.uint64(math.ceil((self.validation + self.test) * 2**64))] = TEST
    splits_K[keys_K < np.uint64(math.ceil(self.validation * 2**64))] = VALIDATION
    return Pieces(kept, np.zeros(len(kept), np.int64), lengths_N[kept], splits_K)

  def describe(self) -> dict:
    return {'by': 'hash', **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class ByPosition(_Shares):
  """The place in the whole text decides, counted in bytes: train, then validation, then test; borders cut documents."""

  def pieces(self, kept: np.ndarray, lengths_N: np.ndarray, digests_Nx32: np.ndarray) -> Pieces:
    """kept: [K], the documents that stay, in order."""
    ends_K = np.cumsum(lengths_N[kept])
    origins_K = ends_K - lengths_N[kept]
    total = int(ends_K[-1])
    test_start = total - round(total * self.test)
    borders = np.array([max(0, test_start - round(total * self.validation)), test_start])
    inside = borders[(borders > 0) & (borders < total)]
    places_P = np.union1d(origins_K, inside)
    owners_P = np.searchsorted(origins_K, places_P, 'right') - 1
    splits_P = np.searchsorted(borders, places_P, 'right').astype(np.int8)
    lengths_P = np.diff(places_P, append=total)
    return Pieces(kept[owners_P], places_P - origins_K[owners_P], lengths_P, splits_P)

  def describe(self) -> dict:
    return {'by': 'position', **dataclasses.asdict(self)}


def given(kept: np.ndarray, lengths_N: np.ndarray, splits_N: np.ndarray) -> Pieces:
  """Pieces of documents [K] whose splits are known."""
  return Pieces(kept, np.zeros(len(kept), np.int64), lengths_N[kept], splits_N[kept])


def first_of_equals(digests_Nx32: np.ndarray, splits_N: np.ndarray | None = None) -> np.ndarray:
  """[N] bool: True for the one document that stays of those with the same digest.

  The first in order; where splits are given, the first of test, else of validation, else of train, so that nothing
  that is held out is also trained on.
  """
  words_Nx4 = digests_Nx32.view(np.uint64)
  rank = [] if splits_N is None else [-splits_N]
  order = np.lexsort((*rank, *words_Nx4.T))  # stable: equal ones stay in the order of the documents
  is_first = np.ones(len(order), bool)
  is_first[1:] = (words_Nx4[order[1:]] != words_Nx4[order[:-1]]).any(1)
  stays = np.zeros(len(order), bool)
  stays[order[is_first]] = True
  return stays


def tasks(kept_lengths_N: np.ndarray, counts_G: np.ndarray, shard_bytes: int) -> np.ndarray:
  """[G]: the task of each group: runs of consecutive groups of about shard_bytes of text that stays.

  kept_lengths_N: 0 for what is dropped. counts_G: documents per group.
  """
  before_N = np.concatenate([[0], np.cumsum(kept_lengths_N)])
  return before_N[np.cumsum(counts_G) - counts_G] // shard_bytes


def shards(pieces: Pieces, tasks_P: np.ndarray, shard_bytes: int) -> tuple[np.ndarray, list[int]]:
  """[P], the shard of each piece, counted within its split from 0 without gaps, and the number of shards per split.

  A shard holds consecutive pieces of one split and one task, about shard_bytes of text or, where the task has less of
  that split, less.
  """
  numbers_P, totals = np.zeros(len(pieces), np.int64), []
  for split in range(len(SPLITS)):
    chosen = np.flatnonzero(pieces.splits == split)
    if not len(chosen):
      totals.append(0)
      continue
    _, first, task = np.unique(tasks_P[chosen], return_index=True, return_inverse=True)  # tasks rise with the pieces
    before = np.cumsum(pieces.lengths[chosen]) - pieces.lengths[chosen]
    size = np.add.reduceat(pieces.lengths[chosen], first)
    parts = np.maximum(1, np.round(size / shard_bytes)).astype(np.int64)
    part = (before - before[first][task]) // -(-size // parts)[task]  # equal parts of the task
    changes = (np.diff(task) != 0) | (np.diff(part) != 0)
    numbers_P[chosen] = np.concatenate([[0], np.cumsum(changes)])
    totals.append(int(numbers_P[chosen[-1]]) + 1)
  return numbers_P, totals
