import jax
import pytest

from training import compilation_cache


@pytest.fixture(autouse=True)
def settings(monkeypatch):
  """What `enable` sets, instead of what it does to this process."""
  changed = {}
  monkeypatch.setattr(jax.config, 'update', changed.__setitem__)
  return changed


def test_programs_are_kept_in_the_cache_of_the_user_by_kind_of_processor(settings, monkeypatch, tmp_path):
  monkeypatch.delenv(compilation_cache.VARIABLE, raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  compilation_cache.enable()
  (directory,) = (tmp_path / 'hnet-jax' / 'compiled').iterdir()
  assert settings['jax_compilation_cache_dir'] == str(directory)
  compilation_cache.enable()
  assert settings['jax_compilation_cache_dir'] == str(directory)


@pytest.mark.parametrize(('value', 'expected'), [('/elsewhere', {}), ('', {'jax_enable_compilation_cache': False})])
def test_the_variable_of_jax_decides_where_it_is_set(settings, monkeypatch, value, expected):
  monkeypatch.setenv(compilation_cache.VARIABLE, value)
  compilation_cache.enable()
  assert settings == expected


def test_a_home_in_that_variable_is_one(settings, monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv(compilation_cache.VARIABLE, '~/compiled')
  compilation_cache.enable()
  assert settings == {'jax_compilation_cache_dir': f'{tmp_path}/compiled'}


def test_without_a_home_nothing_is_kept(settings, monkeypatch):
  for variable in (compilation_cache.VARIABLE, 'XDG_CACHE_HOME', 'HOME'):
    monkeypatch.delenv(variable, raising=False)
  monkeypatch.setattr('pwd.getpwuid', lambda uid: {}[uid])
  compilation_cache.enable()
  assert settings == {}


def test_a_cache_that_cannot_be_written_in_is_none(settings, monkeypatch, tmp_path):
  monkeypatch.delenv(compilation_cache.VARIABLE, raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', 'cache')  # a relative one counts as none
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setattr('os.access', lambda path, mode: False)
  compilation_cache.enable()
  assert settings == {} and [path.name for path in tmp_path.iterdir()] == ['.cache']


def test_a_cache_that_cannot_be_made_is_none(settings, monkeypatch, tmp_path):
  monkeypatch.delenv(compilation_cache.VARIABLE, raising=False)
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  compilation_cache.enable()
  assert settings == {}
