"""Sweeps: what is swept, runs that fail, are done or are stopped, and the scripts that are printed in their place."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies import array_jobs, axes, sweep, trainings
from studies.trainings import Training
from tests.training import tiny
from training import config_flag

ROOT = pathlib.Path(__file__).parents[2]
TINY = """import sys
sys.path.insert(0, {root!r})
from tests.training import tiny
get_config = tiny.get_config
def get_sweep():
  return {sweep}
"""
# Instead of train.py: notes its arguments, and ends as they say.
FAKE = """import json, signal, sys, time
words = dict(word.removeprefix('--').partition('=')[::2] for word in sys.argv[1:])
note = open(words['workdir'] + '.note', 'a')
def stop(number, frame):
  print('signal', number, file=note, flush=True)
  time.sleep(0.5)
  sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
print('started', file=note, flush=True)
time.sleep(float(words.get('config.sleep', 0)))
sys.exit(int(words.get('config.code', 0)))
"""


def config_file(directory, swept):
  path = directory / 'config.py'
  path.write_text(TINY.format(root=str(ROOT), sweep=swept))
  return str(path)


plain = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
  lambda parts: st.lists(parts, max_size=3).map(tuple) | st.dictionaries(st.text(), parts, max_size=2),
  max_leaves=4,
)


@given(st.tuples(plain, st.sampled_from([None, 1.0])) | st.tuples(st.text() | st.none(), st.just('text')))
def test_a_value_is_read_back_as_it_was(pair):
  value, existing = pair
  config = {'model': {'family': 'tiny', 'key': existing}}
  config_flag.change(config, [f'model.key={axes.spelled(value)}'])
  assert config['model']['key'] == value


def test_axes_are_crossed_and_names_say_what_is_changed(tmp_path):
  config = config_file(
    tmp_path, "{'optimizer.learning_rate': (1e-3, 0.01), 'model.words': ('hat(max_bytes=64)', None)}"
  )
  found = axes.entries(config, ['seed=0,1', 'optimizer.betas=(0.9,0.95)'])
  expected = itertools.product(('0.001', '0.01'), ('"hat(max_bytes=64)"', 'None'), '01', ['(0.9,0.95)'])
  keys = ('optimizer.learning_rate', 'model.words', 'seed', 'optimizer.betas')
  assert [tuple(changes.values()) for _, changes in found] == list(expected)
  assert all(tuple(changes) == keys for _, changes in found)
  assert found[0][0] == 'learning_rate=0.001,words=hat_max_bytes=64,seed=0,betas=0.9,0.95'
  assert len({name for name, _ in found}) == 8


def test_names_of_a_list_stay_and_keys_of_one_last_part_are_written_whole(tmp_path):
  config = config_file(tmp_path, "[('small', {'model.width': 4}), ('large', {'model.width': 8, 'seed': 1})]")
  named = [name for name, _ in axes.entries(config, ['eval.max_bytes=5', 'log.every_steps=1', 'eval.every_steps=2'])]
  changed = 'max_bytes=5,log.every_steps=1,eval.every_steps=2'
  assert named == [f'small,{changed}', f'large,{changed}']
  (long,) = {name for name, _ in axes.entries(config_file(tmp_path, f"{{'init_from': ['{'x' * 200}']}}"), [])}
  assert len(long) == axes.LONGEST and long.startswith('init_from=xxx')


@pytest.mark.parametrize(
  ('swept', 'arguments', 'words'),
  [
    ('None', [], r'the file has no get_sweep\(\)'),
    ('3', [], r'get_sweep\(\) must return'),
    ("{'seed': 3}", [], 'a list of values for each key'),
    ("[('a', 3)]", [], r"got \('a', 3\) in it"),
    ("[('a/b', {'seed': 3})]", [], "'a/b' is no name of a directory"),
    ("[('a', {'seed': 3}), ('a', {'seed': 4})]", [], "two runs of the sweep are called 'a'"),
    ("{'seed': (3, 4)}", ['--axis', 'seed=5'], 'seed is swept already'),
    ("{'seed': (3, 4)}", ['--axis', 'seed'], '--axis=seed: write --axis KEY=VALUE,VALUE'),
    ("{'seeds': (3, 4)}", [], '^seeds=3: unknown config key seeds'),
    ("{'batch_size': (8, 9)}", ['--', '--config.optimizer.accumulate=2'], '^batch_size=9: batch_size 9 is not div'),
    ("{'model.width': ('a',)}", ['--jobs=0'], '--jobs'),
  ],
)
def test_what_is_no_sweep_is_refused_before_anything_trains(tmp_path, monkeypatch, swept, arguments, words):
  monkeypatch.setattr(trainings, 'run', None)
  with pytest.raises((ValueError, OSError), match=words) as error:
    sweep.main([f'--config={config_file(tmp_path, swept)}', f'--workdir={tmp_path}/sweep', *arguments])
  assert '\n' not in str(error.value) and not (tmp_path / 'sweep').exists()


def test_one_failing_run_does_not_stop_the_others_and_the_same_command_goes_on(tmp_path, monkeypatch, capfd):
  (tmp_path / 'text.txt').write_text('The cat sat on the mat. ' * 50)
  source = f'files:{tmp_path}/*.txt@all'
  config = config_file(tmp_path, "{'model.poison': ((), (0.0, 2.0))}") + f':{source}'
  command = [f'--config={config}', f'--workdir={tmp_path}/sweep', '--jobs=2', '--']
  command += [f'--config.data.validation={source}', '--config.num_steps=10']
  with pytest.raises(SystemExit, match='1'):
    sweep.main(command)
  out, error = capfd.readouterr()
  assert 'error: 1 of 2 runs failed: poison=0.0,_2.0 (code 1); the same command goes on with them' in error
  assert '| poison= | done | 10 |' in out and '| poison=0.0,_2.0 | failed (1) |' in out
  assert 'the run has diverged' in (tmp_path / 'sweep' / 'poison=0.0,_2.0.log').read_text()
  again = []
  monkeypatch.setattr(trainings, 'run', lambda runs, jobs: again.extend(runs) or {})
  sweep.main(command)
  assert [run.name for run in again] == ['poison=0.0,_2.0']
  assert '| poison= | was done | 10 |' in capfd.readouterr().out
  with pytest.raises(ValueError, match='^poison=: .* was trained with another config .*batch_size: 8 -> 4'):
    sweep.main([*command, '--config.batch_size=4'])


@pytest.fixture
def fake(tmp_path, monkeypatch):
  (tmp_path / 'train.py').write_text(FAKE)
  monkeypatch.setattr(trainings, 'HOME', tmp_path)
  return lambda name, **flags: Training(
    tmp_path / 'runs' / name, 'c.py', tuple(f'--config.{key}={value}' for key, value in flags.items())
  )


def test_a_signal_goes_to_each_run_once_and_nothing_more_is_started(tmp_path, fake):
  (tmp_path / 'runs').mkdir()
  runs = [fake(name, sleep=60) for name in 'abc']
  notes = [tmp_path / 'runs' / f'{name}.note' for name in 'abc']

  def interrupt():
    while not all(note.exists() and note.read_text() for note in notes[:2]):
      pass
    os.kill(os.getpid(), signal.SIGTERM)

  before = signal.getsignal(signal.SIGTERM)
  thread = threading.Thread(target=interrupt)
  thread.start()
  with pytest.raises(SystemExit) as ended:
    trainings.run(runs, jobs=2)
  thread.join()
  assert ended.value.code == 143 and not notes[2].exists() and signal.getsignal(signal.SIGTERM) == before
  assert [note.read_text() for note in notes[:2]] == ['started\nsignal 15\n'] * 2


def test_a_study_ends_with_the_code_of_the_first_failure(tmp_path, fake, capfd):
  (tmp_path / 'runs').mkdir()
  with pytest.raises(SystemExit) as ended:
    trainings.run_all([fake('a'), fake('b', code=3), fake('c')])
  assert ended.value.code == 3 and 'the training of b ended with code 3' in capfd.readouterr().err
  assert [note.name for note in sorted((tmp_path / 'runs').glob('*.note'))] == ['a.note', 'b.note']


# --- scripts

ODD = ['plain', "it's", 'two words', '$HOME`x`', 'a"b\\c', '{0}%s']


@pytest.fixture
def stubs(tmp_path):
  """An environment in which python, srun and xpk note what they are called with; and these notes."""
  (tmp_path / 'bin').mkdir()
  write = f'import json, sys; open({str(tmp_path / "calls")!r}, "a").write(json.dumps(sys.argv[1:]) + "\\n")'
  for name, code in (
    ('python', write),
    ('xpk', write),
    ('srun', 'import os, sys; os.execvp(sys.argv[1], sys.argv[1:])'),
  ):
    file = tmp_path / 'bin' / name
    file.write_text(f'#!{sys.executable}\n{code}\n')
    file.chmod(0o755)
  calls = lambda: [json.loads(line) for line in (tmp_path / 'calls').read_text().splitlines()]
  return os.environ | {'PATH': f'{tmp_path / "bin"}:{os.environ["PATH"]}'}, calls


def printed(kind, tmp_path):
  study = tmp_path / "a study's"
  runs = [Training(study / str(number), 'c.py', (f'--config.x={odd}',)) for number, odd in enumerate(ODD)]
  file = tmp_path / kind
  file.write_text(array_jobs.script(kind, runs, study))
  return file, [run.command for run in runs]


@pytest.mark.parametrize('kind', array_jobs.KINDS)
def test_shellcheck_has_nothing_to_say(kind, tmp_path):
  shellcheck = shutil.which('shellcheck', path=f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}')
  if shellcheck is None:
    pytest.skip('there is no shellcheck: pip install -r requirements-dev.txt')
  file, _ = printed(kind, tmp_path)
  done = subprocess.run([shellcheck, '--norc', file], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout


def test_a_shell_script_runs_all_or_those_that_are_named(tmp_path, stubs):
  (file, commands), (environment, calls) = printed('shell', tmp_path), stubs
  subprocess.run(['bash', file], env=environment, check=True)
  subprocess.run(['bash', file, '3', '1'], env=environment, check=True)
  assert calls() == [*commands, commands[3], commands[1]]
  done = subprocess.run(['bash', file, '9'], env=environment, capture_output=True, text=True)
  assert done.returncode == 1 and 'there is no training 9: use 0 to 5' in done.stderr and 'failed: 9' in done.stderr


def test_a_shell_script_goes_on_after_a_failure_and_passes_sigterm_on(tmp_path, fake):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'bin').mkdir()
  (tmp_path / 'bin' / 'python').symlink_to(sys.executable)
  environment = os.environ | {'PATH': f'{tmp_path / "bin"}:{os.environ["PATH"]}'}
  runs = [fake('a', code=3), fake('b'), fake('c', sleep=60), fake('d')]
  (tmp_path / 'script').write_text(array_jobs.script('shell', runs, tmp_path / 'runs'))
  with subprocess.Popen(['bash', tmp_path / 'script'], env=environment, stderr=subprocess.PIPE) as process:
    note = tmp_path / 'runs' / 'c.note'
    while not (note.exists() and note.read_text()):
      pass
    process.terminate()
  assert process.returncode == 143 and note.read_text() == 'started\nsignal 15\n'
  assert not (tmp_path / 'runs' / 'd.note').exists() and (tmp_path / 'runs' / 'b.note').exists()
  done = subprocess.run(['bash', tmp_path / 'script', '0', '1'], env=environment, capture_output=True, text=True)
  assert done.returncode == 1 and done.stderr == 'failed: 0\n'


def test_a_task_of_slurm_is_one_training(tmp_path, stubs):
  (file, commands), (environment, calls) = printed('slurm', tmp_path), stubs
  assert f'#SBATCH --array=0-{len(commands) - 1}\n' in file.read_text()
  for task in range(len(commands)):
    subprocess.run(['bash', file], env=environment | {'SLURM_ARRAY_TASK_ID': str(task)}, check=True)
  assert calls() == commands
  assert len(list((tmp_path / "a study's").glob('*.log'))) == len(commands)


def test_a_workload_of_xpk_is_one_training(tmp_path, stubs):
  (file, commands), (environment, calls) = printed('xpk', tmp_path), stubs
  done = subprocess.run(['bash', file], env=environment, capture_output=True, text=True)
  assert done.returncode and 'name the cluster' in done.stderr
  more = {'CLUSTER': 'c', 'TPU_TYPE': 'v5litepod-16'}
  subprocess.run(['bash', file, '--max-restarts=50'], env=environment | more, check=True)
  created = calls()
  assert [words[:4] + words[5:] for words in created] == [
    ['workload', 'create', '--cluster=c', '--tpu-type=v5litepod-16', *words[5:]] for words in created
  ]
  names = [word.partition('=')[2] for words in created for word in words if word.startswith('--workload=')]
  assert names == [f'a-study-s-{number}' for number in range(len(commands))]
  assert all(words[-1] == '--max-restarts=50' for words in created)
  for words in created:
    (command,) = [word.partition('=')[2] for word in words if word.startswith('--command=')]
    subprocess.run(['bash', '-c', command], env=environment, check=True)
  assert calls()[len(created) :] == [['train.py', *command[1:]] for command in commands]


def test_the_sweeps_of_this_repository_can_be_trained(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  for config, count in (('sweep_learning_rate.py:hat', 4), ('sweep_compression.py', 6)):
    sweep.main([f'--config=configs/{config}', f'--workdir={tmp_path}', '--print=shell'])
    assert f'# {count} trainings' in capsys.readouterr().out
  assert tiny  # the family of the other tests is registered
