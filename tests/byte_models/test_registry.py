"""Official weights of every family by one name: the family is recognised, and what is no family's is one sentence."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import byte_models
import training
from byte_models import tfree_hat
from evaluation import evaluate
from hnet import HNet
from layers.paths import flatten
from tests.byte_models.tiny_tfree_hat import branch, build
from tests.goldens import GOLDENS
from text import MemoryCorpus
from text.batch import Batch
from text.marks import mark
from training import description
from training import workdir as workdir_lib

HNET, TFREE_HAT, LLAMA = GOLDENS / 'hnet' / 'stage1_basic', GOLDENS / 'tfree_hat' / 'plain', GOLDENS / 'llama'
TEXT = 'xa\xa0b 你好 — naïve café, 日本語.'.encode()


@pytest.mark.parametrize(('directory', 'family'), [(HNET, HNet), (TFREE_HAT, tfree_hat.TFreeHAT)])
def test_the_family_is_recognised_and_the_weights_are_those_of_its_own_loader(directory, family):
  loaded = training.load(directory)
  assert isinstance(loaded.model, family) and (loaded.config, loaded.step) == ({}, None)
  own = byte_models.from_pretrained(directory, dtype='bfloat16')
  assert own.config.dtype == 'bfloat16' and type(own) is family
  jax.tree.map(np.testing.assert_array_equal, flatten(loaded.model), flatten(own))


@pytest.fixture
def copied(tmp_path):
  """copied(directory, **changes of config.json) -> a copy to spoil."""

  def copy(source, **changes):
    for name in ('config.json', 'model.safetensors'):
      shutil.copy(source / name, tmp_path)
    values = json.loads((source / 'config.json').read_text()) | changes
    values = {key: value for key, value in values.items() if value is not None}
    (tmp_path / 'config.json').write_text(json.dumps(values))
    return tmp_path

  return copy


def test_weights_in_parts_are_recognised_by_their_configuration(copied):
  directory = copied(HNET)
  tensors = load_file(directory / 'model.safetensors')
  (directory / 'model.safetensors').unlink()
  places = {name: f'{index % 2}.safetensors' for index, name in enumerate(tensors)}
  for file in set(places.values()):
    save_file({name: tensors[name] for name in tensors if places[name] == file}, directory / file)
  (directory / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': places}))
  jax.tree.map(np.testing.assert_array_equal, *(flatten(training.load(d).model) for d in (directory, HNET)))


@pytest.mark.parametrize(
  ('source', 'changes', 'sentence'),
  [
    (
      LLAMA,
      {'num_hidden_layers': None},
      r"model_type 'llama'\) is of no family with official weights: blt has .*; hnet has arch_layout; tfree",
    ),
    (HNET, {'arch_layout': None}, r'config\.json \(no model_type\) is of no family with official weights'),
    (HNET, {'colour': 1}, r'config\.json: unknown config key model\.colour'),
    (TFREE_HAT, {'colour': 1}, r'config\.json: unknown config key model\.colour'),
    (TFREE_HAT, {'decoder_config': None}, r'config\.json: model\.decoder_config is missing'),
    (TFREE_HAT, {'arch_layout': ['T1']}, r'config\.json: unknown config key model\.\w+'),
  ],
)
def test_a_configuration_of_no_family_or_with_other_keys_is_one_sentence(copied, source, changes, sentence):
  with pytest.raises(ValueError, match=sentence) as error:
    training.load(copied(source, **changes))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('source', [HNET, TFREE_HAT])
def test_missing_and_damaged_weights_are_one_sentence(copied, source):
  directory = copied(source)
  file = directory / 'model.safetensors'
  file.write_bytes(file.read_bytes()[:1000])
  with pytest.raises(ValueError, match='model.safetensors is not a whole safetensors file'):
    training.load(directory)
  file.unlink()
  with pytest.raises(FileNotFoundError, match='model.safetensors is missing: official weights are'):
    training.load(directory)
  with pytest.raises(ValueError, match='step 3 does not apply'):
    training.load(directory, 3)


class TestTFreeHAT:
  def test_bits_are_those_of_decoding_unless_the_configuration_asks_for_the_published_delivery(self, copied):
    """Steps know only what is before them; the published delivery knows more inside the first character of a word."""
    batch = mark(Batch.of([b'\xfe' + TEXT]), {'words': 'hat(max_bytes=100)'})
    size = int(batch.segment_ids.sum())
    forward = jax.jit(lambda model, batch: model(batch).logits)
    step = jax.jit(lambda model, byte_B, cache: model.step(byte_B, cache))
    for changes, delivery, equal in (({}, 'causal', True), ({'delivery': 'published'}, 'published', False)):
      model = training.load(copied(TFREE_HAT, **changes)).model
      assert model.config.delivery == delivery
      cache, found = model.init_cache(1, size), []
      for byte in batch.bytes[0, :size]:
        logits, cache = step(model, np.array([byte]), cache)
        found.append(logits[0])
      parallel = forward(model, batch)[0, :size]
      assert np.allclose(np.stack(found), parallel, atol=1e-4) == equal

  def test_documents_are_read_with_the_ids_of_the_file(self, copied):
    """A score is that of the published ids 193 (begin) and 192 (end) around the text, by the model's own logits."""
    model = training.load(copied(TFREE_HAT)).model
    text = b'The cat sat on the mat.'
    result = evaluate(model, MemoryCorpus([text]), seq_len=32, batch_size=1)
    ids = np.frombuffer(b'\xc1' + text + b'\xc0', np.uint8)[None]
    batch = mark(Batch.of([b'\xfe' + text + b'\xff']), model.marks)
    assert batch.marks['words'][0, [0, 1, ids.shape[1] - 1]].all()

    @jax.jit
    def published(model, ids, starts):
      batch = Batch(ids, np.ones(ids.shape, np.int32), {'words': starts})
      words = model.locate(batch)
      z = model.backbone(model.pool(model.encode(batch), words), words)
      return model.head(model.decode(model.encode(batch), model.predictive(z, words), words, batch))

    log_p = jax.nn.log_softmax(published(model, ids, batch.marks['words'][:, : ids.shape[1]])[0])
    bits = -np.asarray(log_p)[np.arange(ids.shape[1] - 1), ids[0, 1:]] / np.log(2)
    assert result.bits_per_byte == pytest.approx(bits[:-1].mean(), rel=1e-5)
    assert result.eos_bits == pytest.approx(bits[-1], rel=1e-5)

  @pytest.mark.parametrize('keep_unused', [False, True])
  def test_training_begins_from_it_with_or_without_what_is_never_used(self, tmp_path, keep_unused):
    model = build(delivery='published', keep_unused=True)
    tfree_hat.save_pretrained(model, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, flatten(training.load(tmp_path).model), flatten(model))
    wanted = description.abstract_model(branch(keep_unused=keep_unused, words='whitespace'))
    found = workdir_lib.initial_params(str(tmp_path), wanted)
    assert found.keys() == flatten(wanted).keys()
    jax.tree.map(np.testing.assert_array_equal, found, {path: flatten(model)[path] for path in found})

  def test_training_does_not_begin_from_another_family_or_other_ids(self, tmp_path):
    wanted = description.abstract_model(branch())
    with pytest.raises(ValueError, match="holds another model: its family is 'hnet' and not 'tfree_hat'"):
      workdir_lib.initial_params(str(HNET), wanted)
    tfree_hat.save_pretrained(build(delivery='published', eos_token_id=192), tmp_path)
    with pytest.raises(ValueError, match='has EOS 192 and the model 255: give the model the same'):
      workdir_lib.initial_params(str(tmp_path), wanted)
