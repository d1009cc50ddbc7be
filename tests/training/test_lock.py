import subprocess
import sys

import pytest

import training
from training.lock import LOCK, Lock

HOLD = """
import pathlib, sys, time
from training.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]), print)
lock.take()
print('held', flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
  with subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout.readline() == 'held\n'
    yield process
    process.kill()


def test_a_second_run_in_a_work_directory_is_told_who_has_it_until_that_one_is_killed(holder, make_config, tmp_path):
  with pytest.raises(OSError, match=rf'^another run is writing {tmp_path} \(pid {holder.pid} on .+\): wait for it'):
    training.train(make_config(num_steps=1), tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == [LOCK]
  holder.kill()
  holder.wait()
  training.train(make_config(num_steps=1), tmp_path)


def test_a_lock_is_free_again_after_release_and_can_be_taken_twice_by_its_owner(tmp_path):
  first, second = Lock(tmp_path, print), Lock(tmp_path, print)
  first.take()
  first.take()
  with pytest.raises(OSError, match='another run is writing'):
    second.take()
  first.release()
  second.take()


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch):
  def none(*_):
    raise OSError(95, 'Operation not supported')

  said = []
  monkeypatch.setattr('fcntl.flock', none)
  Lock(tmp_path, said.append).take()
  assert said == [f'{tmp_path} cannot be locked (Operation not supported): let no second run write to it']
