"""What is installed, and that a folder of the user's with one of our names does not stand in its place."""

import pathlib
import subprocess
import sys
import tomllib

import pytest

from layers import neighbours

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']


def test_every_package_of_the_tree_is_installed():
  found = [path.parent.relative_to(ROOT) for path in ROOT.glob('[a-z]*/**/__init__.py')]
  packages = sorted('.'.join(folder.parts) for folder in found if folder.parts[0] != 'tests')
  assert SETTINGS['setuptools']['packages'] == packages
  first_party = SETTINGS['ruff']['lint']['isort']['known-first-party']
  assert first_party == sorted({name.partition('.')[0] for name in packages})


def test_an_editable_installation_is_a_directory_on_the_path():
  """With a package directory for all, setuptools writes a path and no finder, which would come after folders of the
  current directory.
  """
  assert SETTINGS['setuptools']['package-dir'] == {'': '.'}


def test_a_folder_that_is_no_package_hides_nothing_and_a_package_is_named(tmp_path):
  for name in ('text', 'training', 'evaluation', 'layers'):
    (tmp_path / name).mkdir()
  # As `python` and a notebook start: the current directory first, what is installed behind it.
  start = f'import sys; sys.path[:] = ["", *sys.path, {str(ROOT)!r}]; import text; print(text.__file__)'
  done = subprocess.run([sys.executable, '-P', '-c', start], cwd=tmp_path, capture_output=True, text=True)
  assert done.stdout.strip() == str(ROOT / 'text' / '__init__.py'), done.stderr


def test_what_hides_a_package_is_named(tmp_path, monkeypatch):
  neighbours.check('text', 'kernels')
  monkeypatch.setattr(neighbours, '_HOME', tmp_path)
  with pytest.raises(ImportError, match=rf'^Python finds {ROOT}/text/__init__.py in place of the package text in '):
    neighbours.check('text')
  with pytest.raises(ImportError, match='^Python finds nothing in place of the package no_such_package'):
    neighbours.check('no_such_package')
  (tmp_path / 'only_a_folder').mkdir()
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(neighbours, '_HOME', ROOT)
  with pytest.raises(ImportError, match=rf'^Python finds {tmp_path}/only_a_folder in place of'):
    neighbours.check('only_a_folder')
