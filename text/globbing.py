"""Paths that a pattern names, as `glob` finds them; what cannot be entered, which `glob` leaves out, is an error."""

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Iterator

_MAGIC = re.compile('[*?[]')
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def matches(pattern: str) -> list[str]:
  """The files and directories that `glob.glob(pattern, recursive=True)` finds, sorted, each path once.

  A part `**` enters every directory once, by whatever links it is reached. Raises OSError, with the path as its
  `filename`, for a directory on the way that cannot be listed and for a path that cannot be looked at.
  """
  parts = [part for part in pattern.split('/') if part]
  parts = [part for part, before in zip(parts, ['', *parts], strict=False) if (part, before) != ('**', '**')]
  paths = ['/' if pattern.startswith('/') else '']
  for index, part in enumerate(parts):
    only_directories = index < len(parts) - 1 or pattern.endswith('/')
    if part == '**':
      paths = [found for path in paths for found in _below(path, only_directories)]
    elif _MAGIC.search(part):
      paths = [found for path in paths for found in _inside(path, part, only_directories)]
    else:
      paths = [found for path in paths if _exists(found := os.path.join(path, part))]
  if pattern.endswith('/'):
    paths = [os.path.join(path, '') for path in paths if os.path.isdir(path)]
  return sorted({path for path in paths if path})


def _inside(directory: str, pattern: str, only_directories: bool) -> Iterator[str]:
  """What a pattern for names matches in a directory; nothing where it is none."""
  entries = {entry.name: entry for entry in _entries(directory) if pattern.startswith('.') or entry.name[0] != '.'}
  for name in fnmatch.filter(entries, pattern):
    if not only_directories or _leads_to_directory(entries[name]):
      yield os.path.join(directory, name)


def _below(directory: str, only_directories: bool) -> Iterator[str]:
  """The directory itself and what is in it at any depth, but for hidden names."""
  waiting, entered = [directory], set()
  while waiting:
    directory = waiting.pop()
    try:
      status = os.stat(directory or '.')
    except OSError as error:
      if error.errno not in _ABSENT:
        raise
      continue
    if not stat.S_ISDIR(status.st_mode) or (status.st_dev, status.st_ino) in entered:
      continue
    entered.add((status.st_dev, status.st_ino))
    yield directory
    for entry in _entries(directory):
      if entry.name[0] == '.':
        continue
      if _leads_to_directory(entry):
        waiting.append(os.path.join(directory, entry.name))
      elif not only_directories:
        yield os.path.join(directory, entry.name)


def _entries(directory: str) -> list[os.DirEntry]:
  try:
    with os.scandir(directory or '.') as entries:
      return list(entries)
  except OSError as error:
    if error.errno not in _ABSENT:
      raise
    return []


def _leads_to_directory(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError as error:
    if error.errno not in _ABSENT:
      raise
    return False


def _exists(path: str) -> bool:
  try:
    os.lstat(path)
  except OSError as error:
    if error.errno not in _ABSENT:
      raise
    return False
  return True
