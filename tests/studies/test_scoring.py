"""Evaluations of many models: each pair once, whoever scores it, in one table of what `evaluate` finds."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
import threading
import time

import jax
import pyarrow as pa
import pyarrow.parquet
import pytest

import evaluation
import text
import training
from configs import quickstart
from evaluation import suites
from studies import models, results, scoring
from training import checkpoint

STEPS = 20
TEXTS = {'a': b'The cat sat on the mat, and the dog ran. ' * 9, 'b': 'Wörter und Zeichen 你好。'.encode() * 12}


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
  directory = tmp_path_factory.mktemp('text')
  for name, document in TEXTS.items():
    (directory / f'{name}.txt').write_bytes(document)
  return [f'files:{directory}/{name}.txt@all' for name in TEXTS]


@pytest.fixture(scope='module')
def runs(sources, tmp_path_factory):
  """A directory with an H-Net that has a checkpoint of each of its steps; copy it to change it."""
  config = quickstart.get_config()
  config.model.update({'arch_layout': ('t1', ('t1',), 't1'), 'd_model': (16, 16), 'd_intermediate': (0, 0)})
  config.model.attn_cfg = {'num_heads': 1, 'rotary_emb_dim': 8, 'window_size': -1}
  config.data.source = config.data.validation = sources[0]
  config.update({'num_steps': STEPS, 'batch_size': 2, 'seq_len': 32})
  config.checkpoint.update({'every_steps': 1, 'keep_latest': STEPS})
  config.eval.every_steps = 0
  directory = tmp_path_factory.mktemp('runs')
  training.train(config, directory / 'hnet')
  return directory


def run(patterns, out, *, steps='newest', **flags):
  given = {'sources': [], 'noises': [], 'chosen': []} | flags
  told = []
  return scoring.run([str(pattern) for pattern in patterns], steps, scoring.Wanted.of(**given), out, told.append), told


def test_twenty_checkpoints_of_one_run_compile_once(runs, sources, tmp_path):
  jax.clear_caches()  # of other tests
  compiled = []
  listen = lambda event, seconds, **more: compiled.append(event) if 'backend_compile' in event else None
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    assert run([runs / 'hnet'], tmp_path, steps='1')[0]
    first = len(compiled)
    assert run([runs / 'hnet'], tmp_path, steps='all')[0]
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert 0 < first == len(compiled)
  assert len(list((tmp_path / 'scores').glob('*.json'))) == STEPS
  assert not list((tmp_path / 'scores').glob('*.claim'))


def test_the_table_has_what_evaluate_finds_and_is_the_same_in_both_files(runs, sources, tmp_path, capsys):
  options = {'steps': '5,20', 'sources': sources, 'noises': ['upper_case'], 'max_bytes': 300}
  assert run([runs / '*'], tmp_path, **options) == (True, [])
  printed = capsys.readouterr().out
  table = results.read(tmp_path).to_pylist()
  with open(tmp_path / 'results.csv', newline='') as file:
    lines = list(csv.DictReader(file))
  assert [row['metric'] for row in table] == [line['metric'] for line in lines]
  assert [row['value'] for row in table] == [float(line['value']) if line['value'] else None for line in lines]
  scores = [row for row in table if row['metric'] == 'bits_per_byte']
  assert len(scores) == 2 * 2 * 2 and {row['run'] for row in table} == {str(runs / 'hnet')}
  assert {(row['seed'], row['seq_len'], row['max_bytes']) for row in table} == {(0, 32, 300)}
  for row in scores:
    noisy = row['source'] if row['condition'] == 'clean' else f'noise:{row["condition"]}:{row["source"]}'
    corpus, model = text.open_corpus(noisy, 'validation'), training.load(runs / 'hnet', row['step']).model
    found = evaluation.evaluate(model, corpus, seq_len=32, batch_size=2, max_bytes=300)
    assert (row['bytes'], row['text']) == (found.text_bytes, corpus.fingerprint)
    assert row['value'] == pytest.approx(found.bits_per_byte, rel=1e-6)  # perhaps of another capacity
    sizes = [other['value'] for other in table if other['metric'] == 'bytes_per_chunk' and _pair(other) == _pair(row)]
    assert sizes == list(found.bytes_per_chunk) and f'{row["value"]:.4f}' in printed


def _pair(row):
  return row['run'], row['step'], row['source'], row['condition']


def test_nothing_is_scored_twice_and_what_changed_is_scored_again(runs, sources, tmp_path, monkeypatch, capsys):
  directory, out = tmp_path / 'runs', tmp_path / 'out'
  shutil.copytree(runs / 'hnet', directory / 'a')
  run([directory / 'a'], out)
  table = results.read(out)
  load = training.load
  monkeypatch.setattr(scoring.training, 'load', None)
  run([directory / '*'], out)
  assert results.read(out) == table and '1 of them scored before' in capsys.readouterr().out
  calls = []
  monkeypatch.setattr(scoring.training, 'load', lambda *given: calls.append(given[1]) or load(*given))
  shutil.copytree(directory / 'a' / 'checkpoints' / '19', directory / 'b')  # another step in the place of the newest
  shutil.rmtree(directory / 'a' / 'checkpoints' / '20')
  run([directory / 'a'], out, steps='newest')
  assert calls == [19]
  monkeypatch.setitem(suites.SUITES, 'bits_per_byte', _changed(version=99))
  run([directory / 'a'], out, steps='19')
  assert calls == [19, 19] and {row['suite_version'] for row in results.read(out).to_pylist()} == {1, 99}
  monkeypatch.setattr(scoring.kept, 'code', lambda *packages: 'other')
  assert '1 were scored by other code' in run([directory / 'a'], out)[1][0] and calls == [19, 19]


def _changed(**changes):
  return dataclasses.replace(suites.SUITES['bits_per_byte'], **changes)


def test_several_processes_share_the_work(runs, sources, tmp_path, monkeypatch):
  """As threads, whose locks are as those of processes: of two open files."""
  scored = []

  def measure(model, config, corpus, options):
    time.sleep(0.02)
    scored.append((model, corpus.fingerprint))
    yield suites.Row('number', 1.0)

  monkeypatch.setitem(suites.SUITES, 'slow', suites.Suite(measure, 1, headline='number'))
  monkeypatch.setattr(scoring.training, 'load', lambda directory, step, tell: training.Loaded(step, {}, step))
  monkeypatch.setattr(scoring, 'POLL', 0.01)
  wanted = scoring.Wanted.of(sources, [], ['slow'])
  pairs = list(scoring.pairs(models.find([str(runs / 'hnet')], 'all', print), wanted, []))
  (tmp_path / 'scores').mkdir()
  pairs[3].path(tmp_path).with_suffix('.claim').write_text('of a process that was killed')
  ends = []
  work = lambda: ends.append((scoring.score(pairs, tmp_path, lambda _: None), len(scored)))
  threads = [threading.Thread(target=work) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(scored) == len(set(scored)) == 2 * STEPS
  assert ends == [([], 2 * STEPS)] * 3  # each ends when all is scored


def test_a_suite_may_refuse_a_model_and_one_without_text_is_called_once(runs, sources, tmp_path, monkeypatch):
  def refuse(model, config, corpus, options):
    raise suites.Refused('it has no subwords')
    yield

  def alone(model, config, corpus, options):
    assert corpus is None and options.own == {'twice': False}
    yield suites.Row('layers', 2, extras={'of': 'all'})

  monkeypatch.setitem(suites.SUITES, 'refuse', suites.Suite(refuse, 1))
  monkeypatch.setitem(suites.SUITES, 'alone', suites.Suite(alone, 3, {'twice': True}, reads=False, headline='layers'))
  said = []
  monkeypatch.setattr('builtins.print', lambda *words, **more: said.append(' '.join(map(str, words))))
  assert run([runs / 'hnet'], tmp_path, sources=sources, chosen=['refuse', 'alone(twice=false)']) == (True, [])
  (row,) = results.read(tmp_path).to_pylist()
  assert (row['metric'], row['value'], row['source'], row['extras']) == ('layers', 2.0, None, '{"of": "all"}')
  assert sum('left out of refuse: it has no subwords' in line for line in said) == 2


def test_half_written_runs_beside_whole_ones_are_named_and_left_out(runs, sources, tmp_path, monkeypatch):
  shutil.copytree(runs / 'hnet', tmp_path / 'runs' / 'whole')
  for name, removed in (('no_config', 'config.json'), ('no_checkpoint', 'checkpoints')):
    shutil.copytree(tmp_path / 'runs' / 'whole', tmp_path / 'runs' / name)
    path = tmp_path / 'runs' / name / removed
    path.unlink() if path.is_file() else shutil.rmtree(path)
  (tmp_path / 'runs' / 'notes.txt').write_text('no run')
  shutil.copytree(tmp_path / 'runs' / 'whole', tmp_path / 'runs' / 'zdamaged')
  record = tmp_path / 'runs' / 'zdamaged' / 'checkpoints' / '20' / 'record' / 'metadata'
  record.write_text(record.read_text()[:-20])
  whole, told = run([tmp_path / 'runs' / '*'], tmp_path / 'out')
  assert not whole and len(told) == 3
  assert 'left out: there is no checkpoint in' in told[0] and 'left out: ' in told[1] and 'no config.json' in told[1]
  assert told[2].startswith('error: checkpoint') and 'is damaged' in told[2]
  assert {row['run'] for row in results.read(tmp_path / 'out').to_pylist()} == {str(tmp_path / 'runs' / 'whole')}
  best, _ = run([tmp_path / 'runs' / 'whole'], tmp_path / 'out', steps='best')
  assert best and checkpoint.all_steps(tmp_path / 'runs' / 'whole' / 'checkpoints')[-1] == STEPS


def test_a_model_that_is_not_finite_is_named_and_the_others_are_scored(runs, sources, tmp_path, monkeypatch):
  load, broken = training.load, training.load(runs / 'hnet', 3)
  broken = jax.tree.map(lambda leaf: leaf * float('nan'), broken.model)
  give = lambda directory, step, tell: training.Loaded(broken, {}, 3) if step == 3 else load(directory, step, tell)
  monkeypatch.setattr(scoring.training, 'load', give)
  whole, (told,) = run([runs / 'hnet'], tmp_path, steps='2,3,4')
  assert not whole and f'{runs / "hnet"}, step 3 on {sources[0]}: the model' in told and 'not finite' in told
  assert {row['step'] for row in results.read(tmp_path).to_pylist()} == {2, 4}


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'patterns': ['{tmp}/nothing/*']}, 'nothing/.: there is no such directory'),
    ({'patterns': ['{tmp}']}, 'is not a work directory: it has no config.json'),
    ({'patterns': ['{tmp}/*']}, 'none is a run with a checkpoint'),
    ({'steps': 'latest'}, "--steps=latest must be 'all', 'newest', 'best' or numbers"),
    ({'steps': '3,99'}, 'has no checkpoint of step 99, but of 1, 2'),
    ({'noises': ['nothing']}, "noise 'nothing' is not known"),
    ({'chosen': ['nothing']}, "suite 'nothing' is not known"),
    ({'sources': ['files:/nowhere/*.txt']}, 'nowhere'),
  ],
)
def test_bad_input_is_one_sentence(runs, sources, tmp_path, monkeypatch, changes, words):
  (tmp_path / 'half').mkdir()
  monkeypatch.setattr(scoring.training, 'load', None)
  patterns = [pattern.format(tmp=tmp_path) for pattern in changes.pop('patterns', [str(runs / 'hnet')])]
  with pytest.raises((ValueError, OSError), match=words) as error:
    run(patterns, tmp_path / 'out', **changes)
  assert '\n' not in str(error.value)


def test_results_of_another_version_are_refused(runs, tmp_path):
  run([runs / 'hnet'], tmp_path)
  for path in (tmp_path / 'scores').glob('*.json'):
    scored = json.loads(path.read_text()) | {'version': 0}
    path.write_text(json.dumps(scored))
  with pytest.raises(ValueError, match=r'json holds results of version 0, and this code reads version 1: name another'):
    results.write(tmp_path)
  pa.parquet.write_table(pa.table({'run': ['a']}), tmp_path / 'results.parquet')
  with pytest.raises(ValueError, match=r'results.parquet holds results of version none, and'):
    run([runs / 'hnet'], tmp_path)
  (tmp_path / 'results.parquet').write_text('no table')
  with pytest.raises(ValueError, match='is no table of results') as error:
    run([runs / 'hnet'], tmp_path)
  assert '\n' not in str(error.value)


def test_the_command_scores_many_and_says_how_it_is_called(runs, sources, tmp_path):
  root = scoring.kept.HOME
  command = [sys.executable, f'{root}/eval.py', f'{runs}/*', f'--out={tmp_path}', '--steps=1,2']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert '2 pairs of a model and a text, 0 of them scored before' in done.stdout
  assert results.read(tmp_path).num_rows > 20
