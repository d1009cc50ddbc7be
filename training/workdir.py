"""What stands in a work directory, and a trained model from it alone."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

import byte_models
from layers import weights
from text import paths, tokens, units
from training import checkpoint, description, earlier
from training import config as config_lib
from training.state import Flat, flatten, rebuild

CHECKPOINTS = 'checkpoints'
MOST_REMOVED = 100  # steps that a run may remove under a reader, before this gives up


@dataclasses.dataclass(frozen=True)
class Loaded:
  """model: with the averaged parameters if the run kept an average; config: resolved, plain data; step: of the
  checkpoint. Official weights have no run behind them: config {} and step None.
  """

  model: Any
  config: dict[str, Any]
  step: int | None


def load(workdir: str | os.PathLike, step: int | str | None = None, report: Callable[[str], None] = print) -> Loaded:
  """The model that a work directory holds, or a directory with official weights.

  The latter, or a .gguf file of a Llama, as `byte_models.from_pretrained` reads it, with `model` keys that its
  config.json may have beside the published ones. A T-Free-HAT then has delivery 'causal', so that its bits are a code
  length; "delivery": "published" in config.json makes it the published model.

  step: None = the newest whole checkpoint (one sentence goes to `report` for each newer one that is damaged), 'best'
  = the lowest validation bits per byte, or a number. A run may train in the directory meanwhile: where it removes a
  step that is being read, the newest (or best) is chosen again, and one named by its number is an error. Raises
  FileNotFoundError if the directory, its config, or the step is not there, ValueError if what is there is damaged.
  """
  workdir = paths.of(workdir, 'workdir')
  if workdir.suffix == '.gguf' or _published(workdir) is not None:
    if step is not None:
      raise ValueError(f'step {step} does not apply: {workdir} holds official weights, not checkpoints of a run')
    return Loaded(byte_models.from_pretrained(workdir), {}, None)
  directory = paths.of(workdir / CHECKPOINTS, 'workdir', text=True)
  config = read_config(workdir)
  if not checkpoint.all_steps(directory):
    raise _no_checkpoint(directory)
  model = description.abstract_model(config['model'])
  if step is None:
    step, params = _newest_whole(directory, flatten(model), report)
  elif step == 'best':
    step, params = _best(directory, flatten(model), report)
  else:
    step = _number(step)
    params = checkpoint.load_params(directory, step, flatten(model), one_device())
  return Loaded(rebuild(model, params), config, step)


def is_published(directory: pathlib.Path) -> bool:
  """Whether a directory holds official weights, or what claims to be them, rather than a run."""
  return _published(directory) is not None


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """The resolved config of a work directory, with the files in it where they lie now, and of an earlier version with
  the keys that it did not have at their defaults; FileNotFoundError or ValueError if there is none or it is not one.
  """
  config = config_lib.resolve(_saved_config(workdir))
  found = _spelled(config)
  own = found and (workdir / found.kind.COPY).absolute()
  if found and found.file == found.kind.COPY and (own.exists() or not pathlib.Path(found.file).exists()):
    return _with_units(config, found.at(own))
  return config  # of subwords: a run of an earlier version, whose file is where it was


def _saved_config(workdir: pathlib.Path) -> dict[str, Any]:
  path = workdir / weights.CONFIG
  try:
    config = weights.read_json(path)
  except FileNotFoundError:
    reason = 'it has no config.json' if workdir.is_dir() else 'there is no such directory'
    raise FileNotFoundError(f'{workdir} is not a work directory: {reason}') from None
  if 'model' not in config:
    raise ValueError(f'{path} is not the config of a training run: it has no key model')
  return earlier.current(config)


def write_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Makes the work directory if need be and writes its config.json, and before it the file that a model's units or
  tokens come from: each whole or not at all. Raises as `text.units.read` and `text.tokens.parse` for such a file.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  if found := _spelled(config):
    found.kind.digest_in(found.file, found.digest)
    found.kind.copy(found.file, workdir / found.kind.COPY)
  weights.write_json(workdir / weights.CONFIG, portable(config))


def with_own_files(workdir: pathlib.Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """(a resolved config with the files that its run reads, each with its digest; sentences for the user).

  Where the work directory has checkpoints, they are its own copies, also if the files are no longer where the config
  says; not if these are others now, which `config_changes` refuses.
  """
  found, notes = _spelled(config), []
  if not found:
    return dict(config), []
  own, copied, digest = (workdir / found.kind.COPY).absolute(), None, found.digest
  if own.exists() and checkpoint.all_steps(workdir / CHECKPOINTS):
    copied = found.kind.digest_in(own)
  try:
    digest = found.kind.digest_in(found.file, digest)
  except (OSError, ValueError) as error:
    if copied is None or ((digest or isinstance(error, ValueError)) and digest != copied):
      return dict(config), []  # who builds the model says what is wrong
    digest, notes = copied, [f"model.units: '{found.file}' is no longer what it was: its copy {own} is used"]
  return _with_units(config, found.at(own if digest == copied else found.file, digest)), notes


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
  """A resolved config as a work directory keeps it: equal wherever its files lie, if they are the same."""
  found = _spelled(config)
  if not found:
    return dict(config)
  try:
    digest = found.kind.digest_in(found.file, found.digest)
  except (OSError, ValueError):
    digest = found.digest
  return _with_units(config, found.at(found.kind.COPY, digest)) if digest else dict(config)


class _Spelled(NamedTuple):
  """What spells a model's text, in a file. kind: the module that knows such files, text.units or text.tokens."""

  kind: Any
  file: str
  digest: str

  def at(self, file: str | os.PathLike, digest: str | None = None) -> str:
    """The specification with another file."""
    return self.kind.in_file(file, self.digest if digest is None else digest)


def _spelled(config: Mapping[str, Any]) -> _Spelled | None:
  """None for a model that needs no file for that, or one that is not valid."""
  model = config.get('model')
  spec = model.get('units') if isinstance(model, Mapping) else None
  for kind in (units, tokens) if isinstance(spec, str) else ():
    with contextlib.suppress(ValueError):
      return (found := kind.file_of(spec)) and _Spelled(kind, *found)
  return None


def _with_units(config: Mapping[str, Any], spec: str) -> dict[str, Any]:
  return {**config, 'model': {**config['model'], 'units': spec}}


def config_changes(workdir: pathlib.Path, config: Mapping[str, Any]) -> list[str]:
  """What differs from the config that the checkpoints of a work directory were trained with, one phrase per key; none
  where there is no checkpoint. Raises ValueError if something differs that must not (see `config.FREE_TO_CHANGE`).
  """
  if not checkpoint.all_steps(workdir / CHECKPOINTS):
    return []
  return config_lib.refuse_changes(portable(read_config(workdir)), portable(config), str(workdir))


def initial_params(source: str, model: Any, seed: int = 0) -> Flat:
  """Parameters to begin from: of a work directory, or of a directory with official weights.

  From a Llama, a .gguf file or a Hugging Face directory, come the blocks of the model's backbone, and `seed` draws the
  rest. Raises FileNotFoundError or ValueError if there is none of these, or they do not fit the (abstract) model.
  """
  directory = paths.of(source, 'init_from')
  source = str(directory)
  published = _published(directory)
  is_llama = directory.suffix == '.gguf' or (published or {}).get('model_type') == 'llama'
  if is_llama and byte_models.official_in(source) != model.config.family:
    return byte_models.graft(model.config, source, seed)
  has_run = published is None and not is_llama
  found = load(directory).model if has_run else byte_models.from_pretrained(source, like=model.config)
  for name in found.alphabet | model.alphabet:
    theirs, ours = (side.alphabet.get(name) for side in (found, model))
    if theirs != ours:
      raise ValueError(f'init_from {source!r} has {name} {theirs} and the model {ours}: give the model the same')
  try:
    return flatten(rebuild(model, flatten(found)))
  except ValueError as error:
    raise ValueError(f'init_from {source!r} holds another model: {error}') from None


def borrowed_params(model: Any, report: Callable[[str], None] = print) -> Flat:
  """Those that an (abstract) model has from other runs, as its parts take them: path -> array.

  Raises FileNotFoundError or ValueError where a part names no work directory, or one that it cannot use.
  """
  params, shapes = {}, flatten(model)
  for path, part in model.borrowed.items():
    if not part.borrows:
      raise ValueError(
        f'{part.name} names no work directory to have its parameters from: train one, such as '
        'configs/quickstart_entropy_lm.py, and write lm=DIRECTORY.'
      )
    directory = paths.of(part.borrows, f'model.chunking: {part.name.partition("(")[0]}(lm)')
    found = load(directory, report=report)
    for name, value in part.take(found.model, found.step, directory).items():
      if (wanted := shapes[f'{path}.{name}']).shape != value.shape:
        raise ValueError(f'{directory} has {name} {list(value.shape)} and {part.name} {list(wanted.shape)}.')
      params[f'{path}.{name}'] = value
  return params


def _published(source: pathlib.Path) -> dict[str, Any] | None:
  """config.json where it is not that of a run, so that of official weights, or an error that their reader tells; None
  where it is that of a run, or there is none.
  """
  file = source / weights.CONFIG
  if not file.is_file():
    return None
  values = weights.read_json(file)
  return None if 'model' in values else values


def _newest_whole(directory: pathlib.Path, abstract: Mapping[str, Any], report) -> tuple[int, Flat]:
  damage, removed = {}, 0
  while True:
    steps = [step for step in checkpoint.all_steps(directory) if step not in damage]
    step = int(checkpoint.of_first(str(steps[-1] if steps else -1)))
    if step < 0:
      break
    try:
      params = checkpoint.load_params(directory, step, abstract, one_device())
    except checkpoint.DamagedCheckpoint as error:
      damage[step] = error
    except checkpoint.RemovedCheckpoint:
      removed += 1
      if removed == MOST_REMOVED:
        raise
    else:
      for error in damage.values():
        report(f'{error}; step {step} is used')
      return step, params
  if not damage:
    raise _no_checkpoint(directory)
  raise ValueError(f'no checkpoint in {directory} is whole; the newest: {damage[max(damage)]}')


def _best(directory: pathlib.Path, abstract: Mapping[str, Any], report: Callable[[str], None]) -> tuple[int, Flat]:
  for removed in range(MOST_REMOVED):
    step = int(checkpoint.of_first(str(checkpoint.best_step(directory, report))))
    try:
      return step, checkpoint.load_params(directory, step, abstract, one_device())
    except checkpoint.RemovedCheckpoint:
      if removed == MOST_REMOVED - 1:
        raise


def _no_checkpoint(directory: pathlib.Path) -> FileNotFoundError:
  return FileNotFoundError(f'there is no checkpoint in {directory}: the run has not saved one yet')


def _number(step: int | str) -> int:
  try:
    return int(step)
  except ValueError:
    raise ValueError(f"step must be a number or 'best', got {step!r}") from None


def one_device() -> jax.sharding.Mesh:
  """One device of this process. Evaluation and notebooks use one; whoever wants more moves the parameters."""
  return jax.make_mesh((1,), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.local_devices()[:1])
