"""Official weights: names and shapes of the released models, files read and written back, and files that do not fit."""

import importlib
import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import hnet
from hnet import official
from layers.paths import flatten
from tests.goldens import GOLDENS
from tests.hnet.tiny import ONE_STAGE, branch

# parameters and tensors, counted in the authors' code
RELEASED = {
  'hnet_1stage_L': (679_405_312, 214),
  'hnet_1stage_XL': (1_270_833_920, 226),
  'hnet_2stage_L': (874_315_264, 328),
  'hnet_2stage_XL': (1_603_492_224, 335),
  'hnet_2stage_XL_chinese': (1_755_285_888, 353),
  'hnet_2stage_XL_code': (1_654_090_112, 341),
}
SOURCE = GOLDENS / 'hnet' / 'stage1_basic'


def released(name):
  return hnet.parse(importlib.import_module(f'configs.{name.lower()}').get_config().model.to_dict())


def abstract(config):
  return jax.eval_shape(lambda: hnet.build(config, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize('name', RELEASED)
def test_released_models_have_the_official_tensors(name):
  config = released(name)
  expected = json.loads((Path(__file__).parent / 'shapes' / f'{name}.json').read_text())
  tensors = list(official.parts(config))
  assert {tensor.name: list(tensor.shape) for tensor in tensors} == {key: shape for key, (shape, _) in expected.items()}
  parameters = flatten(abstract(config))
  # Every parameter is made of official tensors, each once, in a layout of equal size.
  parts = {path: [tensor for tensor in tensors if tensor.path == path] for path in parameters}
  assert sum(map(len, parts.values())) == len(tensors)
  for path, leaf in parameters.items():
    ours = [tensor.ours(np.broadcast_to(np.float32(0), tensor.shape)).shape for tensor in parts[path]]
    stacked = parts[path][0].layer is not None
    assert leaf.shape == ((len(ours), *ours[0]) if stacked else ours[0]) and len(set(ours)) == 1
    assert not stacked or [tensor.layer for tensor in parts[path]] == list(range(len(ours)))
  assert (sum(leaf.size for leaf in parameters.values()), len(tensors)) == RELEASED[name]


def raw(directory):
  """name -> (dtype, shape, bytes), as they lie in model.safetensors."""
  data = (directory / 'model.safetensors').read_bytes()
  size = int.from_bytes(data[:8], 'little')
  header = json.loads(data[8 : 8 + size])
  header.pop('__metadata__', None)
  part = lambda begin, end: data[8 + size + begin : 8 + size + end]
  return {name: (entry['dtype'], entry['shape'], part(*entry['data_offsets'])) for name, entry in header.items()}


def mixed(name):
  """The dtypes of the published files, and one float16 tensor."""
  if name.endswith('.D') or 'residual_proj' in name:
    return np.float32
  return np.float16 if name == 'lm_head.weight' else ml_dtypes.bfloat16


@pytest.mark.parametrize('dtype', [lambda name: np.float32, lambda name: ml_dtypes.bfloat16, mixed])
def test_tensors_come_back_byte_for_byte_in_their_dtypes(tmp_path, dtype):
  before, after = tmp_path / 'before', tmp_path / 'after'
  before.mkdir()
  shutil.copy(SOURCE / 'config.json', before)
  weights = {name: value.astype(dtype(name)) for name, value in load_file(SOURCE / 'model.safetensors').items()}
  save_file(weights, before / 'model.safetensors')
  model = hnet.from_pretrained(before)
  assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {np.dtype('float32')}
  hnet.save_pretrained(model, after)
  assert raw(after) == raw(before)
  assert json.loads((after / 'config.json').read_text()) == json.loads((before / 'config.json').read_text())
  assert {file.name for file in after.iterdir()} == {'config.json', 'model.safetensors'}


def test_overrides_change_how_it_runs_and_not_what_is_written(tmp_path):
  model = hnet.from_pretrained(SOURCE, dtype='bfloat16', scan_layers=True, ratio_targets=[4.0])
  assert model.config.dtype == 'bfloat16' and model.config.stages[0].target.end == 4.0
  hnet.save_pretrained(model, tmp_path)
  assert raw(tmp_path) == raw(SOURCE)


def test_how_a_router_is_trained_is_no_part_of_the_architecture():
  official.check_official(hnet.parse(branch(ONE_STAGE, chunking={'losses': []})))


def test_a_fresh_model_is_written_in_float32_and_read_back(tmp_path):
  config = hnet.parse(branch(ONE_STAGE))
  model = hnet.build(config, rngs=nnx.Rngs(0))
  hnet.save_pretrained(model, tmp_path)
  assert {entry[0] for entry in raw(tmp_path).values()} == {'F32'}
  again = flatten(hnet.from_pretrained(tmp_path))
  for path, leaf in flatten(model).items():
    np.testing.assert_array_equal(again[path], leaf)


@pytest.fixture
def weights(tmp_path):
  """A directory of good weights to spoil."""
  for file in ('config.json', 'model.safetensors'):
    shutil.copy(SOURCE / file, tmp_path)
  return tmp_path


def spoil(directory, change):
  tensors = load_file(directory / 'model.safetensors')
  change(tensors)
  save_file(tensors, directory / 'model.safetensors')


@pytest.mark.parametrize('name', ['embeddings.weight', 'backbone.encoder.layers.0.norm1.weight', 'lm_head.weight'])
def test_a_missing_tensor_is_named(weights, name):
  spoil(weights, lambda tensors: tensors.pop(name))
  with pytest.raises(ValueError, match=f'lacks tensor {name}'):
    hnet.from_pretrained(weights)


def test_a_surplus_tensor_is_named(weights):
  spoil(weights, lambda tensors: tensors.update({'backbone.extra.weight': np.zeros(3, np.float32)}))
  with pytest.raises(ValueError, match='has the surplus tensor backbone.extra.weight'):
    hnet.from_pretrained(weights)


def test_a_misshapen_tensor_is_named_with_both_shapes(weights):
  spoil(weights, lambda tensors: tensors.update({'lm_head.weight': tensors['lm_head.weight'].T.copy()}))
  with pytest.raises(
    ValueError, match=r'tensor lm_head.weight has shape \(\d+, 256\), this configuration needs \(256, \d+\)'
  ):
    hnet.from_pretrained(weights)


def test_a_tensor_of_integers_is_named(weights):
  spoil(weights, lambda tensors: tensors.update({'lm_head.weight': tensors['lm_head.weight'].astype(np.int32)}))
  with pytest.raises(ValueError, match='tensor lm_head.weight is I32; weights are float32, bfloat16, float16'):
    hnet.from_pretrained(weights)


def test_another_configuration_does_not_fit(weights):
  config = json.loads((weights / 'config.json').read_text())
  config['d_model'][-1] *= 2
  (weights / 'config.json').write_text(json.dumps(config))
  with pytest.raises(ValueError, match='this configuration needs|lacks tensor'):
    hnet.from_pretrained(weights)


@pytest.mark.parametrize(
  'changes',
  [
    {'chunking': 'hnet_space'},
    {'chunking': 'hnet_pool(4)'},
    {'chunking': {'pool': 'first(widen=zeros)'}},
    {'chunking': {'unpool': 'repeat'}},
    {'chunking': {'combine': 'sum'}},
    {'post_norm': False},
    {'post_norm': 'head'},
    {'rotary_base': 500.0},
    {'num_kv_heads': 1},
    {'mlp_multiple': 8},
  ],
)
def test_only_the_published_architecture_has_an_official_form(tmp_path, changes):
  model = abstract(hnet.parse(branch(ONE_STAGE, **changes)))
  with pytest.raises(ValueError, match='stage 0 uses .*the official format knows only the published H-Net'):
    hnet.save_pretrained(model, tmp_path / 'out')
  with pytest.raises(ValueError, match='stage 0 uses'):
    hnet.from_pretrained(SOURCE, **changes)
  assert not (tmp_path / 'out').exists()


class TestTiedEmbeddings:
  @pytest.fixture
  def tied(self, tmp_path):
    model = hnet.build(hnet.parse(branch(['t1'], tie_embeddings=True)), rngs=nnx.Rngs(0))
    hnet.save_pretrained(model, tmp_path)
    return model, tmp_path

  def test_both_names_hold_the_one_tensor(self, tied):
    model, directory = tied
    tensors = load_file(directory / 'model.safetensors')
    np.testing.assert_array_equal(tensors['lm_head.weight'], tensors['embeddings.weight'])
    again = hnet.from_pretrained(directory)
    assert not hasattr(again, 'lm_head')
    np.testing.assert_array_equal(again.embeddings[...], model.embeddings[...])

  def test_the_second_name_may_be_missing(self, tied, tmp_path):
    _, directory = tied
    tensors = load_file(directory / 'model.safetensors')
    tensors.pop('lm_head.weight')
    save_file(
      {name: value.astype(ml_dtypes.bfloat16) for name, value in tensors.items()}, directory / 'model.safetensors'
    )
    hnet.save_pretrained(hnet.from_pretrained(directory), tmp_path / 'again')
    again = raw(tmp_path / 'again')
    assert {entry[0] for entry in again.values()} == {'BF16'}
    assert again['embeddings.weight'] == raw(directory)['embeddings.weight']

  def test_the_two_may_not_differ(self, tied):
    _, directory = tied
    spoil(directory, lambda tensors: tensors.update({'lm_head.weight': tensors['lm_head.weight'] + 1}))
    with pytest.raises(ValueError, match=r'lm_head.weight differs from embeddings.weight'):
      hnet.from_pretrained(directory)


def test_a_failing_write_harms_nothing_that_is_there(weights, monkeypatch):
  before = {file.name: file.read_bytes() for file in weights.iterdir()}

  def full_disk(tensors, file, metadata):
    file.write_bytes(b'half')
    raise OSError(28, 'No space left on device')

  model = hnet.from_pretrained(weights)
  monkeypatch.setattr('layers.weights.save_file', full_disk)
  with pytest.raises(OSError, match='No space left'):
    hnet.save_pretrained(model, weights)
  assert {file.name: file.read_bytes() for file in weights.iterdir()} == before
