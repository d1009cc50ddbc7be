"""What prepare refuses, and how it ends where something fails: one sentence, and what is finished stays."""

import fcntl
import os
import signal
import subprocess

import pytest

from tests.text.preparing import ALL_TRAIN, GROUPS, Group, Listed, contents, run
from text import array_record
from text.prepare import ByHash, ByPosition
from text.prepared import open_prepared


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  out = tmp_path_factory.mktemp('root') / 'data' / '1.0.0'
  run(GROUPS, out)
  return out


def test_other_settings_for_a_directory_are_refused_with_the_difference(undisturbed, tmp_path):
  with pytest.raises(ValueError, match="holds the complete preparation with source='test', not 'else': choose another"):
    run(GROUPS, undisturbed, source='else')
  with pytest.raises(ValueError, match="with licence=None, not 'MIT'"):
    run(GROUPS, undisturbed, metadata={'licence': 'MIT'})
  with pytest.raises(ValueError, match='no document'):
    run([], tmp_path)
  with pytest.raises(ValueError, match='holds the unfinished preparation with shard_bytes=20000, not 7'):
    run(GROUPS, tmp_path, shard_bytes=7)


def test_a_directory_with_other_files_is_refused(tmp_path):
  (tmp_path / 'thesis.tex').write_text('x')
  with pytest.raises(FileExistsError, match='is not empty: choose another place'):
    run(GROUPS, tmp_path)
  with pytest.raises(OSError, match='cannot be made'):
    run(GROUPS, tmp_path / 'thesis.tex')


def test_two_preparations_at_once_are_refused(tmp_path):
  descriptor = os.open(tmp_path, os.O_RDONLY)
  fcntl.flock(descriptor, fcntl.LOCK_EX)
  with pytest.raises(OSError, match='another process is preparing'):
    run(GROUPS, tmp_path)
  os.close(descriptor)


def test_no_document_is_refused_with_how_many_there_were(tmp_path):
  with pytest.raises(ValueError, match=r"'test' has no document with a byte in it \(documents read: 2\)"):
    run([Listed(b'', b'')], tmp_path / 'empty')
  with pytest.raises(ValueError, match=r'documents read: 0'):
    run([Listed()], tmp_path / 'none')


@pytest.mark.parametrize('shares', [(-0.1, 0.1), (0.5, 0.5), (1.5, 0), (float('nan'), 0)])
@pytest.mark.parametrize('rule', [ByHash, ByPosition])
def test_shares_out_of_range_are_refused(rule, shares):
  with pytest.raises(ValueError, match='must be at least 0 and together below 1'):
    rule(*shares)


@pytest.mark.parametrize(
  ('settings', 'sentence'),
  [
    ({'name': 'two words'}, "'two words' cannot be the name of a data set"),
    ({'processes': 0}, 'processes=0 must be at least 1'),
    ({'shard_bytes': 0}, 'shard_bytes=0 must be at least 1'),
    ({'metadata': {'splits': 1}}, "metadata cannot have the key 'splits'"),
  ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_made(settings, sentence, tmp_path):
  with pytest.raises(ValueError, match=sentence):
    run(GROUPS, tmp_path / 'out', **settings)
  assert not (tmp_path / 'out').exists()


def test_given_splits_are_not_split_again_and_have_known_names(tmp_path):
  with pytest.raises(ValueError, match='cannot be split again'):
    run({'train': GROUPS}, tmp_path, splits=ByHash())
  with pytest.raises(ValueError, match="split 'valid' is not known: use train, validation, test"):
    run({'valid': GROUPS}, tmp_path)


@pytest.mark.parametrize('second', [[b'one', b'two!'], [b'one', b'tvo'], [b'one'], [b'one', b'two', b'more']])
def test_a_group_that_changes_between_the_passes_is_named(tmp_path, second):
  class Changing(Listed):
    reads = 0

    def __iter__(self):
      self.reads += 1
      return iter(self.documents if self.reads == 1 else second)

  with pytest.raises(ValueError, match="'listed' gives other documents than a moment ago"):
    run([Changing(b'one', b'two')], tmp_path, splits=ALL_TRAIN)


def test_a_document_that_no_record_can_hold_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(array_record, 'LONGEST_DOCUMENT', 3)
  with pytest.raises(ValueError, match="document 1 of 'listed' has 4 bytes, a record at most 3"):
    run([Listed(b'one', b'four')], tmp_path)


def test_a_file_that_does_not_hold_what_was_written_is_not_taken(tmp_path, monkeypatch):
  with monkeypatch.context() as patched:
    patched.setattr(array_record, 'OPTIONS', 'group_size:1')  # compressed: the text is not in the file as it is
    with pytest.raises(
      OSError, match="shard 'data-train.array_record-00000-of-00001' cannot be written in .*reads back"
    ):
      run([Listed(b'text' * 100)], tmp_path, splits=ALL_TRAIN)
  assert not list(tmp_path.glob('*')) or [path.name for path in tmp_path.iterdir()] == ['.partial']
  run([Listed(b'text' * 100)], tmp_path, splits=ALL_TRAIN)
  assert list(open_prepared(tmp_path, 'train')) == [b'text' * 100]


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 1 MB."""
  place = tmp_path / 'disk'
  place.mkdir()
  if subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', place], capture_output=True, check=False
  ).returncode:
    pytest.skip('only root can mount a small file system')
  yield place
  subprocess.run(['umount', place], check=True)


def test_a_full_disk_is_one_sentence_and_finished_shards_stay(small_disk, undisturbed):
  out = small_disk / 'data' / '1.0.0'
  with pytest.raises(OSError, match='cannot be written .*make room and type the same command again to go on'):
    run(GROUPS, out)
  finished = list(out.glob('data-*'))
  before = [path.stat().st_ino for path in finished]
  assert finished and not [path for path in out.glob('.partial/*') if path.suffix not in ('.json', '.npy', '.npz')]
  subprocess.run(['mount', '-o', 'remount,size=20m', small_disk], check=True)
  run(GROUPS, out)
  assert contents(out) == contents(undisturbed) and [path.stat().st_ino for path in finished] == before


class Killer(Group):
  """Kills the process that reads it."""

  def __iter__(self):
    os.kill(os.getpid(), signal.SIGKILL)
    return super().__iter__()


def test_a_killed_worker_is_one_sentence(tmp_path):
  with pytest.raises(OSError, match='a worker process was killed, .* type the same command again'):
    run([Killer(0), Killer(1)], tmp_path, processes=2)
