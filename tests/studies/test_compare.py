import json

import pytest

import training
from studies import compare, kept, speed, trainings
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
  config.model.update({'words': 'fixed(size=4)', 'backbone': local, 'decoder': local})
  config.data.source, config.data.validation = (f'files:{directory}/*.txt@all',) * 2
  config.update({'num_steps': 2, 'batch_size': 2, 'seq_len': 32})
  training.train(config, directory / 'tiny')
  return directory


def run(trained, monkeypatch, *arguments):
  calls = []
  monkeypatch.setattr(trainings, 'run_all', calls.extend)
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
  assert calls == [trainings.Training(trained / 'tiny', 'configs/compare.py:megabyte', ('--config.seed=0',))]
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


def test_what_was_measured_on_something_else_is_measured_again(trained, monkeypatch, tmp_path):
  run(trained, monkeypatch, '--no_speed')
  path = trained / 'tiny' / 'scores.json'
  whole = json.loads(path.read_text())
  scored = []
  evaluate = compare.evaluation.evaluate
  monkeypatch.setattr(compare.evaluation, 'evaluate', lambda *args, **kw: scored.append(1) or evaluate(*args, **kw))
  assert compare.score(trained / 'tiny', compare.WORDS) == whole and not scored
  for key in ('step', 'weights', 'text', 'seen', 'seq_len', 'scoring', 'code', 'words'):
    changed = json.loads(json.dumps(whole))
    changed['measured'][key] = 'another'
    path.write_text(json.dumps(changed))
    assert compare.score(trained / 'tiny', compare.WORDS) == whole | {'seconds': scored.pop() and _seconds(path)}, key
  path.write_text('{"step": 2, "words": "hat(max_bytes=64)", "bits_per_byte": 1.0}')  # of earlier code
  assert compare.score(trained / 'tiny', compare.WORDS)['bits_per_byte'] == whole['bits_per_byte']


def _seconds(path):
  return json.loads(path.read_text())['seconds']


def test_scores_of_different_text_are_not_put_in_one_table_and_other_differences_get_a_column(trained):
  found = compare.score(trained / 'tiny', compare.WORDS)
  same, differing = compare.conditions({'a': found, 'b': found})
  assert not differing and f'{found["text_bytes"]:,} bytes' in same and 'rows scored 32' in same
  same, differing = compare.conditions({'a': found, 'b': found | {'seq_len': 64, 'trained_bytes': 5}})
  assert differing == ('trained_bytes', 'seq_len') and 'rows' not in same
  assert '| rows scored |' in compare.table({'a': found}, {}, differing)
  with pytest.raises(ValueError, match='a was scored on .* and b on .* give them the same data.validation'):
    compare.conditions({'a': found, 'b': found | {'fingerprint': 'another'}})


def test_validation_on_other_amounts_of_text_is_said_beside_the_curves(trained, tmp_path):
  assert compare.curves({'a': trained / 'tiny'}).startswith(
    f'Validation while training, on {sum(map(len, TEXT)):,} bytes:'
  )
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'config.json').write_text((trained / 'tiny' / 'config.json').read_text())
  (tmp_path / 'b' / 'metrics.jsonl').write_text('{"step": 2, "validation_bpb": 1.5, "validation_bytes": 7.0}\n')
  page = compare.curves({'a': trained / 'tiny', 'b': tmp_path / 'b'})
  assert 'cannot be compared' in page and '7' in page.splitlines()[0]


def test_a_digest_of_code_changes_with_any_source_file(tmp_path, monkeypatch):
  monkeypatch.setattr(kept, 'HOME', tmp_path)
  (tmp_path / 'layers').mkdir()
  digests = set()
  for content in ('a = 1\n', 'a = 2\n'):
    (tmp_path / 'layers' / 'a.py').write_text(content)
    kept.code.cache_clear()
    digests.add(kept.code('layers'))
  kept.code.cache_clear()
  assert len(digests) == 2


def test_speeds_count_text(trained, monkeypatch):
  monkeypatch.setattr(speed, 'STEPS', 1)
  monkeypatch.setattr(speed, 'DECODED', 16)
  (found,) = speed.measure([trained / 'tiny'], turns=1).values()
  assert found['train'] > 0 and found['decode'] > 0


def test_a_training_that_fails_ends_the_study_with_its_code(tmp_path, capfd):
  with pytest.raises(SystemExit) as exit:
    trainings.run_all([trainings.Training(tmp_path / 'x', 'configs/compare.py:nothing')])
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
  monkeypatch.setattr(trainings, 'run_all', None)
  with pytest.raises((ValueError, OSError), match=words):
    compare.main([f'--workdir={tmp_path}', *arguments])


def test_a_mixture_is_scored_text_by_text_and_its_score_is_the_mean_by_bytes(trained, tmp_path):
  (tmp_path / 'other').mkdir()
  for index, document in enumerate((b'one two three four. ' * 9, bytes(range(256)) * 2)):
    (tmp_path / 'other' / f'{index}.txt').write_bytes(document)
  config = training.load(trained / 'tiny').config
  named = [f'files:{directory}/*.txt@all' for directory in (trained, tmp_path / 'other')]
  config['data'] = config['data'] | {'source': [(named[0], 1.0), (named[1], 2.0)], 'validation': named}
  training.train(config, tmp_path / 'run')
  found = compare.score(tmp_path / 'run', compare.WORDS, max_bytes=200)
  assert [of_text['text_bytes'] for of_text in found['sources'].values()] == [200, 200] and found['text_bytes'] == 400
  bits = [of_text['bits_per_byte'] for of_text in found['sources'].values()]
  assert found['bits_per_byte'] == pytest.approx(sum(bits) / 2) and bits[0] != bits[1]
  chunks = [200 / of_text['bytes_per_chunk'][0] for of_text in found['sources'].values()]
  assert found['bytes_per_chunk'] == [pytest.approx(400 / sum(chunks))]
  rows = compare.boundaries({'run': found}).splitlines()
  assert len(rows) == 4 and all(name in row for name, row in zip(named, rows[2:], strict=True))
  assert compare.score(tmp_path / 'run', compare.WORDS)['text_bytes'] > 400  # another amount of text


def test_the_models_of_a_comparison_cost_the_same(monkeypatch):
  from configs import chunkers, quickstart
  from configs import compare as config
  from training import flops

  reference = flops.forward_flops(quickstart.get_config())
  assert {*compare.MODELS} <= config.MODELS.keys()
  sizes = {
    (config, name): None if size is None else [size]
    for name, (_, size) in config.MODELS.items()
    if name not in config.TOKENIZERS
  }
  others = ('blt_entropy', 'dynamic_pooling_entropy', 'dynamic_pooling_pieces', 'magnet', *chunkers.SIZES)
  sizes |= {(chunkers, name): chunkers.SIZES.get(name) for name in others}
  for (module, name), size in sizes.items():
    resized = module.get_config(name)
    found = flops.forward_flops(resized, size)
    assert found == pytest.approx(reference, rel=flops.TOLERANCE)
    resolve(resized)
