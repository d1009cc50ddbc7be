"""The experiment of a command: --config=FILE.py[:ARGUMENT], and --config.KEY=VALUE for any key of its tree.

FILE.py has a function get_config() that returns the tree, a ConfigDict or a dict; ARGUMENT goes to it. A KEY is written
with dots, --config.optimizer.schedule.warmup=0.01, whether the file states it or leaves it at its default. A VALUE is
text as it stands where the key holds text, and else what Python reads: 1e-3, (4, 8), True, None, {'a': 0.1}. 4,8 is a
list, too; text inside a list is in quotes: (('files:a/*', 3.0), ('files:b/*', 1.0)). Of a key that is given twice the
last value holds. --config.KEY VALUE, --config.KEY for True and --noconfig.KEY for False mean the same.
"""

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import json
import math
import os
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags

from layers import checks
from text import paths, regular_file
from training import config as config_lib

flags.disclaim_key_flags()  # --help shows them as flags of the program

MODULE = 'config_file'  # the name of a config file as a Python module
_CHANGES = 'config.KEY'  # the flag in which absl keeps what is changed
_CHANGE = re.compile(r'--?(no)?config\.([^=]*)(?:=(.*))?', re.DOTALL)
_FILE = re.compile(r'(.+?\.py)(?::(.*))?', re.DOTALL)
_LITERALS = (ast.literal_eval, json.loads)  # Python's and, in lists, JSON's


def define(what: str, flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines --config and --config.KEY, whose value is `read`; what: the help of the former."""
  flags.DEFINE_string('config', None, what, flag_values=flag_values)
  changed = 'Changes any key of the experiment, e.g. --config.seq_len=512 --config.optimizer.learning_rate=0.002.'
  flags.DEFINE_multi_string(_CHANGES, [], changed, flag_values=flag_values)


def rewritten(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> list[str]:
  """A command with its --config.KEY=VALUE as absl parses them; as it is for a program without --config."""
  if _CHANGES not in flag_values:
    return list(argv)
  with contextlib.suppress(flags.Error):  # of a --flagfile that cannot be read, which absl tells
    argv = flag_values.read_flags_from_files(list(argv), force_gnu=False)
  done, rest = [], list(argv)
  while rest:
    word = rest.pop(0)
    if word == '--':
      return [*done, word, *rest]
    match = _CHANGE.fullmatch(word)
    if not match or (match[1] and match[3] is not None):
      done.append(word)
      continue
    value = 'False' if match[1] else match[3]
    if value is None and rest and not re.match(r'-(?![\d.])', rest[0]):
      value = rest.pop(0)
    done.append(f'--{_CHANGES}={match[2]}' + ('' if value is None else f'={value}'))
  return done


def read(flag_values: flags.FlagValues = flags.FLAGS) -> Any:
  """The experiment that the flags name, with its keys changed; None where there is no --config.

  Raises ValueError or OSError with one sentence for a file that is not there or gives no tree, and for a value that
  cannot be read; which keys there are and what a value must be, `config.parse` and the model's family say.
  """
  named, changed = flag_values['config'].value, changes(flag_values)
  if named is None:
    if changed:
      raise ValueError(f'--config.{changed[0]:.200} changes no experiment: name one with --config=FILE.py')
    return None
  config = load(named)
  change(config, changed)
  return config


def changes(flag_values: flags.FlagValues = flags.FLAGS) -> list[str]:
  """What the flags change, as `change` takes it."""
  return flag_values[_CHANGES].value


def load(named: str) -> Any:
  """The tree of FILE.py[:ARGUMENT]; raises as `read`."""
  module, given, flag = _module(named)
  get_config = getattr(module, 'get_config', None)
  if not callable(get_config):
    raise ValueError(f'{flag}: the file has no function get_config()')
  try:
    inspect.signature(get_config).bind(*given)
  except TypeError as error:
    raise ValueError(f'{flag}: what stands behind the colon does not fit its get_config() ({error})') from None
  config = get_config(*given)
  if not _is_branch(config):
    raise ValueError(f'{flag}: its get_config() returned {config!r:.100} and not a ConfigDict or a dict')
  return config


def sweep(named: str) -> Any:
  """What the get_sweep() of FILE.py[:ARGUMENT] returns, which gets ARGUMENT where it takes one; None where there is no
  such function. Raises as `read` where there is no file.
  """
  module, given, _ = _module(named)
  get_sweep = getattr(module, 'get_sweep', None)
  if get_sweep is None:
    return None
  return get_sweep(*given) if inspect.signature(get_sweep).parameters else get_sweep()


def _module(named: str) -> tuple[Any, list[str], str]:
  """(the module of FILE.py[:ARGUMENT], [ARGUMENT] if there is one, how an error names it)."""
  match = _FILE.fullmatch(named)
  file, argument = (match[1], match[2]) if match else (named, None)
  path, flag = paths.of(file, '--config'), f'--config={named:.500}'
  regular_file.check(path, '--config')
  if not path.is_file():
    raise FileNotFoundError(
      f'{flag}: there is no file {path} (working directory {os.getcwd()}): name one such as configs/quickstart.py'
    )
  if path.suffix != '.py':
    raise ValueError(f'{flag}: the name of a file of Python ends in .py')
  specification = importlib.util.spec_from_file_location(MODULE, path)
  module = sys.modules[MODULE] = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  return module, [] if argument is None else [argument], flag


def change(config: Any, entries: Sequence[str]) -> None:
  """Sets keys of a tree one after the other, each given as 'KEY=VALUE', or as 'KEY' for True; raises as `read`."""
  done: list[str] = []
  for entry in entries:
    key, separator, text = entry.partition('=')
    if inside := next((other for other in done if other.startswith(f'{key}.')), None):
      raise ValueError(f'--config.{key} stands behind --config.{inside} and would undo it: put it before')
    _set(config, key, text if separator else None)
    done.append(key)


def _set(config: Any, key: str, text: str | None) -> None:
  *branches, name = names = key.split('.')
  if '' in names:
    raise ValueError(f'unknown config key {key!r:.200}: write names with dots between them')
  tree, holder = config_lib.whole(config), config
  for depth, branch in enumerate(branches, 1):
    tree = {} if tree.get(branch) is None else tree[branch]
    if not _is_branch(tree):
      raise ValueError(
        f'unknown config key {key}: {".".join(branches[:depth])} is {tree!r:.100} and has no keys, so give the whole '
        'value'
      )
    if holder.get(branch) is None:
      _put(holder, branch, {}, key)
    holder = holder[branch]
  existing = tree.get(name)
  if text is None and existing is not None and not isinstance(existing, bool):
    raise ValueError(f'--config.{key} has no value: write --config.{key}=VALUE')
  _put(holder, name, True if text is None else _value(text, _hint(names), existing, key), key)


def _put(holder: Any, name: str, value: Any, key: str) -> None:
  if not isinstance(holder, ml_collections.ConfigDict):
    holder[name] = value
    return
  try:
    with holder.unlocked(), holder.ignore_type():  # which type is right, the reader of the tree knows
      holder[name] = value
  except OverflowError:
    raise ValueError(f'config key {key} must be below 1e300, got {value!r:.100}') from None
  except (KeyError, ValueError, AttributeError, TypeError) as error:  # a name that a ConfigDict does not take
    raise ValueError(f'unknown config key {key} ({error!s:.200})') from None


def _hint(names: Sequence[str]) -> Any:
  """The type that `config.Config` states for a key; Any where it states none."""
  hint: Any = config_lib.Config
  for name in names:
    if dataclasses.is_dataclass(hint):
      hint = typing.get_type_hints(hint).get(name, Any)
    elif typing.get_origin(hint) is Mapping:
      hint = typing.get_args(hint)[1]
  return hint


def _value(text: str, hint: Any, existing: Any, key: str) -> Any:
  """What a text means for a key that has this type and holds this, or has it as its default."""
  literal, is_literal = _literal(text)
  quotes = text.strip()[:1] in ('"', "'")
  if hint is str:
    return literal if is_literal and (quotes or literal is None) else text
  if not is_literal:
    if quotes or text.strip()[:1] in ('(', '[', '{'):
      raise ValueError(
        f'config key {key}: {text:.300} cannot be read: brackets and quotes must close, and text inside of them stands '
        "in quotes, as in (('files:a/*', 3.0), ('files:b/*', 1.0))"
      )
    literal = {'true': True, 'false': False}.get(text, text)
    if hint == tuple[str, ...]:
      return tuple(part.strip() for part in text.split(','))
  elif isinstance(existing, str) and not quotes and isinstance(literal, bool | int | float):
    literal = text
  if not _is_plain(checks.shallow(literal, f'config key {key}')):
    raise ValueError(f'config key {key}: {text:.300} holds what no config can: use numbers, text, lists, dicts or None')
  is_list = typing.get_origin(hint) is tuple or (isinstance(existing, tuple | list) and len(existing) == 1)
  return (literal,) if is_list and isinstance(literal, str | bool | int | float) else literal


def _literal(text: str) -> tuple[Any, bool]:
  """(what Python, or JSON in brackets, reads, True), or (None, False)."""
  escaped = text.encode(errors='backslashreplace').decode()  # of a name that is not UTF-8, which stands in quotes
  for reader in _LITERALS[: 1 + (text.strip()[:1] in ('[', '{'))]:
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
      return reader(escaped), True
  return None, False


def _is_plain(value: Any) -> bool:
  """Whether JSON can keep it."""
  if isinstance(value, dict):
    return all(isinstance(name, str) and _is_plain(part) for name, part in value.items())
  if isinstance(value, tuple | list):
    return all(map(_is_plain, value))
  return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _is_branch(value: Any) -> bool:
  return isinstance(value, Mapping | ml_collections.ConfigDict)
