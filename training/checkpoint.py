"""Checkpoints: state and data position of a step as one Orbax composite, written while training goes on.

  DIR/STEP/params, optimizer, ema   {path: array}; ema only where the run keeps an average
  DIR/STEP/record                   JSON: counters, position in the data, a digest of each of the others and of itself

A step directory appears under its name only when it is complete. The storage format does not notice a flipped bit in
an array, hence the digests: a checkpoint is whole if it can be read and its digests agree.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from training import sharding
from training.state import Flat, TrainState, flatten, rebuild

METRIC = 'validation_bpb'


class DamagedCheckpoint(ValueError):
  """A checkpoint that cannot be read, or whose content is not what was saved."""


class Checkpoints:
  """The checkpoints of one training run; one process (or one job) writes, `load_params` and others may read
  meanwhile.
  """

  def __init__(self, directory: pathlib.Path, keep_latest: int, keep_best: int, report: Callable[[str], None]):
    """report: takes one sentence for the user, where something went wrong that training survives."""
    self._directory, self._keep, self._report = directory.absolute(), (keep_latest, keep_best), report
    self._manager: ocp.CheckpointManager | None = None
    self._pending: int | None = None  # the step being written
    self._saved: int | None = None  # the newest step that was handed to the writer and has not failed

  def restore_newest(self, abstract: TrainState, mesh: jax.sharding.Mesh) -> tuple[TrainState, dict[str, Any]] | None:
    """(state, record) of the newest whole checkpoint on `mesh`, or None where there is no checkpoint at all.

    Damaged ones that are newer are named in a report and moved aside as STEP.damaged, so that their step can be saved
    again. Raises DamagedCheckpoint if there are checkpoints but none is whole.
    """
    steps, damage, found = all_steps(self._directory), {}, None
    for step in reversed(steps):
      try:
        if found is None:
          found = restore(self._directory, step, abstract, mesh)
        else:
          read_record(self._directory, step)  # the manager reads these of every step, and fails on a broken one
      except DamagedCheckpoint as error:
        damage[step] = error
    if steps and found is None:
      raise DamagedCheckpoint(
        f'no checkpoint in {self._directory} is whole (the newest: {damage[steps[-1]]}): delete the directory to train '
        'from the beginning'
      )
    for step, error in sorted(damage.items()):
      aside = _set_aside(self._directory / str(step))
      self._report(f'{error}; it was moved to {aside} and training goes on from step {int(found[0].step)}')
    for name in half_written(self._directory):
      self._report(f'{self._directory / name} was being written when the run was stopped: it is not used')
    self._saved = int(found[0].step) if found else None
    return found

  def save(self, state: TrainState, position: Mapping[str, Any], metric: float | None) -> None:
    """Begins to write a step: waits for the step before, copies the arrays to the host, leaves the rest to a thread.

    position: JSON data that `restore_newest` gives back. metric: validation bits per byte of this step if known. A
    step that is already saved is not written again. What fails is reported; earlier checkpoints stay as they are.
    """
    step = int(state.step)
    if step == self._saved:
      return
    self.wait()
    items = _items(state)
    record = {
      'step': step,
      'skipped': int(state.skipped),
      'skipped_in_a_row': int(state.skipped_in_a_row),
      METRIC: metric,
      'position': dict(position),
      'digests': {name: digest(flat) for name, flat in items.items()},
    }
    record['digests']['record'] = _record_digest(record)
    arguments = {name: ocp.args.StandardSave(flat) for name, flat in items.items()}
    self._pending = self._saved = step
    try:
      self._open().save(
        step,
        args=ocp.args.Composite(**arguments, record=ocp.args.JsonSave(record)),
        metrics=_metrics(metric),
        force=True,
      )
    except Exception as error:  # whatever prevents a save must not end the training
      self._failed(error)

  def poll(self) -> None:
    """Reports a save that failed, without waiting for one that is under way."""
    if self._pending is not None and not self._open().is_saving_in_progress():
      self.wait()

  def wait(self) -> bool:
    """Waits for the save under way; False if it failed, which is reported."""
    if self._pending is None:
      return True
    try:
      self._open().wait_until_finished()
    except Exception as error:
      self._failed(error)
      return False
    self._pending = None
    return True

  def finish(self, state: TrainState, position: Mapping[str, Any], metric: float | None) -> None:
    """Saves the run's last state and waits for it. Raises OSError if it could not be written."""
    self.save(state, position, metric)
    self.wait()
    if self._saved != int(state.step):
      kept = all_steps(self._directory)
      raise OSError(
        f'the last checkpoint, of step {int(state.step)}, could not be written to {self._directory}; '
        + (f'step {kept[-1]} is the newest there' if kept else 'there is none')
      )

  def close(self) -> None:
    """Waits for the save under way and lets the writer go."""
    self.wait()
    if self._manager is not None:
      self._manager.close()
      self._manager = None

  def _failed(self, error: Exception) -> None:
    step, self._pending, self._saved = self._pending, None, None
    system_error = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's, at the end of a page
    reason = os.strerror(int(system_error.group(1))) if system_error else _sentence(error)
    self._report(
      f'the checkpoint of step {step} could not be written to {self._directory} ({reason}); earlier ones are '
      'untouched, and the next one is tried when it is due'
    )
    manager, self._manager = self._manager, None  # a fresh one sees what is on disk
    with contextlib.suppress(Exception):  # the same failure, once more
      if manager is not None:
        manager.close()
    for name in half_written(self._directory):  # a full disk needs the space
      shutil.rmtree(self._directory / name, ignore_errors=True)

  def _open(self) -> ocp.CheckpointManager:
    if self._manager is None:
      latest, best = self._keep
      policies = [checkpoint_managers.LatestN(latest)]
      if best:
        # reverse: BestN keeps the end of the sorted list, and the lowest is best here.
        policies.append(checkpoint_managers.BestN(get_metric_fn=_rank, reverse=True, n=best))
      options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        best_fn=_rank,  # without it metrics are not written
        best_mode='min',
        cleanup_tmp_directories=True,
      )
      self._manager = ocp.CheckpointManager(self._directory, options=options)
    return self._manager


def all_steps(directory: pathlib.Path) -> list[int]:
  """The steps saved in a directory, ascending; none where there is no directory."""
  if not directory.is_dir():
    return []
  return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal() and path.is_dir())


def half_written(directory: pathlib.Path) -> list[str]:
  """Names of what a killed run did not finish writing; the next save clears it away."""
  return sorted(path.name for path in directory.glob('*.orbax-checkpoint-tmp*')) if directory.is_dir() else []


def best_step(directory: pathlib.Path) -> int:
  """The saved step with the lowest validation bits per byte; raises ValueError if none was evaluated."""
  metrics = {}
  for step in all_steps(directory):
    try:
      metrics[step] = read_record(directory, step)[METRIC]
    except DamagedCheckpoint:
      continue
  scored = {step: metric for step, metric in metrics.items() if metric is not None}
  if not scored:
    raise ValueError(
      f'no checkpoint in {directory} has a validation score: name a step instead of best ({_have(directory)})'
    )
  return min(scored, key=scored.get)


def read_record(directory: pathlib.Path, step: int) -> dict[str, Any]:
  """The JSON of a step. Raises FileNotFoundError if there is no such step, DamagedCheckpoint if it is not whole."""
  path = directory / str(step)
  if not path.is_dir():
    raise FileNotFoundError(f'there is no checkpoint of step {step} in {directory} ({_have(directory)})')
  try:
    record = json.loads((path / 'record' / 'metadata').read_bytes())
    whole = record['digests'].pop('record') == _record_digest(record) and record['step'] == step
    whole &= json.loads((path / 'metrics' / 'metrics').read_bytes()) == _metrics(record[METRIC])
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise _damaged(path, error) from None
  if not whole:
    raise _damaged(path, 'its record is not what was saved')
  return record


def restore(
  directory: pathlib.Path, step: int, abstract: TrainState, mesh: jax.sharding.Mesh
) -> tuple[TrainState, dict]:
  """(state, record) of one step, on the devices of `mesh`. Raises as `read_record` does."""
  record = read_record(directory, step)
  expected = _items(abstract)
  items = {name: _restore_item(directory, step, record, name, expected[name], mesh) for name in expected}
  counters = {
    name: jax.device_put(jnp.int32(record[name]), getattr(sharding.shardings(abstract, mesh), name))
    for name in ('step', 'skipped', 'skipped_in_a_row')
  }
  opt_state = rebuild(abstract.opt_state, items['optimizer'])
  return TrainState(params=items['params'], opt_state=opt_state, ema=items.get('ema'), **counters), record


def load_params(directory: pathlib.Path, step: int, abstract: Flat, mesh: jax.sharding.Mesh) -> Flat:
  """The parameters to evaluate with: the average if the run keeps one, else the last. Raises as `read_record` does."""
  record = read_record(directory, step)
  return _restore_item(directory, step, record, 'ema' if 'ema' in record['digests'] else 'params', abstract, mesh)


def digest(flat: Flat) -> int:
  """A checksum of all bits of a flat dict, computed where the arrays are; any single change of one array changes it."""
  return sum(int(part) for part in [_array_digest(flat[path]) for path in sorted(flat)]) % 2**32


@jax.jit
def _array_digest(x) -> jax.Array:
  unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
  bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
  weight, stride = jnp.ones((), jnp.uint32), 1
  for axis in reversed(range(bits.ndim)):  # 2 * position + 1 in wrapping arithmetic, without flattening a sharded array
    weight = weight + 2 * jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    stride *= bits.shape[axis]
  return jnp.sum(bits * weight, dtype=jnp.uint32)


def _restore_item(directory, step, record, name, abstract, mesh) -> Flat:
  """One item's arrays, checked. An item that was never saved, or arrays of other shapes, are damage too: the configs
  agree.
  """
  path = directory.absolute() / str(step)
  placed = jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    abstract,
    sharding.shardings(abstract, mesh),
  )
  try:
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
      flat = reader.restore(path, args=ocp.args.Composite(**{name: ocp.args.StandardRestore(placed)}))[name]
    jax.block_until_ready(flat)
  except Exception as error:  # a damaged file surfaces as many types, plain Exception among them
    raise _damaged(directory / str(step), error) from None
  if digest(flat) != record['digests'].get(name):
    raise _damaged(directory / str(step), f'its {name} are not what was saved')
  return flat


def _items(state: TrainState) -> dict[str, Flat]:
  items = {'params': state.params, 'optimizer': flatten(state.opt_state), 'ema': state.ema}
  return {name: flat for name, flat in items.items() if flat is not None}


def _record_digest(record: Mapping[str, Any]) -> int:
  return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _set_aside(path: pathlib.Path) -> pathlib.Path:
  for number in range(1, 1000):
    aside = path.with_name(f'{path.name}.damaged' + (f'-{number}' if number > 1 else ''))
    if not aside.exists():
      return path.rename(aside)
  raise OSError(f'{path.parent} holds a thousand damaged copies of {path.name}: delete them')


def _damaged(path: pathlib.Path, reason: Any) -> DamagedCheckpoint:
  return DamagedCheckpoint(f'checkpoint {path} is damaged ({_sentence(reason)})')


def _sentence(reason: Any) -> str:
  return ' '.join(str(reason).split())[:160] or type(reason).__name__


def _have(directory: pathlib.Path) -> str:
  steps = all_steps(directory)
  return f'it has {", ".join(map(str, steps))}' if steps else 'it has none'


def _metrics(score: float | None) -> dict[str, float]:
  """What Orbax ranks a checkpoint by; one that was not evaluated is the worst of all."""
  return {METRIC: math.inf if score is None else score}


def _rank(metrics: Mapping[str, float]) -> float:
  return metrics[METRIC]
