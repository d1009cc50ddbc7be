"""Where text comes from, and on which side of the train/validation split each document is."""

import contextlib
import glob
import gzip
import hashlib
import json
import os
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

SPLITS = ('train', 'validation')
FILES_VALIDATION = 0.05  # of the documents
PYTHON_VALIDATION = 0.06  # of the top-level modules and topics
# A few modules hold most bytes, so the share of bytes depends on the salt. With this one, code and topics each give
# 5.5 to 7 % of their bytes to validation in CPython 3.10 to 3.13, and with many kinds of modules (os, random, xml).
PYTHON_SALT = 188
# Tests and translation tables are not prose or programs; pydoc_data holds the topics again.
NOT_LIBRARY = {'site-packages', 'dist-packages', '__pycache__', 'test', 'tests', 'idle_test', 'encodings', 'pydoc_data'}
NOT_TEXT = ('.zip', '.tar', '.tgz', '.bz2', '.xz', '.zst', '.parquet', '.npy', '.npz')


class Corpus:
  """Documents with random access: `corpus[i]` is the bytes of document i, without BOS and EOS.

  name: for people. lengths: [N] int64, bytes per document. fingerprint: hex SHA-256 of the documents, their order and
  the split, the same on every machine; a run refuses to resume on data with another one.
  """

  def __init__(self, documents: Iterable[bytes], name: str = '', split: str = ''):
    documents = list(documents)
    self.name = name
    self.lengths = np.array([len(document) for document in documents], np.int64)
    self._buffer = b''.join(documents)
    self._offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
    digest = hashlib.sha256(f'{split}\n{len(documents)}\n'.encode())
    digest.update(self.lengths.astype('<i8').tobytes())
    digest.update(self._buffer)
    self.fingerprint = digest.hexdigest()

  def __len__(self) -> int:
    return len(self.lengths)

  def __getitem__(self, document: int) -> bytes:
    return self.read(document, 0, int(self.lengths[document]))

  def read(self, document: int, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a document: a row needs a few hundred bytes of what may be one huge file."""
    if not -len(self) <= document < len(self):
      raise IndexError(f'document {document} of a corpus of {len(self)}')
    offset = int(self._offsets[document % len(self)])
    return self._buffer[offset + start : offset + stop]


def open_corpus(source: str, split: str) -> Corpus:
  """Opens one split, 'train' or 'validation', of a source.

  python_docs           the language reference topics (pydoc) and the standard library's .py files of this Python,
                        split by topic or top-level module.
  files:GLOB[#field]    .jsonl: one document per line, the text in `field`; any other file is one document; each also
                        as .gz; bytes are bytes, in any encoding. Globs are as in Python's glob (`**` goes into
                        directories), several are separated by commas. Split by the SHA-256 of the document.
  ...@all               after either: no split, every document is in the split that is asked for.

  Raises ValueError, or OSError for files, with one sentence: unknown source or split, a glob without files, a
  directory, an unreadable file, an empty document, a bad jsonl line, a split without documents.
  """
  if split not in SPLITS:
    raise ValueError(f"split '{split}' is not known: use 'train' or 'validation'")
  base = source.removesuffix('@all')
  is_whole = base != source
  if base == 'python_docs':
    labelled = list(_python_docs())
  elif base.startswith('files:'):
    labelled = list(_files(base.removeprefix('files:')))
  else:
    raise ValueError(
      f"data source '{source}' is not known: use 'python_docs' or 'files:GLOB', e.g. 'files:books/*.txt'"
    )
  documents = [document for is_validation, document in labelled if is_whole or is_validation == (split == 'validation')]
  if not documents:
    raise ValueError(
      f"the split by hash of data source '{source}' leaves no document for '{split}' (it has {len(labelled)} in all): "
      "give separate files for training and validation, each as 'files:GLOB@all'"
    )
  return Corpus(documents, name=f'{source} ({split})', split=split)


def _chosen(key: bytes, share: float) -> bool:
  """True for about `share` of all keys, the same ones on every machine."""
  return int.from_bytes(hashlib.sha256(key).digest()[:8], 'big') < share * 2**64


# --- python_docs


def _python_docs() -> Iterator[tuple[bool, bytes]]:
  remedy = "use a complete CPython, or your own text with data.source='files:GLOB'"
  library = Path(sysconfig.get_paths()['stdlib'])
  files = []
  for folder, subfolders, names in os.walk(library):
    subfolders[:] = [name for name in subfolders if name not in NOT_LIBRARY]
    files += [Path(folder, name).relative_to(library) for name in names if name.endswith('.py')]
  files = sorted((path for path in files if not _is_build_record(path)), key=Path.as_posix)
  if len(files) < 100:
    raise FileNotFoundError(
      f'python_docs needs the standard library as .py files, but {library} has only {len(files)}: {remedy}'
    )
  try:
    from pydoc_data.topics import topics
  except ImportError:
    topics = {}
  if not topics:
    raise FileNotFoundError(f'python_docs needs the module pydoc_data.topics, which this Python lacks: {remedy}')
  groups = _topic_groups(topics)
  for topic in sorted(topics):
    yield _python_validation(f'topic {groups[topic]}'), topics[topic].encode('utf-8')
  for path in files:
    with _opened(str(library / path)) as file:
      document = file.read()
    if document:  # an __init__.py without content is no document
      yield _python_validation(path.parts[0].removesuffix('.py')), document


def _python_validation(group: str) -> bool:
  return _chosen(f'{PYTHON_SALT}/{group}'.encode(), PYTHON_VALIDATION)


def _is_build_record(path: Path) -> bool:
  """Files written when this Python was built (config-3.x-PLATFORM/, _sysconfigdata_*): they differ by machine."""
  return path.parts[0].startswith(('config-', '_sysconfigdata'))


def _topic_groups(topics: dict[str, str]) -> dict[str, str]:
  """Topic -> first name of its group: topics that share a long line are one group, on one side of the split.

  'if' is also a section of 'compound': split by their names, a half of the validation topics stood in training.
  """
  group = {topic: topic for topic in topics}
  owner: dict[str, str] = {}
  for topic in sorted(topics):
    for line in topics[topic].split('\n'):
      if len(line) > 50:  # a sentence, not 'See also:'
        first, second = sorted((group[owner.setdefault(line, topic)], group[topic]))
        if first != second:
          group = {name: first if root == second else root for name, root in group.items()}
  return group


# --- files


def _files(spec: str) -> Iterator[tuple[bool, bytes]]:
  fields: dict[str, str] = {}  # path -> jsonl field; a file that two globs name is read once
  for part in spec.split(','):
    pattern, _, field = part.partition('#')
    matches = _match(pattern)
    if field and not any(_is_jsonl(path) for path in matches):
      raise ValueError(f"data source '{part}' names the field '{field}', but '{pattern}' matches no .jsonl file")
    fields.update((path, field) for path in matches)
  for path in sorted(fields):
    for document in _jsonl(path, fields[path]) if _is_jsonl(path) else _whole(path):
      yield _chosen(document, FILES_VALIDATION), document


def _match(pattern: str) -> list[str]:
  matches = glob.glob(os.path.expanduser(pattern), recursive=True)
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


def _suffix(path: str) -> str:
  """The suffix that tells the format, lower case; that of what is inside for .gz."""
  return Path(path[:-3] if _is_gzip(path) else path).suffix.lower()


def _is_gzip(path: str) -> bool:
  return path.lower().endswith('.gz')


def _is_jsonl(path: str) -> bool:
  return _suffix(path) == '.jsonl'


@contextlib.contextmanager
def _opened(path: str):
  try:
    with gzip.open(path, 'rb') if _is_gzip(path) else open(path, 'rb') as file:
      yield file
  except (OSError, EOFError, zlib.error) as error:
    reason = getattr(error, 'strerror', None) or error
    raise OSError(f"data file '{path}' cannot be read ({reason}): repair it or leave it out of the glob") from error


def _whole(path: str) -> Iterator[bytes]:
  if _suffix(path) in NOT_TEXT:
    raise ValueError(f"data file '{path}' is an archive or an array, not text: unpack it (only .gz is read packed)")
  with _opened(path) as file:
    document = file.read()
  if not document:
    raise ValueError(f"data file '{path}' is a document of zero bytes: remove it or leave it out of the glob")
  yield document


def _jsonl(path: str, field: str) -> Iterator[bytes]:
  if not field:
    raise ValueError(f"data file '{path}' needs the field that holds the text: write 'files:GLOB#field'")
  number = 0
  with _opened(path) as file:
    for number, line in enumerate(file, 1):
      yield _json_text(line, field, f'{path}:{number}')
  if not number:
    raise ValueError(f"data file '{path}' has no line: remove it or leave it out of the glob")


def _json_text(line: bytes, field: str, place: str) -> bytes:
  try:
    record = json.loads(line)
  except (ValueError, RecursionError) as error:  # invalid UTF-8 is a ValueError too
    raise ValueError(f'{place} is not JSON ({error}): correct or remove the line') from error
  if not isinstance(record, dict) or field not in record:
    found = ', '.join(record) if isinstance(record, dict) else type(record).__name__
    raise ValueError(f"{place} has no field '{field}' (it has: {found:.200}): name another field or correct the line")
  if (kind := type(record[field]).__name__) != 'str':
    raise ValueError(f"{place}: field '{field}' is {kind}, not a string: name another field or correct the line")
  if not record[field]:
    raise ValueError(f"{place}: field '{field}' is a document of zero bytes: correct or remove the line")
  return record[field].encode('utf-8', 'surrogatepass')  # JSON may hold half a surrogate pair; no byte is dropped
