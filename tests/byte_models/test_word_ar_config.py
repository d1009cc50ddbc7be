"""Configurations of word models: what is refused, published sizes, and FLOPs a byte against XLA's count."""

import importlib

import jax
import numpy as np
import pytest
from flax import nnx

import byte_models
import training
from tests.byte_models.tiny_word_ar import KINDS, branch
from text import marks
from text.batch import Batch

SMALL = {'arch_layout': 'T1', 'd_model': 32, 'd_intermediate': 48, 'num_heads': 2}


def small(**changes):
  return {**SMALL, **changes}


REFUSED = {
  'an unknown key': ({'patch': 8}, r'unknown config key model\.patch'),
  'an unknown key of a stack': ({'encoder': small(heads=2)}, r'unknown config key model\.encoder\.heads'),
  'a missing key of a stack': ({'decoder': {'d_model': 32}}, r'model\.decoder\.arch_layout is missing'),
  'a stack that is no branch': ({'backbone': 'T2'}, r"model\.backbone 'T2' must be a mapping"),
  'no words': ({'words': None}, r'model\.words is missing'),
  'words that are no text': ({'words': 8}, r'model\.words 8 must be a splitter'),
  'an unknown splitter': ({'words': 'spaces(max_bytes=8)'}, 'spaces'),
  'units that are no text': ({'units': 8}, r'model\.units 8 must be units of words'),
  'unknown units': ({'units': 'letter'}, r"units 'letter' is not known: use one of byte, char, subword"),
  'no character': ({'units': 'char(limit=127)'}, r'limit=127 must be from 128 to 0x110000'),
  'subwords of no file': ({'units': 'subword'}, r"units 'subword' names no file"),
  'units without an encoder': (
    {'encoder': None, 'words': 'fixed(size=4)', 'units': 'char'}, r"model\.units 'char.*': without an encoder"
  ),
  'more units than bytes': ({'units': 'char', 'units_per_byte': 1.5}, r"units_per_byte 1\.5: .*at least one"),
  'fewer bytes than bytes': ({'units_per_byte': 0.5}, r"units_per_byte 0\.5: .* 'byte' exactly one"),
  'a cap of zero': ({'words': 'hat(max_bytes=0)'}, r'max_bytes=0 must be at least 1'),
  'a cap above the window': (
    {'decoder': small(window_size=7)}, r'decoder\.window_size 7 is shorter than a word .* looks 8 back'
  ),
  'no vectors': ({'num_vectors': 0}, r'num_vectors 0 must be an integer of at least 1'),
  'a wide position of another width': (
    {'num_vectors': 3, 'concatenate_vectors': True}, r'backbone\.d_model 64 must be num_vectors 3 x .* 32 = 96'
  ),
  'two local widths': ({'encoder': small(d_model=16)}, r'encoder\.d_model 16 and decoder\.d_model 32 must be equal'),
  'vectors without an encoder': (
    {'encoder': None, 'words': 'fixed(size=4)', 'num_vectors': 2}, r'num_vectors 2: without an encoder'
  ),
  'patches of no fixed size': ({'encoder': None}, r"'hat\(max_bytes=8\)': without an encoder words are patches"),
  'Mamba': ({'backbone': small(arch_layout='m2')}, r"backbone\.arch_layout 'm2': .* attention, t or T"),
  'a layout': ({'backbone': small(arch_layout='T')}, r"arch_layout 'T'"),
  'heads': ({'encoder': small(num_heads=3)}, r'model\.encoder\.num_heads 3 does not divide d_model 32'),
  'a rotary base': ({'decoder': small(rotary_base=0.0)}, r'decoder\.rotary_base 0\.0 must be above 0'),
  'a norm': ({'decoder': small(qk_norm='all')}, r"decoder\.qk_norm 'all' is not one of"),
  'a fixed capacity': ({'fixed_capacity': [0.5]}, r'unknown config key model\.fixed_capacity'),
  'bytes of a word': ({'bytes_per_chunk': [9.0]}, r"bytes_per_chunk 9\.0: a word of 'hat\(max_bytes=8\)' has 1 to 8"),
  'a number for all stages': ({'bytes_per_chunk': 4.0}, r'bytes_per_chunk 4\.0: a list with one number'),
  'a type': ({'dtype': 'float16'}, r"dtype 'float16' is not one of"),
  'a switch': ({'remat': 1}, r'remat 1 must be True or False'),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_what_does_not_fit_is_one_sentence(name):
  changes, sentence = REFUSED[name]
  with pytest.raises(ValueError, match=sentence) as error:
    byte_models.parse(branch(**changes))
  assert '\n' not in str(error.value)


# Layers and width of the backbone and of a local model, then both in millions of parameters as the paper prints them.
PUBLISHED = {'hat_1b': (18, 2304, 3, 768, 1147, 23.0), 'hat_3b': (28, 3584, 3, 768, 4316, 24.0)}
PUBLISHED['hat_7b'] = (36, 4608, 4, 1024, 9173, 55.05)


@pytest.mark.parametrize('name', PUBLISHED)
def test_hat_has_the_published_parameters(name):
  layers, inner, local_layers, width, backbone, local = PUBLISHED[name]
  described = training.describe(importlib.import_module(f'configs.{name}').get_config())
  parameters = described['parameters_by_component']
  of = lambda *names: sum(size for path, size in parameters.items() if path.split('.')[0] in names)

  def exactly(layers, width):
    """Four square attention matrices, three MLP matrices of 8/3 of the width, two norms a layer and one at the end."""
    return layers * (4 * width**2 + 3 * width * (8 * width // 3) + 2 * width) + width

  assert of('backbone') == exactly(layers, inner)
  assert of('encoder') == of('decoder') == exactly(local_layers, width)
  assert of('widen') == of('narrow') == width * inner
  assert described['parameters'] == sum(
    (exactly(layers, inner), 2 * exactly(local_layers, width), 2 * width * inner, 2 * 256 * width, width)
  )
  assert of('backbone') / 1e6 == pytest.approx(backbone, abs=0.5)
  assert of('encoder', 'widen') / 1e6 == pytest.approx(local, abs=0.015)


def test_word_pooled_at_its_sizes():
  described = training.describe(importlib.import_module('configs.word_pooled_base').get_config())
  assert described['parameters'] == 38_020_608


@pytest.mark.parametrize('kind', [*KINDS, 'characters'])
def test_xla_counts_the_same_on_an_unrolled_forward_at_full_capacity(kind):
  """With patches of one byte every byte is a word; masked local attention costs more than it needs."""
  sizes = {'d_model': 256, 'd_intermediate': 1024, 'num_heads': 2}
  given = KINDS[kind] if kind in KINDS else {**KINDS['word_pooled'], 'units': 'char(limit=0x800)'}
  values = {key: {**value, **sizes} if isinstance(value, dict) else value for key, value in given.items()}
  values['backbone']['d_model'] = 256 * (2 if values.get('concatenate_vectors') else 1)
  values['words'] = 'fixed(size=1)'
  config = byte_models.parse(values)
  model = jax.eval_shape(lambda: byte_models.build(config, rngs=nnx.Rngs(0)))
  ones = np.ones((1, 16), np.int32)
  given = {name: ones.astype(of_name.DTYPE) for name, of_name in marks.parse(model.marks).items()}
  batch = Batch(ones.astype(np.uint8), ones, given)
  cost = jax.jit(lambda model, batch: model(batch).nll).lower(model, batch).compile().cost_analysis()
  assert cost['flops'] / 16 == pytest.approx(sum(model.flops_per_byte(16, [1.0]).values()), rel=0.07)


def test_units_cost_what_their_rate_says():
  """At half a unit a byte, all costs a byte are half of those of as many units that are bytes."""
  of = lambda **changes: jax.eval_shape(
    lambda: byte_models.build(byte_models.parse(branch(num_vectors=2, **changes)), rngs=nnx.Rngs(0))
  )
  ones, halves = of(units='char(limit=0x200)'), of(units='char(limit=0x200)', units_per_byte=0.5)
  whole, half = ones.flops_per_byte(64, [2.0]), halves.flops_per_byte(128, [4.0])
  assert half == pytest.approx({name: value / 2 for name, value in whole.items()})
  assert 'embeddings' not in whole and of(units='char(limit=128)').flops_per_byte(64, [2.0]) == pytest.approx(
    {name: value for name, value in of().flops_per_byte(64, [2.0]).items() if name != 'embeddings'}
  )
  assert halves.flops_per_byte(64, [1.0]) == pytest.approx(ones.flops_per_byte(64, [1.0]))  # at least one unit a word
  assert halves.flops_per_byte(64, [1.0, 2.0]) == pytest.approx(ones.flops_per_byte(64, [2.0]))  # the rate is given
  assert ones.level_sizes() == (1.0, 4.4) and halves.level_sizes() == (2.0, 4.4) and of().level_sizes() == (4.4,)
  assert of(units='char').config.units_per_byte == 1.0


def test_flops_follow_the_bytes_of_a_word():
  model = jax.eval_shape(lambda: byte_models.build(byte_models.parse(branch()), rngs=nnx.Rngs(0)))
  short, long = model.flops_per_byte(64, [2.0]), model.flops_per_byte(64, [4.0])
  assert set(short) == {'embeddings', 'encoder', 'projections', 'backbone', 'decoder', 'lm_head'}
  assert long['backbone'] < short['backbone'] / 2 and long['projections'] == short['projections'] / 2
  assert long['encoder'] < short['encoder'] and long['embeddings'] == short['embeddings']
  assert model.flops_per_byte(64) == model.flops_per_byte(64, [4.4])
  for sizes in ([], [2.0, 3.0], [0.5]):
    with pytest.raises(ValueError, match='bytes_per_chunk .*: a list with one number of at least 1'):
      model.flops_per_byte(64, sizes)
