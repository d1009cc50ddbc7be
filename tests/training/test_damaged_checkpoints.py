"""Damaged and vanishing checkpoints: the newest whole one is used and said, and a removed one is not called damaged."""

import contextlib
import json
import os
import pathlib
import shutil
import threading

import pytest

import training
from tests.training import comparison, runs
from training import checkpoint
from training.checkpoint import array_store, reading, writing


def largest_file(path):
  return max((file for file in path.rglob('*') if file.is_file()), key=lambda file: file.stat().st_size)


def flip_a_bit(path, items=('params', 'ema')):
  for item in items:
    file = largest_file(path / item)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)


DAMAGE = {
  'a flipped bit': flip_a_bit,
  'a short file': lambda path: os.truncate(largest_file(path / 'ema'), 100),
  'no manifest': lambda path: (path / 'ema' / 'manifest.ocdbt').unlink(),
  'no record': lambda path: (path / 'record' / 'metadata').unlink(),
  'another record': lambda path: (path / 'record' / 'metadata').write_text('{"step": 11}'),
  'nothing at all': lambda path: [file.unlink() for file in path.rglob('*') if file.is_file()],
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_the_newest_whole_checkpoint_is_used_and_said(damage, stopped, tmp_path, capsys):
  workdir = runs.copy_of(stopped, tmp_path)
  DAMAGE[damage](workdir / 'checkpoints' / '10')
  loaded = training.load(workdir)
  said = capsys.readouterr().out
  assert loaded.step == 5 and said.count('\n') == 1 and 'checkpoints/10 is damaged' in said and 'step 5 is used' in said
  with pytest.raises(ValueError, match='checkpoints/10 is damaged'):
    training.load(workdir, 10)


DAMAGE_TO_STATE = {
  'no record': DAMAGE['no record'],
  'a flipped bit of a moment': lambda path: flip_a_bit(path, ['optimizer']),
}


@pytest.mark.parametrize('damage', DAMAGE_TO_STATE)
def test_training_goes_on_from_the_newest_whole_checkpoint(damage, stopped, tmp_path, capsys):
  workdir = runs.copy_of(stopped, tmp_path)
  DAMAGE_TO_STATE[damage](workdir / 'checkpoints' / '10')
  config = json.loads((workdir / 'config.json').read_text())
  training.train(config, workdir)
  assert 'checkpoints/10 is damaged' in (said := capsys.readouterr().out) and 'training goes on from step 5' in said
  assert runs.steps(workdir) == [5, 10] and (workdir / 'checkpoints' / '10.damaged').is_dir()
  assert comparison.differences(stopped, workdir, 10) == []


def test_a_directory_without_a_whole_checkpoint_is_an_error(stopped, tmp_path):
  workdir = runs.copy_of(stopped, tmp_path)
  for step in runs.steps(workdir):
    flip_a_bit(workdir / 'checkpoints' / str(step))
  before = sorted(workdir.rglob('*'))
  with pytest.raises(ValueError, match=r'no checkpoint in .* is whole'):
    training.train(json.loads((workdir / 'config.json').read_text()), workdir)
  assert sorted(workdir.rglob('*')) == before


@pytest.fixture
def vanishing(monkeypatch):
  """vanishing(action): does that to a step when its arrays are about to be read."""
  place = array_store.place

  def make(action):
    def watched(item, *arguments):
      action(item.parent)
      return place(item, *arguments)

    monkeypatch.setattr(array_store, 'place', watched)

  return make


def replace_by_another(step):
  writing._remove(step)
  shutil.copytree(step.with_name('5'), step)


@pytest.mark.parametrize('action', [writing._remove, replace_by_another])
def test_a_step_that_its_run_removes_under_a_reader_is_not_called_damaged(action, stopped, tmp_path, vanishing):
  workdir, said = runs.copy_of(stopped, tmp_path), []
  vanishing(lambda step: action(step) if step.name == '10' else None)
  with pytest.raises(FileNotFoundError, match=r'checkpoint .*/10 was removed by its run while it was read \(it has 5'):
    training.load(workdir, 10)
  shutil.rmtree(workdir)
  workdir = runs.copy_of(stopped, tmp_path)
  vanishing(lambda step: writing._remove(step) if step.name == '10' else None)
  assert training.load(workdir, report=said.append).step == 5 and not said
  with pytest.raises(FileNotFoundError, match=r'there is no checkpoint of step 10 in .* \(it has 5\)'):
    training.load(workdir, 10)


def test_readers_of_a_run_that_saves_and_removes_in_a_hurry_see_no_damage(stopped, tmp_path):
  workdir, ends, said = runs.copy_of(stopped, tmp_path), threading.Event(), []
  directory = workdir / 'checkpoints'
  record = json.loads(reading.record_path(directory / '10').read_bytes())
  del record['checksum']

  def save_and_remove():
    for step in range(11, 10_000):
      partial = pathlib.Path(shutil.copytree(stopped / 'checkpoints' / '10', directory / f'{step}.partial'))
      (partial / 'record' / 'metadata').write_text(json.dumps(reading.sealed(record | {'step': step})))
      partial.rename(directory / str(step))
      for old in [old for old in runs.steps(workdir) if old < step]:
        writing._remove(directory / str(old))
      if ends.is_set():
        return

  writer = threading.Thread(target=save_and_remove)
  writer.start()
  try:
    for _ in range(15):
      assert training.load(workdir, report=said.append).step >= 5
      assert training.load(workdir, 'best', report=said.append).step >= 10
      with contextlib.suppress(checkpoint.RemovedCheckpoint):
        training.load(workdir, runs.steps(workdir)[-1])
  finally:
    ends.set()
    writer.join()
  assert not said
