"""What is in a directory of checkpoints: records, arrays, and whether they are what was saved."""

import contextlib
import json
import math
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from training import earlier, sharding
from training.checkpoint import array_store
from training.state import COUNTERS, Flat, TrainState, flatten, rebuild

METRIC = 'validation_bpb'
RECORD = 'record'  # the directory of a step's JSON, beside those of its arrays
UNFINISHED = '.orbax-checkpoint-tmp'  # suffix of a step that is being written, as Orbax's own tools know it
REMOVED = '.removed'  # suffix of a step on its way out
_REMOVED = 'removed: '  # before what a process tells of a step that is no longer there
FREE_BYTES, BYTES_OF_A_BYTE = 100_000_000, 200  # an array may be as large as this and so many times the step's files


class DamagedCheckpoint(ValueError):
  """A checkpoint that cannot be read, or whose content is not what was saved."""


class RemovedCheckpoint(FileNotFoundError):
  """A checkpoint that is not there, or no longer: its run removed it, perhaps while it was read."""


def all_steps(directory: pathlib.Path) -> list[int]:
  """The steps saved in a directory, ascending; none where there is no directory.

  A run may save and remove steps meanwhile: where all that were listed are gone, newer ones are there by now.
  """
  if not directory.is_dir():
    return []
  listed = None
  while listed != (listed := [path for path in directory.iterdir() if path.name.isdecimal()]):
    if found := sorted(int(path.name) for path in listed if path.is_dir()):
      return found
  return []


def half_written(directory: pathlib.Path) -> list[str]:
  """Names of what a killed run did not finish writing or removing; the next save clears it away."""
  if not directory.is_dir():
    return []
  return sorted(path.name for pattern in (f'*{UNFINISHED}*', f'*{REMOVED}') for path in directory.glob(pattern))


def records(directory: pathlib.Path) -> dict[int, dict[str, Any]]:
  """{step: record} of the saved steps whose record can be read, ascending."""
  found = {}
  for step in all_steps(directory):
    with contextlib.suppress(DamagedCheckpoint, RemovedCheckpoint):
      found[step] = read_record(directory, step)
  return found


def scores(directory: pathlib.Path) -> list[dict[int, float]]:
  """{step: validation bits per byte} of the saved steps that were evaluated and whose record can be read, apart for
  those that were measured on other text, bytes or rows; those like the newest are the last.
  """
  alike: dict[str, dict[int, float]] = {}
  for step, record in records(directory).items():
    if record[METRIC] is not None and math.isfinite(record[METRIC]):
      measured = json.dumps(record.get('measured'), sort_keys=True)  # earlier records do not say
      alike[measured] = alike.pop(measured, {}) | {step: record[METRIC]}
  return list(alike.values())


def best_step(directory: pathlib.Path, report: Callable[[str], None] = print) -> int:
  """The saved step with the lowest validation bits per byte of those that were measured as the newest was; a sentence
  to `report` names the others. Raises ValueError if none was evaluated.
  """
  groups, steps = [], None
  while not groups and steps != (steps := all_steps(directory)):  # its run may have removed those that were there
    groups = scores(directory)
  *others, found = groups or [{}]
  if others:
    named = ', '.join(str(step) for step in sorted(step for group in others for step in group))
    report(
      f'steps {named} in {directory} were validated on other text, bytes or rows than step {max(found)}: they are not '
      'among those of which the best is taken'
    )
  if not found:
    raise ValueError(
      f'no checkpoint in {directory} has a validation score: name a step instead of best ({_have(directory)})'
    )
  return min(found, key=found.get)


def read_record(directory: pathlib.Path, step: int) -> dict[str, Any]:
  """The JSON of a step. Raises RemovedCheckpoint if there is no such step, DamagedCheckpoint if it is not whole."""
  path = directory / str(step)
  if not path.is_dir():
    raise RemovedCheckpoint(f'there is no checkpoint of step {step} in {directory} ({_have(directory)})')
  try:
    record = json.loads(record_path(path).read_bytes())
    # Earlier records have one digest for each item, and their own among them.
    seal = record['digests'].pop('record') if 'digests' in record else record.pop('checksum')
    whole = seal == _checksum(record) and record['step'] == step and _has_sums(record)
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    if not path.is_dir():
      raise _removed(path) from None
    raise _damaged(path, f'its record cannot be read: {reason(error)}') from None
  if not whole:
    raise _damaged(path, 'its record is not what was saved')
  return record


def _has_sums(record: Mapping[str, Any]) -> bool:
  """Whether a record says of each item what is needed to check it: anybody can seal another one."""
  sums = sums_of(record)
  is_sum = lambda value: isinstance(value, int)
  of_arrays = lambda value: isinstance(value, dict) and all(map(is_sum, value.values()))
  is_item = lambda name: name in ('params', 'optimizer', 'ema')
  return isinstance(sums, dict) and all(is_item(n) and (is_sum(v) or of_arrays(v)) for n, v in sums.items())


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
  """A record with a checksum of itself."""
  return dict(record) | {'checksum': _checksum(record)}


def rewrite_position(directory: pathlib.Path, step: int, position: Mapping[str, Any]) -> None:
  """Gives a saved step another position in the data: wholly or, if it is stopped, not at all."""
  path, record = record_path(directory / str(step)), read_record(directory, step) | {'position': dict(position)}
  if 'digests' in record:
    record['digests']['record'] = _checksum(record)
  else:
    record = sealed(record)
  partial = path.with_name('partial')
  partial.write_text(json.dumps(record))
  os.replace(partial, path)


def record_path(path: pathlib.Path) -> pathlib.Path:
  """The JSON file of the record of a step in a directory of its own."""
  return path / RECORD / 'metadata'


def restore(
  directory: pathlib.Path, step: int, abstract: TrainState, mesh: jax.sharding.Mesh
) -> tuple[TrainState, dict]:
  """(state, record) of one step, on the devices of `mesh`; in every process of a job, or in none of them. Raises as
  `read_record` does, and ValueError if the step is of another model.
  """
  record, flats = _restore_items(directory, step, lambda record: items_of(abstract), mesh)
  places = sharding.shardings(abstract, mesh)
  counters = {
    name: jax.device_put(jnp.asarray(record.get(name, 0), getattr(abstract, name).dtype), getattr(places, name))
    for name in COUNTERS
  }
  opt_state = rebuild(abstract.opt_state, flats['optimizer'])
  return TrainState(params=flats['params'], opt_state=opt_state, ema=flats.get('ema'), **counters), record


def load_params(directory: pathlib.Path, step: int, abstract: Flat, mesh: jax.sharding.Mesh) -> Flat:
  """The parameters to evaluate with: the average if the run keeps one, else the last. Raises as `restore` does."""
  choose = lambda record: {'ema' if 'ema' in sums_of(record) else 'params': abstract}
  (params,) = _restore_items(directory, step, choose, mesh)[1].values()
  return params


def damage(directory: pathlib.Path, step: int) -> list[str]:
  """What is not as it was saved, a phrase for each array; [] for a whole step. Needs no model and no devices, and takes
  as much memory as the largest array; one whose metadata claim far more than the step's files can hold is not read.
  """
  try:
    sums = sums_of(read_record(directory, step))
  except DamagedCheckpoint as error:
    return [str(error)]
  path = directory / str(step)
  most = FREE_BYTES + BYTES_OF_A_BYTE * sum(file.stat().st_size for file in path.rglob('*') if file.is_file())
  return [phrase for name in sums for phrase in _item_damage(path / name, name, sums[name], most)]


def items_of(state: TrainState) -> dict[str, Flat]:
  """The flat dicts that a checkpoint of a state holds, by name."""
  items = {'params': state.params, 'optimizer': flatten(state.opt_state), 'ema': state.ema}
  return {name: flat for name, flat in items.items() if flat is not None}


def sums_of(record: Mapping[str, Any]) -> dict[str, dict[str, int] | int]:
  """{item: {path: checksum}}; {item: digest} of an earlier record."""
  return record['checksums'] if 'checksums' in record else record['digests']


def from_all(text: str) -> list[str]:
  """The texts of all processes, without those that are empty; all processes call it in step."""
  if jax.process_count() == 1:
    return [text] if text else []
  encoded = np.frombuffer(text.encode()[:400].ljust(400), np.uint8)
  gathered = (row.tobytes().decode(errors='replace').strip() for row in multihost_utils.process_allgather(encoded))
  return [text for text in gathered if text]


def of_first(text: str) -> str:
  """The text, which is not empty, of the first process; all processes call it in step."""
  return from_all(text)[0]


def reason(error: object) -> str:
  """A failure in one short line; TensorStore's fill a page, and end with the system's error number."""
  system_error = re.search(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(system_error.group(1))) if system_error else _short(error)


def _restore_items(
  directory: pathlib.Path, step: int, choose: Callable[[dict], Mapping[str, Flat]], mesh: jax.sharding.Mesh
) -> tuple[dict[str, Any], dict[str, Flat]]:
  """(record, the items' arrays, checked). choose: names of items and their arrays, by the record. All processes of a
  job come to the same end.
  """
  path, problem, record, flats, stored = directory / str(step), None, {}, {}, {}
  began = _identity(path)
  try:
    record = read_record(directory, step)
    for name, abstract in choose(record).items():
      stored[name] = _stored_paths(abstract, sums_of(record).get(name))
      _refuse_others(path, name, abstract, stored[name], sums_of(record).get(name))
      flats[name] = array_store.place(path / name, abstract, sharding.shardings(dict(abstract), mesh), stored[name])
  except array_store.OtherArray as error:
    raise ValueError(f'checkpoint {path} is of another model: {error}') from None
  except array_store.Unreadable as error:
    problem = _problem(directory, step, began, error)
  except (DamagedCheckpoint, RemovedCheckpoint) as error:
    problem = error
  _raise_in_all(problem)
  found = []
  for name, flat in flats.items():
    expected = sums_of(record)[name]
    sums = array_store.checksums(flat, isinstance(expected, int))
    found += _differences(name, {stored[name][path]: value for path, value in sums.items()}, expected)
  # Of an array that all hold whole, each process has read, and checked, a copy of its own.
  also = f', nor are {len(found) - 1} others' if len(found) > 1 else ''
  was_removed = found and _identity(path) != began
  _raise_in_all(_removed(path) if was_removed else _damaged(path, found[0] + also) if found else None)
  return record, flats


def _problem(directory: pathlib.Path, step: int, began: tuple | None, error: Exception) -> OSError | ValueError:
  """What to call an array that cannot be read: its run may have removed the step, or written another in its place."""
  path = directory / str(step)
  try:
    found = damage(directory, step) if _identity(path) == began else []
  except OSError:
    found = []
  return _removed(path) if _identity(path) != began else _damaged(path, (found or [reason(error)])[0])


def _identity(path: pathlib.Path) -> tuple[int, int, int] | None:
  """Tells a directory from another one of the same name."""
  try:
    status = os.stat(path)
  except OSError:
    return None
  return status.st_dev, status.st_ino, status.st_ctime_ns  # a number is given again when its directory is gone


def _raise_in_all(problem: Exception | None) -> None:
  """Raises the problem that a process has in all of them."""
  removed = '' if isinstance(problem, DamagedCheckpoint) else _REMOVED
  if problems := from_all('' if problem is None else f'{removed}{problem}'):
    kind = RemovedCheckpoint if problems[0].startswith(_REMOVED) else DamagedCheckpoint
    raise kind(problems[0].removeprefix(_REMOVED))


def _stored_paths(abstract: Flat, sums: dict[str, int] | int | None) -> dict[str, str]:
  """What each array of the model is called in an item: an earlier version may have saved it."""
  is_stored = lambda path: not isinstance(sums, dict) or path in sums
  return {path: path if is_stored(path) else earlier.stored_path(path) for path in abstract}


def _refuse_others(
  path: pathlib.Path, name: str, abstract: Flat, stored: Mapping[str, str], sums: dict[str, int] | int | None
) -> None:
  """Raises ValueError if an item is not of the arrays that the model has; shapes and types are `place`'s to compare."""
  if sums is None:
    raise ValueError(f'checkpoint {path} is of another model: it has no {name}')
  if isinstance(sums, int):
    return
  missing = sorted(path for path in abstract if stored[path] not in sums)
  surplus = sorted(sums.keys() - set(stored.values()))
  if missing or surplus:
    raise ValueError(
      f'checkpoint {path} is of another model: its {name} miss {missing[:3]} and have {surplus[:3]} besides'
    )


def _item_damage(item: pathlib.Path, name: str, expected: dict[str, int] | int, most: int) -> list[str]:
  plain = isinstance(expected, int)
  try:
    paths = array_store.names(item) if plain else list(expected)
  except array_store.Unreadable as error:
    return [f'its {name} cannot be read: {reason(error)}']
  found, sums = [], {}
  for path in paths:
    try:
      if (claimed := array_store.claimed_bytes(item, path)) > most:
        found.append(f'{name}/{path} claims {claimed:,} bytes, which these files cannot hold')
      else:
        sums[path] = array_store.host_checksum(array_store.read(item, path), plain)
    except array_store.Unreadable as error:
      found.append(f'{name}/{path} cannot be read: {reason(error)}')
  return found + ([] if plain and found else _differences(name, sums, expected))


def _differences(name: str, sums: Mapping[str, int], expected: dict[str, int] | int) -> list[str]:
  if isinstance(expected, int):
    return [] if array_store.item_digest(sums.values()) == expected else [f'its {name} are not what was saved']
  return [f'{name}/{path} is not what was saved' for path in sums if sums[path] != expected[path]]


def _checksum(record: Mapping[str, Any]) -> int:
  return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _damaged(path: pathlib.Path, why: object) -> DamagedCheckpoint:
  return DamagedCheckpoint(f'checkpoint {path} is damaged ({_short(why)})')


def _removed(path: pathlib.Path) -> RemovedCheckpoint:
  return RemovedCheckpoint(f'checkpoint {path} was removed by its run while it was read ({_have(path.parent)})')


def _short(text: object) -> str:
  return ' '.join(str(text).split())[:160] or type(text).__name__


def _have(directory: pathlib.Path) -> str:
  steps = all_steps(directory)
  return f'it has {", ".join(map(str, steps))}' if steps else 'it has none'
