"""Reading what `python -m text.prepare` wrote: any part of any document, at a cost that depends only on that part.

A prepared directory is a tensorflow_datasets directory: shards NAME-SPLIT.array_record-XXXXX-of-YYYYY (uncompressed,
one record per document), features.json, dataset_info.json. Beside them corpus.json says what it is and how it was made,
and lengths-SPLIT.npy and offsets-SPLIT.npy ([N] int64) say where each document lies in its shard (text.array_record).
"""

import bisect
import hashlib
import json
import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from text import paths, regular_file
from text.array_record import BLOCK_HEADER, USABLE_BYTES, read_at
from text.corpus import Corpus

METADATA = 'corpus.json'
FORMAT = 1
VERIFIED_BYTES = 4_000_000_000  # whose checksums are computed whenever a split is opened: some seconds
OPEN_SHARDS = 256  # each keeps a file descriptor, of which a process commonly has 1024


def open_prepared(directory: str | os.PathLike, split: str, kind: str = 'text') -> 'PreparedCorpus':
  """One split, 'train', 'validation' or 'test', of a prepared directory that holds this kind of data.

  Raises, with one sentence, FileNotFoundError for a directory that is not prepared or not completely, ValueError for a
  split that it does not have, for another kind and for damaged metadata, OSError for a file that is missing or has
  another size, or another SHA-256, than was recorded; SHA-256 only where the split has at most 4 GB (`python -m
  text.prepare --verify=DIR` has no limit).
  """
  directory = _given(directory)
  metadata = read_metadata(directory)
  if metadata['kind'] != kind:
    reader = 'open_prepared' if metadata['kind'] == 'text' else metadata['kind']
    raise ValueError(f"'{directory}' holds data of kind '{metadata['kind']}', not '{kind}': read it with text.{reader}")
  corpus = PreparedCorpus(directory, split, metadata)
  files = _files(metadata, split)
  _check_sizes(directory, files)
  if sum(file['size'] for file in files) <= VERIFIED_BYTES:
    _check_digests(directory, files)
    lengths, most = corpus.lengths, sum(file['size'] for file in files)
    if len(lengths) and not (lengths.min() > 0 and lengths.max() <= most):
      raise ValueError(f"'{Path(directory, index_file('lengths', split))}' has impossible lengths: {_REMEDY}")
  return corpus


def verify(directory: str | os.PathLike) -> dict[str, Any]:
  """Compares every file of a prepared directory with its recorded size and SHA-256; returns the metadata.

  Raises as `open_prepared`.
  """
  directory = _given(directory)
  metadata = read_metadata(directory)
  for split in metadata['splits']:
    _check_sizes(directory, _files(metadata, split))
    _check_digests(directory, _files(metadata, split))
  return metadata


def read_metadata(directory: str | os.PathLike) -> dict[str, Any]:
  """corpus.json of a prepared directory of any kind; raises as `open_prepared`."""
  directory = _given(directory)
  path = Path(directory, METADATA)
  regular_file.check(path, 'prepared file')
  try:
    metadata = json.loads(path.read_bytes())
  except (FileNotFoundError, NotADirectoryError) as error:
    if Path(directory, '.partial').exists():
      raise FileNotFoundError(
        f"the preparation of '{directory}' was not finished: type its command again to go on"
      ) from error
    raise FileNotFoundError(
      f"'{directory}' is not a prepared directory (it has no {METADATA}): make one with `python -m text.prepare "
      f'--source=... --out={directory}`'
    ) from error
  except (ValueError, RecursionError) as error:
    raise ValueError(f"'{path}' is not JSON ({error}): it is damaged, prepare again into another directory") from error
  if not isinstance(metadata, dict) or metadata.get('format') != FORMAT:
    raise ValueError(f'\'{path}\' does not have "format": {FORMAT}: prepare again with this version of the code')
  if metadata.get('metadata_sha256') != metadata_digest(metadata):
    raise ValueError(f"'{path}' does not fit its own SHA-256: it was changed by hand or damaged, prepare again")
  if not _is_complete(metadata):
    raise ValueError(f"'{path}' does not say what each split consists of: it was changed by hand, prepare again")
  return metadata


def _given(directory: str | os.PathLike) -> Path:
  return paths.of(directory, 'the prepared directory')


def _is_complete(metadata: dict[str, Any]) -> bool:
  """Whether all that is read of the metadata is there: whoever changes them can also make the checksum fit."""

  def is_file(file: Any) -> bool:  # beside the metadata, wherever its name comes from
    name = file.get('file') if isinstance(file, dict) else None
    is_name = isinstance(name, str) and name == os.path.basename(name) and name.strip('.') and name.isprintable()
    return bool(is_name) and isinstance(file.get('size'), int) and isinstance(file.get('sha256'), str)

  def is_split(split: Any) -> bool:
    if not isinstance(split, dict) or not all(isinstance(split.get(key), list) for key in ('index', 'shards')):
      return False
    counts = [shard.get('documents') for shard in split['shards'] if isinstance(shard, dict)]
    is_counted = all(isinstance(count, int) and 0 <= count < 2**40 for count in counts)
    return is_counted and all(map(is_file, (*split['index'], *split['shards']))) and 'fingerprint' in split

  splits = metadata.get('splits')
  is_named = all(isinstance(metadata.get(key), str) for key in ('name', 'kind'))
  return is_named and isinstance(splits, dict) and all(map(is_split, splits.values()))


def metadata_digest(metadata: dict[str, Any]) -> str:
  """SHA-256 of the metadata without its own digest."""
  rest = {key: value for key, value in metadata.items() if key != 'metadata_sha256'}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


class PreparedCorpus(Corpus):
  """One split of a prepared directory; lengths and offsets are memory-mapped, shards when they are first read.

  fingerprint: SHA-256 over the line 'SPLIT', the line with the number of documents, the lengths (little-endian int64)
  and the SHA-256 of every document in order: it depends neither on shards nor on paths.
  Pickles as its path, and refuses to come back where other text lies there by then.
  """

  def __init__(self, directory: str | os.PathLike, split: str, metadata: dict[str, Any]):
    if split not in metadata['splits']:
      there = ', '.join(f"'{name}'" for name in metadata['splits'])
      raise ValueError(f"'{directory}' has no split '{split}': it has {there}")
    self._directory, self._split = Path(directory).absolute(), split
    description = metadata['splits'][split]
    self.name = f'{metadata["name"]} ({split})'
    self.fingerprint = description['fingerprint']
    self.whole = sum(shard['documents'] for of in metadata['splits'].values() for shard in of['shards'])
    self.side = (str(self._directory), split)  # a text that stands in several splits is kept in one
    self._shards = [shard['file'] for shard in description['shards']]
    self._firsts = np.cumsum([0] + [shard['documents'] for shard in description['shards']]).tolist()
    self.lengths = self._index('lengths')
    self._offsets = self._index('offsets')
    self._length, self._offset = self.lengths.item, self._offsets.item
    self._buffers: dict[int, mmap.mmap] = {}
    self._lock = threading.Lock()

  def _index(self, kind: str) -> np.ndarray:
    path = self._directory / index_file(kind, self._split)
    regular_file.check(path, 'prepared file')
    try:
      array = np.asarray(np.load(path, mmap_mode='r'))
    except FileNotFoundError as error:
      raise FileNotFoundError(f"'{path}' is missing: {_REMEDY}") from error
    except Exception as error:  # of numpy's parser of headers, errors of many kinds
      raise ValueError(f"'{path}' is not an array ({error}): {_REMEDY}") from error
    if array.shape != (self._firsts[-1],) or array.dtype != np.int64:
      raise ValueError(f"'{path}' is {array.dtype} {array.shape}, not int64 ({self._firsts[-1]},): {_REMEDY}")
    return array

  def read(self, document: int, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a document; IndexError where the corpus or the document has no such place."""
    length = self._length(document)
    if not 0 <= start <= stop <= length:
      raise IndexError(f'bytes [{start}, {stop}) of document {document}, which has {length}')
    if document < 0:
      document += self._firsts[-1]
    shard = bisect.bisect_right(self._firsts, document) - 1
    buffer = self._buffers.get(shard) or self._open(shard)
    offset = self._offset(document) + start
    block, within = divmod(offset, USABLE_BYTES)
    if within + stop - start > USABLE_BYTES:
      content = read_at(buffer, offset, stop - start)
    else:
      offset += BLOCK_HEADER * (block + 1)  # as in read_at; a call less
      content = buffer[offset : offset + stop - start]
    if len(content) < stop - start:
      raise ValueError(f"'{self._directory / self._shards[shard]}' ends before document {document}: {_REMEDY}")
    return content

  def _open(self, shard: int) -> mmap.mmap:
    with self._lock, open(self._directory / self._shards[shard], 'rb') as file:
      while len(self._buffers) >= OPEN_SHARDS:
        self._buffers.pop(next(iter(self._buffers)))  # closed when no thread reads from it any more
      if not os.fstat(file.fileno()).st_size:
        raise ValueError(f"'{file.name}' is empty: {_REMEDY}")
      return self._buffers.setdefault(shard, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

  def __reduce__(self):
    return _reopened, (str(self._directory), self._split, self.fingerprint)


def _reopened(directory: str, split: str, fingerprint: str) -> PreparedCorpus:
  corpus = PreparedCorpus(directory, split, read_metadata(directory))
  if corpus.fingerprint != fingerprint:
    raise ValueError(f"'{directory}' was prepared anew while it was in use: start again")
  return corpus


_REMEDY = 'prepare again into another directory, or copy the file again from where it was prepared'


def index_file(kind: str, split: str) -> str:
  """Name of the file with the 'lengths' or 'offsets' of a split."""
  return f'{kind}-{split}.npy'


def describe_file(path: Path) -> dict[str, Any]:
  """What corpus.json says of any file."""
  return {'file': path.name, 'size': path.stat().st_size, 'sha256': _digest(path)}


def _files(metadata: dict[str, Any], split: str) -> list[dict[str, Any]]:
  description = metadata['splits'][split]
  return [*description['index'], *description['shards']]


def _check_sizes(directory, files: list[dict[str, Any]]) -> None:
  for file in files:
    path = Path(directory, file['file'])
    regular_file.check(path, 'prepared file')
    try:
      size = path.stat().st_size
    except FileNotFoundError as error:
      raise FileNotFoundError(f"'{path}' is missing: {_REMEDY}") from error
    if size != file['size']:
      raise OSError(f"'{path}' has {size} bytes, not {file['size']}: {_REMEDY}")


def _check_digests(directory, files: list[dict[str, Any]]) -> None:
  with ThreadPoolExecutor(os.cpu_count()) as threads:  # hashing does not hold the interpreter
    for file, digest in zip(
      files, threads.map(lambda file: _digest(Path(directory, file['file'])), files), strict=True
    ):
      if digest != file['sha256']:
        raise OSError(f"'{directory}/{file['file']}' has SHA-256 {digest}, not {file['sha256']}: {_REMEDY}")


def _digest(path: Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
