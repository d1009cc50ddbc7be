"""Training from a config to a work directory: mesh, data, model, restore, loop."""

import os
import pathlib
import signal
from typing import Any

import jax
from jax.sharding import NamedSharding

import text
from evaluation import bits_per_byte
from evaluation.finite import NotFiniteError
from text import mixture, paths, texts
from training import checkpoint, description, processes, sharding
from training import config as config_lib
from training import metrics as metrics_lib
from training import state as state_lib
from training import workdir as workdir_lib
from training.capacity import Programs, Runner
from training.interrupt import Interrupted, SignalWatch
from training.lock import Lock
from training.recorder import Diverged, Recorder, is_due
from training.trainer import Trainer


def train(config: Any, workdir: str | os.PathLike) -> dict[str, float]:
  """Trains a config (ConfigDict or mapping) in a work directory, going on from the newest whole checkpoint there.

  Parameters come from the first of: the work directory's own checkpoint, config.init_from, initialisation. On the CPU
  a run that was stopped and resumed ends bit-equal to one that was not. Writes config.json, metrics.jsonl,
  tensorboard/ and checkpoints/, and of a model of subwords units.json. Returns the last step's metrics, validation_bpb
  among them where it is finite.

  Raises ValueError or OSError, with one sentence, for a config, data or directory that cannot be used; Diverged; and
  Interrupted after SIGTERM, SIGINT or SIGHUP, once the step under way is saved.
  """
  workdir = paths.of(workdir, 'workdir', text=True)
  while (values := _train(config, workdir)) is None:
    pass
  return values


def _train(config: Any, workdir: pathlib.Path) -> dict[str, float] | None:
  """None after a rollback: the run is to go on from its newest checkpoint."""
  resolved, notes = workdir_lib.with_own_files(workdir, config_lib.resolve(config))
  trainer = Trainer.of(resolved)
  settings, mesh, model = trainer.settings, trainer.mesh, trainer.model
  processes.check_equal('the configs', workdir_lib.portable(resolved), 'start all processes with the same config')
  display = metrics_lib.Display(quiet=not processes.is_main())

  # --- Data
  changes = workdir_lib.config_changes(workdir, resolved)
  run_texts = text.Texts.of(settings.data.source, settings.data.validation)
  corpora, validation = run_texts.open_training(), run_texts.open_validation()
  fingerprints = [corpus.fingerprint for corpus in (*corpora.corpora, *validation.values())]
  processes.check_equal('the texts', fingerprints, 'give all machines the same data')
  processes.in_main(lambda: display.line('\n'.join(texts.described(corpora, validation, settings.eval.max_bytes))))

  display.line(description.table(description.describe(config, model)))

  checkpoints = checkpoint.Checkpoints(
    workdir / workdir_lib.CHECKPOINTS, settings.checkpoint.keep_latest, settings.checkpoint.keep_best, display.line
  )
  lock, writer = Lock(workdir, display.line), None
  try:
    with jax.set_mesh(mesh), SignalWatch() as watch:
      # --- Restore
      processes.in_main(lambda: workdir.is_dir() and lock.take())
      state, position = _restore_or_create(trainer, workdir, checkpoints, corpora, display.line)
      start_row, rollbacks = position['start_row'], position['rollbacks']
      done = int(state.step)
      if done:
        display.line(f'{workdir} goes on from step {done} of {settings.num_steps}')
      for change in changes:
        display.line(f'config changed since the run began: {change}')
      for note in notes:
        display.line(note)
      processes.in_main(lambda: _begin_to_write(workdir, lock, resolved))
      writer = metrics_lib.MetricsWriter(workdir, done, display.line) if processes.is_main() else None
      if done == settings.num_steps:
        display.line(f'{workdir} has been trained to step {done} already; a higher num_steps trains it further')
        return writer.last() if writer is not None else {}

      # --- Loop
      rows = trainer.batches(corpora, start_row)
      batch = trainer.put(next(rows))
      runner = Runner(trainer, Programs(trainer, state, batch, display.line), done, position['capacity'])
      recorder = Recorder(settings, model, mesh, writer, display, rollbacks)
      display.start(settings.num_steps, done)
      for step in range(done + 1, settings.num_steps + 1):
        # An implicit copy would make the devices wait for the host in every step. A GPU or TPU refuses it in both
        # directions; on a CPU reading is no copy, and what is refused are copies to a device and between devices.
        with jax.transfer_guard('disallow'):
          runner.start(state, batch)
          recorder.read_previous()  # while this step runs
          batch = trainer.put(recorder.wait_for_data(rows))
          state, metrics = runner.finish()
        processes.progress()
        recorder.later(step, metrics)
        start_row += settings.batch_size
        is_last = step == settings.num_steps
        signal_number = watch.stops_now()
        stops = is_last or signal_number is not None
        evaluates = is_last or is_due(step, settings.eval.every_steps)
        if evaluates or stops or is_due(step, settings.checkpoint.every_steps):
          # A step's line is written before its checkpoint, so that a run resumed from there has all lines up to it.
          recorder.wait()
          with recorder.pause():
            score, measured = _evaluate(settings, model, state, validation, mesh, display) if evaluates else ({}, None)
          values = recorder.read_previous(score)
          if stops or is_due(step, settings.checkpoint.every_steps):
            with recorder.pause():
              position = {
                'start_row': start_row,
                'data': corpora.identity(),
                'rollbacks': rollbacks,
                'capacity': runner.state(),
              }
              save = checkpoints.finish if stops else checkpoints.save
              save(state, position, score.get(checkpoint.METRIC), measured)
        checkpoints.poll()
        if is_last:
          return values
        if signal_number is not None:
          name = signal.Signals(signal_number).name
          raise Interrupted(f'{name}: stopped after step {step}, which is saved in {workdir}', signal_number)
  except Diverged as error:
    checkpoints.wait()
    directory, allowed = workdir / workdir_lib.CHECKPOINTS, settings.checkpoint.rollbacks
    said = checkpoint.roll_back(directory, error.step, settings.batch_size, allowed)
    if said is None:
      raise
    display.line(f'{error}; {said}')
    return None
  finally:
    display.stop()
    checkpoints.close()
    if writer is not None:
      writer.close()
    lock.release()


def _begin_to_write(workdir, lock, resolved) -> None:
  workdir.mkdir(parents=True, exist_ok=True)
  lock.take()
  workdir_lib.write_config(workdir, resolved)


def _restore_or_create(trainer, workdir, checkpoints, corpora, report) -> tuple[state_lib.TrainState, dict[str, Any]]:
  """(state, the run's position: row in the stream, rollbacks so far, what it knows of capacities)."""
  settings, position = trainer.settings, {'start_row': 0, 'rollbacks': 0, 'capacity': None}
  found = checkpoints.restore_newest(trainer.abstract_state(), trainer.mesh)
  if found is not None:
    state, record = found
    if changes := mixture.differences(record['position']['data'], corpora.identity()):
      raise ValueError(
        f'data.source holds other text than {workdir} was trained on ({"; ".join(changes)}): bring that text back or '
        'use a new --workdir; files are trained on in part only if data.validation is empty or names them, too'
      )
    if mixture.is_reordered(record['position']['data'], corpora.identity()):
      report(
        'each text of the mixture now has an order of its own: rows of the epoch under way may come twice or never'
      )
    if int(state.step) > settings.num_steps:
      raise ValueError(
        f'num_steps is {settings.num_steps}, but {workdir} has been trained to step {int(state.step)} already'
      )
    return state, position | record['position']
  with jax.set_mesh(workdir_lib.one_device()):  # each process reads them for itself
    initial = (settings.init_from, trainer.model, settings.seed)
    params = jax.device_get(workdir_lib.initial_params(*initial)) if settings.init_from else None
    borrowed = jax.device_get(workdir_lib.borrowed_params(trainer.model, report))
  return trainer.state(params, borrowed), position


def _evaluate(settings, model, state, validation, mesh, display) -> tuple[dict[str, float], list[dict[str, Any]]]:
  """(validation metrics of the parameters that evaluation uses, what they were measured on); of several sources, their
  mean by bytes, then each.

  A score that is not finite is left out, and the mean with it, which is said: training may yet recover from it.
  """
  model = state_lib.rebuild(model, state.params if state.ema is None else state.ema)
  results = {}
  for source, corpus in validation.items():
    try:
      results[source] = bits_per_byte.evaluate(
        model,
        corpus,
        **settings.eval_rows,
        max_bytes=settings.eval.max_bytes,
        batch_sharding=NamedSharding(mesh, sharding.batch_spec(mesh)),
        progress=lambda *_: processes.progress(),
      )
    except NotFiniteError as error:
      display.line(f'step {int(state.step)}: no validation score: {error}')
  measured = [result.measured for result in results.values()]
  if len(validation) == 1:
    return {name: value for result in results.values() for name, value in _scores(result, '').items()}, measured
  scores = {name: value for source in results for name, value in _scores(results[source], f'/{source}').items()}
  if len(results) < len(validation):
    return scores, measured
  text_bytes = sum(result.text_bytes for result in results.values())
  mean = sum(result.bits_per_byte * result.text_bytes for result in results.values()) / text_bytes
  return {checkpoint.METRIC: mean, 'validation_bytes': float(text_bytes)} | scores, measured


def _scores(result: bits_per_byte.Result, suffix: str) -> dict[str, float]:
  sizes = {f'validation_bytes_per_chunk_{stage}': size for stage, size in enumerate(result.bytes_per_chunk)}
  stages = enumerate(result.boundary_metrics)
  boundaries = {
    f'validation_{name}_{stage}': value for stage, found in stages for name, value in found.scalars().items()
  }
  scores = {
    checkpoint.METRIC: result.bits_per_byte,
    'validation_bytes': float(result.text_bytes),
    'validation_eos_bits': result.eos_bits,
    **sizes,
    **boundaries,
  }
  return {f'{name}{suffix}': value for name, value in scores.items() if value is not None}
