"""How a command ends: after a user's error with one sentence and code 1, a bug with its traceback, a signal 128 + n."""

import functools
import shlex
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, logging

from text.command_line import is_sentence, raised_by, sentence, show_all_names, tell
from training import compilation_cache, config_flag
from training.interrupt import Interrupted
from training.recorder import Diverged


def run(main: Callable[[list[str]], None], *, words: bool = False) -> None:
  """Parses absl flags and calls `main`; never returns. words: whether a command has words that are no flags."""
  # Orbax logs every failed write with its traceback, here told in one sentence by `checkpoint.Checkpoints`.
  logging.set_verbosity(logging.FATAL)
  sys.unraisablehook = functools.partial(_show, sys.unraisablehook)
  show_all_names()
  _guarded(lambda _: compilation_cache.enable(), sys.argv)
  call = main if words else _without_words(main)
  app.run(lambda argv: _guarded(call, argv), flags_parser=lambda argv: _guarded(_parse, argv))


def _parse(argv: list[str]) -> list[str]:
  return app.parse_flags_with_usage(config_flag.rewritten(argv))


def _without_words(main: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
  def call(argv: list[str]):
    if argv[1:]:
      raise ValueError(f"'{argv[1]:.200}' is no flag: write --NAME=VALUE, as `--help` lists them")
    return main(argv)

  return call


def _show(hook: Callable, unraisable: Any) -> None:
  """An error that nobody can catch, but for TensorStore's where it calls back a save that failed and is over."""
  if str(unraisable.exc_value) != 'Event loop is closed':
    hook(unraisable)


def _guarded(call: Callable, argv: list[str]):
  try:
    return call(argv)
  except Interrupted as error:
    tell(f'{error}; go on with:\n  {shlex.join(["python", *sys.argv])}')
    sys.exit(128 + error.signal_number)
  except (OSError, Diverged) as error:
    _fail(error)
  except (ValueError, RecursionError) as error:
    if raised_by(error) == 'absl' and isinstance(error, RecursionError):  # where it looks for flags of a like name
      _fail('a flag in the command has a name of a thousand characters: `--help` lists those that there are')
    if not is_sentence(error):
      raise
    _fail(error)


def _fail(message: object) -> NoReturn:
  tell(f'error: {sentence(message)}')
  sys.exit(1)
