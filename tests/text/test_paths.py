"""One rule for every path from a user, and that all who take one ask it."""

import os
import pathlib

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

import byte_models
import hnet
import text
import training
from benchmarks import capacity, growth
from byte_models import gguf_file, llama, token_bits
from evaluation import corpora as evaluation_corpora
from hnet import convert
from studies import compare, processes, speed
from text import corpora, paths, prepared, subwords, units
from text.corpora import __main__ as corpora_command
from text.prepare import __main__ as prepare_command
from text.prepare import prepare
from training import workdir
from training.checkpoint import __main__ as checkpoint_command
from training.config_flag import load

NOT_PATHS = {
  '': 'is empty',
  ' ': 'is empty',
  'gs://bucket/run': 'is a URL',
  'file:///tmp/run': 'is a URL',
  's3:/bucket/run': 'is a URL',  # as pathlib writes it
  '~nobody-of-that-name/run': 'the home directory ~nobody-of-that-name is not known here',
  'a\0b': 'has a character that no path has',
  'half \ud800': 'has a character that no path has',
}
# Who takes a path, given one that is none.
ENTRIES = {
  'train': lambda path: training.train({}, path),
  'load': training.load,
  'init_from': lambda path: workdir.initial_params(path, None),
  '--config': lambda path: load(path + '/a.py' if path.strip() else path),
  'verify of checkpoints': lambda path: checkpoint_command.main(['verify', path]),
  'prepare': lambda path: prepare([], path, source='x'),
  'prepare --out': lambda path: prepare_command.main(['--source=python_docs', f'--out={path}']),
  'prepare --verify': lambda path: prepare_command.main([f'--verify={path}']),
  'open_prepared': lambda path: prepared.open_prepared(path, 'train'),
  'prepared:': lambda path: text.open_corpus(f'prepared:{path or " "}', 'train'),
  'files:': lambda path: text.open_corpus(f'files:{path or " "}', 'train'),
  'tfds:': lambda path: text.open_corpus(f'tfds:{path or " "}', 'train'),
  'subword': lambda path: units.parse(units.in_file(path or ' ', '0')),
  'subwords --out': lambda path: subwords.main(['--source=python_docs', f'--out={path}']),
  'fetch': lambda path: corpora.fetch('shakespeare', path),
  'fetch --out': lambda path: corpora_command.main(['fetch', 'shakespeare', f'--out={path}']),
  'fetch --packages': lambda path: corpora_command.main(['fetch', 'shakespeare', f'--packages={path}']),
  'corpora --root': lambda path: evaluation_corpora.main([f'--root={path}']),
  'convert --out': lambda path: convert.main(['--config=a', '--checkpoint=b', f'--out={path}']),
  'from_pretrained': byte_models.from_pretrained,
  'hnet.from_pretrained': hnet.from_pretrained,
  'llama': llama.from_pretrained,
  'a backbone': llama.read_backbone,
  'a .gguf': lambda path: gguf_file.read(path),
  'token_bits --weights': lambda path: token_bits.load(path),
  'token_bits FILE': lambda path: token_bits.main(['--weights=a', path]),
  'compare --workdir': lambda path: compare.main([f'--workdir={path}']),
  'compare --config': lambda path: compare.main(['--workdir=a', f'--config={path}']),
  'processes --workdir': lambda path: processes.main([f'--workdir={path}']),
  'speed --output': lambda path: speed.main([f'--output={path}', 'a']),
  'speed WORKDIR': lambda path: speed.main([path]),
  'capacity WORKDIR': lambda path: capacity.main([path]),
  'growth --plot': lambda path: growth.main([f'--plot={path}']),
}


@pytest.mark.parametrize('entry', ENTRIES)
def test_what_is_no_path_is_one_sentence_at_once_whoever_takes_it(entry, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  for path, sentence in NOT_PATHS.items():
    if '\0' in path and entry.startswith('compare'):
      continue  # no argument of a command has it, and this one joins its own by it
    if entry == 'convert --out':
      assert ENTRIES[entry](path) == 1 and sentence in capsys.readouterr().err
      continue
    with pytest.raises(ValueError) as error:
      ENTRIES[entry](path)
    assert sentence in str(error.value) and '\n' not in str(error.value), (path, str(error.value))
  assert not list(tmp_path.iterdir())


def test_a_home_is_where_the_environment_says(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert paths.of('~/a/b', 'x') == tmp_path / 'a' / 'b' and paths.of('~', 'x') == paths.home() == tmp_path
  assert paths.expanded('~/*.txt', 'x') == f'{tmp_path}/*.txt' and paths.of('a/~', 'x') == pathlib.Path('a/~')
  monkeypatch.setenv('HOME', '')  # the root directory, by Python's own reading
  assert paths.home() is None
  with pytest.raises(ValueError, match='the home directory ~ is not known here: write the path in full'):
    paths.of('~/a', '--workdir')


def test_without_a_home_and_a_name_there_is_none(monkeypatch):
  monkeypatch.delenv('HOME')
  monkeypatch.setattr('pwd.getpwuid', lambda uid: {}[uid])
  assert paths.home() is None


@given(st.text(st.characters(exclude_characters='\0:~', exclude_categories=['Cs']), min_size=1).filter(str.strip))
def test_every_other_path_is_taken_as_it_is(given_path):
  assert paths.expanded(given_path, 'x', text=True) == given_path
  assert paths.of(pathlib.Path(given_path), 'x') == pathlib.Path(given_path)


def test_a_name_that_is_not_utf8_is_refused_where_libraries_would_fail_and_read_elsewhere(tmp_path, monkeypatch):
  directory = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9'))
  directory.mkdir()
  (directory / 'a.txt').write_text('some words, and some more words, and other words ' * 20)
  for take in (lambda path: training.train({}, path), lambda path: prepare([], path, source='x')):
    with pytest.raises(ValueError, match='is not UTF-8, and libraries behind here take no other name'):
      take(directory)
    with monkeypatch.context() as patch:
      patch.chdir(directory)
      with pytest.raises(ValueError, match='is not UTF-8'):
        take('run')  # the directory around it counts
  (directory / 'b.zst').write_bytes(pyarrow.compress((directory / 'a.txt').read_bytes(), codec='zstd', asbytes=True))
  assert len(set(text.open_corpus(f'files:{directory}/*@all', 'train'))) == 1
  out = tmp_path / 'out'
  prepare_command.main([f'--source=files:{directory}/*.txt', f'--out={out}', '--processes=1'])
  out.rename(directory / 'out')
  assert len(text.open_corpus(f'prepared:{directory}/out', 'train')) == 1
  assert prepared.verify(directory / 'out')['documents'] == 1
  subwords.main([f'--source=files:{directory}/*.txt@all', f'--out={directory}/units.json', '--vocabulary=258'])
  assert len(units.parse(f'subword(file={directory}/units.json)').table) == 258
