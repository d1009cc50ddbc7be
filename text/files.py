"""The source `files:GLOB[#field][,GLOB...][@all]`: text files, JSON lines and Parquet, also compressed."""

import contextlib
import dataclasses
import glob
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from text import paths
from text.corpus import MemoryCorpus
from text.splitting import is_chosen

VALIDATION = 0.05  # of the documents
RECORDS = ('.jsonl', '.parquet')  # many documents a file, the text in a field
NOT_TEXT = ('.zip', '.tar', '.tgz', '.bz2', '.xz', '.npy', '.npz', '.array_record', '.tfrecord')
MOST_UNPACKED = 200  # times the size of a packed file or a Parquet file, beyond
FREE_UNPACKED = 100_000_000  # bytes, which any may have: a few bytes of .zst can stand for gigabytes
BATCH_ROWS = 1024  # of a Parquet file, decoded at a time, at most
BATCH_BYTES = 2**30  # that these may be, if each were as large as a column can make it


@dataclasses.dataclass(frozen=True)
class FileGroup:
  """The documents of one file; an empty one is b''. field: where the text is in a record, '' for files that are text.

  key: path, size and time of the last change.
  """

  path: str
  field: str
  key: str

  @classmethod
  def of(cls, path: str, field: str) -> 'FileGroup':
    with _named(path):
      status = os.stat(path)
    return cls(path, field, f'{path}#{field} {status.st_size} {status.st_mtime_ns}')

  def __iter__(self) -> Iterator[bytes]:
    if _suffix(self.path) in NOT_TEXT:
      raise ValueError(
        f"data file '{self.path}' is an archive or an array, not text: unpack it (only .gz and .zst are read packed)"
      )
    if _suffix(self.path) not in RECORDS:
      with _opened(self.path) as file:
        yield file.read()
      return
    if not self.field:
      raise ValueError(f"data file '{self.path}' needs the field that holds the text: write 'files:GLOB#field'")
    is_empty = True
    for document in _jsonl(self) if _suffix(self.path) == '.jsonl' else _parquet(self):
      is_empty = False
      yield document
    if is_empty:
      raise ValueError(f"data file '{self.path}' has no line: remove it or leave it out of the glob")


@dataclasses.dataclass(frozen=True)
class Files:
  """Files by name. Split by the SHA-256 of each document, the same whatever file it stands in; or, with @all, not."""

  spec: str

  def open(self, split: str) -> MemoryCorpus:
    """The documents of one split; raises ValueError or OSError as `groups` and for an empty document or split."""
    spec, is_whole = self.spec.removesuffix('@all'), self.spec.endswith('@all')
    if split == 'test' and not is_whole:
      raise ValueError(
        f"data source 'files:{self.spec}' has no test split: name files of their own, as 'files:GLOB@all', or prepare "
        'them (python -m text.prepare), which makes one'
      )
    documents, total = [], 0
    for group in _groups(spec):
      for number, document in enumerate(group, 1):
        if not document:
          raise ValueError(
            f"data file '{group.path}': document {number} is a document of zero bytes: remove it, or prepare the files "
            '(python -m text.prepare), which leaves such out and counts them'
          )
        total += 1
        if is_whole or is_chosen(document, VALIDATION) == (split == 'validation'):
          documents.append(document)
    if not documents:
      raise ValueError(
        f"the split by hash of data source 'files:{self.spec}' leaves no document for '{split}' (it has {total} in "
        "all): give separate files for training and validation, each as 'files:GLOB@all'"
      )
    return MemoryCorpus(documents, name=f'files:{self.spec} ({split})', split=split)

  def groups(self) -> list[FileGroup]:
    """One group per file, in the order of their paths. Raises ValueError or OSError: a glob without files, a directory,
    a field that no file has.
    """
    return _groups(self.spec.removesuffix('@all'))


def _groups(spec: str) -> list[FileGroup]:
  fields: dict[str, str] = {}  # a file that two globs name is read once
  for part in spec.split(','):
    pattern, _, field = part.partition('#')
    matches = _match(pattern)
    records = [path for path in matches if _suffix(path) in RECORDS]
    if field and not records:
      raise ValueError(
        f"data source '{part}' names the field '{field}', but '{pattern}' matches no .jsonl or .parquet file"
      )
    fields.update((path, field if path in records else '') for path in matches)
  return [FileGroup.of(path, fields[path]) for path in sorted(fields)]


def _match(pattern: str) -> list[str]:
  matches = glob.glob(paths.expanded(pattern, 'data glob'), recursive=True)
  folders = [path for path in matches if os.path.isdir(path)]
  files = [path for path in matches if not os.path.isdir(path)]
  # `**` matches directories and what is in them; another glob would leave out the files of a directory that it matches
  if folders and ('**' not in pattern or not files):
    folder = folders[0].rstrip('/')
    raise IsADirectoryError(
      f"data glob '{pattern}' matches the directory '{folder}': write '{folder}/*.txt' or '{folder}/**/*' for its files"
    )
  if not files:
    raise FileNotFoundError(f"data glob '{pattern}' matches no file (working directory {os.getcwd()}): check the path")
  return files


def _packing(path: str) -> str:
  return next((ending for ending in ('.gz', '.zst') if path.lower().endswith(ending)), '')


def _suffix(path: str) -> str:
  """The suffix that tells the format, lower case; that of what is inside for .gz and .zst."""
  return Path(path[: len(path) - len(_packing(path))]).suffix.lower()


@contextlib.contextmanager
def _named(path: str):
  try:
    yield
  except (OSError, EOFError, zlib.error) as error:
    reason = str(getattr(error, 'strerror', None) or error).replace('\n', ' ')
    raise OSError(f"data file '{path}' cannot be read ({reason}): repair it or leave it out of the glob") from error


@contextlib.contextmanager
def _opened(path: str):
  with _named(path):
    if _packing(path) == '.zst':
      import pyarrow  # its stream, unlike that of `zstandard`, tells a cut file from a whole one

      with open(path, 'rb') as packed, pyarrow.input_stream(packed, compression='zstd') as stream:  # of any name
        yield io.BufferedReader(_Unpacked(stream, path), 1 << 20)
    elif _packing(path):
      with gzip.open(path, 'rb') as stream:
        yield io.BufferedReader(_Unpacked(stream, path), 1 << 20)
    else:
      with open(path, 'rb') as file:
        yield file


class _Unpacked(io.RawIOBase):
  """A stream that ends with a ValueError where it gives more than its file can honestly hold."""

  def __init__(self, stream, path: str):
    self._stream, self._path, self._given = stream, path, 0

  def readable(self) -> bool:
    return True

  def readinto(self, buffer) -> int:
    data = self._stream.read(len(buffer))
    buffer[: len(data)] = data
    self._given += len(data)
    _refuse_bomb(self._path, self._given)
    return len(data)


def _refuse_bomb(path: str, unpacked: int) -> None:
  if unpacked > max(FREE_UNPACKED, MOST_UNPACKED * os.path.getsize(path)):
    raise ValueError(
      f"data file '{path}' unpacks to more than {MOST_UNPACKED} times its size: if that is right, unpack it "
      'yourself, a Parquet file into JSON lines'
    )


def _jsonl(group: FileGroup) -> Iterator[bytes]:
  with _opened(group.path) as file:
    for number, line in enumerate(file, 1):
      place = f'{group.path}:{number}'
      try:
        record = json.loads(line)
      except (ValueError, RecursionError) as error:  # invalid UTF-8 is a ValueError too
        raise ValueError(f'{place} is not JSON ({error}): correct or remove the line') from error
      if not isinstance(record, dict) or group.field not in record:
        found = ', '.join(record) if isinstance(record, dict) else type(record).__name__
        raise ValueError(
          f"{place} has no field '{group.field}' (it has: {found:.200}): name another field or correct the line"
        )
      if (kind := type(record[group.field]).__name__) != 'str':
        raise ValueError(
          f"{place}: field '{group.field}' is {kind}, not a string: name another field or correct the line"
        )
      yield record[group.field].encode('utf-8', 'surrogatepass')  # JSON may hold half a surrogate pair; nothing is lost


def _parquet(group: FileGroup) -> Iterator[bytes]:
  import pyarrow
  import pyarrow.parquet

  with _opened(group.path) as file:
    try:
      source = io.BytesIO(file.read()) if _packing(group.path) else file
      table = pyarrow.parquet.ParquetFile(source)
      if group.field not in table.schema_arrow.names:
        raise ValueError(
          f"data file '{group.path}' has no column '{group.field}' (it has: "
          f'{", ".join(table.schema_arrow.names):.200}): name another column'
        )
      if table.schema_arrow.names.count(group.field) > 1:
        raise ValueError(f"data file '{group.path}' has several columns '{group.field}': rename them")
      kind = table.schema_arrow.field(group.field).type
      is_shared = pyarrow.types.is_dictionary(kind)  # values that stand once, and numbers of them in the rows
      if not any(check(kind.value_type if is_shared else kind) for check in _TEXT_COLUMNS):
        raise ValueError(f"data file '{group.path}': column '{group.field}' is {kind}, not text: name another column")
      sizes = [table.metadata.row_group(index).total_byte_size for index in range(table.num_row_groups)]
      _refuse_bomb(group.path, sum(sizes))
      # A value that stands in the file once may be that of every row.
      longest = max(1, *sizes, min(MOST_UNPACKED * os.path.getsize(group.path), FREE_UNPACKED))
      plain = pyarrow.large_binary()
      wanted = pyarrow.dictionary(kind.index_type, plain) if is_shared else plain
      number = size = 0
      for batch in table.iter_batches(max(1, min(BATCH_ROWS, BATCH_BYTES // longest)), columns=[group.field]):
        for scalar in batch.column(0).cast(wanted):
          number += 1
          value = scalar.as_py()
          if value is None:
            raise ValueError(
              f"data file '{group.path}': column '{group.field}' is empty (null) in row {number}: name another column "
              'or fill it'
            )
          size += len(value)
          if size > FREE_UNPACKED:
            _refuse_bomb(group.path, size)
          yield value
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:  # the latter for names of columns
      if isinstance(error, OSError):
        raise
      raise ValueError(f"data file '{group.path}' is not Parquet ({error}): repair it or leave it out") from error


def _type_check(name: str):
  def check(kind) -> bool:
    import pyarrow.types

    return getattr(pyarrow.types, name)(kind)

  return check


_TEXT_COLUMNS = tuple(_type_check(f'is_{name}') for name in ('string', 'large_string', 'binary', 'large_binary'))
