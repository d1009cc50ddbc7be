import copy
import dataclasses

import pytest

from layers import weights
from training import config as config_lib
from training import config_flag, workdir


def test_the_tree_becomes_dataclasses(make_config):
  config = config_lib.parse(make_config(seed=3))
  assert (config.seed, config.optimizer.schedule.name, config.optimizer.betas) == (3, 'wsd', (0.9, 0.95))
  assert config.eval.seq_len == 0 and config.mesh.shape == (-1,)


def test_a_config_that_names_the_axes_of_the_mesh_is_read_without_them(make_config):
  for shape, axes in (((-1,), ('data',)), ((1, -1, 1), ('data', 'fsdp', 'tensor'))):
    named = make_config(**{'mesh.shape': shape, 'mesh.axes': axes})
    assert config_lib.parse(named) == config_lib.parse(make_config(**{'mesh.shape': shape}))
    assert config_lib.resolve(named)['mesh'] == {'shape': list(shape)}


def test_an_unknown_key_is_named_in_full_with_the_nearest_valid_one(make_config):
  sentence = r'^unknown config key optimizer\.clip_nrm\. Did you mean "optimizer\.clip_norm"\?$'
  with pytest.raises(ValueError, match=sentence):
    config_lib.parse(make_config(**{'optimizer.clip_nrm': 1.0}))


SMALLEST = {
  'num_steps': 1,
  'batch_size': 1,
  'seq_len': 2,
  'data': {'source': 'python_docs'},
  'model': {'family': 'tiny'},
  'optimizer': {'learning_rate': 1e-3},
}


def test_all_that_a_tree_leaves_out_has_a_default():
  settings = config_lib.parse(SMALLEST)
  assert settings.optimizer.betas == (0.9, 0.95) and settings.loss_weights == {'ratio': 0.03}
  assert settings.model['width'] == 8 and settings.checkpoint == config_lib.Checkpoint()
  assert config_lib.parse(SMALLEST | {'loss_weights': {}}).loss_weights == {}  # and not the default beside it
  groups = config_lib.resolve({'optimizer': {'groups': {'a': {'pattern': 'b'}}}})['optimizer']['groups']
  assert groups == {'a': {'pattern': 'b', 'multiplier': 1.0, 'frozen_steps': 0}}
  resolved = config_lib.resolve(SMALLEST)
  assert config_lib.resolve(resolved) == resolved


@pytest.mark.parametrize(
  'key', ['num_steps', 'batch_size', 'seq_len', 'data.source', 'data', 'model', 'optimizer.learning_rate', 'optimizer']
)
def test_a_missing_key_that_has_no_default_is_named_in_full(key):
  config = copy.deepcopy(SMALLEST)
  branch, _, name = key.rpartition('.')
  del (config[branch] if branch else config)[name]
  with pytest.raises(ValueError, match=rf'^missing config key {key}(\.\w+)?$'):
    config_lib.parse(config)


@dataclasses.dataclass(frozen=True)
class Room:
  size: int
  walls: tuple[str, ...] = ('a',)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithRoom(config_lib.Config):
  room: Room


def test_a_branch_more_is_a_dataclass_more(monkeypatch):
  monkeypatch.setattr(config_lib, 'Config', WithRoom)
  config = copy.deepcopy(SMALLEST)
  with pytest.raises(ValueError, match=r'^missing config key room\.size$'):
    config_lib.parse(config)
  config_flag.change(config, ['room.size=3', 'room.walls=b,c'])
  assert config_lib.parse(config).room == Room(3, ('b', 'c'))
  config_flag.change(config, ['room.wall=a'])
  with pytest.raises(ValueError, match=r'^unknown config key room\.wall\. Did you mean "room\.walls"\?$'):
    config_lib.parse(config)


def test_the_config_of_an_older_work_directory_has_the_keys_of_today_too(tmp_path):
  weights.write_json(tmp_path / 'config.json', SMALLEST)
  whole = config_lib.resolve(SMALLEST)
  assert workdir.read_config(tmp_path) == whole
  assert not config_lib.refuse_changes(workdir.read_config(tmp_path), whole, 'runs/a')
  workdir.write_config(tmp_path, whole)
  assert weights.read_json(tmp_path / 'config.json') == whole


@pytest.mark.parametrize(
  ('key', 'value', 'sentence'),
  [
    ('num_steps', 0, 'num_steps must be at least 1, got 0'),
    ('num_steps', 2.5, 'num_steps must be a whole number, got 2.5'),
    ('num_steps', True, 'num_steps must be a whole number, got True'),
    ('optimizer.learning_rate', '3e-3', "optimizer.learning_rate must be a finite number, got '3e-3'"),
    ('optimizer.betas', (0.9,), 'optimizer.betas must be two numbers'),
    ('optimizer.name', 'sgd', "optimizer.name must be 'adamw', got 'sgd'"),
    ('optimizer.accumulate', 3, 'batch_size 8 is not divisible by optimizer.accumulate 3'),
    ('optimizer.schedule.decay', 0.95, 'must not exceed 1 together'),
    ('optimizer.lr_multipliers', (1.0, -1.0), "optimizer.lr_multipliers must be None, 'paper' or a list"),
    ('data.source', '', "data.source must be a source of text or a list of (source, weight), got ''"),
    ('data.source', (('a', 1.0), ('b', -1.0)), "data source 'b' has the weight -1.0: weights are finite numbers"),
    ('data.source', ('a', 'b'), 'a data source is a string or a list of (source, weight)'),
    (
      'data.source',
      'files:a/*.txt@all',
      "data.validation is '', the held-out part of each source, but 'files:a/*.txt@all'",
    ),
    ('data.validation', ('a', 'a'), "config key data.validation must be '', a source of text or a list of different"),
    ('data.validation', ('a', ''), "config key data.validation must be '', a source of text or a list of different"),
    ('data.validation', 0, "config key data.validation must be '', a source of text or a list of different"),
    ('optimizer.groups', {'a': {'multiplier': 0.1}}, 'missing config key optimizer.groups.a.pattern'),
    ('optimizer.groups', {'a': {'pattern': 'b('}}, "optimizer.groups.a.pattern 'b(' is not a regular expression"),
    (
      'optimizer.groups',
      {'a': {'pattern': 'b', 'frozen_steps': -1}},
      'optimizer.groups.a.frozen_steps must be 0 or more',
    ),
    ('optimizer.groups', {'a': {'pattern': 'b', 'steps': 1}}, 'unknown config key optimizer.groups.a.steps'),
    ('data', 'files:x', "config key data must be a branch with keys, got 'files:x'"),
    ('loss_weights.ratio', 'much', "loss_weights.ratio must be a finite number, got 'much'"),
    ('mesh.axes', ('fsdp',), "mesh.axes ['fsdp']: mesh.shape gives devices along data, fsdp, tensor in this order"),
    ('model.width', object(), 'the config holds a value that JSON cannot save'),
  ],
)
def test_an_impossible_value_is_one_sentence(make_config, key, value, sentence):
  with pytest.raises(ValueError) as error:
    config_lib.parse(make_config(**{key: value}))
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_changes_of_model_or_data_are_refused_and_named(make_config):
  old = config_lib.resolve(make_config())
  new = config_lib.resolve(make_config(seed=1, **{'model.width': 16, 'data.source': 'files:b'}))
  with pytest.raises(ValueError, match=r'model\.width: 8 -> 16; seed: 0 -> 1'):
    config_lib.refuse_changes(old, new, 'runs/a')


def test_changes_that_leave_the_steps_as_they_are_are_allowed_and_told(make_config):
  old = config_lib.resolve(make_config())
  new = config_lib.resolve(make_config(num_steps=50, **{'log.every_steps': 7}))
  assert config_lib.refuse_changes(old, new, 'runs/a') == ['log.every_steps: 1 -> 7', 'num_steps: 20 -> 50']
