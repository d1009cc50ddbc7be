"""Every configuration can be described, and every small one has a training step."""

import importlib
import json
import shutil
from pathlib import Path

import jax
import pytest

import configs
import training
from configs import compare
from layers import capacity
from tests.byte_models import tiny_token_lm
from training import flops
from training.step import make_step
from training.trainer import Trainer

NAMES = sorted(
  path.stem for path in Path(configs.__file__).parent.glob('*.py') if path.stem not in ('__init__', 'common')
)
RELEASED = {
  # lingua's with 258 symbols, 1,324,203,008, less two rows of embeddings and of the head
  'aunet2_1b': (1_324_200_960, None),
  'aunet3_2b': (2_503_622_016, None),
  'blt_1b': (4_533_879_808, None),
  'blt_7b': (10_553_570_560, None),
  'hnet_1stage_l': (679_405_312, 0.43e9),
  'hnet_1stage_xl': (1_270_833_920, 0.72e9),
  'hnet_2stage_l': (874_315_264, 0.43e9),
  'hnet_2stage_xl': (1_603_492_224, 0.69e9),
  'hnet_2stage_xl_chinese': (1_755_285_888, None),
  'hnet_2stage_xl_code': (1_654_090_112, None),
  'hat_1b': (1_193_114_112, None),
  'hat_3b': (4_364_419_840, None),
  'hat_7b': (9_283_907_072, None),
  'word_pooled_base': (38_020_608, None),
  'tfree_hat_8b': (7_192_495_104, None),
  'tfree_hat_70b': (69_302_847_488, None),  # published: 477M without the decoder and 68.45B in the backbone
}


def config_of(name):
  needs = [str(tiny_token_lm.tokenizer())] if name == 'quickstart_bpe' else []
  return importlib.import_module(f'configs.{name}').get_config(*needs)


@pytest.mark.parametrize('name', RELEASED)
def test_released_configurations_have_the_published_parameters_and_flops(name):
  described = training.describe(config_of(name))
  parameters, flops = RELEASED[name]
  assert described['parameters'] == parameters
  if flops:  # the H-Net paper, table 2
    assert described['flops_per_byte'] == pytest.approx(flops, rel=0.03)


# Needs a download and two gigabytes; tests/training/test_from_llama.py does the same on a small scale.
LARGE = {'tfree_hat_from_smollm2': 111_130_880}


@pytest.mark.parametrize('name', LARGE)
def test_large_configurations_are_described(name):
  assert training.describe(config_of(name))['parameters'] == LARGE[name]


def test_a_fetched_corpus_is_the_only_difference_to_the_quickstart():
  corpus, quickstart = config_of('quickstart_corpus'), config_of('quickstart')
  assert corpus.model == quickstart.model and corpus.optimizer == quickstart.optimizer
  assert corpus.data.source == 'corpus:english_wiki'


def lists(value):
  if isinstance(value, dict):
    return [found for part in value.values() for found in lists(part)]
  return [value] if isinstance(value, list) else []


@pytest.mark.parametrize('name', NAMES)
def test_sequences_are_tuples(name):
  assert not lists(config_of(name).to_dict())


@pytest.mark.parametrize('name', compare.TOKENIZERS)
def test_token_models_are_resized_to_the_work_of_the_others(name, tmp_path):
  directory = shutil.copytree(tiny_token_lm.tokenizer(), tmp_path / 'bpe')
  (directory / 'card.json').write_text(json.dumps({'held_out': {'bytes_per_token': 3.5}}))
  config = compare.get_config(f'{name}={directory}')
  assert flops.forward_flops(config) == pytest.approx(flops.forward_flops(config_of('quickstart')), rel=flops.TOLERANCE)
  assert config.model.bytes_per_chunk == (3.5,) and config.model.stochastok == (0.1 if name == 'stochastok' else 0)
  with pytest.raises(FileNotFoundError, match='python -m text.tokenizers train'):
    compare.get_config(f'{name}={tmp_path}/nowhere')


# What two steps of each are compiled and run for elsewhere: tests/test_contract.py has every kind of model.
SMALL = sorted(
  set(NAMES) - set(RELEASED) - set(LARGE) - {'quickstart_corpus', 'compare', 'sweep_compression', 'sweep_learning_rate'}
)


def small(name):
  config = config_of(name)
  config.data = {**config.data, 'source': 'python_docs', 'validation': 'python_docs'}  # which needs no download
  config.update({'num_steps': 2, 'batch_size': 2, 'seq_len': 64})
  config.eval.update({'every_steps': 0, 'max_bytes': 500})
  return config


@pytest.mark.parametrize('name', SMALL)
def test_small_configurations_have_a_step(name):
  trainer = Trainer.of(small(name))
  state = trainer.abstract_state()
  settings = trainer.settings
  capacities = capacity.stated(trainer.model, settings.seq_len)
  step = make_step(settings, trainer.model, trainer.optimizer, trainer.mesh, capacities)
  after, metrics, needed = jax.eval_shape(step, state, trainer.abstract_batch())
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
  assert metrics['loss'].shape == () and needed.shape == (len(capacities),)


def test_a_small_configuration_trains_two_steps(tmp_path):
  last = training.train(small('quickstart_transformer'), tmp_path)
  assert 0 < last['validation_bpb'] < 20
  assert training.load(tmp_path).step == 2
