"""train.py as a user starts it."""

import json
import os
import pathlib
import pty
import signal
import subprocess
import sys
import types

import pytest

from tests.training import tiny
from training import command_line, config_flag, load
from training import config as config_lib

ROOT = pathlib.Path(__file__).parents[2]


def command(source, *arguments):
  return [sys.executable, f'{ROOT}/train.py', f'--config={ROOT}/tests/training/tiny.py:{source}', *arguments]


def run(*arguments):
  return subprocess.run(arguments, capture_output=True, text=True)


def test_describe_prints_json_and_nothing_else(source):
  done = run(*command(source, '--describe', '--json', '--config.model.width=1048576'))
  found = json.loads(done.stdout)
  assert found['parameters'] == sum(found['parameters_by_component'].values()) == 2 * 2**40 + 2**20 + 512 * 2**20 + 256
  assert found['flops_per_byte'] == sum(found['flops_per_byte_by_component'].values()) == 4 * 2.0**40 + 512 * 2**20


def test_a_verbose_description_has_every_key_of_the_tree(source):
  text = run(*command(source, '--describe', '--verbose', '--config.model.width=4')).stdout
  for line in ('seed = 0', 'model.width = 4', 'model.dropout = 0.1', 'optimizer.groups = {}'):
    assert f'\n{line}\n' in f'\n{text}'
  found = json.loads(run(*command(source, '--describe', '--verbose', '--json')).stdout)
  assert found['config'] == config_lib.resolve(tiny.get_config(source))


@pytest.mark.parametrize(
  ('arguments', 'sentence'),
  [
    (['--config.num_stepz=3'], 'error: unknown config key num_stepz. Did you mean "num_steps"'),
    (['--config.optimizer.accumulate=3'], 'error: batch_size 8 is not divisible by optimizer.accumulate 3'),
    (['--workdir='], 'error: --workdir is empty: name a path, . for the current directory'),
  ],
)
def test_a_users_error_is_one_sentence_and_nothing_is_written(source, tmp_path, arguments, sentence):
  done = run(*command(source, f'--workdir={tmp_path}/run', *arguments))
  assert done.returncode == 1 and done.stderr.startswith(sentence) and done.stderr.count('\n') == 1
  assert not list(tmp_path.iterdir())


def test_a_config_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'pipe.py')
  with pytest.raises(OSError, match='--config .* is a named pipe'):
    config_flag.load(f'{tmp_path}/pipe.py:argument')


def test_a_signal_ends_the_run_with_its_step_saved_and_says_how_to_go_on(source, tmp_path):
  arguments = command(
    source, f'--workdir={tmp_path}/run', '--config.num_steps=100000', '--config.checkpoint.every_steps=0'
  )
  with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
    for line in process.stdout:
      if line.startswith('step 5/'):
        process.send_signal(signal.SIGTERM)
        break
    out, error = process.communicate()
  assert process.returncode == 128 + signal.SIGTERM
  step = load(tmp_path / 'run').step
  assert f'SIGTERM: stopped after step {step}, which is saved' in error and f'--workdir={tmp_path}/run' in error
  assert step >= 5 and f'step {step}/100000' in out


# A test that runs under nohup passes on that SIGHUP is ignored; a terminal's own program does not.
ON_A_TERMINAL = """import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])"""


def test_a_closed_terminal_saves_the_step(source, tmp_path):
  arguments = command(
    source, f'--workdir={tmp_path}/run', '--config.num_steps=100000', '--config.checkpoint.every_steps=0'
  )
  terminal, inside = pty.openpty()
  start = [sys.executable, '-c', ON_A_TERMINAL, *arguments]
  with subprocess.Popen(start, stdin=inside, stdout=inside, stderr=inside, start_new_session=True) as process:
    os.close(inside)
    said = b''
    while b'step 5/' not in said:
      said += os.read(terminal, 2**16)
    os.close(terminal)  # the kernel sends SIGHUP, and whatever the run still writes to its terminal is an error
  assert process.returncode == 128 + signal.SIGHUP and load(tmp_path / 'run').step >= 5


def test_a_word_that_is_no_flag_is_refused(capsys):
  with pytest.raises(SystemExit, match='1'):
    command_line._guarded(command_line._without_words(lambda argv: None), ['train.py', 'num_steps=3'])
  assert capsys.readouterr().err == "error: 'num_steps=3' is no flag: write --NAME=VALUE, as `--help` lists them\n"


def test_what_tensorstore_says_behind_a_failed_save_is_not_shown():
  shown = []
  for error in (RuntimeError('Event loop is closed'), RuntimeError('something else')):
    command_line._show(shown.append, types.SimpleNamespace(exc_value=error))
  assert [str(unraisable.exc_value) for unraisable in shown] == ['something else']
