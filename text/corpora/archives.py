"""Files inside wheels, source distributions, npm tarballs and Debian packages, read without extracting anything.

Nothing is ever written under a name that an archive chose, so a name like '../../etc/passwd' has nowhere to go.
"""

import dataclasses
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO


@dataclasses.dataclass(frozen=True)
class Archive:
  """A .whl (zip), .tar.gz, .tgz, .tar.xz or .deb, told by its first bytes."""

  path: str

  def members(self, pattern: str) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every regular file whose whole name matches, in the order of the archive.

    Raises:
      ValueError: the archive is damaged.
    """
    with open(self.path, 'rb') as file:
      start = file.read(8)
      file.seek(0)
      try:
        if start.startswith(b'PK'):
          yield from _zip_members(file, pattern)
        else:
          if start == b'!<arch>\n':
            _seek_data(file)
          yield from tar_members(file, pattern)
      except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise ValueError(f'{self.path} is a damaged archive: {error}') from None

  def read(self, pattern: str) -> bytes:
    """The content of the one file that matches.

    Raises:
      ValueError: there is no such file.
    """
    for _, content in self.members(pattern):
      return content
    raise ValueError(f'{self.path} has no file {pattern}: this version of the package is laid out in another way')


def tar_members(file: BinaryIO, pattern: str) -> Iterator[tuple[str, bytes]]:
  """(name, content) of the matching regular files of a tar stream that may be compressed."""
  matches = re.compile(pattern).fullmatch
  with tarfile.open(fileobj=file, mode='r|*') as archive:
    for member in archive:
      name = member.name.removeprefix('./')
      if member.isfile() and matches(name):
        yield name, archive.extractfile(member).read()


def nested_members(content: bytes, pattern: str) -> Iterator[tuple[str, bytes]]:
  """The same for a tar that lies inside another archive."""
  return tar_members(io.BytesIO(content), pattern)


def _zip_members(file: BinaryIO, pattern: str) -> Iterator[tuple[str, bytes]]:
  matches = re.compile(pattern).fullmatch
  with zipfile.ZipFile(file) as archive:
    for info in archive.infolist():
      if not info.is_dir() and matches(info.filename):
        yield info.filename, archive.read(info)


def _seek_data(file: BinaryIO) -> None:
  """Moves to the data of a Debian package: an ar archive of debian-binary, control.tar and data.tar (deb(5))."""
  file.seek(8)
  while header := file.read(60):
    if len(header) < 60 or header[58:] != b'`\n':
      raise EOFError('a member of the Debian package is cut off')
    name, size = header[:16].rstrip(b' /').decode('latin-1'), int(header[48:58])
    if name in ('data.tar', 'data.tar.gz', 'data.tar.xz', 'data.tar.bz2'):
      return
    if name.startswith('data.tar'):
      raise tarfile.ReadError(f'{name} is compressed in a way that the Python library cannot read')
    file.seek(size + size % 2, io.SEEK_CUR)
  raise EOFError('the Debian package has no data.tar')
