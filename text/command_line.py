"""How a command of this package ends: after a user's error with one sentence on stderr and exit code 1."""

import argparse
import contextlib
import errno
import io
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

_INSTALLED = {'site-packages', 'dist-packages'}  # folders that pip and Linux distributions install packages in
_LONGEST = 1200  # characters of a sentence


class Parser(argparse.ArgumentParser):
  """An ArgumentParser whose errors are ValueErrors; flags are never abbreviated."""

  def __init__(self, **settings):
    super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

  def error(self, message: str):
    raise ValueError(f'{message}: `{self.prog} --help` lists the flags')


def run(main: Callable[[list[str]], None]) -> None:
  """Calls `main` with the arguments of the command; exits with 1 after a user's error, with 130 after Ctrl-C."""
  show_all_names()
  try:
    main(sys.argv[1:])
  except KeyboardInterrupt:
    tell('interrupted: the same command goes on where it stopped')
    sys.exit(130)
  except (ValueError, OSError) as error:
    if not is_sentence(error):
      raise
    tell(f'error: {sentence(error)}')
    sys.exit(1)


def show_all_names() -> None:
  """Lets a command print the names of files that are not UTF-8, whose odd bytes are then escaped."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


def mute(stream: TextIO) -> None:
  """Sends what is still written to a stream nowhere: its terminal, or who read its pipe, is gone."""
  with contextlib.suppress(io.UnsupportedOperation), open(os.devnull, 'w') as nowhere:
    os.dup2(nowhere.fileno(), stream.fileno())


@contextlib.contextmanager
def unheard(stream: TextIO) -> Iterator[None]:
  """A block that writes to a stream: a terminal or reader that is gone, or a full disk, is no error there."""
  try:
    yield
  except OSError as error:
    if error.errno in (errno.EIO, errno.EPIPE):
      mute(stream)
    elif error.errno != errno.ENOSPC:
      raise


def tell(line: str) -> None:
  """Prints a line to stderr, if anybody reads that."""
  with unheard(sys.stderr):
    print(line, file=sys.stderr, flush=True)


def sentence(message: object) -> str:
  """What a command prints of an error: one line, not longer than people read, and nothing that a terminal obeys, since
  names and values in it may come from a file of a stranger.
  """
  line = ' '.join(str(message).split())
  line = ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in line)
  if len(line) > _LONGEST:
    line = f'{line[: _LONGEST - 300]} … {line[-297:]}'  # the remedy stands at the end
  return line


def is_sentence(error: BaseException) -> bool:
  """True for an error that tells the user something: every OSError, and a ValueError that no library raised."""
  return isinstance(error, OSError) or (isinstance(error, ValueError) and not in_library(error))


def in_library(error: BaseException) -> bool:
  """Whether a module of Python or of an installed package raised an error: such a ValueError is a bug to be seen whole,
  one of our own code, or of a config file, a sentence for the user.
  """
  if raised_by(error) in sys.stdlib_module_names:
    return True
  return not _INSTALLED.isdisjoint(pathlib.PurePath(_where(error).get('__file__') or '').parts)


def raised_by(error: BaseException) -> str:
  """The top-level package whose code raised an error."""
  return _where(error).get('__name__', '').partition('.')[0]


def _where(error: BaseException) -> dict[str, Any]:
  """The global names of the module whose code raised an error."""
  trace = error.__traceback__
  while trace.tb_next is not None:
    trace = trace.tb_next
  return trace.tb_frame.f_globals
