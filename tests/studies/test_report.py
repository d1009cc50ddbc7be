"""The page of several runs: what was spent, which runs are one model, and the numbers in its tables."""

import dataclasses
import html.parser
import json
import math
import xml.etree.ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies import curves, models, page, plots, report, results
from tests.training import tiny
from training import checkpoint
from training.config import resolve

TEXTS = ('corpus:a', 'files:<b>/*.txt')


@pytest.fixture
def runs(tmp_path, monkeypatch):
  """Directories of runs without parameters: two models, one with two seeds; of these what is shown is read."""
  monkeypatch.setattr(checkpoint, 'all_steps', lambda directory: [40])

  def write(name, seed=0, width=8, bits=3.0, texts=TEXTS, **more):
    config = resolve(tiny.get_config('files:x')) | {'seed': seed, 'batch_size': 2, 'seq_len': 100} | more
    config['model'] = config['model'] | {'width': width}
    directory = tmp_path / 'runs' / name
    directory.mkdir(parents=True)
    (directory / 'config.json').write_text(json.dumps(config))
    lines = []
    for step in (10, 20, 30, 40):
      line = {'step': step, 'bpb': bits + 1 / step, 'bytes_per_second': 1000.0, 'flops_per_byte': 5e6}
      line |= {'bytes_per_chunk_0': 4.0 + step / 100}
      if step % 20 == 0:
        line |= {f'validation_bpb/{text}': bits + number for number, text in enumerate(texts)}
        line |= {'validation_bpb': bits + 0.5, **{f'validation_bytes/{text}': 500.0 for text in texts}}
        line |= {f'validation_enrichment_0/{text}': 1.5 + number for number, text in enumerate(texts)}
        line |= {f'validation_bytes_per_chunk_0/{text}': 3.0 + number for number, text in enumerate(texts)}
      lines.append(json.dumps(line))
    (directory / 'metrics.jsonl').write_text('\n'.join(lines) + '\n{"step": 41, "bp')
    return directory

  return write


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(1, 1e6), st.floats(1, 1e9)), min_size=1))
def test_what_was_spent_is_the_sum_over_stretches(stretches):
  lines, step = [], 0
  for steps, speed, flops in stretches:
    step += steps
    lines.append({'step': step, 'bytes_per_second': speed, 'flops_per_byte': flops})
  found = curves.spent(lines, {'batch_size': 4, 'seq_len': 8})
  assert found[-1]['bytes'] == 32 * step
  assert math.isclose(found[-1]['seconds'], sum(32 * steps / speed for steps, speed, _ in stretches))
  assert math.isclose(found[-1]['flops'], sum(3 * 32 * steps * flops for steps, _, flops in stretches))


def test_a_line_that_is_cut_short_is_left_out_only_at_the_end(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n{"step": 2, "b')
  assert curves.read(tmp_path) == [{'step': 1}]
  (tmp_path / 'metrics.jsonl').write_text('{"st\n{"step": 2}\n')
  with pytest.raises(ValueError, match='metrics.jsonl: line 1 is no JSON object with a step: restore or remove it'):
    curves.read(tmp_path)


def test_seeds_are_one_model_with_a_range(runs, tmp_path, capsys, monkeypatch):
  for seed, bits in enumerate((2.0, 3.0, 4.0)):
    runs(f'width=8,seed={seed}', seed, bits=bits)
  runs('width=16,seed=0', width=16, bits=5.0)
  pytest.importorskip('matplotlib')
  report.main([f'{tmp_path}/runs/*', f'--out={tmp_path}/page'])
  written = (tmp_path / 'page' / 'report.md').read_text()
  assert written in capsys.readouterr().out
  rows = [line for line in written.splitlines() if line.startswith('| width=8 ')]
  assert rows == ['| width=8 | 3 | 0.01 | 0.12 | 8 | 3.5000 (2.5000–4.5000) | 3.50 | 2.00 |']
  assert '| corpus:a | 5.0000 | 3.0000 (2.0000–4.0000) |' in written and '| files:<b>/*.txt | 6.0000 |' in written
  shown = (tmp_path / 'page' / 'report.html').read_text()
  assert shown.count('<img ') == 3 and '&lt;b&gt;' in shown and '<b>' not in shown and 'width=8' in shown
  html.parser.HTMLParser().feed(shown)
  for name in ('learning', 'domains', 'chunks'):
    assert f'({name}.svg)' in written
    xml.etree.ElementTree.parse(tmp_path / 'page' / f'{name}.svg')
  before = {path.name: path.read_bytes() for path in (tmp_path / 'page').iterdir()}
  report.main([f'{tmp_path}/runs/*', f'--out={tmp_path}/page'])
  assert before == {path.name: path.read_bytes() for path in (tmp_path / 'page').iterdir()}


def test_models_are_called_as_their_directories_less_what_all_share(runs, tmp_path):
  named = (('x/a,seed=0', 0, 8), ('x/a,seed=1', 1, 8), ('x/b', 0, 9), ('y', 0, 10))
  found = [models.of(runs(name, seed=seed, width=width), 'newest', print) for name, seed, width in named]
  assert {name: len(group) for name, group in report.grouped(found).items()} == {'x/a': 2, 'x/b': 1, 'y': 1}
  assert list(report.grouped(found[:1])) == ['a,seed=0'] and list(report.grouped(found[:2])) == ['a']


def test_results_are_those_of_the_last_step_under_each_condition(runs):
  run = models.of(runs('a'), 'newest', print)
  row = {'run': run.name, 'metric': 'bits_per_byte', 'source': 's', 'text': 't', 'bytes': 9, 'seq_len': 8}
  table = [
    row | {'step': 20, 'condition': 'clean', 'value': 1.0},
    row | {'step': 40, 'condition': 'clean', 'value': 2.0},
    row | {'step': 40, 'condition': 'drop', 'value': 3.0},
    row | {'step': 40, 'condition': 'clean', 'value': 4.0, 'metric': 'other'},
  ]
  assert report.of_results({'a': [run]}, table) == ({'a': {'s': [2.0], 's, drop': [3.0]}}, True)
  other = dataclasses.replace(run, name='other')
  more = [*table, table[1] | {'run': 'other', 'seq_len': 16}]
  assert report.of_results({'a': [run], 'b': [other]}, more)[1] is False
  with pytest.raises(ValueError, match='the results have no bits per byte of other: name it as eval.py got it'):
    report.of_results({'b': [other]}, table)


def test_runs_validated_on_other_amounts_are_not_said_to_be_alike(runs):
  found = [models.of(runs(name, width=width), 'newest', print) for name, width in (('a', 8), ('b', 9))]
  groups = report.grouped(found)
  assert report.of_validation(groups) == ({name: {TEXTS[0]: [3.0], TEXTS[1]: [4.0]} for name in groups}, True)
  lines = (found[0].directory / 'metrics.jsonl').read_text().replace('500.0', '400.0')
  (found[0].directory / 'metrics.jsonl').write_text(lines)
  assert report.of_validation(groups)[1] is False


def test_runs_without_validation_or_chunks_make_a_page(runs, tmp_path, capsys):
  pytest.importorskip('matplotlib')
  directory = runs('a', texts=())
  (directory / 'metrics.jsonl').write_text('{"step": 1, "bpb": 5.0}\n')
  empty = runs('b', width=9)
  (empty / 'metrics.jsonl').unlink()
  report.main([str(directory), str(empty), f'--out={tmp_path}/page'])
  written = capsys.readouterr().out
  assert 'No run has a validation yet.' in written and 'There are none.' in written and '| b | 1 | – |' in written


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['{tmp}/nothing/*', '--out={tmp}/page'], 'there is no such directory'),
    (['{tmp}/runs/*', '--out={tmp}/page', '--results={tmp}'], 'results.parquet is not there: make it with eval.py'),
    (['{tmp}/runs/*'], '--out'),
  ],
)
def test_bad_input_is_one_sentence(runs, tmp_path, monkeypatch, arguments, words):
  runs('a')
  monkeypatch.setattr(plots, 'check', lambda: None)
  with pytest.raises((ValueError, OSError), match=words) as error:
    report.main([argument.format(tmp=tmp_path) for argument in arguments])
  assert '\n' not in str(error.value) and not (tmp_path / 'page').exists()


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(plots.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match='plots need matplotlib: pip install -r requirements-plot.txt'):
    report.main(['runs/*', '--out=page'])


def test_a_page_shows_text_as_text():
  part = page.Part('<i>', '&', 'a.svg', '<svg/>', [{'<th>': '<script>alert(1)</script>', 'n': 1000}])
  shown = page.as_html('<title>', '<c>', [part])
  assert '<script>' not in shown and '&lt;script&gt;' in shown and '<td class="n">1,000' in shown
  assert results.VERSION == 1
