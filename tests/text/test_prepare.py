"""Preparing: what is written, that it is the same every time, and that a kill loses little."""

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.preparing import ALL_TRAIN, DOCUMENTS, GROUPS, SHARD_BYTES, Group, Listed, contents, run
from text.prepare import ByPosition, assignment
from text.prepare.__main__ import main
from text.prepared import open_prepared

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  out = tmp_path_factory.mktemp('root') / 'data' / '1.0.0'
  run(GROUPS, out)
  return out


# --- what is written


def test_tfds_gives_back_the_documents_of_every_split(undisturbed):
  found = {}
  for split in ('train', 'validation', 'test'):
    opened = tfds.builder_from_directory(undisturbed).as_data_source(split=split)
    named = tfds.data_source('data', data_dir=undisturbed.parents[1], split=split)
    ours = list(open_prepared(undisturbed, split))
    assert [item['text'] for item in opened] == [item['text'] for item in named] == ours
    found[split] = ours
  assert sorted(itertools.chain(*found.values())) == sorted(DOCUMENTS)
  order = {document: index for index, document in enumerate(DOCUMENTS)}
  assert all(
    [order[document] for document in part] == sorted(order[document] for document in part) for part in found.values()
  )


def test_a_configuration_and_a_version_are_found_by_tfds(tmp_path):
  run([Listed(b'text')], tmp_path / 'many' / 'one' / '2.1.0', name='many/one', splits=ALL_TRAIN)
  assert next(iter(tfds.data_source('many/one:2.1.0', data_dir=tmp_path, split='train')))['text'] == b'text'


def test_the_metadata_say_what_is_there(undisturbed):
  metadata = run(GROUPS, undisturbed)
  assert metadata['documents'] == len(DOCUMENTS) and metadata['bytes'] == sum(map(len, DOCUMENTS))
  shard_files = [shard for split in metadata['splits'].values() for shard in split['shards']]
  assert sum(shard['documents'] for shard in shard_files) == len(DOCUMENTS) and len(shard_files) > 6
  for shard in shard_files:
    assert hashlib.sha256((undisturbed / shard['file']).read_bytes()).hexdigest() == shard['sha256']
  assert {name for name in contents(undisturbed) if 'array_record' in name} == {shard['file'] for shard in shard_files}


def test_the_directory_does_not_tell_where_it_was_made(undisturbed):
  for name in ('corpus.json', 'dataset_info.json', 'features.json'):
    text = (undisturbed / name).read_text()
    assert str(undisturbed.parents[1]) not in text and os.uname().nodename not in text


def test_processes_and_runs_do_not_change_a_byte(undisturbed, tmp_path):
  run(GROUPS, tmp_path / 'again' / '1.0.0')
  assert contents(tmp_path / 'again' / '1.0.0') == contents(undisturbed)
  run(GROUPS, tmp_path / 'two' / '1.0.0', processes=2)
  assert contents(tmp_path / 'two' / '1.0.0') == contents(undisturbed)


def test_one_group_of_many_documents_gives_several_shards(tmp_path):
  metadata = run([Group(0, count=100)], tmp_path, splits=ALL_TRAIN)
  sizes = [shard['bytes'] for shard in metadata['splits']['train']['shards']]
  assert len(sizes) > 5 and max(sizes) < 1.5 * SHARD_BYTES and min(sizes) > SHARD_BYTES / 2


def test_documents_larger_than_a_shard_leave_no_shard_empty(tmp_path):
  documents = [b'a' * 100_000, b'b', b'c' * 70_000, b'd' * 90_000]
  metadata = run([Listed(*documents)], tmp_path, splits=ALL_TRAIN)
  assert all(shard['documents'] for shard in metadata['splits']['train']['shards'])
  assert list(open_prepared(tmp_path, 'train')) == documents


# --- dropping and splitting


def test_exact_duplicates_and_empty_documents_are_dropped_and_counted(tmp_path):
  groups = [Listed(b'one', b'', b'two', b'one', key='a'), Listed(b'two', b'three', b'', b'one ', key='b')]
  lines = []
  metadata = run(groups, tmp_path, splits=ALL_TRAIN, report=lines.append)
  assert list(open_prepared(tmp_path, 'train')) == [b'one', b'two', b'three', b'one ']
  assert metadata['duplicates'] == {'documents': 2, 'bytes': 6} and metadata['empty'] == 2
  assert '8 documents read, 2 of them exact duplicates (6 bytes) and 2 empty: these are dropped' in lines
  assert 'test: no document' in lines


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.integers(0, 2)), min_size=1, max_size=30))
def test_of_equal_documents_one_stays_held_out_before_train_and_first_before_later(drawn):
  digests = np.frombuffer(b''.join(hashlib.sha256(document).digest() for document, _ in drawn), np.uint8).reshape(
    -1, 32
  )
  splits = np.array([split for _, split in drawn], np.int8)
  for given_splits in (None, splits):
    best = {}
    for index, (document, split) in enumerate(drawn):
      rank = (0 if given_splits is None else -split, index)
      best[document] = min(best.get(document, rank), rank)
    expected = sorted(index for _, index in best.values())
    assert np.flatnonzero(assignment.first_of_equals(digests, given_splits)).tolist() == expected


def test_the_hash_of_a_document_decides_its_split(undisturbed):
  for split, low, high in (('validation', 0, 0.05), ('test', 0.05, 0.1), ('train', 0.1, 1)):
    for document in open_prepared(undisturbed, split):
      place = int.from_bytes(hashlib.sha256(document).digest()[:8], 'big') / 2**64
      assert low <= place < high


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=10), st.floats(0, 0.49), st.floats(0, 0.49))
def test_position_cuts_the_text_at_two_bytes(lengths, validation, test):
  lengths = np.array(lengths)
  total = int(lengths.sum())
  pieces = ByPosition(validation, test).pieces(np.arange(len(lengths)), lengths, None)
  origins = np.cumsum(lengths) - lengths
  assert (np.cumsum(pieces.lengths) - pieces.lengths == origins[pieces.documents] + pieces.starts).all()
  assert pieces.lengths.min() > 0 and pieces.lengths.sum() == total and (np.diff(pieces.splits) >= 0).all()
  assert len(pieces) <= len(lengths) + 2
  for split, share in ((1, validation), (2, test)):
    assert abs(pieces.lengths[pieces.splits == split].sum() - total * share) <= 1


def test_position_cuts_documents_and_loses_nothing(tmp_path):
  documents = [document for seed in (1, 2) for document in Group(seed)]
  metadata = run([Group(1), Group(2)], tmp_path, splits=ByPosition(0.2, 0.3), shard_bytes=5000)
  parts = [b''.join(open_prepared(tmp_path, split)) for split in ('train', 'validation', 'test')]
  assert b''.join(parts) == b''.join(documents)
  assert [len(part) / metadata['bytes'] for part in parts] == pytest.approx([0.5, 0.2, 0.3], abs=1e-4)
  assert metadata['cut'] == 2 and metadata['documents'] == len(documents) + 2


def test_one_long_document_is_split_by_position(tmp_path):
  (document,) = Group(5, count=1)
  run([Listed(document)], tmp_path, splits=ByPosition(0.25, 0.25))
  assert b''.join(open_prepared(tmp_path, split)[0] for split in ('train', 'validation', 'test')) == document


def test_what_is_held_out_is_dropped_from_train(tmp_path):
  groups = {
    'test': [Listed(b'in all', b'in test', key='c')],
    'train': [Listed(b'in all', b'in train', b'in two', key='a')],
    'validation': [Listed(b'in two', b'in all', key='b')],
  }
  metadata = run(groups, tmp_path)
  assert list(open_prepared(tmp_path, 'train')) == [b'in train']
  assert list(open_prepared(tmp_path, 'validation')) == [b'in two']
  assert list(open_prepared(tmp_path, 'test')) == [b'in all', b'in test']
  assert metadata['duplicates'] == {'documents': 3, 'bytes': 18}


def test_given_splits_that_have_no_test_have_no_test(tmp_path):
  metadata = run({'train': [Listed(b'a')], 'validation': [Listed(b'b', key='other')]}, tmp_path)
  assert list(metadata['splits']) == ['train', 'validation']


# --- going on


PROGRAM = """
from tests.text.preparing import Group, run
if __name__ == '__main__':
  run([Group(seed, pause=0.02) for seed in range(12)], OUT, processes=2)
"""


def test_a_killed_preparation_goes_on_with_what_it_has(undisturbed, tmp_path):
  out = tmp_path / 'data' / '1.0.0'
  (tmp_path / 'program.py').write_text(PROGRAM.replace('OUT', repr(str(out))))
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  process = subprocess.Popen([sys.executable, tmp_path / 'program.py'], env=environment, start_new_session=True)
  deadline = time.monotonic() + 60
  while len(sidecars := list(out.glob('.partial/*-of-*.json'))) < 2 and time.monotonic() < deadline:
    time.sleep(0.01)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  assert sidecars and not (out / 'corpus.json').exists()
  finished = {path.stem: (out / path.stem).stat() for path in out.glob('.partial/*-of-*.json')}
  scanned = {path: path.stat().st_mtime_ns for path in out.glob('.partial/scan-*')}
  (out / '.partial' / 'half written.12345').write_bytes(b'half')
  lines = []
  run(GROUPS, out, report=lines.append)
  assert contents(out) == contents(undisturbed)
  assert scanned and '12 of 12 parts of the source were read before' in lines
  for name, before in finished.items():
    after = (out / name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_groups_that_were_read_are_not_read_again(tmp_path):
  class Unreadable(Listed):
    readable = False

    def __iter__(self):
      if not self.readable:
        raise OSError("data file 'x' cannot be read (no reason): repair it")
      return super().__iter__()

  class Counted(Listed):
    reads = 0

    def __iter__(self):
      self.reads += 1
      return super().__iter__()

  good, bad = Counted(b'good'), Unreadable(b'bad', key='bad')
  with pytest.raises(OSError, match="data file 'x' cannot be read"):
    run([good, bad], tmp_path, splits=ALL_TRAIN)
  bad.readable = True
  run([good, bad], tmp_path, splits=ALL_TRAIN)
  assert good.reads == 2  # once in each pass
  assert list(open_prepared(tmp_path, 'train')) == [b'good', b'bad']


def test_a_source_that_changed_before_going_on_leaves_nothing_behind(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError('stopped')

  with monkeypatch.context() as patched:
    patched.setattr('text.prepare.preparation.finish', fail)
    with pytest.raises(OSError, match='stopped'):
      run(GROUPS, tmp_path / 'a')
  run(GROUPS[:4], tmp_path / 'a')
  run(GROUPS[:4], tmp_path / 'b')
  assert contents(tmp_path / 'a') == contents(tmp_path / 'b')


def test_a_complete_directory_is_left_as_it_is(undisturbed):
  lines, before = [], contents(undisturbed)
  run([], undisturbed, report=lines.append)  # the source is not even read
  assert lines == [f"'{undisturbed}' is complete: nothing to do"] and contents(undisturbed) == before


# --- the command


def test_the_command_prepares_files_and_says_so(tmp_path, capsys):
  for index in range(20):
    (tmp_path / f'{index}.txt').write_bytes(b'document %d' % index)
  out = tmp_path / 'out'
  main(
    [
      f'--source=files:{tmp_path}/*.txt',
      f'--out={out}',
      '--processes=1',
      '--license=MIT',
      '--validation=0.3',
      '--test=0',
    ]
  )
  assert 'train: ' in capsys.readouterr().out
  documents = [*open_prepared(out, 'train'), *open_prepared(out, 'validation')]
  assert sorted(documents) == sorted(b'document %d' % index for index in range(20))
  main([f'--verify={out}'])
  assert 'every file is as recorded (20 documents)' in capsys.readouterr().out


def test_the_command_takes_a_source_for_each_split(tmp_path):
  for name in ('train', 'test'):
    (tmp_path / f'{name}.txt').write_text(f'{name} text')
  out = tmp_path / 'out'
  main(
    [
      f'--source=files:{tmp_path}/train.txt',
      f'--test_source=files:{tmp_path}/test.txt',
      f'--out={out}',
      '--processes=1',
    ]
  )
  assert list(open_prepared(out, 'train')) == [b'train text'] and list(open_prepared(out, 'test')) == [b'test text']
  with pytest.raises(ValueError, match='--split, --validation and --test divide --source'):
    main(['--source=files:x', '--test_source=files:y', '--out=z', '--test=0.1'])


def test_the_command_ends_on_an_error_with_the_sentence_alone(tmp_path):
  command = [sys.executable, '-m', 'text.prepare', f'--source=files:{tmp_path}/*.txt', f'--out={tmp_path}/out']
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert result.returncode == 1 and result.stdout == ''
  assert result.stderr.startswith('error: data glob') and result.stderr.count('\n') == 1


def test_the_command_says_what_it_passes_over(tmp_path, capsys):
  (tmp_path / 'a.jsonl').write_text('{"text": "one"}\n\n{"text": "x", "text": "two"}\n\n')
  (tmp_path / 'b.jsonl').write_text('')
  (tmp_path / 'c.ndjson').symlink_to('a.jsonl')
  source = f'--source=files:{tmp_path}/*.*json*#text'
  main([source, f'--out={tmp_path}/data', '--validation=0', '--test=0', '--processes=1'])
  said = capsys.readouterr().out
  assert f'further names of files read already passed over: 1 (the first: {tmp_path}/c.ndjson)\n' in said
  assert f'empty lines passed over: 2 (the first: {tmp_path}/a.jsonl:2)\n' in said
  assert (
    f"lines that give the field 'text' twice, of which the last counts: 1 (the first: {tmp_path}/a.jsonl:3)" in said
  )
  assert f'files without a record passed over: 1 (the first: {tmp_path}/b.jsonl)\n' in said
  assert list(open_prepared(tmp_path / 'data', 'train')) == [b'one', b'two']
