"""Meshes, the table of partitions, and what it says of every configuration."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from tests.training import partitions
from training import config as config_lib
from training import sharding
from training.description import abstract_model
from training.state import flatten
from training.trainer import Trainer

RULES = ((r'kernel', (('tensor', 'fsdp'), 'other')), (r'', ()))


def test_every_configuration_has_its_golden_file_and_no_other_is_left():
  assert {path.stem for path in partitions.FOLDER.glob('*.txt')} == set(partitions.NAMES)


@pytest.mark.parametrize('name', partitions.NAMES)
def test_partitions_are_those_of_the_golden_file(name):
  golden = (partitions.FOLDER / f'{name}.txt').read_text()
  assert partitions.partitions(name) == golden, 'if this is meant: python -m tests.training.partitions'


@pytest.mark.parametrize(
  ('shape', 'mesh', 'wanted'),
  [
    ((5, 8, 4), {'fsdp': 2, 'tensor': 2, 'other': 4}, (None, ('tensor', 'fsdp'), 'other')),  # from the right
    ((8, 4), {'fsdp': 2}, ('fsdp', None)),  # axes that the mesh lacks
    ((6, 4), {'fsdp': 2, 'tensor': 2, 'other': 2}, ('tensor', 'other')),  # 6 / 2 is odd: the second axis is left out
    ((7, 3), {'fsdp': 2, 'tensor': 2, 'other': 2}, (None, None)),
    ((4,), {'tensor': 4, 'other': 4}, ('other',)),  # fewer dimensions than the rule has
    ((), {'tensor': 4}, ()),
  ],
)
def test_a_partition_takes_the_axes_that_divide_aligned_with_the_last_dimensions(shape, mesh, wanted):
  assert sharding.partition_spec('a.kernel', shape, mesh, RULES) == PartitionSpec(*wanted)
  assert sharding.partition_spec('a.bias', shape, mesh, RULES) == PartitionSpec(*(None,) * len(shape))


def test_what_an_axis_does_not_divide_is_said():
  branch = {
    'family': 'hnet',
    'arch_layout': ['T1m1'],
    'd_model': [96],
    'd_intermediate': [130],
    'attn_cfg': {'num_heads': 6, 'rotary_emb_dim': 8, 'window_size': -1},
  }
  model = abstract_model(branch)
  mesh = AbstractMesh((2, 4), ('fsdp', 'tensor'), (AxisType.Auto,) * 2)
  said = sharding.undivided(model, flatten(model), mesh)
  assert not any('mlp' in phrase for phrase in said)  # its width was rounded up to 256
  heads = 'backbone.main.runs.0.mixer: every device computes all 6 query heads, which tensor=4 does not divide'
  assert heads in said and any('runs.1.mixer: every device computes all 3 heads' in phrase for phrase in said)
  assert not sharding.undivided(model, flatten(model), AbstractMesh((2,), ('fsdp',), (AxisType.Auto,)))


@pytest.mark.parametrize(
  ('changes', 'sentence'),
  [
    ({'mesh.shape': (2, 1, 1)}, r'mesh.shape \(2, 1, 1\) needs 2 devices, there are 1$'),
    ({'mesh.shape': (1, 1, 1, 1)}, r'mesh.shape \(1, 1, 1, 1\) must give devices along data, fsdp, tensor; the last'),
    ({'mesh.shape': ()}, r'mesh.shape \(\) must give devices along'),
    ({'mesh.shape': (-1, -1, 1)}, 'must hold sizes of at least 1, one of them may be -1'),
  ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_one_sentence(make_config, changes, sentence):
  config = make_config(**changes)
  with pytest.raises(ValueError, match=sentence):
    Trainer.of(config)


def test_devices_that_the_mesh_leaves_idle_are_said(make_config):
  for count, said in ((1, []), (3, ['mesh.shape (1,) leaves 2 of 3 devices idle: a size of -1 uses all'])):
    trainer, lines = Trainer.of(make_config(**{'mesh.shape': (1,)}), jax.devices() * count), []
    trainer.lower(trainer.abstract_state(), trainer.abstract_batch(), (), lines.append)
    assert lines == said


@pytest.mark.parametrize(
  ('changes', 'sentence'),
  [
    (
      {'batch_size': 6},
      r'^batch_size 6 is not divisible by optimizer.accumulate 1 x 4 devices \(mesh data=2 x fsdp=2\)$',
    ),
    ({'optimizer.accumulate': 4}, r'^batch_size 8 is not divisible by optimizer.accumulate 4 x 4 devices'),
    ({'eval.batch_size': 2}, r'^eval.batch_size 2 is not divisible by 4 devices \(mesh data=2 x fsdp=2\)$'),
  ],
)
def test_a_batch_that_the_mesh_does_not_divide_is_one_sentence(make_config, changes, sentence):
  mesh = AbstractMesh((2, 2, 2), sharding.AXES, (AxisType.Auto,) * 3)
  settings = config_lib.parse(make_config(**{'eval.batch_size': 0} | changes))
  with pytest.raises(ValueError, match=sentence):
    sharding.check_batches(settings, mesh)
  assert sharding.data_shards(mesh) == 4 and sharding.batch_spec(mesh) == PartitionSpec(('data', 'fsdp'))


def test_moments_and_averages_lie_where_their_parameters_do(make_config):
  trainer = Trainer.of(make_config(**{'optimizer.ema': 0.9}))
  mesh = jax.make_mesh((1, 1, 1), sharding.AXES, (AxisType.Auto,) * 3)
  places = sharding.shardings(trainer.abstract_state(), mesh)
  moments = [tree for tree in jax.tree.leaves(places.opt_state, is_leaf=lambda x: isinstance(x, dict)) if tree]
  dicts = [tree for tree in moments if isinstance(tree, dict)]
  assert len(dicts) == 2 and all(tree == places.params for tree in (*dicts, places.ema))
  assert places.params['head.kernel'].spec == PartitionSpec('fsdp', None)
  assert places.step.spec == PartitionSpec()


def test_an_abstract_batch_is_like_a_real_one(make_config):
  import text

  for words in (None, 'whitespace(max_bytes=8)'):
    config = make_config(model={'family': 'tiny', 'words': words})
    trainer = Trainer.of(config)
    real = next(trainer.batches(text.open_mixture(config['data']['source'])))
    shapes = lambda batch: jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), batch)
    assert jax.tree.leaves(shapes(real)) == jax.tree.leaves(shapes(trainer.abstract_batch()))
