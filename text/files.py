"""The source `files:GLOB[#field][,GLOB...][@all]`: text files, JSON lines and Parquet, also compressed."""

import dataclasses
import os
import stat
from collections.abc import Iterator
from typing import Any

from text import globbing, paths, records, regular_file
from text.corpus import MemoryCorpus
from text.remarks import collected, remark
from text.splitting import is_chosen

VALIDATION = 0.05  # of the documents
WHOLE = '@all'
NOT_TEXT = ('.zip', '.tar', '.tgz', '.bz2', '.xz', '.npy', '.npz', '.array_record', '.tfrecord')


@dataclasses.dataclass(frozen=True)
class FileGroup:
  """The documents of one file; an empty one is b''. field: where the text is in a record, '' for files that are text.

  key: path, size and time of the last change. identity: of the file by whatever name.
  """

  path: str
  field: str
  key: str
  identity: tuple[Any, ...]

  @classmethod
  def of(cls, path: str, field: str, status: os.stat_result) -> 'FileGroup':
    """Raises ValueError for a file that cannot be text, and for records without a field."""
    if records.suffix(path) in NOT_TEXT:
      raise ValueError(
        f"data file '{path}' is an archive or an array, not text: unpack it (only .gz and .zst are read packed)"
      )
    if _is_record(path, '') and not field:
      raise ValueError(f"data file '{path}' needs the field that holds the text: write 'files:GLOB#field'")
    key = f'{path}#{field} {status.st_size} {status.st_mtime_ns}'
    return cls(path, field, key, _identity(path, status))

  def __iter__(self) -> Iterator[bytes]:
    if not self.field:
      with records.opened(self.path) as file:
        yield file.read()
      return
    is_empty = True
    for document in records.documents(self.path, self.field):
      is_empty = False
      yield document
    if is_empty:
      remark('files without a record passed over', self.path)


@dataclasses.dataclass(frozen=True)
class Files:
  """Files by name. Divided by the SHA-256 of each document, the same whatever file it stands in; or, with @all, not."""

  spec: str

  @property
  def division(self) -> str:
    return 'none' if self.spec.endswith(WHOLE) else 'hash'

  def open(self, split: str) -> MemoryCorpus:
    """The documents of one split; raises ValueError or OSError as `groups` and for an empty document or split."""
    is_whole = self.division == 'none'
    if split == 'test' and not is_whole:
      raise ValueError(
        f"data source 'files:{self.spec}' has no test split: name files of their own, as 'files:GLOB@all', or prepare "
        'them (python -m text.prepare), which makes one'
      )
    documents, total = [], 0
    with collected() as remarks:
      groups = self.groups()
      for group in groups:
        for number, document in enumerate(group, 1):
          if not document:
            raise ValueError(
              f"data file '{group.path}': document {number} is a document of zero bytes: remove it, or prepare the "
              'files (python -m text.prepare), which leaves such out and counts them'
            )
          total += 1
          if is_whole or is_chosen(document, VALIDATION) == (split == 'validation'):
            documents.append(document)
    if not total:
      raise ValueError(
        f"data source 'files:{self.spec}' has no document: none of its {len(groups)} files holds a record, name others"
      )
    if not documents:
      raise ValueError(
        f"the split by hash of data source 'files:{self.spec}' leaves no document for '{split}' (it has {total} in "
        "all): name other files to validate on, so that all of both are used, or take all with 'files:GLOB@all'"
      )
    name = f'files:{self.spec}' if is_whole else f'files:{self.spec} ({split})'
    part = {} if is_whole else {'whole': total, 'side': ('hash', split)}
    return MemoryCorpus(documents, name, split, notes=remarks.sentences(), **part)

  def groups(self) -> list[FileGroup]:
    """One group per file, in the order of their paths; a file that has several names is there once.

    Raises ValueError or OSError: a glob without files, a directory, what cannot be entered or is no file, a field that
    no file has, and two fields of one file.
    """
    names: dict[str, tuple[os.stat_result, str]] = {}
    for part in self.spec.removesuffix(WHOLE).split(','):
      pattern, _, field = part.partition('#')
      found = _match(pattern)
      if field and not any(_is_record(path, field) for path in found):
        kinds = ', '.join(records.KINDS)
        raise ValueError(f"data source '{part}' names the field '{field}', but '{pattern}' matches no file of {kinds}")
      for path, status in found.items():
        own = field if _is_record(path, field) else ''
        names[path] = (status, _one_field(path, own, names.get(path, (status, own))[1]))
    once: dict[tuple[Any, ...], FileGroup] = {}
    for path in sorted(names, key=lambda path: (not names[path][1], path)):  # a name that tells of records comes first
      status, field = names[path]
      identity = _identity(path, status)
      if identity not in once:
        once[identity] = FileGroup.of(path, field, status)
        continue
      _one_field(path, field, once[identity].field)
      if os.path.abspath(path) != os.path.abspath(once[identity].path):
        remark('further names of files read already passed over', path)
    return sorted(once.values(), key=lambda group: group.path)


def _is_record(path: str, field: str) -> bool:
  """Whether a file holds records; a .json does where a field of it is named."""
  suffix = records.suffix(path)
  return suffix in records.KINDS and (bool(field) or suffix != '.json')


def _one_field(path: str, field: str, other: str) -> str:
  if field and other and field != other:
    raise ValueError(
      f"data file '{path}' is named with the fields '{field}' and '{other}': name one, a file is read once"
    )
  return field or other


def _identity(path: str, status: os.stat_result) -> tuple[Any, ...]:
  """Equal for two names of one file: links of both kinds, too."""
  place = status.st_ino or os.path.realpath(path)  # some file systems number nothing
  return status.st_dev, place, status.st_size, status.st_mtime_ns


def _match(pattern: str) -> dict[str, os.stat_result]:
  """What a glob finds: path -> status."""
  expanded = paths.expanded(pattern, 'data glob')
  try:
    matches = globbing.matches(expanded)
  except OSError as error:
    raise OSError(
      f"data glob '{pattern}': '{error.filename}' cannot be entered ({error.strerror}): make it readable, or write a "
      'glob that leaves it out'
    ) from error
  found, folders = {}, []
  for path in matches:
    with records.named(path):
      status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
      folders.append(path)
      continue
    regular_file.check_mode(status.st_mode, path, 'data file')
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
      raise OSError(f"data file '{path}' cannot be read (Permission denied): make it readable or leave it out")
    found[path] = status
  # `**` matches directories and what is in them; another glob would leave out the files of a directory that it matches
  if folders and ('**' not in pattern or not found):
    folder = folders[0].rstrip('/')
    raise IsADirectoryError(
      f"data glob '{pattern}' matches the directory '{folder}': write '{folder}/*.txt' or '{folder}/**/*' for its files"
    )
  if not found:
    raise FileNotFoundError(f"data glob '{pattern}' matches no file (working directory {os.getcwd()}): check the path")
  return found
