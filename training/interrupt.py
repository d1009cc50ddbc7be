"""SIGTERM and SIGINT asked to wait until a training step is done and saved."""

import signal
import threading


class Interrupted(Exception):
  """Training ended early because of a signal, with its last step saved; the message says how to go on."""

  def __init__(self, message: str, signal_number: int):
    super().__init__(message)
    self.signal_number = signal_number


class SignalWatch:
  """Within the `with` block the first SIGTERM or SIGINT only sets `received`; a second one acts as it always did."""

  def __init__(self) -> None:
    self.received: int | None = None
    self._handlers: dict[int, object] = {}

  def __enter__(self) -> 'SignalWatch':
    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
      for number in (signal.SIGTERM, signal.SIGINT):
        self._handlers[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._handlers.items():
      signal.signal(number, handler)
    self._handlers = {}

  def _note(self, number: int, _frame) -> None:
    self.received = number
    self.__exit__()
