"""Torch checkpoints become safetensors; a file that would run code, or that is something else, is refused."""

import json
import pickle
import shutil
import sys
import types

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

import hnet
from hnet.convert import convert, main, read_state_dict
from tests.goldens import GOLDENS

torch = pytest.importorskip('torch')
SOURCE = GOLDENS / 'hnet' / 'stage1_basic'
CONFIG = SOURCE / 'config.json'


def state_dict():
  """A tiny model as its authors publish one: bfloat16, but for what they keep in float32."""
  keep = lambda name: name.endswith('.D') or 'residual_proj' in name
  tensors = {name: torch.from_numpy(value) for name, value in load_file(SOURCE / 'model.safetensors').items()}
  return {name: value if keep(name) else value.bfloat16() for name, value in tensors.items()}


@pytest.fixture
def file(tmp_path):
  """save(object) -> path of a .pt file."""

  def save(content, **options):
    torch.save(content, tmp_path / 'model.pt', **options)
    return tmp_path / 'model.pt'

  return save


def test_a_bfloat16_state_dict_is_converted(file, tmp_path):
  state, out = state_dict(), tmp_path / 'out'
  convert(CONFIG, file(state), out)
  converted = load_file(out / 'model.safetensors')
  assert set(converted) == set(state)
  assert {str(value.dtype) for value in converted.values()} == {'bfloat16', 'float32'}
  for name, value in state.items():
    assert converted[name].tobytes() == value.contiguous().view(torch.uint8).numpy().tobytes(), name
  assert json.loads((out / 'config.json').read_text()) == json.loads(CONFIG.read_text())
  model = hnet.from_pretrained(out)
  np.testing.assert_array_equal(model.embeddings[...], state['embeddings.weight'].float().numpy())


def test_the_older_file_format_and_other_layouts_are_read(file):
  path = file(
    {'a': torch.arange(6.0).reshape(2, 3).T, 'b': torch.ones(2, dtype=torch.bfloat16)},
    _use_new_zipfile_serialization=False,
  )
  state = read_state_dict(path)
  np.testing.assert_array_equal(state['a'], np.arange(6.0, dtype=np.float32).reshape(2, 3).T)
  assert state['b'].dtype == ml_dtypes.bfloat16


def test_parameters_are_tensors(file):
  state = read_state_dict(
    file({'a': torch.nn.Parameter(torch.ones(3)), 'b': torch.nn.Parameter(torch.ones(3).bfloat16())})
  )
  assert {name: str(value.dtype) for name, value in state.items()} == {'a': 'float32', 'b': 'bfloat16'}


class Call:
  """Pickles as a call of a function."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('place', ['entry', 'whole', 'name'])
def test_a_file_that_runs_a_command_is_refused_and_nothing_runs(file, tmp_path, place, zipped):
  import os

  harm = tmp_path / 'harm'
  call = Call(os.system, f'touch {harm}')
  content = {'entry': {**state_dict(), 'x': call}, 'whole': call, 'name': {('x', call): torch.ones(1)}}[place]
  path = file(content, _use_new_zipfile_serialization=zipped)
  with pytest.raises(ValueError, match='model.pt is refused: .*needs more than tensors') as error:
    convert(CONFIG, path, tmp_path / 'out')
  assert '\n' not in str(error.value)
  assert not harm.exists() and not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'function, arguments',
  [(eval, ('1',)), (getattr, (str, 'join')), (open, ('x',)), (__import__, ('os',)), (types.SimpleNamespace, ())],
)
def test_any_other_name_is_refused(file, function, arguments):
  with pytest.raises(ValueError, match='model.pt is refused'):
    read_state_dict(file({'x': Call(function, *arguments)}))


def test_a_plain_pickle_is_refused(tmp_path):
  import os

  path, harm = tmp_path / 'model.pt', tmp_path / 'harm'
  path.write_bytes(pickle.dumps(Call(os.system, f'touch {harm}'), protocol=2))
  with pytest.raises(ValueError, match='model.pt is refused'):
    read_state_dict(path)
  assert not harm.exists()


@pytest.fixture
def omegaconf(monkeypatch):
  """Classes with omegaconf's names and pickled state; gone again before a file is read."""
  names = {
    'listconfig': ['ListConfig'],
    'dictconfig': ['DictConfig'],
    'base': ['ContainerMetadata', 'Metadata'],
    'nodes': ['AnyNode'],
  }
  classes = {}
  with monkeypatch.context() as patch:
    patch.setitem(sys.modules, 'omegaconf', types.ModuleType('omegaconf'))
    for module, members in names.items():
      fake = types.ModuleType(f'omegaconf.{module}')
      for name in members:
        classes[name] = type(name, (), {'__module__': fake.__name__})
        setattr(fake, name, classes[name])
      patch.setitem(sys.modules, fake.__name__, fake)
    yield types.SimpleNamespace(**classes), patch.undo


def test_omegaconf_objects_of_the_published_files_are_dropped_and_said(file, tmp_path, omegaconf, capsys):
  from collections import defaultdict
  from typing import Any

  classes, forget = omegaconf

  def fill(value, **state):
    value.__dict__.update(state)
    return value

  metadata = fill(
    classes.ContainerMetadata(), ref_type=Any, object_type=list, resolver_cache=defaultdict(dict), key=None
  )
  node = fill(classes.AnyNode(), _metadata=fill(classes.Metadata(), ref_type=Any, object_type=int), _val=256)
  layout = fill(classes.ListConfig(), _metadata=metadata, _parent=None, _content=[node])
  path = file(
    {**state_dict(), 'arch_layout': layout, 'attn_cfg': fill(classes.DictConfig(), _content={'window': layout})}
  )
  forget()
  assert 'omegaconf.listconfig' not in sys.modules
  convert(CONFIG, path, tmp_path / 'out')
  assert set(load_file(tmp_path / 'out' / 'model.safetensors')) == set(state_dict())
  assert 'omegaconf' not in sys.modules
  said = capsys.readouterr().err
  assert 'dropped arch_layout' in said and 'dropped attn_cfg' in said


def test_other_omegaconf_names_are_refused(file, omegaconf):
  _, forget = omegaconf
  other = types.ModuleType('omegaconf.omegaconf')
  other.OmegaConf = type('OmegaConf', (), {'__module__': 'omegaconf.omegaconf'})
  sys.modules['omegaconf.omegaconf'] = other
  try:
    path = file({'x': other.OmegaConf()})
  finally:
    del sys.modules['omegaconf.omegaconf']
  forget()
  with pytest.raises(ValueError, match='model.pt is refused'):
    read_state_dict(path)


@pytest.mark.parametrize(
  'content, message',
  [
    ({'step': 3}, "entry 'step' is a int and not a tensor"),
    ({'model': {'a': torch.ones(1)}}, "entry 'model' is a dict and not a tensor"),
    ({3: torch.ones(1)}, 'entry 3 is a Tensor'),
    ([torch.ones(1)], 'holds a list and not a state dict'),
    (torch.ones(1), 'holds a Tensor and not a state dict'),
  ],
)
def test_what_is_no_state_dict_is_named(file, content, message):
  with pytest.raises(ValueError, match=message):
    read_state_dict(file(content))


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda state: state.pop('lm_head.weight'), 'lacks tensor lm_head.weight'),
    (lambda state: state.update(extra=torch.ones(1)), 'has the surplus tensor extra'),
    (lambda state: state.update({'lm_head.weight': torch.ones(3)}), 'lm_head.weight has shape'),
    (lambda state: state.update({'lm_head.weight': state['lm_head.weight'].double()}), r'lm_head.weight is .*float64'),
    (lambda state: state.update({'lm_head.weight': state['lm_head.weight'].to(torch.float8_e4m3fn)}), 'lm_head.weight'),
  ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_written(file, tmp_path, change, message):
  state = state_dict()
  change(state)
  with pytest.raises(ValueError, match=message):
    convert(CONFIG, file(state), tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_truncated_and_missing_files_are_named(file, tmp_path):
  path = file(state_dict())
  path.write_bytes(path.read_bytes()[:1000])
  with pytest.raises(ValueError, match='model.pt is refused'):
    read_state_dict(path)
  with pytest.raises(FileNotFoundError, match=r'other.pt is missing: --checkpoint'):
    read_state_dict(tmp_path / 'other.pt')
  with pytest.raises(FileNotFoundError, match=r'none.json is missing: --config'):
    convert(tmp_path / 'none.json', path, tmp_path / 'out')


def test_the_command_says_one_sentence_and_fails(file, tmp_path, capsys):
  shutil.copy(CONFIG, tmp_path / 'config.json')
  arguments = ['--config', str(tmp_path / 'config.json'), '--out', str(tmp_path / 'out'), '--checkpoint']
  assert main([*arguments, str(file({'step': 3}))]) == 1
  said = capsys.readouterr().err.strip()
  assert said.startswith('hnet.convert: ') and said.count('\n') == 0
  assert main([*arguments, str(file(state_dict()))]) == 0
  assert 'wrote' in capsys.readouterr().out
  (tmp_path / 'config.json').write_text('{')
  assert main([*arguments, str(file(state_dict()))]) == 1
  assert 'config.json' in capsys.readouterr().err
