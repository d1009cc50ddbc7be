"""How a command ends: after a user's error with one sentence and code 1, a bug with its traceback, a signal 128 + n."""

import functools
import shlex
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, logging

from text import regular_file
from text.command_line import OURS, raised_by, sentence
from training import compilation_cache
from training.interrupt import Interrupted
from training.recorder import Diverged


def run(main: Callable[[list[str]], None]) -> None:
  """Parses absl flags and calls `main`; never returns."""
  # Orbax logs every failed write with its traceback, here told in one sentence by `checkpoint.Checkpoints`.
  logging.set_verbosity(logging.FATAL)
  sys.unraisablehook = functools.partial(_show, sys.unraisablehook)
  compilation_cache.enable()
  app.run(lambda argv: _guarded(main, argv), flags_parser=lambda argv: _guarded(_parse_flags, argv))


def _parse_flags(argv: list[str]) -> list[str]:
  for argument, following in zip(argv, [*argv[1:], ''], strict=True):
    flag, _, value = argument.partition('=')
    if flag.lstrip('-') == 'config':
      regular_file.check((value or following).partition(':')[0], '--config')
  return app.parse_flags_with_usage(argv)


def _show(hook: Callable, unraisable: Any) -> None:
  """An error that nobody can catch, but for TensorStore's where it calls back a save that failed and is over."""
  if str(unraisable.exc_value) != 'Event loop is closed':
    hook(unraisable)


def _guarded(call: Callable, argv: list[str]):
  try:
    return call(argv)
  except Interrupted as error:
    print(f'{error}; go on with:\n  {shlex.join(["python", *sys.argv])}', file=sys.stderr)
    sys.exit(128 + error.signal_number)
  except (OSError, Diverged) as error:
    _fail(error)
  except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError) as error:
    package = raised_by(error)
    if package == 'absl' and isinstance(error, RecursionError):  # where it looks for flags of a like name
      _fail('a flag in the command has a name of a thousand characters: `--help` lists those that there are')
    if package == 'ast':  # where ml_collections reads an override
      _fail(f'a value in the command cannot be read ({error}): give it in UTF-8')
    if package == 'ml_collections' and isinstance(error, TypeError | IndexError):
      _fail(f'a --config. key leads into a value that has no keys ({error}): name the key of the value itself')
    if package == 'ml_collections':  # an override of a key that the config lacks, as a quoted quotation
      message = str(error).replace('\\n', '. ').replace('\\', '').replace("'", '')
      _fail(f'unknown config key {message}')
    if not isinstance(error, ValueError) or package not in OURS:
      raise
    _fail(error)


def _fail(message: object) -> NoReturn:
  print(f'error: {sentence(message)}', file=sys.stderr)
  sys.exit(1)
