"""The environments of the Makefile: each belongs to one Python, the one that is asked for."""

import os
import pathlib
import shutil
import subprocess

import pytest

MAKEFILE = pathlib.Path(__file__).parents[1] / 'Makefile'


def fake(path, version):
  """A Python that says its version and does nothing else."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f'#!/bin/sh\necho {version}\n')
  path.chmod(0o755)


@pytest.fixture
def made(tmp_path):
  """What `make` would run there, with python3 of version 3.11 and python3.13 on the PATH."""
  fake(tmp_path / 'bin' / 'python3', '3.11')
  fake(tmp_path / 'bin' / 'python3.13', '3.13')
  fake(tmp_path / 'bin' / 'python3.9', '3.9')
  for name in ('', '-gguf', '-viewer', '-dev', '-tpu-compiler'):
    (tmp_path / f'requirements{name}.txt').touch()
  environment = os.environ | {'PATH': f'{tmp_path / "bin"}:{os.environ["PATH"]}', 'MAKEFLAGS': ''}
  for name in ('PYTHON', 'MAKELEVEL', 'MFLAGS'):  # of the make that runs these tests
    environment.pop(name, None)

  def make(*arguments):
    command = ['make', '--dry-run', f'--makefile={MAKEFILE}', *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

  return make


if shutil.which('make') is None:
  pytest.skip('there is no make', allow_module_level=True)


def test_an_environment_is_made_by_the_python_that_is_asked_for(made):
  assert made('test').stdout.startswith('python3 -m venv --clear .venv\n')
  assert made('quickstart', 'PYTHON=python3.13').stdout.startswith('python3.13 -m venv --clear .venv\n')


@pytest.mark.parametrize(
  ('target', 'name'),
  [('test', '.venv'), ('quickstart', '.venv'), ('quickstart_hat', '.venv'), ('test-tpu', '.venv-tpu')],
)
def test_beside_an_environment_of_another_python_it_gets_its_own(target, name, made, tmp_path):
  fake(tmp_path / name / 'bin' / 'python', '3.13')
  (tmp_path / name / 'pyvenv.cfg').touch()
  assert f'python3 -m venv --clear {name}-3.11\n{name}-3.11/bin/python -m pip' in made(target).stdout
  same = made(target, 'PYTHON=python3.13').stdout
  assert 'venv --clear' not in same and f'{name}/bin/python -m pip' in same


def test_an_environment_whose_python_is_gone_is_made_again(made, tmp_path):
  (tmp_path / '.venv' / 'bin').mkdir(parents=True)
  (tmp_path / '.venv' / 'bin' / 'python').symlink_to('/nowhere/python3.10')
  (tmp_path / '.venv' / 'installed-dev').touch()
  assert made('lint').stdout.startswith('python3 -m venv --clear .venv\n.venv/bin/python -m pip install')


@pytest.mark.parametrize(
  ('name', 'sentence'),
  [
    ('python3.99', 'PYTHON=python3.99 does not run: name a Python of 3.11 or newer'),
    ('python3.9', 'PYTHON=python3.9 is Python 3.9: name one of 3.11 or newer'),
  ],
)
def test_a_python_that_is_missing_or_too_old_is_one_sentence(name, sentence, made, tmp_path):
  fake(tmp_path / '.venv' / 'bin' / 'python', '3.11')
  done = made('test', f'PYTHON={name}')
  assert done.returncode and sentence in done.stderr
