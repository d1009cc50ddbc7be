"""Work directories of earlier versions are read: their configs in today's keys, parameters by their former paths."""

import json

import pytest

import training
from tests.hnet.tiny import ONE_STAGE, TWO_STAGE, branch
from tests.training import comparison, tiny
from training import earlier
from training.checkpoint import reading

CONFIGS = {
  'nothing moved': ({}, {}),
  'a ladder that dropped nothing': ({'ladder': {'fractions': [0.25, 1.0], 'row_groups': 2}}, {}),
  'pool': ({'boundary': 'stride:5'}, {'chunking': 'hnet_pool(5)'}),
  'space': ({'boundary': 'space', 'ladder': {}}, {'chunking': 'hnet_space'}),
  'spacebyte': (
    {'boundary': 'space', 'unpool': 'scatter', 'combine': 'sum', 'widen': 'zeros', 'post_norm': False},
    {'chunking': 'spacebyte', 'post_norm': False},
  ),
  'one for each stage': (
    {'boundary': ['cosine', 'stride:2'], 'unpool': ['repeat', None]},
    {
      'chunking': [
        {'boundary': 'cosine', 'pool': 'first(widen=learned)', 'unpool': 'repeat(narrow=first)', 'combine': 'ste'},
        'hnet_pool(2)',
      ]
    },
  ),
}


@pytest.mark.parametrize('name', CONFIGS)
def test_keys_that_moved_are_read_as_today(name):
  before, now = CONFIGS[name]
  assert earlier.current({'model': {'family': 'hnet', **before}}) == {'model': {'family': 'hnet', **now}}
  training.description.abstract_model(branch(TWO_STAGE if 'each' in name else ONE_STAGE) | now)


def test_a_ladder_that_dropped_chunks_is_refused_with_what_to_do():
  kept = earlier.current({'model': branch(ONE_STAGE) | {'ladder': {'fractions': [0.25]}}})
  with pytest.raises(ValueError, match=r'model\.ladder is gone.*model\.fixed_capacity'):
    training.description.abstract_model(kept['model'])


@pytest.fixture(scope='module')
def runs(source, tmp_path_factory):
  """(work directory of a whole run, that of one stopped half-way whose files are as an earlier version wrote them)."""
  whole, stopped = (tmp_path_factory.mktemp(name) for name in ('whole', 'stopped'))
  training.train(config_of(source), whole)
  items_of = reading.items_of
  with pytest.MonkeyPatch.context() as patch:
    renamed = lambda state: {
      name: {earlier.stored_path(path): leaf for path, leaf in flat.items()} for name, flat in items_of(state).items()
    }
    patch.setattr(reading, 'items_of', renamed)
    training.train(config_of(source) | {'num_steps': 5}, stopped)
  config = json.loads((stopped / 'config.json').read_text())
  del config['model']['chunking']
  config['model'] |= {'boundary': ['cosine', 'cosine'], 'ladder': {'fractions': [0.5, 1.0]}}
  (stopped / 'config.json').write_text(json.dumps(config))
  return whole, stopped


def config_of(source):
  config = tiny.get_config(source).to_dict()
  config['model'] = branch(TWO_STAGE, d_model=[32, 64, 96], chunking=['hnet', 'hnet'])
  return config | {'num_steps': 10, 'optimizer': config['optimizer'] | {'schedule': CONSTANT}}


CONSTANT = {'name': 'constant', 'warmup': 0.0, 'decay': 0.0, 'final': 0.0}


def test_such_a_run_is_loaded_and_goes_on_bit_exactly(runs, source):
  whole, stopped = runs
  saved = comparison.saved_arrays(stopped / 'checkpoints' / '5')
  assert {'params/backbone.residual.kernel', 'params/backbone.inner.pad', 'params/backbone.inner.inner.pad'} <= {*saved}
  loaded = training.load(stopped)
  assert loaded.step == 5
  assert (loaded.model.backbone.inner.pool.pad[...] == saved['params/backbone.inner.inner.pad']).all()
  training.train(config_of(source), stopped)
  ours, theirs = (comparison.saved_arrays(workdir / 'checkpoints' / '10') for workdir in (stopped, whole))
  assert ours.keys() == theirs.keys()
  assert all(array.tobytes() == theirs[path].tobytes() for path, array in ours.items())
