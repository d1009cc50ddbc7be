"""Runs of token models: tokens drawn anew in training, resumed bit for bit; the tokenizer stays with the run."""

import json
import shutil

import numpy as np
import pytest
from flax import nnx

import training
from byte_models import llama
from evaluation import bits_per_byte
from tests.byte_models import tiny_token_lm
from tests.training import comparison
from text import MemoryCorpus, tokens
from training import description
from training import workdir as workdir_lib

OTHERS = {'stochastok': {'stochastok': 0.3}, 'bpe_dropout': {'bpe_dropout': 0.3}}


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  text = b'the cat sat on a mat and ran far away from here and the cat on the mat ran far ' * 9  # as in `source`
  return tiny_token_lm.write(tmp_path_factory.mktemp('tokenizer') / 'bpe', text=text)


@pytest.fixture
def config(make_config, tokenizer):
  def make(num_steps=10, **model):
    model = {**tiny_token_lm.branch(num_hidden_layers=1), 'units': f'tokens(file={tokenizer})', **model}
    return make_config(model=model, num_steps=num_steps, loss_weights={}, batch_size=4, seq_len=48)

  return make


@pytest.mark.parametrize('kind', OTHERS)
def test_a_run_with_other_tokens_goes_on_bit_for_bit(config, tmp_path, kind):
  whole = config(**OTHERS[kind])
  training.train(whole, tmp_path / 'whole')
  shutil.copytree(tmp_path / 'whole', tmp_path / 'parts')
  shutil.rmtree(tmp_path / 'parts' / 'checkpoints' / '10')
  training.train(whole, tmp_path / 'parts')
  assert comparison.differences(tmp_path / 'whole', tmp_path / 'parts', 10) == []
  lines = lambda name: [json.loads(line) for line in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()]
  assert [line['loss'] for line in lines('whole')] == [line['loss'] for line in lines('parts')]
  # More tokens in training than the text has; evaluation has those of the text.
  last = lines('whole')[-1]
  assert last['bytes_per_chunk_0'] < 0.9 * last['validation_bytes_per_chunk_0']


def test_a_work_directory_holds_its_tokenizer_wherever_both_are(config, tmp_path, monkeypatch):
  directory = shutil.copytree(tiny_token_lm.tokenizer(), tmp_path / 'here')
  training.train(config(2, units=f'tokens(file={directory})'), tmp_path / 'run')
  assert (tmp_path / 'run' / 'tokenizer.json').read_bytes() == (directory / 'tokenizer.json').read_bytes()
  saved = json.loads((tmp_path / 'run' / 'config.json').read_text())['model']['units']
  assert tokens.file_of(saved)[0] == 'tokenizer.json'
  moved = shutil.move(tmp_path / 'run', tmp_path / 'moved, away')
  shutil.rmtree(directory)
  monkeypatch.chdir('/')
  loaded = training.load(moved)
  assert tokens.file_of(loaded.config['model']['units'])[0] == f'{moved}/tokenizer.json'
  training.train(config(3, units=f'tokens(file={directory})'), moved)  # goes on with its copy
  # A next run takes parameters, and the tokenizer, from there.
  training.train(config(1, units=loaded.config['model']['units']) | {'init_from': str(moved)}, tmp_path / 'next')
  assert (tmp_path / 'next' / 'tokenizer.json').is_file()
  # Another tokenizer is refused, by the run and by one that begins from it.
  other = tiny_token_lm.write(tmp_path / 'other', vocabulary=300, pattern=r'\s*\S+|\s+')
  changed = config(4, units=f'tokens(file={other})')
  with pytest.raises(ValueError, match=r"another config \(model\.units: 'tokens\(file=tokenizer\.json,digest="):
    training.train(changed, moved)
  with pytest.raises(ValueError, match=r'init_from .* has units tokens\(digest=.* and the model'):
    training.train(changed | {'init_from': str(moved)}, tmp_path / 'last')


def test_a_run_begins_from_published_weights_of_the_same_tokenizer(config, tokenizer, tmp_path):
  sizes = {key: value for key, value in tiny_token_lm.branch(num_hidden_layers=1).items() if key in tiny_token_lm.SIZES}
  size = len(tokens.parse(tokens.in_file(tokenizer, '')).table)
  values = llama.parse({**sizes, 'num_key_value_heads': 2, 'vocab_size': size, 'rms_norm_eps': 1e-5})
  model = llama.Llama(values, rngs=nnx.Rngs(3))
  llama.save_pretrained(model, tmp_path)
  shutil.copy(tokenizer / 'tokenizer.json', tmp_path)
  saved = json.loads((tmp_path / 'config.json').read_text())
  (tmp_path / 'config.json').write_text(json.dumps(saved | {'bos_token_id': 0, 'eos_token_id': 1}))
  abstract = description.abstract_model(config(bos_token_id=0, eos_token_id=1)['model'])
  found = workdir_lib.initial_params(str(tmp_path), abstract)
  np.testing.assert_array_equal(found['llama.embeddings'], model.embeddings[...])
  bits = bits_per_byte.evaluate(
    training.load(tmp_path).model, MemoryCorpus([b'the cat']), seq_len=32, batch_size=1
  ).bits_per_byte
  assert 0 < bits < 20
