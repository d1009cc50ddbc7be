"""The work of preparing that runs in worker processes: reading groups for their digests, and writing shards.

What is finished lies in PARTIAL of the directory that is prepared, so that a killed preparation does it only once.
N: documents.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from text import array_record
from text.corpus import Group
from text.remarks import Remarks, collected

PARTIAL = '.partial'  # in the directory that is being prepared
DIGEST = 32  # bytes of a SHA-256


@dataclasses.dataclass(frozen=True)
class Scan:
  """What is known of the documents of some groups. counts: [G] documents per group; lengths_N; digests_Nx32 uint8.
  remarks: on what was passed over.
  """

  counts: np.ndarray
  lengths_N: np.ndarray
  digests_Nx32: np.ndarray
  remarks: Remarks = dataclasses.field(default_factory=Remarks)


@dataclasses.dataclass(frozen=True)
class Shard:
  """A file to write: its pieces in order, a piece being bytes [start, start + length) of a document of the task."""

  file: str
  documents_N: np.ndarray
  starts_N: np.ndarray
  lengths_N: np.ndarray
  digests_Nx32: np.ndarray

  def key(self) -> str:
    """Tells the content of the file."""
    return hashlib.sha256(self.digests_Nx32.tobytes()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Task:
  """Groups to read once, and the shards to write from them."""

  directory: Path
  groups: list[Group]
  scan: Scan
  shards: list[Shard]


# --- first pass


def scan_path(directory: Path, groups: list[Group]) -> Path:
  """Where the scan of these groups is kept; the name changes with their keys."""
  keys = json.dumps([group.key for group in groups])
  return directory / PARTIAL / f'scan-{hashlib.sha256(keys.encode()).hexdigest()}.npz'


def scan(job: tuple[Path, list[Group]]) -> tuple[int, int]:
  """Keeps length and SHA-256 of every document of some groups on disk; returns the numbers of documents and bytes."""
  directory, groups = job
  counts, lengths, digests = [], [], bytearray()
  with collected() as remarks:
    for group in groups:
      before = len(lengths)
      for document in group:
        if len(document) > array_record.LONGEST_DOCUMENT:
          raise ValueError(
            f"document {len(lengths) - before} of '{group.key}' has {len(document)} bytes, a record at most "
            f'{array_record.LONGEST_DOCUMENT}: cut it into several documents'
          )
        lengths.append(len(document))
        digests += hashlib.sha256(document).digest()
      counts.append(len(lengths) - before)
  path = scan_path(directory, groups)
  with written(path) as file:
    np.savez(
      file,
      counts=np.array(counts),
      lengths=np.array(lengths, np.int64),
      digests=np.frombuffer(digests, np.uint8),
      remarks=np.array(json.dumps(remarks.found)),
    )
  return len(lengths), sum(lengths)


def read_scan(path: Path) -> Scan:
  """What `scan` kept."""
  with np.load(path) as arrays:
    found = json.loads(str(arrays['remarks'])) if 'remarks' in arrays else {}
    remarks = Remarks({what: tuple(counted) for what, counted in found.items()})
    return Scan(arrays['counts'], arrays['lengths'], arrays['digests'].reshape(-1, DIGEST), remarks)


# --- second pass


def sidecar_path(directory: Path, file: str) -> Path:
  """What is known of a finished shard, as JSON; the offsets of its texts lie beside it as .npy."""
  return directory / PARTIAL / f'{file}.json'


def finished(directory: Path, shard: Shard) -> dict | None:
  """The sidecar of a shard that an earlier run finished with the same content, else None."""
  try:
    sidecar = json.loads(sidecar_path(directory, shard.file).read_bytes())
    size = (directory / shard.file).stat().st_size
  except FileNotFoundError:
    return None
  return sidecar if (sidecar['key'], sidecar['size']) == (shard.key(), size) else None


def write(task: Task) -> tuple[int, int, int]:
  """Writes, verifies and names the shards of a task; returns the numbers of documents, bytes and shards written.

  Raises ValueError where a group gives other documents than when it was scanned, OSError for a file that cannot be
  written or does not hold what was written.
  """
  shards = np.repeat(np.arange(len(task.shards)), [len(shard.lengths_N) for shard in task.shards])
  documents, starts, lengths = (
    np.concatenate([getattr(shard, name) for shard in task.shards]) for name in ('documents_N', 'starts_N', 'lengths_N')
  )
  digests = b''.join(shard.digests_Nx32.tobytes() for shard in task.shards)
  order = np.lexsort((starts, documents))  # as the groups give them: shards of several splits are written side by side
  pending = zip(
    *(column[order].tolist() for column in (documents, starts, lengths, shards)), order.tolist(), strict=True
  )
  remaining = [len(shard.lengths_N) for shard in task.shards]
  writers: dict[int, _Writer] = {}
  wanted = next(pending)
  try:
    for index, (group, document) in enumerate(_documents(task)):
      while wanted and wanted[0] == index:
        _, start, length, shard, place = wanted
        piece = document if length == len(document) else document[start : start + length]
        if hashlib.sha256(piece).digest() != digests[place * DIGEST : (place + 1) * DIGEST]:
          raise _changed(group)
        if shard not in writers:
          writers[shard] = _Writer(task.directory, task.shards[shard])
        writers[shard].add(piece)
        remaining[shard] -= 1
        if not remaining[shard]:
          writers[shard].finish()
          del writers[shard]
        wanted = next(pending, None)
  finally:
    for writer in writers.values():  # none but after an error: room for others
      writer.discard()
  return len(lengths), int(lengths.sum()), len(task.shards)


def _documents(task: Task) -> Iterator[tuple[Group, bytes]]:
  """The documents of the groups of a task, as many and as long as they were."""
  lengths = iter(task.scan.lengths_N.tolist())
  for group, count in zip(task.groups, task.scan.counts.tolist(), strict=True):
    for document, length in itertools.zip_longest(group, itertools.islice(lengths, count)):
      if document is None or len(document) != length:
        raise _changed(group)
      yield group, document


def _changed(group: Group) -> ValueError:
  return ValueError(
    f"'{group.key}' gives other documents than a moment ago: type the command again when nothing writes to it any more"
  )


class _Writer:
  """One shard, written under another name until it is known to hold what it should."""

  def __init__(self, directory: Path, shard: Shard):
    from array_record.python.array_record_module import ArrayRecordWriter

    self._directory, self._shard = directory, shard
    self._path = directory / PARTIAL / f'{shard.file}.{os.getpid()}'
    try:
      self._writer = ArrayRecordWriter(str(self._path), array_record.OPTIONS)
    except RuntimeError as error:  # what the library raises for a full disk and everything else
      raise self._failure(error) from error

  def add(self, text: bytes) -> None:
    try:
      self._writer.write(array_record.example(text))
    except RuntimeError as error:
      raise self._failure(error) from error

  def finish(self) -> None:
    """Verifies the file and gives it its name."""
    shard, directory = self._shard, self._directory
    try:
      self._writer.close()
    except RuntimeError as error:
      raise self._failure(error) from error
    with open(self._path, 'r+b') as file:
      offsets_N = self._verified_offsets(file)
      os.fsync(file.fileno())
      file.seek(0)
      sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
    size = self._path.stat().st_size
    sidecar = {'key': shard.key(), 'size': size, 'sha256': sha256}
    path = sidecar_path(directory, shard.file)
    with written(path.with_suffix('.npy')) as file:
      np.save(file, offsets_N)
    os.replace(self._path, directory / shard.file)
    with written(path) as file:
      file.write(json.dumps(sidecar).encode())

  def discard(self) -> None:
    """Removes what is not finished."""
    self._path.unlink(missing_ok=True)

  def _verified_offsets(self, file) -> np.ndarray:
    try:
      with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        lengths = self._shard.lengths_N.tolist()
        offsets_N = array_record.text_offsets(buffer, lengths)
        for offset, length, digest in zip(offsets_N.tolist(), lengths, self._shard.digests_Nx32, strict=True):
          if hashlib.sha256(array_record.read_at(buffer, offset, length)).digest() != digest.tobytes():
            raise ValueError(f'another text at offset {offset}')
    except ValueError as error:  # also of mmap, for an empty file
      raise self._failure(f'what was written reads back as {error}; a full disk, or another layout') from error
    return offsets_N

  def _failure(self, reason: object) -> OSError:
    return OSError(
      f"shard '{self._shard.file}' cannot be written in '{self._directory}' ({reason}): finished shards stay; "
      'make room and type the same command again to go on'
    )


@contextlib.contextmanager
def written(path: Path):
  """A file for writing that has its name only when it is whole and on the disk; OSError with one sentence otherwise."""
  temporary = path.with_name(f'{path.name}.{os.getpid()}')
  try:
    with open(temporary, 'wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except OSError as error:
    temporary.unlink(missing_ok=True)
    raise OSError(
      f"'{path}' cannot be written ({error.strerror or error}): what is finished stays; make room and type the same "
      'command again to go on'
    ) from error
