"""Disks without space."""

import contextlib
import pathlib
import resource
import shutil
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def small_disk(mounted: pathlib.Path, size: int) -> Iterator[pathlib.Path | None]:
  """A file system of `size` bytes in memory, mounted for the block; None where that is not allowed."""
  mounted.mkdir()
  command = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(mounted)]
  if shutil.which('mount') is None or subprocess.run(command, capture_output=True).returncode:
    yield None
    return
  try:
    yield mounted
  finally:
    subprocess.run(['umount', '--lazy', str(mounted)], check=False)


@contextlib.contextmanager
def full(disk: pathlib.Path) -> Iterator[None]:
  """Leaves no byte on a disk during the block."""
  ballast = disk / 'ballast'
  try:
    with contextlib.suppress(OSError), open(ballast, 'wb', buffering=0) as file:
      while True:
        file.write(bytes(4096))
    yield
  finally:
    ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def full_for(process: int) -> Iterator[None]:
  """One process cannot make any file longer during the block: its writes fail, as on a full disk, and those of others
  do not.
  """
  _, most = resource.prlimit(process, resource.RLIMIT_FSIZE)
  resource.prlimit(process, resource.RLIMIT_FSIZE, (0, most))
  try:
    yield
  finally:
    with contextlib.suppress(ProcessLookupError):
      resource.prlimit(process, resource.RLIMIT_FSIZE, (most, most))


def bytes_in(directory: pathlib.Path) -> int:
  """Of all files below a directory."""
  return sum(path.stat().st_size for path in directory.rglob('*') if path.is_file())
