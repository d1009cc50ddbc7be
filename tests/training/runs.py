"""What tests of a run's work directory share: the config, the steps, a copy to change."""

import pathlib
import shutil

from training import checkpoint


def thorough(config):
  config['optimizer'] |= {'ema': 0.9, 'accumulate': 2}
  return config


def steps(workdir):
  return checkpoint.all_steps(workdir / 'checkpoints')


def copy_of(workdir, target) -> pathlib.Path:
  return pathlib.Path(shutil.copytree(workdir, target / 'copy'))
