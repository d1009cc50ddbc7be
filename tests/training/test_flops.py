"""A backbone resized to the cost of another model."""

import importlib

import pytest

from training import flops

NAMES = ('quickstart_space', 'quickstart_transformer', 'quickstart_mamba', 'quickstart_hat', 'quickstart_word_pooled',
         'quickstart_megabyte', 'quickstart_tfree_hat')  # fmt: skip


def config(name):
  return importlib.import_module(f'configs.{name}').get_config()


@pytest.mark.parametrize('name, factor', [(name, (1.5, 6.0)[index % 2]) for index, name in enumerate(NAMES)])
def test_the_cost_is_that_of_the_reference(name, factor):
  reference = factor * flops.forward_flops(config(name))
  matched = flops.match(config(name), reference)
  assert abs(flops.forward_flops(matched) / reference - 1) < flops.TOLERANCE
  original = config(name).to_dict()
  assert {key for key in matched if matched[key] != flops.config_lib.resolve(original)[key]} == {'model'}


WITHOUT_MLP = {'quickstart': (('m2', ('m2',), 'm2'), 32), 'quickstart_transformer': (('t2',), 8)}
WITHOUT_MLP['quickstart_mamba'] = ('m5',), 32


@pytest.mark.parametrize('name', WITHOUT_MLP)
def test_a_backbone_without_mlp_changes_its_width_where_layers_are_too_coarse(name):
  original, (layout, multiple) = config(name), WITHOUT_MLP[name]
  original.model.arch_layout = layout
  one, two = (flops.forward_flops(flops._resized(flops.config_lib.resolve(original), depth)) for depth in (1, 2))
  for reference, changes in ((two, False), ((one + two) / 2, True)):
    matched = flops.match(original, reference)
    assert abs(flops.forward_flops(matched) / reference - 1) < flops.TOLERANCE
    *outer, width = matched['model']['d_model']
    assert (width != original.model.d_model[-1]) == changes and width % multiple == 0
    assert outer == list(original.model.d_model[:-1])


def test_a_model_that_costs_as_much_already_stays_as_it_is():
  same = flops.match(config('quickstart_hat'), config('quickstart_hat'))
  assert same == flops.config_lib.resolve(config('quickstart_hat'))


def test_what_cannot_be_matched_is_said():
  with pytest.raises(ValueError, match=r'a backbone of one layer costs .* more than the 1,000 to match'):
    flops.match(config('quickstart_hat'), 1000.0)
  mixed = config('quickstart_transformer')
  mixed.model.arch_layout = ('T1m1',)
  with pytest.raises(ValueError, match=r"'T1m1' has blocks of several kinds"):
    flops.match(mixed, 1e7)
