"""SIGTERM, SIGINT and SIGHUP asked to wait until a training step is done and saved, in all processes the same step."""

import itertools
import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

from text.command_line import mute


class Interrupted(Exception):
  """Training ended early because of a signal, with its last step saved; the message says how to go on."""

  def __init__(self, message: str, signal_number: int):
    super().__init__(message)
    self.signal_number = signal_number


# How often the processes of a run have asked for a signal: unlike steps, it never goes back.
_questions = itertools.count(1)


class SignalWatch:
  """Within the `with` block the first SIGTERM, SIGINT or SIGHUP only is noted. A second SIGTERM or SIGINT acts as it
  always did; a second SIGHUP is nothing new, for a terminal that closes sends one and its shell another. Whoever
  ignores SIGHUP (nohup) goes on to.

  Where several processes train, JAX listens for SIGTERM, from `jax.distributed.initialize` on, and lets the processes
  agree on a step; SIGINT and SIGHUP are passed on to it, and so is a second SIGTERM.
  """

  def __init__(self) -> None:
    self._received: int | None = None
    self._handlers: dict[int, object] = {}

  def __enter__(self) -> 'SignalWatch':
    self._several = jax.process_count() > 1
    self._terminals = [stream for stream in (sys.stdout, sys.stderr) if stream is not None and stream.isatty()]
    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
      for number in (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT):
        self._handlers[number] = signal.signal(number, self._note)
      if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        self._handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
    return self

  def __exit__(self, *_) -> None:
    self._restore(list(self._handlers))

  def stops_now(self) -> int | None:
    """The signal after which training ends with this step, or None; all processes ask, once for each step."""
    if self._several and multihost_utils.reached_preemption_sync_point(next(_questions)):
      return self._received or signal.SIGTERM
    return None if self._several else self._received

  def _note(self, number: int, _frame) -> None:
    self._received = number
    self._restore([other for other in self._handlers if other != signal.SIGHUP])
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)  # to JAX, not to Python

  def _hang_up(self, number: int, frame) -> None:
    for stream in self._terminals:
      if not stream.isatty():  # closed: what is said on the way to the last save would end the run with an error
        mute(stream)
    if self._received is None:
      self._note(number, frame)

  def _restore(self, numbers: list[int]) -> None:
    for number in numbers:
      signal.signal(number, self._handlers.pop(number))
