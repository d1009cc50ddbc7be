"""Published weights: the model against its specification in float64, names, round trips, refusals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from byte_models import tfree_hat
from byte_models.tfree_hat import reference
from layers.paths import flatten
from tests.byte_models.tiny_tfree_hat import SCALING, build
from tests.goldens import GOLDENS
from text.batch import Batch
from text.marks import mark

DIRECTORY = GOLDENS / 'tfree_hat' / 'plain'
TEXT = 'The cat sat, 日本語と naïve café — 12345678901 🙂.'.encode()


def load(directory=DIRECTORY, **overrides):
  """The published model."""
  return tfree_hat.from_pretrained(directory, **{'delivery': 'published', **overrides})


def full(config):
  """config.json with what the published class writes out."""
  config = json.loads(json.dumps(config))
  for part in ('encoder_config', 'decoder_config'):
    for sizes in (config[part], config[part].get('cross_attention_config', {})):
      sizes.setdefault('sliding_window', None)
  return config


VARIANTS = {
  'norms_full_grouped_scaled': {'kv_heads': 1, 'qk_norm': 'full', 'scaling': SCALING},
  'norms_per_head_first_layer_guided': {'every_layer': False, 'qk_norm': 'head', 'window': 12},
}


@pytest.mark.parametrize('name', VARIANTS)
def test_the_model_equals_its_specification(name, tmp_path):
  """Random models through files: the full cross attention there is the reduced one here."""
  tfree_hat.save_pretrained(build(delivery='published', keep_unused=True, **VARIANTS[name]), tmp_path)
  model = load(tmp_path)
  batch = mark(Batch.of([TEXT]), model.marks)
  starts = np.append(np.flatnonzero(batch.marks['words'][0]), len(TEXT))
  config = full(json.loads((tmp_path / 'config.json').read_text()))
  expected = reference.forward(config, load_file(tmp_path / 'model.safetensors'), batch.bytes[0], np.diff(starts))

  @jax.jit
  def run(model, batch):
    words, a = model.locate(batch), model.encode(batch)
    g = model.pool(a, words)
    z = model.backbone(g, words)
    p = model.predictive(z, words)
    y = model.decode(a, p, words, batch)
    return a, g, z, p, y, model.head(y)

  for key, values in zip(
    ('encoder_output', 'word_embeddings', 'backbone_output', 'predictive_word_embeddings', 'decoder_output', 'logits'),
    run(model, batch),
    strict=True,
  ):
    np.testing.assert_allclose(values[0, : len(expected[key])], expected[key], atol=1e-4, rtol=0, err_msg=key)
  assert expected['logits'].std() > 0.3


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', ['plain', 'window'])
def test_files_come_back_bit_by_bit(name, dtype, tmp_path):
  source, first, second = GOLDENS / 'tfree_hat' / name, tmp_path / 'first', tmp_path / 'second'
  tensors = {key: value.astype(jnp.dtype(dtype)) for key, value in load_file(source / 'model.safetensors').items()}
  first.mkdir()
  (first / 'config.json').write_bytes((source / 'config.json').read_bytes())
  names = sorted(tensors)
  save_file({key: tensors[key] for key in names[::2]}, first / 'a.safetensors')
  save_file({key: tensors[key] for key in names[1::2]}, first / 'b.safetensors')
  index = {'weight_map': {key: 'ab'[place % 2] + '.safetensors' for place, key in enumerate(names)}}
  (first / 'model.safetensors.index.json').write_text(json.dumps(index))
  tfree_hat.save_pretrained(load(first), second)
  again = load_file(second / 'model.safetensors')
  assert again.keys() == tensors.keys()
  for key, value in tensors.items():
    assert again[key].dtype == value.dtype and again[key].tobytes() == value.tobytes()
  assert json.loads((second / 'config.json').read_text()) == json.loads((source / 'config.json').read_text())


def test_what_is_never_used_may_be_left_out(tmp_path):
  """The same logits without it, and a file that the published code can read all the same."""
  lean, whole = load(keep_unused=False), load()
  unused = {path for path in flatten(whole) if '.unused.' in path}
  assert flatten(whole).keys() - flatten(lean).keys() == unused and len(unused) == 6
  batch = mark(Batch.of([TEXT]), lean.marks)
  call = jax.jit(lambda model, batch: model(batch).logits)
  np.testing.assert_array_equal(call(lean, batch), call(whole, batch))
  tfree_hat.save_pretrained(lean, tmp_path)
  written, read = load_file(tmp_path / 'model.safetensors'), load_file(DIRECTORY / 'model.safetensors')
  different = {key for key in read if not np.array_equal(read[key], written[key])}
  assert written.keys() == read.keys() and {key.split('.')[-2] for key in different} <= {
    'q_proj',
    'k_proj',
    'query_norm',
  }
  assert not any(whole.trains(path) for path in unused)


def test_begin_and_end_stand_for_the_published_ids():
  model = load()
  assert (model.config.bos, model.config.eos) == (193, 192)
  call = jax.jit(lambda model, batch: model(batch))
  ours = call(model, mark(Batch.of([b'\xfeThe end\xff']), model.marks))
  theirs = Batch.of([b'\xc1The end\xc0'])
  starts = np.array([[1, 1, 0, 0, 1, 0, 0, 0, 1]], bool)
  theirs = call(model, Batch(theirs.bytes, theirs.segment_ids, {'words': starts}))
  np.testing.assert_array_equal(ours.logits, theirs.logits)
  raw = model.by_byte(theirs.logits)
  np.testing.assert_array_equal(ours.logits[..., [254, 255, 192, 193]], raw[..., [193, 192, 255, 254]])
  expected = -jax.nn.log_softmax(raw[0, 7])[192]
  np.testing.assert_allclose(ours.nll[0, 8], expected, rtol=1e-5)


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda c, t: t.pop('layer_norm.weight'), 'lacks tensor layer_norm.weight'),
    (lambda c, t: t.update(extra=np.zeros(2, np.float32)), 'has the surplus tensor extra'),
    (lambda c, t: t.update({'lm_head.weight': np.zeros((256, 3), np.float32)}), r'lm_head.weight has shape \(256, 3\)'),
    (lambda c, t: t.update({'layer_norm.weight': np.zeros(64, np.int32)}), 'layer_norm.weight is I32'),
    (lambda c, t: c['encoder_config'].update(mlp_bias=True), 'encoder_config.mlp_bias True: only False is supported'),
    (lambda c, t: c.update(model_type='llama'), "model_type 'llama'"),
    (lambda c, t: c.pop('decoder_config'), 'decoder_config is missing'),
  ],
)
def test_files_that_do_not_fit_are_refused(change, message, tmp_path):
  config = json.loads((DIRECTORY / 'config.json').read_text())
  tensors = load_file(DIRECTORY / 'model.safetensors')
  change(config, tensors)
  (tmp_path / 'config.json').write_text(json.dumps(config))
  save_file(tensors, tmp_path / 'model.safetensors')
  with pytest.raises(ValueError, match=message):
    tfree_hat.from_pretrained(tmp_path)


@pytest.mark.parametrize('changes', [{'delivery': 'causal'}, {'delivery': 'published', 'words': 'whitespace'}])
def test_a_model_that_the_published_code_would_read_differently_is_not_written(changes, tmp_path):
  with pytest.raises(ValueError, match='the published code'):
    tfree_hat.save_pretrained(build(**changes), tmp_path / 'new')
  assert not (tmp_path / 'new').exists()
