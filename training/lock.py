"""One run at a time writes a work directory."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Callable

LOCK = 'lock'


class Held(OSError):
  """What is to be locked is held by another process."""


class Lock:
  """Held from `take` until `release`, or until the process ends, in whatever way: the kernel keeps it, so a run that
  was killed leaves nothing to clear away. The file says who holds it.

  Between machines it holds where the file system carries locks between them (NFS does, Lustre when mounted with flock);
  where it has none, `take` says so and goes on, and where locks are those of one machine (gcsfuse), only that machine
  is guarded.
  """

  def __init__(self, workdir: pathlib.Path, report: Callable[[str], None], name: str = LOCK):
    """name: of the lock's file in the directory."""
    self._path, self._report, self._file = workdir / name, report, None

  def take(self) -> None:
    """Takes the lock unless it is held by this object already; raises `Held` if another run holds it, OSError where it
    cannot be written.
    """
    if self._file is not None:
      return
    file = open(self._path, 'a+', encoding='utf-8')  # noqa: SIM115 (open as long as the lock is held)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in (errno.EAGAIN, errno.EACCES):
        owner = _owner(file)
        file.close()
        raise Held(
          f'another run is writing {self._path.parent} ({owner}): wait for it, end it, or use a new --workdir'
        ) from None
      self._report(f'{self._path.parent} cannot be locked ({error.strerror}): let no second run write to it')
    self._file = file
    with contextlib.suppress(OSError):  # a full disk must not end a run: who holds the lock is told for people
      os.ftruncate(file.fileno(), 0)
      file.write(json.dumps({'pid': os.getpid(), 'host': socket.gethostname()}) + '\n')
      file.flush()

  def wait(self) -> None:
    """Takes the lock as soon as nobody else holds it. Raises OSError where it cannot be written."""
    while True:
      try:
        return self.take()
      except Held:
        time.sleep(0.05)

  def release(self) -> None:
    """Lets go of it; the file stays, since to delete it could take it from a run that has just opened it."""
    if self._file is not None:
      with contextlib.suppress(OSError):
        self._file.close()
      self._file = None


def _owner(file) -> str:
  try:
    file.seek(0)
    owner = json.loads(file.read())
    return f'pid {owner["pid"]} on {owner["host"]}'
  except (OSError, ValueError, KeyError, TypeError):
    return 'it has not said who it is'
