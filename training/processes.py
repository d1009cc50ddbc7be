"""The same program in several processes, on one machine or many: how they find each other and end together.

JAX runs them in step; what is here starts it (`taking_part`), after a roll call that tells a wrong start in one
sentence, and ends all of them when one is lost (`roll_call`). With a single process nothing here does anything.
"""

import atexit
import contextlib
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from text.command_line import is_sentence, sentence
from training.interrupt import Interrupted
from training.recorder import Diverged
from training.roll_call import RollCall

# An exit code that says: nothing is wrong with what was asked for, start it again (EX_TEMPFAIL of sysexits.h).
LOST = 75
INITIALIZATION_TIMEOUT, HEARTBEAT_TIMEOUT, STALL_TIMEOUT = 300, 60, 1800

_roll_call: RollCall | None = None  # of this process, as jax.distributed has one state for it


@contextlib.contextmanager
def taking_part(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  initialization_timeout: float = INITIALIZATION_TIMEOUT,
  heartbeat_timeout: float = HEARTBEAT_TIMEOUT,
  stall_timeout: float = STALL_TIMEOUT,
) -> Iterator[None]:
  """A `with` block around all of a program that uses JAX: in it `jax.devices()` are those of all processes.

  What is None is found in the environment of the cluster (TPU pod, Slurm, Open MPI, Kubernetes) as
  `jax.distributed.initialize` finds it; where there is no cluster, or one of one process, nothing happens. Seconds:
  initialization_timeout, until all processes have come; heartbeat_timeout, until one that nothing is heard of is lost;
  stall_timeout, until a run in which no `progress` is made is given up (compilation counts; 0: never).

  The block ends when it has ended in all processes. Where it ends with an error in one, the others end with code 1 and
  a sentence that tells it; where one is lost, with code 75 and a sentence that names it.

  Raises ValueError or OSError, with one sentence, for flags that do not belong together, a coordinator that cannot be
  reached, and processes that were started with different numbers.
  """
  address, number, identity = _parts(coordinator_address, num_processes, process_id, initialization_timeout)
  if number == 1:
    yield
    return
  global _roll_call
  for name, value in (('initialization_timeout', initialization_timeout), ('heartbeat_timeout', heartbeat_timeout)):
    if value <= 0:
      raise ValueError(f'{name} must be above 0 seconds, got {value:g}')
  roll_call = RollCall(
    address,
    number,
    identity,
    initialization_timeout=initialization_timeout,
    heartbeat_timeout=heartbeat_timeout,
    stall_timeout=stall_timeout,
    end=_end,
  )
  address_of_jax = roll_call.meet()
  roll_call.watch()
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(
    address_of_jax,
    number,
    identity,
    initialization_timeout=max(round(initialization_timeout), 1),
    heartbeat_timeout_seconds=round(10 * heartbeat_timeout) + 600,  # stands by, see `roll_call`
    shutdown_timeout_seconds=max(round(heartbeat_timeout), 1),  # all come to it at the same time
  )
  _roll_call = roll_call
  try:
    yield
  except Interrupted:
    _leave()
    raise
  except BaseException as error:
    _fail(error)
    raise
  else:
    _leave()


def progress() -> None:
  """Says that this process got further; all call it at the same places of the program."""
  if _roll_call is not None:
    _roll_call.progress()


def gather_failures(failure: str) -> str:
  """`RollCall.gather_failures`: without a device, so that a thread may wait for the other processes meanwhile."""
  return failure if _roll_call is None else _roll_call.gather_failures(failure)


def is_main() -> bool:
  """Whether this process writes what is written once."""
  return jax.process_index() == 0


def check_equal(what: str, value: Any, remedy: str) -> None:
  """Raises ValueError if JSON data is not the same in all processes; all call it at the same places of the program."""
  if jax.process_count() == 1:
    return
  if _roll_call is None:
    raise ValueError('several processes train within `with training.processes.taking_part(): …` only, as in train.py')
  digest = np.uint32(zlib.crc32(json.dumps(value, sort_keys=True).encode()))
  digests = multihost_utils.process_allgather(digest)
  if (other := np.flatnonzero(digests != digests[0])).size:
    raise ValueError(f'{what} of process {other[0]} and of process 0 are not the same: {remedy}')


def all_agree(holds: bool) -> bool:
  """Whether something holds in every process; all must call it at the same places of the program."""
  return bool(np.all(multihost_utils.process_allgather(np.bool_(holds)))) if jax.process_count() > 1 else holds


def in_main(call: Callable[[], None]) -> None:
  """Calls what only one process may do in that one, and returns in all when it is done."""
  if is_main():
    call()
  all_agree(True)


def _parts(address: str | None, number: int | None, identity: int | None, timeout: float) -> tuple[str, int, int]:
  """(address, number of processes, id of this one)."""
  given = {'coordinator_address': address, 'num_processes': number, 'process_id': identity}
  missing = [name for name, value in given.items() if value is None]
  if missing:
    # What `jax.distributed.initialize` asks, and nothing public tells before it (tests/test_private_names.py).
    from jax._src import clusters

    if len(missing) == 3:
      address = os.environ.get('JAX_COORDINATOR_ADDRESS')
    detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
    given = dict(zip(given, detect(address, number, identity, None, None, round(timeout)), strict=False))
    if all(value is None for value in given.values()):
      return '', 1, 0
    absent = [name for name, value in given.items() if value is None]
    if absent:
      raise ValueError(
        f'{" and ".join(absent)} must be given, too: a run of several processes needs coordinator_address (host:port '
        'of process 0), num_processes and process_id, and no cluster was found here that tells them'
      )
  address, number, identity = given.values()
  if number < 1 or not 0 <= identity < number:
    raise ValueError(f'process_id must be from 0 to num_processes - 1, got process_id {identity} of {number} processes')
  return address, number, identity


def _leave() -> None:
  global _roll_call
  _roll_call.leave()
  _roll_call = None
  jax.distributed.shutdown()


def _fail(error: BaseException) -> None:
  """Tells the others, and lets this process end without waiting for them as JAX would at exit."""
  is_ours = isinstance(error, Diverged) or is_sentence(error)
  if not is_ours:
    # A collective operation fails when its partner is lost: then the roll call ends this process, at once where the
    # partner was killed, and with a better sentence.
    time.sleep(5.0)
  _roll_call.fail(sentence(error) or type(error).__name__)
  atexit.register(_exit, 1)


def _end(sentence: str, is_failure: bool) -> NoReturn:
  print(f'error: {" ".join(sentence.split())}', file=sys.stderr)
  _exit(1 if is_failure else LOST)


def _exit(code: int) -> NoReturn:
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  os._exit(code)
