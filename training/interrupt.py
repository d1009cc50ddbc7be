"""SIGTERM and SIGINT asked to wait until a training step is done and saved, in all processes the same step."""

import itertools
import os
import signal
import threading

import jax
from jax.experimental import multihost_utils


class Interrupted(Exception):
  """Training ended early because of a signal, with its last step saved; the message says how to go on."""

  def __init__(self, message: str, signal_number: int):
    super().__init__(message)
    self.signal_number = signal_number


# How often the processes of a run have asked for a signal: unlike steps, it never goes back.
_questions = itertools.count(1)


class SignalWatch:
  """Within the `with` block the first SIGTERM or SIGINT only is noted; a second one acts as it always did.

  Where several processes train, JAX listens for SIGTERM, from `jax.distributed.initialize` on, and lets the processes
  agree on a step; SIGINT is passed on to it, and so is a second SIGTERM.
  """

  def __init__(self) -> None:
    self._received: int | None = None
    self._handlers: dict[int, object] = {}

  def __enter__(self) -> 'SignalWatch':
    self._several = jax.process_count() > 1
    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
      for number in (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT):
        self._handlers[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, handler)
    self._handlers = {}

  def stops_now(self) -> int | None:
    """The signal after which training ends with this step, or None; all processes ask, once for each step."""
    if self._several and multihost_utils.reached_preemption_sync_point(next(_questions)):
      return self._received or signal.SIGTERM
    return None if self._several else self._received

  def _note(self, number: int, _frame) -> None:
    self._received = number
    self.__exit__()
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)  # to JAX, not to Python
