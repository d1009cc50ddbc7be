"""Between the two passes of preparing: from what was read, what every task is to write.

N: documents as read; G: groups; P: pieces that are written (see text.prepare.assignment).
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from text.corpus import Group
from text.prepare import assignment
from text.prepare.assignment import SPLITS, ByHash, ByPosition, Pieces
from text.prepare.shards import Scan, Shard, Task


def divide(
  scan: Scan,
  given_G: np.ndarray | None,
  splits: ByHash | ByPosition | None,
  source: str,
  report: Callable[[str], None],
) -> tuple[Pieces, dict[str, Any]]:
  """The pieces to write, and what was found and dropped, as it stands in corpus.json.

  given_G: index into SPLITS of every group, or None where `splits` decides. Raises ValueError where nothing is left.
  """
  given_N = None if given_G is None else np.repeat(given_G, scan.counts)
  filled_N = scan.lengths_N > 0
  first_N = assignment.first_of_equals(scan.digests_Nx32, given_N)
  kept = np.flatnonzero(filled_N & first_N)
  repeated_N = filled_N & ~first_N
  duplicates = {'documents': int(repeated_N.sum()), 'bytes': int(scan.lengths_N[repeated_N].sum())}
  empty = int((~filled_N).sum())
  if not len(kept):
    raise ValueError(
      f"'{source}' has no document with a byte in it (documents read: {len(filled_N)}): check the source"
    )
  if given_N is None:
    pieces = splits.pieces(kept, scan.lengths_N, scan.digests_Nx32)
  else:
    pieces = assignment.given(kept, scan.lengths_N, given_N)
  cut = len(np.unique(pieces.documents[pieces.lengths != scan.lengths_N[pieces.documents]]))
  report(
    f'{len(filled_N):,} documents read, {duplicates["documents"]:,} of them exact duplicates ({duplicates["bytes"]:,} '
    f'bytes) and {empty:,} empty: these are dropped' + (f'; {cut} cut by a border between splits' if cut else '')
  )
  totals = {'documents': len(pieces), 'bytes': int(pieces.lengths.sum())}
  return pieces, {**totals, 'duplicates': duplicates, 'empty': empty, 'cut': cut}


def cut_digests(pieces: Pieces, scan: Scan, groups: list[Group]) -> dict[int, bytes]:
  """Piece -> SHA-256, for the few pieces that are not whole documents: these are read once more."""
  ends_G = np.cumsum(scan.counts)
  digests = {}
  for piece in np.flatnonzero(pieces.lengths != scan.lengths_N[pieces.documents]).tolist():
    document, start = int(pieces.documents[piece]), int(pieces.starts[piece])
    group = int(np.searchsorted(ends_G, document, 'right'))
    place = document - int(ends_G[group] - scan.counts[group])
    text = next(itertools.islice(groups[group], place, None), b'')
    digests[piece] = hashlib.sha256(text[start : start + int(pieces.lengths[piece])]).digest()
  return digests


def make_tasks(
  out: Path, name: str, groups: list[Group], scan: Scan, pieces: Pieces, cut: dict[int, bytes], shard_bytes: int
) -> Iterator[Task]:
  """In the order of the documents; the shards of a split are numbered in this order."""
  starts_G = np.cumsum(scan.counts) - scan.counts
  kept_lengths_N = np.zeros(len(scan.lengths_N), np.int64)
  np.add.at(kept_lengths_N, pieces.documents, pieces.lengths)
  tasks_G = assignment.tasks(kept_lengths_N, scan.counts, shard_bytes)
  tasks_P = np.repeat(tasks_G, scan.counts)[pieces.documents]
  numbers_P, totals = assignment.shards(pieces, tasks_P, shard_bytes)
  starts = np.flatnonzero(np.diff(tasks_P, prepend=-1))
  for first, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(pieces)], strict=True):
    first_group, stop_group = (
      np.searchsorted(tasks_G, tasks_P[first], 'left'),
      np.searchsorted(tasks_G, tasks_P[first], 'right'),
    )
    origin = int(starts_G[first_group])
    end = int(starts_G[stop_group - 1] + scan.counts[stop_group - 1])
    part = Scan(scan.counts[first_group:stop_group], scan.lengths_N[origin:end], scan.digests_Nx32[origin:end])
    files = []
    for split, total in enumerate(totals):
      chosen = first + np.flatnonzero(pieces.splits[first:stop] == split)
      for number in np.unique(numbers_P[chosen]).tolist():
        places = chosen[numbers_P[chosen] == number]
        digests = scan.digests_Nx32[pieces.documents[places]]
        for index in np.flatnonzero(np.isin(places, list(cut))).tolist():
          digests[index] = np.frombuffer(cut[int(places[index])], np.uint8)
        file = f'{name.partition("/")[0]}-{SPLITS[split]}.array_record-{number:05}-of-{total:05}'
        files.append(
          Shard(file, pieces.documents[places] - origin, pieces.starts[places], pieces.lengths[places], digests)
        )
    yield Task(out, groups[first_group:stop_group], part, files)
