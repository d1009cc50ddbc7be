import json

import pytest

import training
from studies import compare, speed
from training.config import resolve

TEXT = [b'The cat sat on the mat. ' * 4, b'A dog lay by the door of the house. ' * 3, b'Where is the cat? ' * 5]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A study's directory with one run in it, trained for two steps."""
  directory = tmp_path_factory.mktemp('study')
  for index, document in enumerate(TEXT):
    (directory / f'{index}.txt').write_bytes(document)
  from configs import quickstart_megabyte

  config = quickstart_megabyte.get_config()
  local = {'arch_layout': 'T1', 'd_model': 8, 'd_intermediate': 16, 'num_heads': 1}
  config.model.update({'words': 'fixed(size=4)', 'backbone': local, 'decoder': local, 'ladder': {'fractions': (1.0,)}})
  config.data.source, config.data.validation = (f'files:{directory}/*.txt@all',) * 2
  config.update({'num_steps': 2, 'batch_size': 2, 'seq_len': 32})
  training.train(config, directory / 'tiny')
  return directory


def run(trained, monkeypatch, *arguments):
  calls = []
  monkeypatch.setattr(compare, 'train', lambda *call: calls.append(call))
  compare.main([f'--workdir={trained}', '--models', 'tiny=megabyte', *arguments])
  return calls, (trained / 'compare.md').read_text()


def test_the_page_has_scores_speeds_and_the_way_there_and_the_second_call_measures_nothing(trained, monkeypatch):
  measured = {str(trained / 'tiny'): {'train': 1234.4, 'decode': 56.0}}

  def fake_speed(command, cwd, check):
    (path,) = [word.partition('=')[2] for word in command if word.startswith('--output=')]
    with open(path, 'w') as file:
      json.dump(measured, file)

  monkeypatch.setattr(compare.subprocess, 'run', fake_speed)
  calls, page = run(trained, monkeypatch, '--', '--config.seed=0')
  assert calls == [('configs/compare.py', 'megabyte', trained / 'tiny', ['--config.seed=0'])]
  scores = json.loads((trained / 'tiny' / 'scores.json').read_text())
  assert scores['trained_bytes'] == 2 * 2 * 32 and scores['text_bytes'] == sum(map(len, TEXT))
  lines = page.splitlines()
  assert lines[0] == f'`python -m studies.compare --workdir={trained} --models tiny=megabyte -- --config.seed=0`'
  row = next(line for line in lines if line.startswith('| tiny |'))
  assert f'{scores["bits_per_byte"]:.3f}' in row and '| 1,234 | 56 |' in row and '%' in row
  assert any(line.startswith('| 128 | ') for line in lines)

  monkeypatch.setattr(compare.training, 'load', None)
  monkeypatch.setattr(compare.subprocess, 'run', None)
  assert run(trained, monkeypatch, '--', '--config.seed=0')[1] == page


def test_speeds_count_text(trained, monkeypatch):
  monkeypatch.setattr(speed, 'STEPS', 1)
  monkeypatch.setattr(speed, 'DECODED', 16)
  (found,) = speed.measure([trained / 'tiny'], turns=1).values()
  assert found['train'] > 0 and found['decode'] > 0


def test_a_training_that_fails_ends_the_study_with_its_code(tmp_path, capfd):
  with pytest.raises(SystemExit) as exit:
    compare.train('configs/compare.py', 'nothing', tmp_path / 'x', [])
  assert exit.value.code == 1
  assert "has no model 'nothing'" in capfd.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--models', 'a', 'a'], 'must differ'),
    (['--models', 'a/b'], 'names of directories'),
    (['--config=configs/nothing.py'], 'no such file'),
    (['--words=nothing'], 'nothing'),
    (['--model'], '--help'),
  ],
)
def test_bad_arguments_are_refused_before_anything_trains(tmp_path, monkeypatch, arguments, words):
  monkeypatch.setattr(compare, 'train', None)
  with pytest.raises((ValueError, OSError), match=words):
    compare.main([f'--workdir={tmp_path}', *arguments])


def test_the_models_of_a_comparison_cost_the_same(monkeypatch):
  from configs import compare as config
  from configs import quickstart
  from training import flops

  reference = flops.forward_flops(quickstart.get_config())
  assert {*compare.MODELS} <= config.MODELS.keys()
  for name, (_, size) in config.MODELS.items():
    resized = config.get_config(name)
    found = flops.forward_flops(resized, None if size is None else [size])
    assert found == pytest.approx(reference, rel=flops.TOLERANCE)
    resolve(resized)
