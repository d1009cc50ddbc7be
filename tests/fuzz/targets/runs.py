"""What a run leaves and a model reads: checkpoints, config.json of a work directory, prompts and rows of text."""

import json
import pathlib
import random
import shutil

import jax.numpy as jnp

import evaluation
import training
from evaluation import generation, segmentation
from layers import weights
from layers.paths import flatten
from tests.fuzz import mutation
from tests.fuzz.running import Target
from tests.fuzz.targets.configs import _config
from tests.fuzz.targets.texts import hostile_text
from text import MemoryCorpus
from training import checkpoint, workdir
from training import config as config_lib
from training.checkpoint import reading
from training.state import TrainState


def _run_config() -> dict[str, object]:
  """What the run in `_prepare_run` is resumed with."""
  from tests.hnet import tiny  # it compiles when it is imported: after the fork only

  return config_lib.resolve({**_config('quickstart').to_dict(), 'model': tiny.branch(tiny.ONE_STAGE)})


def _prepare_run(seeds: pathlib.Path) -> None:
  """A work directory of a tiny model with two checkpoints."""
  if not seeds.exists():
    from tests.hnet import tiny

    workdir.write_config(seeds, _run_config())
    number = lambda value: jnp.asarray(value, jnp.int32)
    params = flatten(tiny.build(tiny.ONE_STAGE))
    checkpoints = checkpoint.Checkpoints(seeds / workdir.CHECKPOINTS, 9, 0, print)
    for step in (5, 10):
      state = TrainState(number(step), params, {'count': number(step)}, None, number(0), number(0), jnp.float32(0))
      checkpoints.save(state, {'start_row': 8 * step, 'data': []}, 2.0)
    checkpoints.close()
  training.load(seeds)
  training.load(seeds, 'best')
  checkpoint.damage(seeds / workdir.CHECKPOINTS, 5)
  assert not workdir.config_changes(seeds, _run_config())


def _make_workdir(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  directory = shutil.copytree(seeds, case / 'run')
  values = json.loads((directory / weights.CONFIG).read_bytes())
  if rng.random() < 0.8:
    values['model'] = mutation.edit(rng, values['model'])
  else:
    values = mutation.edit(rng, values)
  (directory / weights.CONFIG).write_bytes(mutation.json_bytes(rng, values))


def _run_workdir(case: pathlib.Path) -> None:
  training.load(case / 'run')
  workdir.config_changes(case / 'run', _run_config())


def _make_checkpoints(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  directory = shutil.copytree(seeds, case / 'run')
  files = [path for path in sorted((directory / workdir.CHECKPOINTS).rglob('*')) if path.is_file()]
  for path in rng.sample(files, rng.randint(1, 3)):
    if (
      path == reading.record_path(directory / workdir.CHECKPOINTS / path.relative_to(directory).parts[1])
      and rng.random() < 0.8
    ):
      record = json.loads(path.read_bytes())
      if rng.random() < 0.7 and isinstance(record := mutation.edit(rng, record), dict):
        record.pop('checksum', None)
        record = reading.sealed(record)
      path.write_bytes(mutation.json_bytes(rng, record))
    elif rng.random() < 0.1:
      path.unlink()
    else:
      path.write_bytes(mutation.damage(rng, path.read_bytes()))


def _run_checkpoints(case: pathlib.Path) -> None:
  directory = case / 'run' / workdir.CHECKPOINTS
  for step in checkpoint.all_steps(directory):
    checkpoint.damage(directory, step)
  problems = []
  for step in (None, 'best', 5):
    try:
      training.load(case / 'run', step, report=lambda _: None)
    except (ValueError, OSError) as error:
      problems.append(error)
  if problems:
    raise problems[-1]


# --- prompts and text


_MODELS: dict[str, object] = {}


def _models() -> dict[str, object]:
  if not _MODELS:
    from tests.byte_models import tiny_word_ar
    from tests.hnet import tiny

    _MODELS['hnet'] = tiny.build(tiny.ONE_STAGE)
    _MODELS['word_ar'] = tiny_word_ar.build(tiny_word_ar.KINDS['hat'])
  return _MODELS


def _prepare_prompts(seeds: pathlib.Path) -> None:
  seeds.mkdir(exist_ok=True)
  (seeds / 'prompt0').write_bytes(b'some text')
  for name in _models():
    request = {'model': name, 'max_bytes': 5, 'temperature': 1.0, 'top_p': 1.0, 'seed': 0}
    (seeds / 'request').write_text(json.dumps(request))
    _run_prompts(seeds)


def _make_prompts(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  request = json.loads((seeds / 'request').read_text()) | {'model': rng.choice(tuple(_MODELS))}
  if rng.random() < 0.5:
    request[rng.choice(('max_bytes', 'seed'))] = rng.choice((0, -1, 1, 2**30 + 1, 2**31, 2**32, 2**63, 10**12, 10**30))
  if rng.random() < 0.5:
    request[rng.choice(('temperature', 'top_p'))] = rng.choice(
      (0.0, -1.0, 1e-40, 1e-320, 1e38, 1e308, float('nan'), float('inf'), 0.5)
    )
  (case / 'request').write_text(json.dumps(request))
  (case / 'prompt0').write_bytes(hostile_text(rng, rng.choice((0, 20, 100))))  # one length of compiled code


def _run_prompts(case: pathlib.Path) -> None:
  request = json.loads((case / 'request').read_text())
  prompts = [path.read_bytes() for path in sorted(case.glob('prompt*'))]
  model = _models()[request.pop('model')]
  continuations = generation.generate(model, prompts, **request)
  whole = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
  for document, stages in zip(whole, segmentation.segment(model, whole), strict=True):
    segmentation.show_chunks(document, stages)
    segmentation.visible(document)
  documents = [document for document in whole if document]
  if documents:
    evaluation.evaluate(model, MemoryCorpus(documents, 'case', 'test'), seq_len=64, batch_size=2)


TARGETS = (
  Target('workdir', _prepare_run, _make_workdir, _run_workdir, constant=500),
  Target('checkpoints', _prepare_run, _make_checkpoints, _run_checkpoints, constant=500),
  Target('prompts', _prepare_prompts, _make_prompts, _run_prompts, constant=1000, seconds=300),
)
