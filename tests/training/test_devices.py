import os
import pathlib
import subprocess
import sys

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
import training
from tests.training import tiny
from training import kill_test

source, workdir = sys.argv[1:]
for devices in (8, 1):
  config = tiny.get_config(source).to_dict()
  config['mesh']['shape'] = (devices,)
  config['optimizer']['ema'] = 0.9
  config['loss_weights']['ratio'] = 1.0
  training.train(config, f'{workdir}/{devices}')
eight, one = (kill_test.saved_arrays(Path(workdir, devices, 'checkpoints/20')) for devices in '81')
for path in one:
  np.testing.assert_allclose(eight[path], one[path], atol=1e-5, err_msg=path)
config['mesh']['shape'] = (2,)
config['num_steps'] = 22
training.train(config, f'{workdir}/8')
loaded = training.load(f'{workdir}/8')
assert loaded.step == 22 and len(loaded.model.head.bias[...].devices()) == 1
"""


def test_eight_devices_train_as_one_does_and_two_go_on_from_eight(source, tmp_path):
  environment = os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'JAX_PLATFORMS': 'cpu'}
  root = pathlib.Path(__file__).parents[2]
  command = [sys.executable, '-c', PROGRAM, source, str(tmp_path)]
  done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]
