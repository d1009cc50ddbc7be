"""The preparation of a directory in two passes: a scan of all documents, then shards; see `text.prepare`."""

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from text import paths, prepared
from text.corpus import Group
from text.prepare import shards
from text.prepare.assignment import SPLITS, ByHash, ByPosition
from text.prepare.shards import PARTIAL, Scan, Task
from text.prepare.tasks import cut_digests, divide, make_tasks
from text.prepare.workers import Workers
from text.prepare.writer import finish
from text.remarks import Remarks

SHARD_BYTES = 64_000_000
# Keys of corpus.json: what was asked for, and what came out.
REQUESTED = {'format', 'name', 'version', 'source', 'split_rule', 'shard_bytes'}
DERIVED = {'documents', 'bytes', 'duplicates', 'empty', 'cut', 'sha256', 'splits', 'metadata_sha256'}
Progress = Callable[[str, int, int, int, int], None]


def prepare(
  groups: Sequence[Group] | Mapping[str, Sequence[Group]],
  out: str | os.PathLike,
  *,
  source: str,
  name: str | None = None,
  splits: ByHash | ByPosition | None = None,
  metadata: Mapping[str, Any] | None = None,
  processes: int = 1,
  shard_bytes: int = SHARD_BYTES,
  report: Callable[[str], None] = lambda line: None,
  progress: Progress = lambda stage, documents, size, done, total: None,
) -> dict[str, Any]:
  """Prepares the documents of some groups in the directory `out` and returns its metadata, as in corpus.json.

  groups: one list, divided by `splits` (None: ByHash()), or split name -> list, where `splits` is None.
  source: what the metadata call the origin.
  name: 'NAME' or 'NAME/CONFIG' for tensorflow_datasets; None: the last part of `out` that is not a version. A last part
    like 1.2.0 is the version, else it is 1.0.0. For tfds.data_source(name, data_dir=ROOT), `out` must be
    ROOT/NAME[/CONFIG]/1.0.0.
  metadata: JSON data (licence, notes, ...) that is stored as it is; 'kind' may name another kind than 'text'.
  processes: 1 works in this process, more are spawned: a script then needs `if __name__ == '__main__':`.
  shard_bytes: about how much text one file holds; also the unit of work that a kill loses.
  report: receives sentences for people. progress: receives stage ('reading' or 'writing'), documents and bytes of text
    in this stage so far, and jobs or shards done and in all.

  Raises, with one sentence, ValueError for arguments and documents, OSError for files. Where `out` is complete with the
  same source and settings nothing is done (whether the source changed since is not known); another one is refused.
  """
  out = paths.of(out, 'out', text=True).absolute()
  request = _request(groups, out, source, name, splits, metadata, shard_bytes)
  if processes < 1:
    raise ValueError(f'processes={processes} must be at least 1')
  with _locked(out):
    if (complete := _begin(out, request)) is not None:
      report(f"'{out}' is complete: nothing to do")
      return complete
    with Workers(processes) as workers:
      given_G, groups = _flatten(groups)
      scan = _scan(out, groups, workers, report, progress)
      splits = None if given_G is not None else splits or ByHash()
      pieces, found = divide(scan, given_G, splits, source, report)
      cut = cut_digests(pieces, scan, groups)
      tasks = list(make_tasks(out, request['name'], groups, scan, pieces, cut, shard_bytes))
      _write(out, tasks, workers, report, progress)
    return finish(out, request, found, [shard for task in tasks for shard in task.shards], report)


# --- settings


def _request(groups, out, source, name, splits, metadata, shard_bytes) -> dict[str, Any]:
  """What the caller wants, as it will stand in corpus.json: a directory is complete, or goes on, for the same only."""
  if isinstance(groups, Mapping):
    if splits is not None:
      raise ValueError('groups that name their splits cannot be split again: leave out splits')
    if unknown := set(groups) - set(SPLITS):
      raise ValueError(f"split '{sorted(unknown)[0]}' is not known: use {', '.join(SPLITS)}")
    rule = {'by': 'given'}
  else:
    rule = (splits or ByHash()).describe()
  if shard_bytes < 1:
    raise ValueError(f'shard_bytes={shard_bytes} must be at least 1')
  parts = out.parts
  version = parts[-1] if re.fullmatch(r'\d+\.\d+\.\d+', parts[-1]) else None
  if name is None:
    name = parts[-2 if version else -1]
  if not re.fullmatch(r'[A-Za-z]\w*(/[\w.+-]+)?', name, re.ASCII):
    raise ValueError(f"'{name}' cannot be the name of a data set: give a name of letters, digits and underscores")
  if taken := (REQUESTED | DERIVED) & set(metadata or {}):
    raise ValueError(f"metadata cannot have the key '{sorted(taken)[0]}': prepare sets it")
  request = {
    'format': prepared.FORMAT,
    'kind': 'text',
    **dict(metadata or {}),
    'name': name,
    'version': version or '1.0.0',
    'source': source,
    'split_rule': rule,
    'shard_bytes': shard_bytes,
  }
  return json.loads(json.dumps(request))  # as it comes back from the file


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
  """The directory, made if need be, for this process alone."""
  try:
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
  except OSError as error:
    raise OSError(f"the directory '{out}' cannot be made ({error.strerror}): choose another place") from error
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise BlockingIOError(f"another process is preparing '{out}': wait for it or choose another place") from error
    yield
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _begin(out: Path, request: dict[str, Any]) -> dict[str, Any] | None:
  """The metadata of a directory that is complete; else makes PARTIAL, or takes up that of an earlier run."""
  partial = out / PARTIAL
  if (out / prepared.METADATA).exists():
    metadata = prepared.read_metadata(out)
    known = {key: value for key, value in metadata.items() if key not in DERIVED}
    _refuse_other(out, 'complete', known, request)
    shutil.rmtree(partial, ignore_errors=True)
    return metadata
  if not partial.exists():
    if any(out.iterdir()):
      raise FileExistsError(f"the directory '{out}' is not empty: choose another place")
    try:
      partial.mkdir()
    except OSError as error:
      raise OSError(f"'{out}' cannot be written in ({error.strerror}): choose another place") from error
  if (partial / 'request.json').exists():
    _refuse_other(out, 'unfinished', json.loads((partial / 'request.json').read_bytes()), request)
  for path in partial.iterdir():
    if path.suffix not in ('.json', '.npy', '.npz'):  # files that a killed process left half written
      path.unlink()
  with shards.written(partial / 'request.json') as file:
    file.write(json.dumps(request).encode())
  return None


def _refuse_other(out: Path, state: str, known: dict[str, Any], request: dict[str, Any]) -> None:
  for key in sorted(known.keys() | request.keys()):
    if known.get(key) != request.get(key):
      raise ValueError(
        f"'{out}' holds the {state} preparation with {key}={known.get(key)!r}, not {request.get(key)!r}: choose "
        'another place, or delete it'
      )


# --- first pass


def _flatten(groups) -> tuple[np.ndarray | None, list[Group]]:
  """[G], the split of each group where they are given, and all groups."""
  if not isinstance(groups, Mapping):
    return None, list(groups)
  lists = [list(groups.get(split, ())) for split in SPLITS]
  return np.repeat(np.arange(len(SPLITS), dtype=np.int8), [len(part) for part in lists]), list(itertools.chain(*lists))


def _scan(out: Path, groups: list[Group], workers: Workers, report, progress) -> Scan:
  # Some groups at once: a corpus may be a hundred thousand small files. Not by processes, which may change on a rerun.
  several = min(256, -(-len(groups) // 256)) or 1
  batches = [groups[first : first + several] for first in range(0, len(groups), several)]
  paths = [shards.scan_path(out, batch) for batch in batches]
  missing = [batch for path, batch in zip(paths, batches, strict=True) if not path.exists()]
  if len(missing) < len(batches):
    report(f'{len(batches) - len(missing)} of {len(batches)} parts of the source were read before')
  documents = size = 0
  progress('reading', 0, 0, 0, len(missing))
  results = workers.run(shards.scan, ((out, batch) for batch in missing), len(missing))
  for done, (more_documents, more_bytes) in enumerate(results, 1):
    documents, size = documents + more_documents, size + more_bytes
    progress('reading', documents, size, done, len(missing))
  scans = [shards.read_scan(path) for path in paths]
  passed_over = Remarks()
  for part in scans:
    for what, (count, first) in part.remarks.found.items():
      passed_over.add(what, first, count)
  for said in passed_over.sentences():
    report(said)
  if not scans:
    return Scan(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, shards.DIGEST), np.uint8))
  names = ('counts', 'lengths_N', 'digests_Nx32')
  return Scan(*(np.concatenate([getattr(scan, name) for scan in scans]) for name in names))


# --- second pass


def _write(out: Path, tasks: list[Task], workers: Workers, report, progress) -> None:
  total = sum(len(task.shards) for task in tasks)
  jobs = []
  for task in tasks:
    missing = [shard for shard in task.shards if shards.finished(out, shard) is None]
    if missing:
      jobs.append(Task(task.directory, task.groups, task.scan, missing))
  done = already = total - sum(len(job.shards) for job in jobs)
  if already:
    report(f'{already} of {total} shards were finished before')
  expected = {shard.file for task in tasks for shard in task.shards}
  for path in out.iterdir():  # of an unfinished run on a source that has changed since
    if re.search(r'\.array_record-\d+-of-\d+$|^(lengths|offsets)-\w+\.npy$', path.name) and path.name not in expected:
      path.unlink()
  documents = size = 0
  progress('writing', 0, 0, done, total)
  for more_documents, more_bytes, more_shards in workers.run(shards.write, jobs, len(jobs)):
    documents, size, done = documents + more_documents, size + more_bytes, done + more_shards
    progress('writing', documents, size, done, total)
