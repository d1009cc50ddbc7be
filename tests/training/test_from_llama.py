"""A model whose backbone begins as a Llama's blocks, stands still for some steps and then moves."""

import json

import numpy as np
import pytest
from flax import nnx

import byte_models
import training
from byte_models import llama
from layers.paths import flatten
from training import description
from training import workdir as workdir_lib

SIZES = {'hidden_size': 32, 'intermediate_size': 40, 'num_hidden_layers': 2, 'num_attention_heads': 4}
BACKBONE = {**SIZES, 'num_key_value_heads': 2, 'rms_norm_eps': 1e-5, 'rope_theta': 1e5}
PATHS = 'inner.0.kernel', 'head.kernel'
LOCAL = {**SIZES, 'hidden_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2}


def branch(**backbone):
  return {
    'family': 'tfree_hat',
    'encoder_config': {**LOCAL, 'cross_attention_config': {'num_attention_heads': 4}},
    'backbone_config': BACKBONE | backbone,
    'decoder_config': {**LOCAL, 'cross_attention_config': {'num_attention_heads': 2}},
    'max_word_size': 8,
  }


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """(directory of a small Llama, its blocks by path)."""
  directory = tmp_path_factory.mktemp('llama')
  config = llama.parse({**BACKBONE, 'vocab_size': 50})
  llama.save_pretrained(llama.Llama(config, rngs=nnx.Rngs(7)), directory)
  return str(directory), llama.read_backbone(directory)[1]


def test_the_backbone_is_the_llamas_and_the_rest_is_drawn_from_the_seed(weights):
  source, blocks = weights
  model = description.abstract_model(branch())
  fresh = flatten(byte_models.build(model.config, rngs=nnx.Rngs(3)))
  found = workdir_lib.initial_params(source, model, seed=3)
  assert found.keys() == fresh.keys() and blocks.keys() == {path[5:] for path in fresh if path.startswith('main.')}
  for path, value in found.items():
    expected = blocks[path[5:]] if path.startswith('main.') else fresh[path]
    np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=path)


def test_a_frozen_group_keeps_its_first_values_to_the_bit_until_it_is_let_go(make_config, tmp_path):
  group = {'inner': {'pattern': r'^inner\.', 'multiplier': 0.1, 'frozen_steps': 2}}
  changes = {'optimizer.groups': group, 'optimizer.schedule': dict(name='constant', warmup=0.0, decay=0.0, final=0.0)}
  checkpoint = {'every_steps': 1, 'keep_latest': 3, 'keep_best': 0}
  training.train(make_config(num_steps=3, checkpoint=checkpoint, **changes), tmp_path)
  kernel, head = ([flatten(training.load(tmp_path, step).model)[path] for step in (1, 2, 3)] for path in PATHS)
  np.testing.assert_array_equal(kernel[0], kernel[1])
  assert 1e-4 < np.abs(kernel[2] - kernel[1]).max() < 2e-3  # a tenth of the rate 0.01
  assert np.abs(head[1] - head[0]).max() > 2e-3


def test_a_llama_that_does_not_fit_is_named(weights, tmp_path):
  source, _ = weights
  for change, sentence in (
    ({'num_key_value_heads': 4}, 'its blocks have num_kv_heads 2 and the backbone of the model 4'),
    ({'rope_theta': 1e4}, 'its blocks have rotary_base 100000.0 and the backbone of the model 10000.0'),
    ({'num_hidden_layers': 3}, "its blocks have layout 'T2' and the backbone of the model 'T3'"),
  ):
    with pytest.raises(ValueError, match=sentence):
      workdir_lib.initial_params(source, description.abstract_model(branch(**change)))
  with pytest.raises(ValueError, match=r"is a Llama: a model of family 'tiny' has no place for it"):
    workdir_lib.initial_params(source, description.abstract_model({'family': 'tiny'}))
  with pytest.raises(FileNotFoundError, match=r'nowhere\.gguf is missing'):
    workdir_lib.initial_params('nowhere.gguf', description.abstract_model(branch()))
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'llama'}))
  with pytest.raises(ValueError, match='vocab_size is missing'):
    workdir_lib.initial_params(str(tmp_path), description.abstract_model(branch()))
