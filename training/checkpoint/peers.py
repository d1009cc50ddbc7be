"""A save of several processes that fails in one of them fails in all, and none waits for long.

While Orbax writes, the processes wait for each other: for the directories that process 0 makes, for the arrays of all,
and for the step to get its name. One that fails would leave the others waiting there for twenty minutes, while it is
already in another place of the program. Here it tells them, and comes to where they wait.
"""

import itertools

import jax
from jax._src import distributed  # the client that Orbax itself uses

_PLACES = 2  # where all meet in a save: all arrays are written; the step has its name
_DAY = 24 * 3600 * 1000  # ms. Who never comes is the roll call's to notice.
_numbers = itertools.count()  # of all saves of this process: the same in all, and used once


class Peers:
  """The processes that write a checkpoint; one save after the other."""

  def begin(self) -> None:
    """All processes call it before a save."""
    self._save, self._place, self._is_over = f'checkpoint/{next(_numbers)}', 0, False

  def meet(self, *, key: str, timeout_ms: int) -> None:
    """Waits until all have come to the same place of a save; Orbax calls it, in a thread. Raises OSError, in all, if
    one came because it has failed.
    """
    del key, timeout_ms  # a key may come again after a rollback, and time is measured by a clock that may jump
    if failures := self._come():
      self._is_over = True
      raise OSError('; '.join(reason for _, reason in failures))

  def fail(self, reason: str) -> None:
    """In a process whose save has failed: lets it fail in the others, unless it came from them or they have done."""
    if jax.process_count() == 1 or self._is_over or self._place == _PLACES:
      return
    client = distributed.global_state.client
    client.key_value_set(f'{self._save}/{jax.process_index()}', f'process {jax.process_index()}: {reason}')
    if jax.process_index() == 0:
      _release_directories()
    self._come()
    self._is_over = True

  def _come(self) -> list[tuple[str, str]]:
    """Waits for the others; the failures that were told."""
    client, self._place = distributed.global_state.client, self._place + 1
    client.wait_at_barrier(f'{self._save}/place {self._place}', _DAY)
    return client.key_value_dir_get(f'{self._save}/')


def _release_directories() -> None:
  """Lets the others go on that wait for directories which process 0 will not make."""
  # Nothing public does it; imported here, so that another Orbax breaks this case at most.
  from orbax.checkpoint._src.futures import future, synchronization

  signals = [synchronization.HandlerAwaitableSignal(f'{what}_directory_creation') for what in ('step', 'item')]
  future.set_signals(signals, operation_id=synchronization.OperationIdGenerator.get_current_operation_id())
