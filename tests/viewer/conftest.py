"""Columns to be shown: an untrained H-Net of two stages, a small run with two checkpoints, a rule, a tokenizer."""

import shutil

import pytest

import hnet
import training
from tests.hnet import tiny as tiny_hnet
from tests.text import tiny_subwords
from tests.training import tiny
from viewer import columns


@pytest.fixture(scope='session')
def directory(tmp_path_factory):
  made = tmp_path_factory.mktemp('runs')
  hnet.save_pretrained(tiny_hnet.build(tiny_hnet.TWO_STAGE), made / 'two_stages')
  for number in range(2):
    (made / f'{number}.txt').write_text('the cat sat on a mat, and ran far away from here. ' * 60)
  config = tiny.get_config(f'files:{made}/0.txt').to_dict() | {'num_steps': 10}
  config['data'] |= {'validation': f'files:{made}/1.txt'}
  training.train(config, made / 'trained')
  tiny_subwords.write(made / 'tokenizer.json')
  return made


@pytest.fixture
def shelf(directory, tmp_path):
  """Of copies, whose checkpoints may vanish."""
  shutil.copytree(directory, tmp_path / 'runs')
  runs = columns.find_runs([f'{tmp_path}/runs/*'], report=pytest.fail)
  return columns.Shelf([*runs, *columns.find_cutters(['hat(max_bytes=64)'], [str(directory / 'tokenizer.json')])])
