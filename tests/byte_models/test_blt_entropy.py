"""BLT's entropy model from published files: the entropies of the published code, and patches that it cuts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import byte_models
import training
from byte_models.blt import convert, entropy
from hnet import parts
from hnet.parts import patchers
from layers import weights
from layers.contract import EVAL
from layers.paths import rebuild
from tests.goldens import GOLDENS
from tests.hnet.parts.common import SIZES, level_of
from tests.hnet.tiny import branch
from text import BOS, EOS
from text.batch import Batch
from training import workdir

FOLDER = GOLDENS / 'chunkers/blt_entropy'
OPTIONS = 'layout=T2,width=48,mlp_width=128,heads=3,rotary=16,window=15,ids=blt'


@pytest.fixture(scope='module')
def rows():
  """(what the published code reads and finds, the same symbols and documents here)."""
  io = load_file(FOLDER / 'io.safetensors')
  tokens = io['tokens']
  rows = [row for row in range(len(tokens)) if not np.isin(tokens[row], (0, 3, 258, 259)).any()]
  tokens = tokens[rows]
  symbols = np.where(tokens >= 4, tokens - 4, np.where(tokens == 1, BOS, EOS)).astype(np.uint8)
  ids = 1 + np.pad(np.cumsum(tokens == 2, 1)[:, :-1], ((0, 0), (1, 0)))
  return {name: values[rows] for name, values in io.items() if values.ndim > 1}, symbols, ids.astype(np.int32)


def test_a_boundary_that_borrows_it_has_the_published_entropies(rows):
  io, symbols, ids = rows
  assert len(symbols)
  part = parts.parse('boundary', f'entropy({FOLDER},threshold=1.3354,{OPTIONS})')
  taken = part.take(training.load(FOLDER).model, None, FOLDER)
  boundary = rebuild(part.build(SIZES, rngs=nnx.Rngs(0)), taken)
  found = jax.jit(lambda lm: patchers.entropy(lm(jnp.asarray(symbols), jnp.asarray(ids))))(boundary.frozen.lm)
  np.testing.assert_allclose(found, io['entropies_f64' if 'entropies_f64' in io else 'entropies'], atol=2e-5)
  level = level_of(ids, symbols.tobytes())
  np.testing.assert_array_equal(
    jax.jit(lambda boundary: boundary(None, level, EVAL).emit)(boundary),
    patchers.by_entropy(found, 0.0, jnp.asarray(positions(ids)), 1.3354),
  )


def positions(ids):
  return np.stack([np.concatenate([np.arange((row == n).sum()) for n in np.unique(row)]) for row in ids])


def test_it_is_a_byte_model_whose_logits_are_those_of_its_bytes(rows):
  io, symbols, ids = rows
  model = byte_models.from_pretrained(FOLDER)
  found = jax.jit(lambda model: model(Batch(symbols, ids)).logits)(model)
  np.testing.assert_allclose(found, io['logits'][..., list(model.config.rows)], atol=5e-5)


def test_a_training_begins_with_it():
  boundary = f'entropy({FOLDER},threshold=1.3354,{OPTIONS})'
  of = branch(['t1', ['t1'], 't1'], chunking={'boundary': boundary, 'pool': 'first', 'unpool': 'repeat'})
  model = jax.eval_shape(lambda: byte_models.build(byte_models.parse(of), rngs=nnx.Rngs(0)))
  found = workdir.borrowed_params(model)
  assert found['backbone.boundary.frozen.lm.embeddings'].shape == (260, 48)


@pytest.mark.parametrize(
  ('options', 'sentence'),
  [
    (OPTIONS.removesuffix(',ids=blt'), r'write entropy\(lm=.*,ids=blt\) and the rest'),
    (OPTIONS.replace('heads=3', 'heads=3,kv_heads=1,rotary_base=5'), r'kv_heads=0,rotary_base=10000\.0\) and the rest'),
  ],
)
def test_other_sizes_are_named(options, sentence):
  part = parts.parse('boundary', f'entropy({FOLDER},threshold=1,{options})')
  with pytest.raises(ValueError, match=sentence):
    part.take(byte_models.from_pretrained(FOLDER), None, FOLDER)


def test_a_published_model_was_not_calibrated_here():
  part = parts.parse('boundary', f'entropy({FOLDER},{OPTIONS})')
  with pytest.raises(ValueError, match='has published weights and no threshold: give it, such as threshold=1.3354'):
    part.take(byte_models.from_pretrained(FOLDER), None, FOLDER)


def test_what_transformers_has_of_it_is_taken_from_there(tmp_path):
  model = byte_models.from_pretrained(FOLDER)
  flat = {path: np.asarray(leaf) for path, leaf in workdir.flatten(model).items()}
  tensors = weights.scatter(entropy.parts(model.config, of_transformers=True), flat)
  assert tensors['model.patcher.layers.1.self_attn.q_proj.weight'].shape == (48, 48)
  save_file(tensors | {'model.other.weight': np.zeros(3, np.float32)}, tmp_path / 'model.safetensors')
  sizes = {'hidden_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 3, 'intermediate_size': 128}
  (tmp_path / 'config.json').write_text(json.dumps({'global_config': {}, 'patcher_config': sizes}))
  entropy.main([f'--weights={tmp_path}', f'--out={tmp_path}/out', '--window=16'])
  again = byte_models.from_pretrained(tmp_path / 'out')
  assert again.config.stages[0].main == model.config.stages[0].main
  for path, leaf in workdir.flatten(again).items():
    np.testing.assert_array_equal(leaf, flat[path], err_msg=path)
  (tmp_path / 'config.json').write_text(json.dumps({'global_config': {}}))
  with pytest.raises(ValueError, match='has no patcher_config'):
    entropy.extract(tmp_path, tmp_path / 'other', 16)


def test_a_consolidated_checkpoint_is_converted(tmp_path):
  torch = pytest.importorskip('torch')
  tensors = {name: torch.from_numpy(value) for name, value in load_file(FOLDER / 'model.safetensors').items()}
  torch.save(tensors, tmp_path / 'consolidated.pth')
  given = [f'--config={FOLDER}/config.json', f'--checkpoint={tmp_path}/consolidated.pth', f'--out={tmp_path}/out']
  assert convert.main(given) == 0
  assert byte_models.from_pretrained(tmp_path / 'out').config == byte_models.from_pretrained(FOLDER).config


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    ({'vocab_size': 256}, 'vocab_size 256: an entropy model has the ids of BLT, 260'),
    ({'n_layers': 0}, 'n_layers 0 must be an integer of at least 1'),
    ({'n_heads': 5}, 'num_heads 5 does not divide|must be even'),
  ],
)
def test_what_does_not_fit_is_one_sentence(change, sentence):
  args = json.loads((FOLDER / 'config.json').read_text())['args']
  with pytest.raises(ValueError, match=sentence) as error:
    entropy.parse({'args': {**args, **change}})
  assert '\n' not in str(error.value)


def test_configs_of_other_models_are_not_its():
  assert entropy.args_of({'args': {'dim': 8, 'n_layers': 1, 'n_heads': 1, 'dim_global': 8}}) is None
  assert entropy.args_of({'model': None, 'entropy_model': {'dim': 8, 'n_layers': 1, 'n_heads': 1}})['dim'] == 8
