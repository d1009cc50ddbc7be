"""The Llama: logits of Hugging Face's own code on a model with grouped heads and scaled positions, files, decoding."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from byte_models import llama
from layers.paths import flatten, rebuild
from layers.stack import Stack
from tests.goldens import GOLDENS

# transformers 5.23.0: 2 layers, 4 heads of 12 over 2, width 32, Llama 3's rotary scaling beyond 32 positions, 80 tokens
SOURCE = GOLDENS / 'llama'
SIZES = {'vocab_size': 11, 'hidden_size': 8, 'intermediate_size': 12, 'num_hidden_layers': 1, 'num_attention_heads': 2}


@pytest.fixture(scope='module')
def golden():
  return load_file(SOURCE / 'io.safetensors')


@pytest.fixture(scope='module')
def model():
  return llama.from_pretrained(SOURCE)


def fresh(**changes):
  config = llama.parse({**SIZES, **changes})
  return llama.Llama(config, rngs=nnx.Rngs(0))


def equal(a, b):
  a, b = flatten(a), flatten(b)
  assert a.keys() == b.keys()
  for path in a:
    np.testing.assert_array_equal(a[path], b[path], err_msg=path)


@pytest.mark.parametrize('scan', [False, True])
def test_logits_are_those_of_hugging_face(golden, model, scan):
  model = model if not scan else llama.from_pretrained(SOURCE, scan=True)
  logits = jax.jit(lambda m, t: m(t, jnp.ones_like(t)))(model, golden['tokens'])
  assert np.std(golden['logits']) > 1
  np.testing.assert_allclose(logits, golden['logits'], atol=5e-5)


def test_documents_of_a_row_do_not_meet(golden, model):
  tokens = golden['tokens'].reshape(1, -1)
  ids = np.repeat([[1, 2]], golden['tokens'].shape[1], 1)
  logits = jax.jit(lambda m: m(tokens, ids))(model)
  np.testing.assert_allclose(logits.reshape(golden['logits'].shape), golden['logits'], atol=5e-5)


def test_decoding_step_by_step_equals_the_parallel_form(golden, model):
  tokens, lengths, total = golden['tokens'], np.array([3, 40]), golden['tokens'].shape[1]
  prompt = np.where(np.arange(40) < lengths[:, None], tokens[:, :40], 0)
  logits, cache = jax.jit(lambda m: m.prefill(prompt, lengths, m.init_cache(2, total)))(model)
  step = jax.jit(lambda m, token, cache: m.step(token, cache))
  for offset in range(6):
    at = lengths + offset
    np.testing.assert_allclose(logits, golden['logits'][[0, 1], at - 1], atol=5e-5)
    logits, cache = step(model, tokens[[0, 1], at], cache)


def test_a_token_outside_the_vocabulary_is_not_another_token(model):
  logits = jax.jit(lambda m, t: m(t, jnp.ones_like(t)))(model, np.array([[1, 60], [1, 61], [1, -1]]))
  assert np.isfinite(logits[0]).all() and np.isnan(logits[1:, 1]).all()


def test_the_bare_backbone_is_the_blocks_without_embeddings_head_and_norm(golden, model):
  config, flat = llama.read_backbone(SOURCE)
  assert not config.final_norm and 'norm.scale' not in flat
  stack = rebuild(
    jax.eval_shape(lambda: Stack(config, output_deviation=1.0, rngs=nnx.Rngs(0))),
    {path: jnp.asarray(value) for path, value in flat.items()},
  )
  x = model._embed(golden['tokens'])
  y = jax.jit(lambda s, x: s(x, jnp.ones(x.shape[:2], jnp.int32)))(stack, x)
  np.testing.assert_allclose(model._head(model.backbone.norm(y, y.dtype)), golden['logits'], atol=5e-5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_what_is_saved_is_what_was_read(model, tmp_path, dtype):
  llama.save_pretrained(model, tmp_path / 'a', dtype)
  again = llama.from_pretrained(tmp_path / 'a')
  assert again.config == model.config
  equal(again, jax.tree.map(lambda v: v.astype(dtype).astype('float32'), model))
  theirs, ours = load_file(SOURCE / 'model.safetensors'), load_file(tmp_path / 'a' / 'model.safetensors')
  assert theirs.keys() == ours.keys()
  for name in theirs:
    np.testing.assert_array_equal(ours[name], theirs[name].astype(ours[name].dtype), err_msg=name)
    assert str(ours[name].dtype) == dtype


def test_weights_in_several_files_are_one_model(model, tmp_path):
  tensors = load_file(SOURCE / 'model.safetensors')
  tensors['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(6, np.float32)  # as files of 2023 have
  places = {name: f'model-0000{1 + index % 3}-of-00003.safetensors' for index, name in enumerate(tensors)}
  for file in set(places.values()):
    save_file({name: tensors[name] for name in tensors if places[name] == file}, tmp_path / file)
  (tmp_path / 'config.json').write_text((SOURCE / 'config.json').read_text())
  (tmp_path / 'model.safetensors.index.json').write_text(json.dumps({'metadata': {}, 'weight_map': places}))
  equal(llama.from_pretrained(tmp_path), model)
  (tmp_path / 'model-00002-of-00003.safetensors').unlink()
  with pytest.raises(FileNotFoundError, match=r'model-00002-of-00003\.safetensors is missing'):
    llama.from_pretrained(tmp_path)


def test_a_tied_head_is_the_embedding_even_if_the_file_has_both(tmp_path):
  model = fresh(tie_word_embeddings=True)
  assert 'lm_head.kernel' not in flatten(model)
  llama.save_pretrained(model, tmp_path)
  tensors = load_file(tmp_path / 'model.safetensors')
  assert 'lm_head.weight' not in tensors
  save_file(tensors | {'lm_head.weight': tensors['model.embed_tokens.weight']}, tmp_path / 'model.safetensors')
  equal(llama.from_pretrained(tmp_path), model)
  save_file(tensors | {'lm_head.weight': tensors['model.embed_tokens.weight'] + 1}, tmp_path / 'model.safetensors')
  with pytest.raises(ValueError, match=r'lm_head\.weight differs from model\.embed_tokens\.weight'):
    llama.from_pretrained(tmp_path)


def test_both_ways_to_write_the_rotary_keys_are_read():
  scaling = {'rope_type': 'llama3', 'factor': 32.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0}
  scaling['original_max_position_embeddings'] = 8192
  new = llama.parse({**SIZES, 'rope_parameters': {**scaling, 'rope_theta': 5e5}})
  old = llama.parse({**SIZES, 'rope_theta': 5e5, 'rope_scaling': scaling})
  assert new == old and old.rope_scaling.factor == 32 and old.stack.rotary_base == 5e5
  plain = llama.parse({**SIZES, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 5e5}})
  assert plain == dataclasses.replace(old, rope_scaling=None)
  assert llama.parse(llama.to_dict(old)) == old


def test_keys_that_are_absent_have_the_values_of_hugging_face():
  config = llama.parse(SIZES)
  assert (config.num_key_value_heads, config.head_dim, config.rms_norm_eps, config.rope_theta) == (2, 4, 1e-6, 1e4)
  assert not config.tie_word_embeddings and config.rope_scaling is None


@pytest.mark.parametrize(
  ('changes', 'sentence'),
  [
    ({'model_type': 'mistral'}, "model_type is 'mistral' and not 'llama'"),
    ({'attention_bias': True}, 'attention_bias is True and not False'),
    ({'mlp_bias': True}, 'mlp_bias is True and not False'),
    ({'hidden_act': 'gelu'}, "hidden_act is 'gelu' and not 'silu'"),
    ({'quantization_config': {'bits': 4}}, "quantization_config is {'bits': 4} and not None"),
    ({'rope_scaling': {'type': 'linear', 'factor': 2.0}}, "rope_scaling {'type': 'linear', 'factor': 2.0}"),
    ({'rope_scaling': {'rope_type': 'llama3', 'factor': 2.0}}, 'supported are none and llama3 with factor, low_freq'),
    ({'rope_scaling': 'llama3'}, "rope_scaling 'llama3'"),
    ({'num_experts': 8}, 'num_experts 8 is not a known key of a Llama'),
    ({'hidden_size': 9}, 'num_attention_heads 2 must be a multiple of num_key_value_heads (2) and, without head_dim,'),
    ({'num_key_value_heads': 3}, 'must be a multiple of num_key_value_heads (3)'),
    ({'head_dim': 5}, 'head_dim 5 must be even'),
    ({'num_hidden_layers': 0}, 'num_hidden_layers 0 must be a whole number of at least 1'),
    ({'vocab_size': 11.0}, 'vocab_size 11.0 must be a whole number'),
    ({'rope_theta': -1}, 'rope_theta -1 must be a number above 0'),
    ({'max_position_embeddings': '2048'}, "max_position_embeddings '2048' must be an integer of at least 1"),
  ],
)
def test_a_configuration_that_is_not_computed_here_is_one_sentence(changes, sentence):
  with pytest.raises(ValueError) as error:
    llama.parse({**SIZES, **changes})
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_files_that_do_not_fit_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'config\.json is missing: official weights are'):
    llama.from_pretrained(tmp_path)
  config = json.loads((SOURCE / 'config.json').read_text())
  write = lambda values: (tmp_path / 'config.json').write_text(json.dumps(values))
  write({key: value for key, value in config.items() if key != 'hidden_size'})
  with pytest.raises(ValueError, match=r'config\.json: hidden_size is missing'):
    llama.from_pretrained(tmp_path)
  write(config)
  (tmp_path / 'model.safetensors').write_bytes((SOURCE / 'model.safetensors').read_bytes())
  for change, sentence in (
    ({'num_hidden_layers': 3}, r'lacks tensor model\.layers\.2\.'),
    ({'num_hidden_layers': 1}, r'surplus tensor model\.layers\.1\.'),
    ({'intermediate_size': 41}, r'tensor model\.layers\.0\.mlp\.\w+\.weight has shape'),
  ):
    write(config | change)
    for read in (llama.from_pretrained, llama.read_backbone):
      with pytest.raises(ValueError, match=sentence):
        read(tmp_path)
