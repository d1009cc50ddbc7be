"""Files of users are files: what only looks like one, a pipe or a device, is refused before it is opened."""

import os
import stat

_KINDS = (
  (stat.S_ISFIFO, 'a named pipe (FIFO)'),
  (stat.S_ISSOCK, 'a socket'),
  (stat.S_ISCHR, 'a device'),
  (stat.S_ISBLK, 'a device'),
)


def check(path: str | os.PathLike, name: str) -> None:
  """Raises OSError, with a sentence that begins with `name`, for what is no file and would be waited for without end.

  What is not there, cannot be looked at, or is a directory is left to whoever opens it.
  """
  try:
    mode = os.stat(path).st_mode
  except (OSError, ValueError):
    return
  check_mode(mode, path, name)


def check_mode(mode: int, path: str | os.PathLike, name: str) -> None:
  """`check` of a path whose st_mode is known."""
  for is_kind, kind in _KINDS:
    if is_kind(mode):
      raise OSError(f"{name} '{os.fspath(path)}' is {kind} and not a file: put what it gives into a file and name that")
