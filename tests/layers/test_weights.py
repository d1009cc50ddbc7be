"""Weights in files: whole or in parts, what is damaged or does not belong together, and writing that harms nothing."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from layers import weights
from layers.weights import Part, linear

TENSORS = {
  'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b.weight': np.arange(4, dtype=np.float32).astype(ml_dtypes.bfloat16),
  'c.weight': np.ones((), np.float16),
}
FILES = {'a.weight': 'one.safetensors', 'b.weight': 'two.safetensors', 'c.weight': 'one.safetensors'}


@pytest.fixture
def whole(tmp_path):
  weights.write(tmp_path, {'size': 3}, TENSORS)
  return tmp_path


@pytest.fixture
def parts(tmp_path):
  """Two files and their index, as transformers writes them."""
  for file in set(FILES.values()):
    save_file({name: TENSORS[name] for name in TENSORS if FILES[name] == file}, tmp_path / file)
  weights.write_json(tmp_path / 'model.safetensors.index.json', {'metadata': {}, 'weight_map': FILES})
  return tmp_path


@pytest.mark.parametrize('form', ['whole', 'parts'])
def test_tensors_are_read_when_they_are_asked_for(form, request):
  found = weights.read_tensors(request.getfixturevalue(form))
  assert found.keys() == TENSORS.keys()
  for name, tensor in found.items():
    assert (tensor.shape, tensor.dtype) == (TENSORS[name].shape, str(TENSORS[name].dtype))
    assert np.asarray(tensor).dtype == TENSORS[name].dtype
    np.testing.assert_array_equal(tensor, TENSORS[name])


def test_a_whole_file_goes_before_an_index_beside_it(parts):
  """As transformers reads; and what is saved over parts is what is read."""
  weights.write(parts, {}, {'d.weight': np.ones(2, np.float32)})
  assert list(weights.read_tensors(parts)) == ['d.weight']


@pytest.mark.parametrize('size', [0, 4, 100, -1])
def test_a_truncated_file_is_refused(whole, size):
  file = whole / 'model.safetensors'
  file.write_bytes(file.read_bytes()[:size])
  with pytest.raises(ValueError, match='model.safetensors is not a whole safetensors file'):
    weights.read_tensors(whole)


@pytest.mark.parametrize('name', ['model.safetensors.index.json', 'one.safetensors'])
def test_a_missing_file_is_named(parts, name):
  (parts / name).unlink()
  missing = 'model.safetensors' if name.endswith('json') else name
  with pytest.raises(FileNotFoundError, match=f'{missing} is missing: official weights are'):
    weights.read_tensors(parts)


def test_a_pickle_is_not_read(tmp_path):
  (tmp_path / 'pytorch_model.bin').write_bytes(b'\x80\x04.')
  with pytest.raises(FileNotFoundError, match=r'model\.safetensors is missing'):
    weights.read_tensors(tmp_path)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda places: places.clear() or places.update(x=3), 'is damaged: weight_map is no mapping'),
    (lambda places: places.update({'a.weight': '../one.safetensors'}), 'is damaged: weight_map is no mapping'),
    (lambda places: places.update({'a.weight': 'two.safetensors'}), r'disagree about tensor a\.weight'),
    (lambda places: places.pop('c.weight'), r'one\.safetensors disagree about tensor c\.weight'),
    (
      lambda places: places.update({'d.weight': 'two.safetensors'}),
      r'two\.safetensors disagree about tensor d\.weight',
    ),
  ],
)
def test_an_index_that_its_files_do_not_agree_with_is_refused(parts, change, message):
  index = parts / 'model.safetensors.index.json'
  places = dict(FILES)
  change(places)
  index.write_text(json.dumps({'weight_map': places}))
  with pytest.raises(ValueError, match=message):
    weights.read_tensors(parts)


def test_an_index_without_its_map_is_refused(parts):
  (parts / 'model.safetensors.index.json').write_text('{"weight_map": ["one.safetensors"]}')
  with pytest.raises(ValueError, match=r'index\.json is damaged: weight_map is no mapping from tensors to the names'):
    weights.read_tensors(parts)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'{"a": ', 'config.json is not JSON'),
    (b'', 'config.json is not JSON'),
    (b'\xff\xfe', 'config.json is not JSON'),
    (b'[' * 100_000, 'config.json is not JSON'),
    (b'[1]', 'config.json holds a list and not a mapping'),
    (b'{"size": 4}', 'config.json: size 4 is not 3'),
  ],
)
def test_a_configuration_that_cannot_be_read_is_one_sentence_with_its_file(tmp_path, content, message):
  (tmp_path / 'config.json').write_bytes(content)

  def parse(values):
    if values['size'] != 3:
      raise ValueError(f'size {values["size"]} is not 3')

  with pytest.raises(ValueError, match=message) as error:
    weights.read_config(tmp_path / 'config.json', parse)
  assert '\n' not in str(error.value)


def test_a_directory_that_is_not_there_has_no_configuration(tmp_path):
  (tmp_path / 'file').write_text('')
  for directory in (tmp_path / 'none', tmp_path / 'file'):
    with pytest.raises(FileNotFoundError, match=r'config\.json is missing'):
      weights.read_json(directory / 'config.json')


def test_a_failing_write_harms_nothing_that_is_there(whole, monkeypatch):
  before = {file.name: file.read_bytes() for file in whole.iterdir()}

  def full_disk(tensors, file, metadata):
    file.write_bytes(b'half')
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(weights, 'save_file', full_disk)
  with pytest.raises(OSError, match='No space left'):
    weights.write(whole, {'size': 4}, TENSORS)
  assert {file.name: file.read_bytes() for file in whole.iterdir()} == before


def test_of_two_names_of_a_tied_tensor_one_is_left_if_they_agree():
  tensors = {'head': np.ones(3), 'embeddings': np.ones(3)}
  assert weights.without_tied(tensors, 'head', 'embeddings', 'file').keys() == {'embeddings'}
  with pytest.raises(ValueError, match='file: tensor head differs from embeddings, but config.json ties them'):
    weights.without_tied(tensors | {'head': np.zeros(3)}, 'head', 'embeddings', 'file')


@settings(deadline=None, max_examples=30)
@given(layers=st.integers(1, 3), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), data=st.data())
def test_what_is_gathered_is_scattered_again(layers, sizes, data):
  """Side by side, stacked, transposed and of a convolution; numbers of their names' order."""
  stacked = [
    linear(f'{layer}.{name}', 'stacked', 2, size, layer) for layer in range(layers) for name, size in enumerate(sizes)
  ]
  parts = [*stacked, Part('norm', (5,), 'norm'), Part('conv', (3, 1, 2), 'conv', layout='conv')]
  rng = np.random.default_rng(0)
  tensors = {part.name: rng.standard_normal(part.shape, np.float32) for part in parts}
  weights.check(parts, tensors, 'drawn')
  flat = weights.gather(data.draw(st.permutations(parts[len(stacked) :])) + stacked, tensors)
  assert {path: value.shape for path, value in flat.items()} == {
    'stacked': (layers, 2, sum(sizes)), 'norm': (5,), 'conv': (2, 3)
  }  # fmt: skip
  first = tensors[f'{layers - 1}.0']
  np.testing.assert_array_equal(flat['stacked'][layers - 1, :, : sizes[0]], first.T)
  again = weights.scatter(parts, flat, {'norm': 'bfloat16'})
  assert again['norm'].dtype == ml_dtypes.bfloat16
  for name, value in tensors.items():
    np.testing.assert_array_equal(again[name], value.astype(again[name].dtype))
    assert again[name].flags['C_CONTIGUOUS']


def test_the_file_says_its_format_and_holds_nothing_else(whole):
  from safetensors import safe_open

  with safe_open(whole / 'model.safetensors', framework='numpy') as file:
    assert file.metadata() == {'format': 'pt'}
  assert load_file(whole / 'model.safetensors').keys() == TENSORS.keys()
  assert json.loads((whole / 'config.json').read_text()) == {'size': 3}
  assert {file.name for file in whole.iterdir()} == {'config.json', 'model.safetensors'}
