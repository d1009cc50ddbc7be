"""train.py as a cluster starts it: several processes on this machine."""

import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import training
from tests import devices
from tests.campaign import disk
from tests.training import comparison, tiny
from training import checkpoint, interrupt, processes, sharding

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = {'GLIBC_TUNABLES': '', **devices.environment(1)}


def start(source, workdir, number, *arguments, patch=None):
  """The processes of one run; patch: what is wrong in them."""
  with socket.create_server(('', 0)) as free:
    address = f'localhost:{free.getsockname()[1]}'
  program = ['train.py'] if patch is None else ['-m', 'tests.training.patched', patch]
  command = [sys.executable, *program, f'--config=tests/training/tiny.py:{source}', f'--workdir={workdir}']
  command += [f'--coordinator_address={address}', f'--num_processes={number}', *arguments]
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  return [
    subprocess.Popen([*command, f'--process_id={process}'], cwd=ROOT, env=os.environ | ENVIRONMENT, **pipes)
    for process in range(number)
  ]


def finish(started):
  """[(exit code, stdout, stderr), ...]."""
  outputs = [process.communicate() for process in started]
  return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def train_in_processes(source, workdir, number, *arguments, patch=None):
  """What the first says."""
  ends = finish(start(source, workdir, number, *arguments, patch=patch))
  assert [code for code, _, _ in ends] == [0] * number, [error[-1500:] for _, _, error in ends]
  return ends[0][1]


def when_at_step(step, started):
  """Reads what process 0 prints up to a step."""
  for line in started[0].stdout:
    if line.startswith(f'step {step}/'):
      return


def when_said(text, started):
  """Reads what process 0 prints up to a line with this text, which must not take long."""
  began = time.monotonic()
  line = next(line for line in started[0].stdout if text in line)
  assert time.monotonic() - began < 100.0
  return line


def metrics(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def values(workdir, name):
  found = metrics(workdir)
  assert [line['step'] for line in found] == list(range(1, 21))
  return [line[name] for line in found if name in line]


@pytest.fixture(scope='module')
def one(source, tmp_path_factory):
  """The work directory of one process."""
  workdir = tmp_path_factory.mktemp('one')
  training.train(config(source), workdir)
  return workdir


@pytest.fixture(scope='module')
def two(source, tmp_path_factory):
  """That of two processes, with all of its checkpoints."""
  workdir = tmp_path_factory.mktemp('two')
  train_in_processes(source, workdir, 2, '--config.checkpoint.keep_latest=9', '--config.optimizer.ema=0.9')
  return workdir


def config(source):
  made = tiny.get_config(source).to_dict()
  made['checkpoint']['keep_latest'], made['optimizer']['ema'] = 9, 0.9
  return made


def assert_same_training(workdir, one):
  for name in ('loss', 'gradient_norm', 'validation_bpb'):
    np.testing.assert_allclose(values(workdir, name), values(one, name), rtol=1e-5, err_msg=name)
  ours, theirs = (comparison.saved_arrays(path / 'checkpoints' / '20') for path in (workdir, one))
  assert ours.keys() == theirs.keys()
  for path in theirs:
    np.testing.assert_allclose(ours[path], theirs[path], atol=1e-5, err_msg=path)


def halfway(workdir, target):
  """A copy of a work directory as it was at step 10."""
  copy = pathlib.Path(shutil.copytree(workdir, target / 'copy'))
  for step in (15, 20):
    shutil.rmtree(copy / 'checkpoints' / str(step))
  return copy


def test_two_processes_train_as_one_does_and_write_everything_once(one, two):
  assert_same_training(two, one)
  assert checkpoint.all_steps(two / 'checkpoints') == [5, 10, 15, 20]
  assert len(list((two / 'tensorboard').iterdir())) == 1 and training.load(two).step == 20


def test_one_process_goes_on_from_two(source, one, two, tmp_path, capsys):
  copy = halfway(two, tmp_path)
  training.train(config(source), copy)
  assert 'goes on from step 10 of 20' in capsys.readouterr().out
  assert_same_training(copy, one)


def test_four_processes_with_another_mesh_go_on_from_two(source, one, two, tmp_path):
  copy = halfway(two, tmp_path)
  flags = ['--config.checkpoint.keep_latest=9', '--config.optimizer.ema=0.9', '--config.mesh.shape=2,2']
  train_in_processes(source, copy, 4, *flags)
  assert_same_training(copy, one)


def test_a_save_that_fails_in_one_process_fails_in_all_at_once_and_the_run_goes_on(source, tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  (tmp_path / 'checkpoints' / '10.orbax-checkpoint-tmp').symlink_to('nowhere')  # process 0 cannot make that directory
  started = start(source, tmp_path, 2, '--config.num_steps=60')
  failed = when_said('could not be written', started)
  assert 'of step 10 could not be written' in failed and 'File exists' in failed
  for process, sentence in ((1, r'\(process 1: .*File too large\)'), (0, r'\(File too large\)')):
    with disk.full_for(started[process].pid):
      assert re.search(sentence, failed := when_said('could not be written', started)), failed
  assert [code for code, _, _ in finish(started)] == [0, 0]
  assert [line['step'] for line in metrics(tmp_path)] == list(range(1, 61))
  assert checkpoint.all_steps(tmp_path / 'checkpoints')[-1] == 60 and training.load(tmp_path).step == 60


def test_damage_that_one_process_sees_is_damage_for_all(source, one, two, tmp_path):
  copy = pathlib.Path(shutil.copytree(two, tmp_path / 'copy'))
  flags = ['--config.checkpoint.keep_latest=9', '--config.optimizer.ema=0.9']
  said = train_in_processes(source, copy, 2, *flags, patch='bad_reader')
  assert 'checkpoints/20 is damaged (Input/output error)' in said and 'goes on from step 10 of 20' in said
  assert 'checkpoints/15 is damaged (params/' in said
  assert_same_training(copy, one)


def test_two_processes_go_back_together_and_pass_over_the_data_on_which_they_diverged(source, tmp_path):
  flags = ['--config.model.poison_byte=1', '--config.checkpoint.rollbacks=1']
  said = train_in_processes(source, tmp_path, 2, *flags, patch='bad_data')
  assert 'rollback 1 of 1: the run goes on from step 5 with the data behind that of step 17' in said
  assert values(tmp_path, 'rollbacks') == [0.0] * 5 + [1.0] * 15 and values(tmp_path, 'skipped')[-1] == 0
  assert checkpoint.read_record(tmp_path / 'checkpoints', 20)['position']['start_row'] == 17 * 8 + 15 * 8


def test_a_signal_to_one_process_stops_all_after_the_same_step_with_it_saved(source, two, tmp_path):
  # init_from: parameters of another run, read by all
  started = start(source, tmp_path / 'run', 2, '--config.num_steps=100000', f'--config.init_from={two}')
  when_at_step(3, started)
  started[1].send_signal(signal.SIGTERM)
  ends = finish(started)
  step = training.load(tmp_path / 'run').step
  for number, (code, _, error) in enumerate(ends):
    assert code == 128 + signal.SIGTERM, error[-1500:]
    assert f'SIGTERM: stopped after step {step}, which is saved in' in error and f'--process_id={number}' in error


def test_a_run_that_goes_back_asks_with_new_numbers_whether_there_was_a_signal(monkeypatch):
  asked = []
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(interrupt.multihost_utils, 'reached_preemption_sync_point', asked.append)
  for _ in range(2):
    with interrupt.SignalWatch() as watch:
      assert [watch.stops_now() for _ in range(3)] == [None] * 3
  assert all(second > first for first, second in itertools.pairwise(asked)) and len(asked) == 6


def test_a_killed_process_ends_the_other_with_one_sentence_and_the_lock_is_free(source, tmp_path):
  started = start(source, tmp_path, 2, '--config.num_steps=100000', '--config.checkpoint.every_steps=0')
  when_at_step(3, started)
  started[1].kill()
  (code, _, error), _ = finish(started)
  assert code == processes.LOST
  assert f'error: process 1 (pid {started[1].pid} on ' in error and 'was lost: it was killed' in error
  assert 'Traceback' not in error
  training.train(config(source), tmp_path / 'other')  # another directory: the killed run saved nothing
  lock = training.loop.Lock(tmp_path, print)
  lock.take()
  lock.release()


def test_a_stopped_process_ends_the_other_after_the_heartbeat_timeout(source, tmp_path):
  arguments = ['--config.num_steps=100000', '--heartbeat_timeout=3', '--config.checkpoint.every_steps=0']
  started = start(source, tmp_path, 2, *arguments)
  when_at_step(3, started)
  started[1].send_signal(signal.SIGSTOP)
  out, error = started[0].communicate()
  started[1].kill()
  finish(started[1:])
  assert started[0].returncode == processes.LOST, out[-500:] + error
  assert f'process 1 (pid {started[1].pid} on ' in error and 'was lost: nothing was heard of it for 3 s' in error


def test_an_error_of_one_process_ends_all_with_its_sentence(source, tmp_path):
  lock = training.loop.Lock(tmp_path, print)
  lock.take()
  ends = finish(start(source, tmp_path, 2))
  lock.release()
  for code, _, error in ends:
    assert code == 1 and f'another run is writing {tmp_path} (pid {os.getpid()} on ' in error, error
    assert error.count('error: ') == 1 and 'Traceback' not in error
  assert 'error: process 0 (pid ' in ends[1][2]


@pytest.mark.parametrize(
  ('parts', 'sentence'),
  [
    (('localhost:8476', None, None), r'^num_processes and process_id must be given, too: '),
    (('localhost:8476', 2, 2), r'^process_id must be from 0 to num_processes - 1, got process_id 2 of 2 processes'),
  ],
)
def test_flags_that_do_not_belong_together_are_one_sentence(parts, sentence):
  with pytest.raises(ValueError, match=sentence), processes.taking_part(*parts):
    pass


def test_slurm_tells_the_parts_of_a_run_and_one_process_is_alone(monkeypatch):
  job = {'JOB_ID': '4096', 'STEP_NODELIST': 'node[003,007]', 'NTASKS': '16', 'PROCID': '9', 'LOCALID': '1'}
  for name, value in job.items():
    monkeypatch.setenv(f'SLURM_{name}', value)
  assert processes._parts(None, None, None, 1.0) == ('node003:61440', 16, 9)
  monkeypatch.setenv('SLURM_NTASKS', '1')
  monkeypatch.setenv('SLURM_PROCID', '0')
  with processes.taking_part():
    assert jax.process_count() == 1 and processes.all_agree(False) is False


def test_several_processes_that_do_not_know_each_other_are_one_sentence(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(ValueError, match=r'^several processes train within `with training\.processes\.taking_part'):
    processes.check_equal('the configs', {}, '')


class Device:
  def __init__(self, process):
    self.process_index = process


@pytest.mark.parametrize(
  ('shape', 'processes_of', 'shares'),
  [
    ((4, 1), [[0], [0], [1], [1]], [(0, 2), (1, 2)]),
    ((4, 1), [[0], [1], [0], [1]], [(0, 2), (1, 2)]),  # torus order: rows of a process need not be neighbours
    ((2, 2), [[0, 0], [1, 1]], [(0, 2), (1, 2)]),
    ((2, 2), [[0, 1], [2, 3]], [(0, 2), (0, 2), (1, 2), (1, 2)]),  # tensor spans processes
    ((1, 2), [[0, 1]], [(0, 1), (0, 1)]),
  ],
)
def test_processes_that_hold_the_same_rows_read_the_same_share(shape, processes_of, shares, monkeypatch):
  devices = [Device(process) for row in processes_of for process in row]

  class Places:
    def __init__(self, *_):
      pass

    def devices_indices_map(self, rows):
      return {device: (slice(i // shape[1], i // shape[1] + 1),) for i, device in enumerate(devices)}

  class Mesh:
    pass

  Mesh.shape = dict(zip(('data', 'tensor'), shape, strict=True))
  monkeypatch.setattr(sharding, 'NamedSharding', Places)
  assert [sharding.share_of_rows(Mesh, process) for process in range(len(shares))] == shares
  with pytest.raises(ValueError, match=f'has no device of process {len(shares)}'):
    sharding.share_of_rows(Mesh, len(shares))
