"""What is inside data files: .gz and .zst unpacked, and the documents of JSON lines and Parquet."""

import contextlib
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from text.remarks import remark

# Many documents a file, the text in a field; a .json is text where no field is named.
LINES = ('.jsonl', '.ndjson', '.json')
KINDS = (*LINES, '.parquet')
MOST_UNPACKED = 200  # times the size of a packed file or a Parquet file, beyond
FREE_UNPACKED = 100_000_000  # bytes, which any may have: a few bytes of .zst can stand for gigabytes
BATCH_ROWS = 1024  # of a Parquet file, decoded at a time, at most
BATCH_BYTES = 2**30  # that these may be, if each were as large as a column can make it
TEXT_TYPES = ('string', 'large_string', 'string_view', 'binary', 'large_binary', 'binary_view')  # of Arrow
_BOM = b'\xef\xbb\xbf'


def suffix(path: str) -> str:
  """The suffix that tells the format, lower case; that of what is inside for .gz and .zst."""
  return Path(path[: len(path) - len(_packing(path))]).suffix.lower()


def _packing(path: str) -> str:
  return next((ending for ending in ('.gz', '.zst') if path.lower().endswith(ending)), '')


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
  """A `with` block in which what goes wrong with a file is an OSError with one sentence that names it."""
  try:
    yield
  except (OSError, EOFError, zlib.error) as error:
    reason = str(getattr(error, 'strerror', None) or error).replace('\n', ' ')
    raise OSError(f"data file '{path}' cannot be read ({reason}): repair it or leave it out of the glob") from error


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
  """The content of a file, unpacked; ValueError where that is more than its size can honestly hold."""
  with named(path), open(path, 'rb') as file:
    if _packing(path) == '.zst':
      import pyarrow  # its stream, unlike that of `zstandard`, tells a cut file from a whole one

      with pyarrow.input_stream(file, compression='zstd') as stream:
        yield io.BufferedReader(_Unpacked(stream, path), 1 << 20)
    elif _packing(path):
      with gzip.open(file, 'rb') as stream:
        yield io.BufferedReader(_Unpacked(stream, path), 1 << 20)
    else:
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


def documents(path: str, field: str) -> Iterator[bytes]:
  """The documents of a file of one of KINDS, whose text is in `field`: a key or column, 'a.b' inside another one.

  Raises ValueError or OSError, with one sentence that names file and place. Lines without a character are passed over,
  with a remark.
  """
  return _parquet(path, field) if suffix(path) == '.parquet' else _lines(path, field)


# --- JSON lines


def _lines(path: str, field: str) -> Iterator[bytes]:
  keys = {json.dumps(key, ensure_ascii=False).encode() for key in (field, *field.split('.'))}
  with opened(path) as file:
    for number, line in enumerate(file, 1):
      place = f'{path}:{number}'
      if not line.strip() or (number == 1 and not line.removeprefix(_BOM).strip()):
        remark('empty lines passed over', place)
        continue
      try:
        record = json.loads(line)
      except (ValueError, RecursionError) as error:  # invalid UTF-8 is a ValueError too
        raise ValueError(f'{place} {_complaint(line, number, path, error)}') from error
      if number == 1 and isinstance(record, list) and all(isinstance(item, dict) for item in record):
        raise ValueError(f'{place} {_complaint(line, number, path, None)}')
      value = _value(record, field, place)
      if not isinstance(value, str):
        kind = 'empty (null)' if value is None else f'{type(value).__name__}, not a string'
        raise ValueError(f"{place}: field '{field}' is {kind}: name another field, or correct or remove the line")
      if any(line.count(key) > 1 for key in keys) and _is_given_twice(line, field):
        remark(f"lines that give the field '{field}' twice, of which the last counts", place)
      yield value.encode('utf-8', 'surrogatepass')  # JSON may hold half a surrogate pair; nothing is lost


def _complaint(line: bytes, number: int, path: str, error: Exception | None) -> str:
  """What is wrong with a line that is no record."""
  start = line.removeprefix(_BOM).strip()[:1]
  is_array = start == b'[' and not isinstance(error, RecursionError)
  if number == 1 and (is_array or (start == b'{' and _goes_on(line))):
    kind, query = ('array', '.[]') if is_array else ('object over several lines', '.')
    return f"begins one JSON {kind}, not one record a line: rewrite the file, e.g. with `jq -c '{query}' {path}`"
  if line.startswith((b'\xff\xfe', b'\xfe\xff')):
    return 'is in UTF-16: write the file in UTF-8, as JSON is'
  if b'\0' in line:
    return 'has NUL bytes, as a crash leaves them: write the file again, or remove the line'
  return f'is not JSON ({error}): correct or remove the line'


def _goes_on(line: bytes) -> bool:
  """Whether JSON is whole up to the end of a line and not complete."""
  text = line.decode('utf-8-sig', 'replace').rstrip()
  try:
    json.loads(text)
  except json.JSONDecodeError as error:
    return error.pos >= len(text)
  except (ValueError, RecursionError):  # a number of thousands of digits
    pass
  return False


def _value(record: Any, field: str, place: str) -> Any:
  if isinstance(record, dict) and field in record:
    return record[field]
  value = record
  for key in field.split('.'):
    if not isinstance(value, dict) or key not in value:
      found = ', '.join(record) if isinstance(record, dict) else type(record).__name__
      raise ValueError(f"{place} has no field '{field}' (it has: {found:.200}): name another field or correct the line")
    value = value[key]
  return value


def _is_given_twice(line: bytes, field: str) -> bool:
  """Whether an object on the way to the field has the same key twice."""
  wanted, twice = {field, *field.split('.')}, []

  def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in items if key in wanted]
    twice.extend(keys if len(set(keys)) < len(keys) else ())
    return dict(items)

  json.loads(line, object_pairs_hook=pairs)
  return bool(twice)


# --- Parquet


def _parquet(path: str, field: str) -> Iterator[bytes]:
  import pyarrow
  import pyarrow.compute
  import pyarrow.parquet

  with opened(path) as file:
    try:
      table = pyarrow.parquet.ParquetFile(io.BytesIO(file.read()) if _packing(path) else file)
      if not table.metadata.num_rows:
        return  # also where a writer of an empty shard left out its columns, or their types
      column, inside, kind = _column(table.schema_arrow, path, field)
      is_shared = pyarrow.types.is_dictionary(kind)  # values that stand once, and numbers of them in the rows
      if not any(getattr(pyarrow.types, f'is_{name}')(kind.value_type if is_shared else kind) for name in TEXT_TYPES):
        raise ValueError(f"data file '{path}': column '{field}' is {kind}, not text: name another column")
      sizes = [table.metadata.row_group(index).total_byte_size for index in range(table.num_row_groups)]
      _refuse_bomb(path, sum(sizes))
      # A value that stands in the file once may be that of every row.
      longest = max(1, *sizes, min(MOST_UNPACKED * os.path.getsize(path), FREE_UNPACKED))
      plain = pyarrow.large_binary()
      wanted = pyarrow.dictionary(kind.index_type, plain) if is_shared else plain
      number = size = 0
      for batch in table.iter_batches(max(1, min(BATCH_ROWS, BATCH_BYTES // longest)), columns=[field]):
        values = batch.column(column)
        for scalar in (pyarrow.compute.struct_field(values, inside) if inside else values).cast(wanted):
          number += 1
          value = scalar.as_py()
          if value is None:
            raise ValueError(
              f"data file '{path}': column '{field}' is empty (null) in row {number}: name another column or fill it"
            )
          size += len(value)
          if size > FREE_UNPACKED:
            _refuse_bomb(path, size)
          yield value
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:  # the latter for names of columns
      if isinstance(error, OSError):
        raise
      raise ValueError(f"data file '{path}' is not Parquet ({error}): repair it or leave it out") from error


def _column(schema: Any, path: str, field: str) -> tuple[str, list[str], Any]:
  """(name of the column, names of fields inside it, type of the text)."""
  import pyarrow

  column, *inside = [field] if field in schema.names else field.split('.')
  if schema.names.count(column) > 1:
    raise ValueError(f"data file '{path}' has several columns '{column}': rename them")
  kind = schema.field(column).type if column in schema.names else None
  for name in inside:
    is_there = kind is not None and pyarrow.types.is_struct(kind) and kind.get_field_index(name) >= 0
    kind = kind.field(name).type if is_there else None
  if kind is None:
    raise ValueError(
      f"data file '{path}' has no column '{field}' (it has: {', '.join(_names(schema)):.200}): name another column"
    )
  return column, inside, kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind


def _names(fields: Any) -> Iterator[str]:
  """Names of the columns of a schema; fields inside a struct as 'a.b'."""
  import pyarrow

  for field in fields:
    if pyarrow.types.is_struct(field.type):
      yield from (f'{field.name}.{name}' for name in _names(field.type))
    else:
      yield field.name
