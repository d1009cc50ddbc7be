"""What a path from a user is: one rule for every flag, config key, source string and argument.

`~` and `~name` are home directories. A path names a file or directory that this machine's file systems show: an empty
one (`--workdir=$UNSET`), a URL, and characters that no path has are refused with one sentence, before anything is read
or written.
"""

import os
import re
from pathlib import Path

_URL = re.compile(r'.*://|[A-Za-z][\w+.-]+:/')  # also as pathlib leaves it, gs:/bucket


def of(path: str | os.PathLike, name: str, *, text: bool = False) -> Path:
  """The path that a user gave under a name, such as '--workdir' or 'init_from'; raises ValueError as `expanded`."""
  return Path(expanded(path, name, text=text))


def expanded(path: str | os.PathLike, name: str, *, text: bool = False) -> str:
  """The same as a string, which may also be a glob. text: what takes it behind here knows names in UTF-8 alone.

  Raises ValueError for an empty path, a URL, a home directory that is not known, and characters that no path has.
  """
  try:
    given = os.fsdecode(path)
    is_possible = b'\0' not in os.fsencode(given)
  except (TypeError, UnicodeEncodeError):  # no path at all; half of a surrogate pair
    given, is_possible = path, False
  if not is_possible:
    raise ValueError(f'{name} {given!r:.200} is no path or has a character that no path has: check it')
  if not given.strip():
    raise ValueError(
      f'{name} is empty: name a path, . for the current directory (was a variable of the shell not set?)'
    )
  if _URL.match(given):
    raise ValueError(
      f'{name} {given!r:.200} is a URL: only paths on file systems of this machine are read and written, so mount the '
      'bucket here, or copy its files, and name that path'
    )
  found = _at_home(given, name) if given.startswith('~') else given
  if text and not _is_text(os.path.abspath(found)):  # a relative one is given in full to the libraries
    raise ValueError(
      f'{name} {os.path.abspath(found)!r:.200} is not UTF-8, and libraries behind here take no other name: rename the '
      'directory, or name another'
    )
  return found


def home() -> Path | None:
  """The home directory of this user; None where neither HOME nor the system's list of users names one."""
  found = os.path.expanduser('~')
  return Path(found) if os.path.isabs(found) and os.environ.get('HOME') != '' else None


def _at_home(given: str, name: str) -> str:
  user, separator, rest = given.partition('/')
  place = home() if user == '~' else os.path.expanduser(user)
  if place is None or str(place) == user:
    raise ValueError(f'{name} {given!r:.200}: the home directory {user} is not known here: write the path in full')
  return f'{place}{separator}{rest}'


def _is_text(given: str) -> bool:
  try:
    given.encode()
  except UnicodeEncodeError:
    return False
  return True
