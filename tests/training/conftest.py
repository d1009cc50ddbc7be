"""A corpus of a few kilobytes and the tiny model family."""

import os
import random

import jax
import pytest

import training
from tests.training import runs, tiny


@pytest.fixture(scope='session', autouse=True)
def compile_once(tmp_path_factory):
  """Most tests here train the same few programs, in this process and in others: each is compiled once."""
  # Processes of pytest-xdist have directories side by side.
  directory = tmp_path_factory.getbasetemp()
  directory = directory.parent if 'PYTEST_XDIST_WORKER' in os.environ else directory
  options = {
    'jax_compilation_cache_dir': str(directory / 'compiled'),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
    'jax_persistent_cache_min_entry_size_bytes': -1,
  }
  before = {name: getattr(jax.config, name) for name in options}
  for name, value in options.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)
    del os.environ[name.upper()]


@pytest.fixture(scope='session')
def source(tmp_path_factory) -> str:
  """A data.source with 60 short documents."""
  directory = tmp_path_factory.mktemp('text')
  chance = random.Random(0)
  words = ['the', 'cat', 'sat', 'on', 'a', 'mat', 'and', 'ran', 'far', 'away', 'from', 'here']
  for number in range(60):
    text = ' '.join(chance.choices(words, k=chance.randrange(30, 200)))
    (directory / f'{number}.txt').write_text(text)
  return f'files:{directory}/*.txt'


@pytest.fixture(scope='session')
def stopped(source, tmp_path_factory):
  """The work directory of a run with checkpoints of steps 5 and 10, the latter with a score: change copies only."""
  workdir = tmp_path_factory.mktemp('stopped')
  training.train(runs.thorough(tiny.get_config(source).to_dict()) | {'num_steps': 10}, workdir)
  return workdir


@pytest.fixture
def make_config(source):
  """make_config(**{'optimizer.ema': 0.9}): the tiny config as a dict, with dotted keys replaced."""

  def make(**changes) -> dict:
    config = tiny.get_config(source).to_dict()
    for key, value in changes.items():
      *branches, name = key.split('.')
      branch = config
      for part in branches:
        branch = branch[part]
      branch[name] = value
    return config

  return make
