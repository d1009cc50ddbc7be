"""One case under guard: what it opens, starts and imports, the memory that it takes, and how it ends.

Python's audit events show what Python code does; C, C++ and Rust inside libraries raise none, so that files which these
write are found by looking at the directories around instead.
"""

import contextlib
import dataclasses
import dis
import io
import os
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

from text import command_line

LONGEST = 2000  # characters of a sentence
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING = (
  'os.rename',
  'os.remove',
  'os.mkdir',
  'os.rmdir',
  'os.symlink',
  'os.link',
  'os.truncate',
  'os.chmod',
  'os.chown',
  'os.utime',
)
_FORBIDDEN = (
  'subprocess.',
  'os.system',
  'os.exec',
  'os.posix_spawn',
  'os.fork',
  'os.startfile',
  'os.putenv',
  'pty.',
  'ctypes.dlopen',
  'socket.connect',
  'socket.bind',
  'socket.getaddrinfo',
  'socket.gethostbyname',
  'socket.sendto',
  'urllib.',
  'ftplib.',
  'smtplib.',
  'pickle.find_class',
  'marshal.load',
  'code.__new__',
  'shutil.rmtree',
)
# Who makes classes from source text of its own, and who loads modules.
_MAKERS = (
  'dataclasses',
  'collections',
  'importlib',
  '_frozen_importlib',
  '_frozen_importlib_external',
  'enum',
  'typing',
  'ctypes',
)


@dataclasses.dataclass(frozen=True)
class Verdict:
  """outcome: 'worked', 'refused' or 'uncaught'; text: the sentence, or what is wrong; megabytes: growth of the peak."""

  outcome: str
  text: str = ''
  megabytes: float = 0.0


class Audit:
  """Notes every audit event that reading a file has no business to cause; a hook stays for the life of a process."""

  def __init__(self):
    self.findings: list[str] = []
    self._home, self._input, self._watching = '', b'', False
    sys.dont_write_bytecode = True
    sys.addaudithook(self._hook)

  @contextlib.contextmanager
  def watch(self, home: pathlib.Path):
    """Collects for the block; writing is right below `home` alone."""
    self.findings, self._home = [], os.path.realpath(home)
    files = (path for path in sorted(home.rglob('*')) if path.is_file() and path.stat().st_size < 10**7)
    self._input = b'\n'.join(path.read_bytes() for path in files)
    self._watching = True
    try:
      yield
    finally:
      self._watching = False

  def _hook(self, event: str, arguments: tuple) -> None:
    if not self._watching:
      return
    self._watching = False  # nothing that is done here is the reader's
    try:
      if found := self._judge(event, arguments):
        self.findings.append(f'{event}: {found}')
    except Exception as error:
      self.findings.append(f'{event}: the audit failed, {error!r}')
    finally:
      self._watching = True

  def _judge(self, event: str, arguments: tuple) -> str:
    if event == 'open':
      path, mode, flags = arguments
      is_write = bool((flags or 0) & _WRITING) or any(letter in (mode or '') for letter in 'wax+')
      return repr(path) if is_write and not self._is_home(path) else ''
    if event in _CHANGING:
      return (
        '' if all(self._is_home(path) for path in arguments[:2] if isinstance(path, str | bytes)) else repr(arguments)
      )
    if event == 'import':
      name = arguments[0]
      is_new = name not in sys.modules and len(name) > 3 and name.encode() in self._input
      return name if is_new else ''
    if event in ('exec', 'compile', 'marshal.loads', 'marshal.load', 'code.__new__'):
      return '' if self._is_own_source() else f'{arguments!r:.200}'
    return f'{arguments!r:.200}' if event.startswith(_FORBIDDEN) else ''

  def _is_home(self, path: Any) -> bool:
    if isinstance(path, int) or path == os.devnull:
      return True
    path = os.path.realpath(os.fsdecode(path))
    return path == self._home or path.startswith(self._home + os.sep)

  @staticmethod
  def _is_own_source() -> bool:
    """Whether a module is being loaded, a class made from its fields, or a literal parsed (which runs nothing)."""
    frame, callers = sys._getframe(3), []
    while frame is not None and len(callers) < 3:
      callers.append((frame.f_globals.get('__name__', '').partition('.')[0], frame.f_code.co_name))
      frame = frame.f_back
    return callers[0] == ('ast', 'parse') or any(module in _MAKERS for module, _ in callers)


def judge(run: Callable[[], Any], home: pathlib.Path, audit: Audit, megabytes: float) -> Verdict:
  """Runs a case. It may work or raise what the commands print as a sentence; everything else is uncaught."""
  around = {home.parent: _names(home.parent), pathlib.Path.cwd(): _names(pathlib.Path.cwd())}
  text, outcome = '', 'worked'
  before = _resident_reset()
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), audit.watch(home):
    try:
      run()
    except KeyboardInterrupt:
      raise
    except BaseException as error:
      text, outcome = told(error)
  grown = max(0.0, _status('VmHWM') - before)
  for directory, names in around.items():
    if _names(directory) - names and home.parent == directory:
      audit.findings.append(f'new files beside the work directory: {_names(directory) - names}')
  if audit.findings:
    return Verdict('uncaught', '; '.join(dict.fromkeys(audit.findings))[:2000], grown)
  if grown > megabytes:
    return Verdict(
      'uncaught', f'{grown:.0f} MB of memory where {megabytes:.0f} is the bound ({outcome}: {text})', grown
    )
  return Verdict(outcome, text, grown)


def told(error: BaseException) -> tuple[str, str]:
  """(what the user reads, 'refused'), or (what is wrong with that, 'uncaught')."""
  if isinstance(error, Refused):
    message, is_clear = str(error), True
  else:
    message, is_clear = command_line.sentence(error), command_line.is_sentence(error) and _is_raised_or_named(error)
  is_line = message.isprintable() and 10 <= len(message) <= LONGEST
  if is_clear and is_line:
    return message, 'refused'
  trace = ''.join(traceback.format_exception(error))
  return f'{type(error).__name__}: {message[:300]!r}\n{trace[-3000:]}', 'uncaught'


class Refused(Exception):
  """A command ended with code 1 and this line."""


def _is_raised_or_named(error: BaseException) -> bool:
  """Whether our code has a `raise` for this error: `int('x')` in a function of ours is a ValueError of nobody's words.
  An OSError may also be the system's, where it names the file.
  """
  if isinstance(error, OSError) and error.filename is not None:
    return True
  trace = error.__traceback__
  while trace.tb_next is not None:
    trace = trace.tb_next
  operation = dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]]
  return operation in ('RAISE_VARARGS', 'RERAISE') and not command_line.in_library(error)


def _names(directory: pathlib.Path) -> set[str]:
  return set(os.listdir(directory))


def _resident_reset() -> float:
  pathlib.Path('/proc/self/clear_refs').write_text('5')
  return _status('VmRSS')


def _status(key: str) -> float:
  """MB (10⁶ bytes) of this process."""
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(f'{key}:'):
      return int(line.split()[1]) * 1024 / 1e6
  raise RuntimeError(key)
