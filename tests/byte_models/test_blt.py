"""BLT as a family: published files in both layouts, their ids, and configurations that cannot be."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import byte_models
from byte_models.blt import convert, official
from evaluation.oracles import informative
from layers import weights
from layers.paths import flatten
from tests.byte_models import tiny_blt
from text import BOS, EOS
from text.batch import Batch

TEXT = np.frombuffer(bytes([BOS]) + 'A café, and 日本語.'.encode() + bytes([EOS]), np.uint8)[None]
BATCH = Batch(TEXT, np.ones(TEXT.shape, np.int32))


@pytest.fixture(scope='module')
def model():
  config = byte_models.parse(tiny_blt.branch(cross_attn_nheads=2, local_attention_window_len=None, n_kv_heads=1))
  return informative(byte_models.build(config, rngs=nnx.Rngs(0)))


@pytest.fixture(scope='module')
def logits(model):
  return jax.jit(lambda model: model(BATCH).logits)(model)


def assert_same(model, other):
  theirs = flatten(other)
  for path, value in flatten(model).items():
    np.testing.assert_array_equal(value, theirs[path], err_msg=path)


def test_the_authors_layout_is_read_and_written(model, logits, tmp_path):
  byte_models.blt.save_pretrained(model, tmp_path)
  args = json.loads((tmp_path / 'config.json').read_text())['args']
  assert args['dim_global'] == 40 and 'family' not in args
  names = load_file(tmp_path / 'model.safetensors')
  assert names['encoder_hash_tok_embedding.5.weight'].shape == (53, 24)
  assert names['local_encoder.tok_embeddings.weight'].shape == names['local_decoder.output.weight'].shape == (260, 24)
  with pytest.raises(ValueError, match=r'config\.json: patching_mode None: what cuts patches is not among these weig'):
    byte_models.from_pretrained(tmp_path)
  again = byte_models.from_pretrained(tmp_path, boundary='space_end')
  assert_same(model, again)
  np.testing.assert_array_equal(jax.jit(lambda model: model(BATCH).logits)(again), logits)
  # params.json of a training, which has the model's among others
  (tmp_path / 'config.json').unlink()
  (tmp_path / 'params.json').write_text(json.dumps({'model': {**args, 'patching_mode': 'space'}, 'entropy_model': {}}))
  assert_same(model, byte_models.from_pretrained(tmp_path))


@pytest.mark.parametrize('kinds, inner, tensors', [('max', 24, 0), ('min', 40, 2), ('max,avg', 48, 1)])
def test_the_layout_without_cross_attention_has_maps_where_widths_differ(kinds, inner, tensors, tmp_path):
  without = {'cross_attn_encoder': False, 'cross_attn_decoder': False, 'downsampling_by_pooling': kinds}
  config = byte_models.parse(tiny_blt.branch(dim_global=inner, **without))
  model = informative(byte_models.build(config, rngs=nnx.Rngs(0)))
  byte_models.blt.save_pretrained(model, tmp_path)
  maps = [name for name in load_file(tmp_path / 'model.safetensors') if 'projection' in name]
  assert len(maps) == tensors and not any('cross' in name for name in maps)
  assert_same(model, byte_models.from_pretrained(tmp_path, boundary='space_end'))


def of_transformers(model):
  """config.json and tensors as transformers has them."""
  local = {'hidden_size': 24, 'num_attention_heads': 2, 'num_key_value_heads': 1, 'intermediate_size': 64}
  values = {
    'model_type': 'blt',
    'patching_mode': 'entropy',
    'encoder_config': {**local, 'num_hidden_layers': 1},
    'decoder_config': {**local, 'num_hidden_layers': 2},
    'global_config': {
      'hidden_size': 40, 'num_attention_heads': 4, 'num_key_value_heads': 2, 'num_hidden_layers': 1,
      'intermediate_size': 112, 'rope_parameters': {'rope_theta': 500000.0, 'rope_type': 'default'},
    },
    'encoder_hash_byte_group_size': [3, 4, 6],
    'encoder_hash_byte_group_vocab': 53,
    'encoder_hash_byte_group_nb_functions': 2,
    'dtype': 'bfloat16',
  }  # fmt: skip
  flat = {path: np.asarray(value) for path, value in flatten(model).items()}
  flat[official.TABLES] = flat[official.TABLES].reshape(-1, 24)
  return values, weights.scatter(official.parts(model.config, fused=True), flat)


def test_the_layout_of_transformers_is_read(model, tmp_path):
  values, tensors = of_transformers(model)
  assert tensors['model.encoder_hash_tok_embedding.weight'].shape == (6 * 53, 24)
  assert 'model.local_decoder.cross_attn_layers.1.q_norm.weight' in tensors and 'lm_head.weight' in tensors
  tensors['model.patcher.lm_head.weight'] = np.zeros((260, 8), np.float32)  # of the entropy model
  (tmp_path / 'config.json').write_text(json.dumps(values))
  save_file(tensors, tmp_path / 'model.safetensors')
  again = byte_models.from_pretrained(tmp_path, boundary='space_end')
  assert again.config.dtype == 'float32'
  assert_same(model, again)
  byte_models.blt.save_pretrained(again, tmp_path / 'authors')
  assert_same(model, byte_models.from_pretrained(tmp_path / 'authors', boundary='space_end'))


def test_pairs_of_channels_that_turn_are_put_together():
  part = weights.linear('q', 'q', 3, 8, pairs=4)
  theirs = np.arange(24, dtype=np.float32).reshape(8, 3)
  ours = part.ours(theirs)
  np.testing.assert_array_equal(ours[0] / 3, [0, 2, 1, 3, 4, 6, 5, 7])
  np.testing.assert_array_equal(part.theirs(ours), theirs)


def test_a_consolidated_checkpoint_is_converted(model, tmp_path):
  torch = pytest.importorskip('torch')
  byte_models.blt.save_pretrained(model, tmp_path)
  tensors = {name: torch.from_numpy(value) for name, value in load_file(tmp_path / 'model.safetensors').items()}
  torch.save({'model': tensors}, tmp_path / 'consolidated.pth')
  out = tmp_path / 'out'
  given = [f'--config={tmp_path}/config.json', f'--checkpoint={tmp_path}/consolidated.pth', f'--out={out}']
  assert convert.main(given) == 0
  assert_same(model, byte_models.from_pretrained(out, boundary='space_end'))


def test_bytes_have_the_rows_of_their_ids(model):
  """Byte b is row b + 4, BOS 1, EOS 2; no symbol has a row of its own beside."""
  rows = model.config.rows
  assert rows[:254] == tuple(range(4, 258)) and rows[BOS] == 1 and rows[EOS] == 2
  assert model.embeddings.shape == (260, 24)
  assert jax.eval_shape(lambda model: model(BATCH).logits, model).shape[-1] == 256


@pytest.mark.parametrize(
  ('changes', 'sentence'),
  [
    ({'dim_local_decoder': 32}, 'dim_local_decoder 32 is not 24, the dim_local_encoder'),
    ({'dim_global': 20}, 'dim_global 20 is below 24'),
    ({'dim_global': None}, 'dim_global None must be an integer of at least 1'),
    ({'n_heads_global': 3}, 'n_heads_global 3 does not divide dim_global 40 into heads'),
    ({'n_kv_heads_global': 3}, 'n_kv_heads_global 3 does not divide n_heads_global 4'),
    ({'cross_attn_nheads': 5}, 'heads=5 does not divide the 24 channels'),
    ({'cross_attn_all_layers_encoder': True}, 'cross_attn_all_layers_encoder True is not supported'),
    ({'downsampling_by_pooling': 'avg'}, "downsampling_by_pooling 'avg' must be 'max' with cross_attn_encoder"),
    (
      {'cross_attn_encoder': False, 'downsampling_by_pooling': 'avg,sum'},
      "'avg,sum' must be one or several of avg, min",
    ),
    ({'cross_attn_encoder': False, 'downsampling_by_pooling': None}, 'None must be one or several of avg, min, max'),
    ({'encoder_hash_byte_group_size': 3}, r'encoder_hash_byte_group_size 3 must be a list of lengths'),
    ({'mlp_widths': (8, 8)}, 'mlp_widths .* three integers'),
    ({'boundary': 'space'}, "pool attend.* reads 'until', and boundary space emits where what it finds start"),
    ({'boundary': 'entropi'}, "boundary 'entropi' is not known"),
    ({'vocab_size': 256}, 'vocab_size 256: a BLT has the ids of 256 bytes and 4 others'),
    ({'patch_longest': 0}, 'longest 0 must be an integer of at least 1'),
    ({'n_layers': 3}, r'unknown config key model\.n_layers'),
  ],
)
def test_configurations_that_cannot_be_are_one_sentence(changes, sentence):
  with pytest.raises(ValueError, match=sentence) as error:
    byte_models.parse(tiny_blt.branch(**changes))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('args', 'sentence'),
  [
    ({'use_rope': False}, 'use_rope False is not supported: it must be True'),
    ({'cross_attn_init_by_pooling': False}, 'cross_attn_init_by_pooling False is not supported'),
  ],
)
def test_published_options_that_are_not_here_are_named(args, sentence):
  with pytest.raises(ValueError, match=sentence):
    official.branch_of({'args': {'dim_global': 8, **args}}, boundary='space_end')


def test_another_backbone_has_the_depth_and_widths_that_were_asked_for():
  config = byte_models.parse(byte_models.resize(tiny_blt.branch(), 3, width=48, mlp_width=96))
  backbone = byte_models.backbone(config)
  assert (backbone.stack.layout, backbone.stack.width, backbone.mlp_width) == ('T3', 48, 96)
  assert config.stages[0].encoder.mlp_width == 64
