"""Worker processes for jobs that do not depend on each other."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool

from text.command_line import is_sentence


class Workers:
  """Runs functions of a module in `processes` processes, started when they are first needed; with 1, in this one."""

  def __init__(self, processes: int):
    self._processes, self._pool = processes, None

  def __enter__(self) -> 'Workers':
    return self

  def __exit__(self, *_):
    if self._pool is not None:
      self._pool.shutdown(cancel_futures=True)

  def run(self, function: Callable, jobs: Iterable, count: int) -> Iterator:
    """The results for `count` jobs, in the order in which they come; jobs are drawn when a process is free for them.

    Errors that are sentences come as they are, OSError also for a process that was killed.
    """
    if self._processes == 1 or (self._pool is None and count <= 1):
      yield from map(function, jobs)
      return
    if self._pool is None:
      context = multiprocessing.get_context('spawn')  # a process that runs jax must not be forked
      self._pool = concurrent.futures.ProcessPoolExecutor(self._processes, context, _begin)
    running, jobs = set(), iter(jobs)
    try:
      while True:
        while len(running) < 2 * self._processes and (job := next(jobs, None)) is not None:
          running.add(self._pool.submit(_guarded, function, job))
        if not running:
          return
        done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in done:
          result, error = future.result()
          if error is not None:
            raise error
          yield result
    except BrokenProcessPool as error:
      raise OSError(
        'a worker process was killed, perhaps for want of memory: what is finished stays; type the same command again, '
        f'with fewer than {self._processes} processes'
      ) from error


def _guarded(function: Callable, job) -> tuple:
  """(result, None), or (None, error) for one that is a sentence; the trace of another tells where the bug is."""
  try:
    return function(job), None
  except (ValueError, OSError) as error:
    if not is_sentence(error):
      raise
    return None, error


def _begin() -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the parent
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  multiprocessing.parent_process().join()
  os._exit(1)
