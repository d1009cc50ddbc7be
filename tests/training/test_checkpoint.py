import contextlib
import json
import os
import pathlib
import pickle
import random
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore

from training import checkpoint
from training.checkpoint import __main__ as command
from training.checkpoint import array_store
from training.state import TrainState

ROOT = pathlib.Path(__file__).parents[2]
MESH = jax.make_mesh((1,), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
POSITION = {'start_row': 40, 'data': []}


def make_state(step: int, **changes) -> TrainState:
  params = {'head.kernel': jnp.sin(step + jnp.arange(600.0)).reshape(30, 20), 'norm.scale': jnp.ones(64)}
  params |= {'table': jnp.arange(12, dtype=jnp.bfloat16)}
  opt_state = {'count': jnp.int32(step), 'mu': {path: 0.1 * value for path, value in params.items()}}
  number = lambda value: jnp.asarray(value, jnp.int32)
  state = dict(step=number(step), params=params, opt_state=opt_state, ema=None, skipped=number(3))
  return TrainState(**state | {'skipped_in_a_row': number(0), 'log_norm': jnp.float32(0.1)} | changes)


def written(directory, *steps, keep=9, report=print, **changes) -> checkpoint.Checkpoints:
  checkpoints = checkpoint.Checkpoints(directory, keep, 0, report)
  for step in steps:
    checkpoints.save(make_state(step, **changes), POSITION, None)
  checkpoints.close()
  return checkpoints


def newest(directory, report=print):
  return checkpoint.Checkpoints(directory, 9, 0, report).restore_newest(make_state(0), MESH)


def assert_equal(found, expected):
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), found, expected)


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """A directory with checkpoints of steps 5 and 10."""
  directory = tmp_path_factory.mktemp('two')
  written(directory, 5, 10)
  return directory


@pytest.fixture
def copy(two, tmp_path):
  return pathlib.Path(shutil.copytree(two, tmp_path / 'copy'))


def files(path) -> list[pathlib.Path]:
  return sorted(file for file in path.rglob('*') if file.is_file())


def test_a_state_comes_back_bit_by_bit_with_its_counters_and_its_position(two):
  state, record = newest(two)
  assert_equal(state, make_state(10))
  assert record['position'] == POSITION and (state.log_norm.dtype, state.step.dtype) == (jnp.float32, jnp.int32)


def test_orbax_reads_what_is_read_here(two):
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
    found = reader.restore(two / '10', args=ocp.args.Composite(params=ocp.args.StandardRestore()))['params']
  assert_equal(found, make_state(10).params)


def naive_checksum(values: np.ndarray) -> int:
  """The documented formula, an element at a time, with Python's unbounded integers."""
  total = 0
  for position, value in enumerate(values.reshape(-1)):
    h = int.from_bytes(value.tobytes(), 'little') ^ (position * 0x9E3779B1 % 2**32)
    h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
    h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
    total += h ^ h >> 16
  return total % 2**32


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int32', 'uint8'])
def test_checksums_are_those_of_the_formula_on_host_and_devices(dtype):
  x = jnp.asarray(100 * np.random.default_rng(0).normal(size=(5, 7, 11)) % 128).astype(dtype)
  expected = naive_checksum(np.asarray(x))
  assert array_store.host_checksum(np.asarray(x)) == expected == array_store.checksums({'x': x})['x']
  assert array_store.checksums({'x': x}, plain=True)['x'] == array_store.host_checksum(np.asarray(x), plain=True)


def test_a_checksum_changes_with_any_bit_with_the_order_and_with_a_lost_chunk(monkeypatch):
  monkeypatch.setattr(array_store, '_BLOCK', 8)
  x = np.arange(12, dtype=np.float32).reshape(3, 4)
  first = array_store.host_checksum(x)
  for byte in range(48):
    changed = bytearray(x.tobytes())
    changed[byte] ^= 1 << byte % 8
    assert array_store.host_checksum(np.frombuffer(changed, np.float32)) != first
  assert array_store.host_checksum(x[::-1]) != first != array_store.host_checksum(x.T.copy())
  half = np.repeat(np.float32([0, 1]), 32)  # of ones, the first chunk missing
  for plain in (True, False):
    same = array_store.host_checksum(half, plain) == array_store.host_checksum(np.ones(64, np.float32), plain)
    assert same == plain  # what earlier records could not tell


def damage_truncated(path):
  os.truncate(max(files(path / 'params'), key=lambda file: file.stat().st_size), 100)


def damage_shards(path):
  for file in (path / 'params' / 'ocdbt.process_0' / 'd').iterdir():
    file.unlink()


DAMAGE = {
  'a truncated file': damage_truncated,
  'missing shards': damage_shards,
  'a missing item': lambda path: shutil.rmtree(path / 'optimizer'),
  'no record': lambda path: (path / 'record' / 'metadata').unlink(),
  'a record of another step': lambda path: shutil.copy(path.with_name('5') / 'record' / 'metadata', path / 'record'),
  'half a record': lambda path: os.truncate(path / 'record' / 'metadata', 60),
  'endless brackets': lambda path: (path / 'record' / 'metadata').write_text('[' * 10**5),
  'nothing in it': lambda path: [shutil.rmtree(path), path.mkdir()],
}


@pytest.mark.parametrize('kind', DAMAGE)
def test_damage_is_named_and_set_aside_and_the_newest_whole_step_is_used(kind, copy):
  DAMAGE[kind](copy / '10')
  told = []
  state, _ = newest(copy, told.append)
  assert_equal(state, make_state(5))
  assert len(told) == 1 and re.match(r'checkpoint .*/10 is damaged \(.+\); it was moved to .*/10\.damaged and', told[0])
  assert checkpoint.all_steps(copy) == [5] and (copy / '10.damaged').is_dir()
  written(copy, 10)
  assert checkpoint.damage(copy, 10) == []


def test_the_damaged_array_is_named(copy):
  record = json.loads((copy / '10' / 'record' / 'metadata').read_text())
  record.pop('checksum')
  record['checksums']['optimizer']['mu.norm.scale'] ^= 1
  (copy / '10' / 'record' / 'metadata').write_text(json.dumps(checkpoint.reading.sealed(record)))
  assert checkpoint.damage(copy, 10) == ['optimizer/mu.norm.scale is not what was saved']
  with pytest.raises(checkpoint.DamagedCheckpoint, match=r'/10 is damaged \(optimizer/mu\.norm\.scale is not what was'):
    checkpoint.restore(copy, 10, make_state(0), MESH)


def test_an_array_that_claims_more_than_its_files_can_hold_is_not_read(copy):
  item = copy / '10' / 'params'
  store = tensorstore.KvStore.open({'driver': 'ocdbt', 'base': {'driver': 'file', 'path': f'{item}/'}}).result()
  metadata = json.loads(store['table/.zarray'])
  store['table/.zarray'] = json.dumps(metadata | {'shape': [2**45], 'chunks': [2**45]})
  assert checkpoint.damage(copy, 10) == [f'params/table claims {2**46:,} bytes, which these files cannot hold']


def test_every_flipped_bit_is_found_or_harmless(copy):
  chance, found, harmless = random.Random(0), 0, 0
  candidates = files(copy / '10')
  for _ in range(150):
    file = chance.choice(candidates)
    whole = file.read_bytes()
    if not whole:
      continue
    flipped = bytearray(whole)
    flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
    file.write_bytes(flipped)
    told_by_reading = bool(checkpoint.damage(copy, 10))
    try:
      state, record = checkpoint.restore(copy, 10, make_state(0), MESH)
    except checkpoint.DamagedCheckpoint:
      found += 1
    else:
      harmless += 1
      assert_equal(state, make_state(10))
      assert record['position'] == POSITION and not told_by_reading, file
    file.write_bytes(whole)
  # Both kinds were drawn: some files are only copies, for other readers. How often depends on the names of the files.
  assert found > 10 and harmless > 10


def test_older_steps_go_only_when_a_newer_one_was_read_back(tmp_path, monkeypatch):
  told = []
  written(tmp_path, 1, 2, 3, keep=1)
  assert checkpoint.all_steps(tmp_path) == [3]
  finalize = ocp.StandardCheckpointHandler.finalize

  def lose_a_shard(self, directory):  # the disk says that all is written, and it is not
    finalize(self, directory)
    damage_shards(pathlib.Path(directory).parent)

  with monkeypatch.context() as patch:
    patch.setattr(ocp.StandardCheckpointHandler, 'finalize', lose_a_shard)
    checkpoints = checkpoint.Checkpoints(tmp_path, 1, 0, told.append)
    with pytest.raises(OSError, match='the last checkpoint, of step 4, could not be written .*; step 3 is the newest'):
      checkpoints.finish(make_state(4), POSITION, None)
    checkpoints.close()
  assert 'it does not read back' in told[0] and checkpoint.all_steps(tmp_path) == [3]
  assert_equal(newest(tmp_path)[0], make_state(3))
  written(tmp_path, 5, keep=1)
  assert checkpoint.all_steps(tmp_path) == [5]


def test_what_a_kill_left_is_not_used_and_cleared_away(copy):
  (copy / '12.orbax-checkpoint-tmp').mkdir()
  (copy / '5').rename(copy / '5.removed')
  told = []
  assert_equal(newest(copy, told.append)[0], make_state(10))
  assert len(told) == 2 and checkpoint.all_steps(copy) == [10]
  written(copy, 12)
  assert checkpoint.half_written(copy) == [] and checkpoint.all_steps(copy) == [10, 12]


def test_another_model_is_refused_and_nothing_is_moved(two):
  before = sorted(two.rglob('*'))
  wider = make_state(0)
  wider.params['head.kernel'] = jnp.zeros((30, 21))
  with pytest.raises(ValueError, match=r'another model: head\.kernel is float32\[30, 20\], the model has .*30, 21\]'):
    checkpoint.restore(two, 10, wider, MESH)
  del wider.params['head.kernel']
  with pytest.raises(ValueError, match=r"another model: its params miss \[\] and have \['head.kernel'\] besides"):
    checkpoint.Checkpoints(two, 1, 0, print).restore_newest(wider, MESH)
  with pytest.raises(ValueError, match='another model: it has no ema'):
    checkpoint.restore(two, 10, make_state(0, ema=make_state(0).params), MESH)
  assert sorted(two.rglob('*')) == before


def as_earlier(path):
  """Gives a step the record of earlier checkpoints: a digest for each item."""
  record = json.loads((path / 'record' / 'metadata').read_text())
  del record['checksum'], record['checksums'], record['log_norm']
  record['digests'] = {}
  for name in ('params', 'optimizer'):
    sums = [
      array_store.host_checksum(array_store.read(path / name, array), plain=True)
      for array in array_store.names(path / name)
    ]
    record['digests'][name] = sum(sums) % 2**32
  record['digests']['record'] = checkpoint.reading._checksum(record)
  (path / 'record' / 'metadata').write_text(json.dumps(record))


def test_earlier_records_are_read(copy):
  as_earlier(copy / '10')
  state, _ = newest(copy)
  assert_equal(state, make_state(10, log_norm=jnp.float32(0)))
  assert checkpoint.damage(copy, 10) == []
  damage_shards(copy / '10')
  assert checkpoint.damage(copy, 10) and checkpoint.load_params(copy, 5, make_state(0).params, MESH)


def test_verify_says_which_steps_are_whole(copy, capsys, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['checkpoint', 'verify', str(copy)])
  with pytest.raises(SystemExit) as ended:
    command.main()
  assert ended.value.code == 0
  assert capsys.readouterr().out == 'step 5: whole\nstep 10: whole\n0 of 2 checkpoints are damaged\n'
  damage_shards(copy / '10')
  (copy / '15.orbax-checkpoint-tmp').mkdir()
  with pytest.raises(SystemExit) as ended:
    command.main()
  said = capsys.readouterr().out
  assert ended.value.code == 1 and 'step 5: whole' in said and 'step 10: damaged\n  params/' in said
  assert '15.orbax-checkpoint-tmp: left by a run' in said
  monkeypatch.setattr(sys, 'argv', ['checkpoint', 'verify', str(copy / '5')])
  with pytest.raises(SystemExit, match='error: there is no checkpoint in'):
    command.main()


class Trap:
  def __reduce__(self):
    return os.mkdir, (str(TRAP),)


TRAP = pathlib.Path('opened-by-a-pickle')


def test_nothing_in_a_checkpoint_is_unpickled(copy, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  opened = []
  watching = [True]
  sys.addaudithook(lambda event, _: watching and event == 'pickle.find_class' and opened.append(event))
  for file in files(copy / '10'):
    whole = file.read_bytes()
    file.write_bytes(pickle.dumps(Trap()))
    checkpoint.damage(copy, 10)
    with contextlib.suppress(checkpoint.DamagedCheckpoint):
      checkpoint.restore(copy, 10, make_state(0), MESH)
    file.write_bytes(whole)
  watching.clear()
  assert not opened and not TRAP.exists()


def test_no_code_unpickles_files():
  modules = '(pickle|shelve|marshal|dill|cloudpickle|joblib)'
  unpickling = rf'(import|from) {modules}\b|allow_pickle=True|torch\.load\((?!.*weights_only=True)'
  sources = [path for path in ROOT.rglob('*.py') if not path.relative_to(ROOT).parts[0].startswith(NO_PART)]
  assert ROOT / 'training' / 'checkpoint' / 'reading.py' in sources
  for path in sources:
    assert not re.search(unpickling, path.read_text()), path


NO_PART = ('tests', 'benchmarks', '.venv')


def test_a_rollback_goes_to_the_last_good_step_and_passes_over_the_data(copy):
  written(copy, 15, skipped_in_a_row=jnp.int32(4))
  assert checkpoint.roll_back(copy, 21, batch_size=8, allowed=0) is None and checkpoint.all_steps(copy) == [5, 10, 15]
  said = checkpoint.roll_back(copy, 21, batch_size=8, allowed=2)
  assert said == 'rollback 1 of 2: the run goes on from step 10 with the data behind that of step 21'
  state, record = newest(copy)
  assert_equal(state, make_state(10))
  assert record['position'] == {'start_row': 40 + 11 * 8, 'data': [], 'rollbacks': 1}
  assert checkpoint.damage(copy, 10) == [] and checkpoint.all_steps(copy) == [5, 10]
  damage_shards(copy / '10')
  assert 'rollback 2 of 2: the run goes on from step 5' in checkpoint.roll_back(copy, 21, batch_size=8, allowed=2)
  assert checkpoint.roll_back(copy, 21, batch_size=8, allowed=2) is None


def test_the_best_step_is_taken_among_those_that_were_measured_alike(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, 1, 1, print)
  short, long = [{'text_bytes': 10}], [{'text_bytes': 99}]
  for step, metric, measured in ((5, 1.0, short), (10, 1.5, short), (15, 2.2, long), (20, 2.0, long), (25, 2.1, long)):
    checkpoints.save(make_state(step), POSITION, metric, measured)
  checkpoints.close()
  assert checkpoint.all_steps(tmp_path) == [5, 20, 25]  # the best of each kind, and the newest
  said = []
  assert checkpoint.best_step(tmp_path, said.append) == 20
  assert len(said) == 1 and 'steps 5 in' in said[0] and 'step 25' in said[0]


def test_steps_that_are_removed_while_they_are_listed_are_looked_for_again(tmp_path, monkeypatch):
  (tmp_path / '5').mkdir()
  is_dir = pathlib.Path.is_dir

  def removed_meanwhile(path):
    if path.name == '5' and path.exists():  # a run saves step 10 and removes step 5 behind the listing
      (tmp_path / '10').mkdir()
      path.rmdir()
    return is_dir(path)

  monkeypatch.setattr(pathlib.Path, 'is_dir', removed_meanwhile)
  assert checkpoint.all_steps(tmp_path) == [10]
  (tmp_path / '10').rmdir()
  (tmp_path / '7').write_text('a file')
  assert checkpoint.all_steps(tmp_path) == []
