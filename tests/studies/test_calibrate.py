"""An entropy model from its training to the model that cuts where it is surprised, by the commands that people use."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hnet
import text
import training
from hnet.parts import patchers
from hnet.parts.entropy_lm import CALIBRATION
from layers import segments
from studies import calibrate, entropies
from tests.hnet.tiny import branch
from text import Batch, marks
from training.state import flatten
from training.trainer import Trainer

SIZES = 'layout=T1,width=32,mlp_width=128,heads=2,rotary=8,window=7'

run = jax.jit(lambda model, batch: model(batch))


def config(source, model, **changes):
  return {
    'num_steps': 2,
    'batch_size': 2,
    'seq_len': 64,
    'data': {'source': source, 'validation': source},
    'model': model,
    'optimizer': {'learning_rate': 1e-2, 'schedule': {}, 'ema': 0.9},
    'eval': {'max_bytes': 200},
    **changes,
  }


def of_patches(lm, **changes):
  chunking = {'boundary': f'entropy({lm},{SIZES})', 'pool': 'first', 'unpool': 'repeat'}
  return branch(['t1', ['t1'], 't1'], chunking=chunking, **changes)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  file = tmp_path_factory.mktemp('text') / 'lines.txt'
  file.write_text('the cat sat on the mat and the dog ran away\n' * 20)
  return f'files:{file}@all'


@pytest.fixture(scope='module')
def entropy_lm(source, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'Entropy LM'
  training.train(config(source, branch(['T1'], window=7, d_intermediate=[128])), workdir)
  return workdir


def test_the_command_writes_what_a_training_reads(source, entropy_lm, tmp_path, capsys):
  calibrate.main([f'--workdir={entropy_lm}', '--size=2', '--size=3', '--symbols=4096'])
  printed = capsys.readouterr().out
  entries = json.loads((entropy_lm / CALIBRATION).read_bytes())['thresholds']
  assert [entry['size'] for entry in entries] == [2.0, 3.0] and entries[0]['threshold'] < entries[1]['threshold']
  for entry in entries:
    assert entry['realised'] == pytest.approx(entry['size'], rel=0.05) and entry['step'] == 2
    assert re.search(rf'{entry["size"]:g} +{entry["threshold"]:.4f} +{entry["realised"]:.3f}', printed)
  calibrate.main([f'--workdir={entropy_lm}', '--size=6', '--mode=both', '--add=0.01', '--symbols=1024'])
  assert len(json.loads((entropy_lm / CALIBRATION).read_bytes())['thresholds']) == 3

  # A model that reads it: not trained, saved, and found again without the directory that it came from.
  learned = training.load(entropy_lm).model
  settings = config(source, of_patches(f'lm={entropy_lm},size=3'))
  found = training.train(settings, tmp_path / 'blt')
  assert found['bytes_per_chunk_0'] == pytest.approx(3, rel=0.3)
  entropy_lm.rename(tmp_path / 'gone')
  try:
    model = training.load(tmp_path / 'blt').model
    flat, theirs = flatten(model), flatten(learned)
    for path, leaf in theirs.items():
      name = path.removeprefix('backbone.')
      np.testing.assert_array_equal(flat[f'backbone.boundary.frozen.lm.{name}'], leaf)
    threshold = flat['backbone.boundary.frozen.threshold']
    assert threshold == np.float32(entries[1]['threshold'])
    batch = Batch.begun([b'the dog sat on the mat'])
    entropy_BxL = patchers.entropy(run(learned, batch).logits)
    ends = patchers.by_entropy(entropy_BxL, entropy_BxL, segments.positions(jnp.asarray(batch.segment_ids)), threshold)
    starts = np.asarray(run(model, batch).segmentations[0])
    np.testing.assert_array_equal(starts[:, 1:], ends[:, :-1])
    training.train({**settings, 'num_steps': 3}, tmp_path / 'blt')  # goes on from its own checkpoint
    begun = config(source, of_patches('threshold=1', bytes_per_chunk=[3]), init_from='', num_steps=1)
    with pytest.raises(ValueError, match=r'entropy\(lm=.* names no work directory to have its parameters from: train'):
      training.train(begun, tmp_path / 'new')
    with pytest.raises(FileNotFoundError, match='Entropy LM is not a work directory: there is no such directory'):
      training.train(config(source, of_patches(f'lm={entropy_lm}')), tmp_path / 'new')
  finally:
    (tmp_path / 'gone').rename(entropy_lm)
  with pytest.raises(
    ValueError, match='no threshold for 4.5 slots a patch in .*Entropy LM/calibration.json: run `python'
  ):
    training.train(config(source, of_patches(f'lm={entropy_lm}')), tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


def test_entropies_of_documents_cut_them_as_the_model_itself_does(source, entropy_lm, tmp_path, capsys):
  out = tmp_path / 'entropies'
  entropies.main([f'--workdir={entropy_lm}', f'--out={out}', '--seq_len=64'])
  model = re.search(r'882 entropies of 1 documents, model ([0-9a-f]{16})', capsys.readouterr().out)[1]
  (document,) = text.open_corpus(source, 'train')
  stored = of_stored(f'directory={out},model={model}')
  training.train(config(source, stored, num_steps=1), tmp_path / 'stored')
  loaded = training.load(tmp_path / 'stored').model
  lm = training.load(entropy_lm).model
  row = np.frombuffer(bytes([text.BOS]) + document + bytes([text.EOS]), np.uint8)[None]
  batch = marks.mark(Batch(row, np.ones(row.shape, np.int32)), loaded.marks)
  entropy_BxL = patchers.entropy(run(lm, batch).logits)
  np.testing.assert_allclose(batch.marks['entropy'], entropy_BxL, atol=1e-5)
  ends = patchers.by_entropy(batch.marks['entropy'], 0, jnp.arange(row.shape[1])[None], 5.535)
  np.testing.assert_array_equal(run(loaded, batch).segmentations[0][:, 1:], ends[:, :-1])
  assert 0.1 < ends.mean() < 0.9
  with pytest.raises(
    ValueError, match=r"knows no entropies of a text that is being written: .*'entropy\(lm=DIRECTORY\)'"
  ):
    loaded.init_cache(1, 8)
  for spec, sentence in (
    (
      f'directory={out},model=0123',
      f'made from the entropy model {model} .*, step 2. and not from 0123: make it again',
    ),
    (f'directory={tmp_path}', 'holds no entropies .config.json is missing.: `python -m studies.entropies` makes'),
  ):
    with pytest.raises((ValueError, OSError), match=sentence):
      training.train(config(source, of_stored(spec)), tmp_path / 'other')
  beginning = marks.mark(Batch.begun([document[:50]]), loaded.marks)
  np.testing.assert_array_equal(beginning.marks['entropy'], batch.marks['entropy'][:, :51])
  other = Batch.begun([document[4:12]])
  with pytest.raises(ValueError, match="has no entropies of a document of 8 bytes that begins with b'cat sat '"):
    loaded(other)
  with pytest.raises(ValueError, match='boundary stored_entropy: threshold is missing; `python -m studies.calibrate`'):
    hnet.parse(of_stored('directory=x', threshold=''))


def of_stored(spec, threshold=',threshold=5.535'):
  chunking = {'boundary': f'stored_entropy({spec}{threshold})', 'pool': 'first', 'unpool': 'repeat'}
  return branch(['t1', ['t1'], 't1'], chunking=chunking)


def test_untrained_parameters_have_no_moments(source):
  state = Trainer.of(config(source, of_patches('threshold=1'))).abstract_state()
  assert any('.frozen.' in path for path in state.params) and any('.frozen.' in path for path in state.ema)
  assert not any('.frozen.' in path for path in flatten(state.opt_state))


def rows(seed=0):
  rng = np.random.default_rng(seed)
  ids = np.where(np.arange(128) < rng.integers(90, 128, (40, 1)), 1 + (np.arange(128) > 50), 0).astype(np.int32)
  return calibrate.Rows(rng.gamma(2.0, 1.0, ids.shape).astype(np.float32), ids)


@pytest.mark.parametrize('mode, add', [('threshold', None), ('jump', None), ('both', 0.3)])
@pytest.mark.parametrize('size, most', [(2.5, 0), (4.5, 0), (4.5, 7)])
def test_the_size_is_met_by_the_threshold_that_is_found(mode, add, size, most):
  if mode != 'threshold' and size == 2.5:
    size = 4.0  # entropy jumps at no more than one position in two
  _, realised = calibrate.calibrate(rows(), size, mode, add, most)
  assert realised == pytest.approx(size, rel=0.01)
  _, elsewhere = calibrate.calibrate(rows(1), size, mode, add, most)
  assert elsewhere == pytest.approx(realised, rel=0.01)


def test_a_size_that_cannot_be_had_is_one_sentence():
  with pytest.raises(ValueError, match='--size=12 cannot be had with mode threshold, add None and most 7: the nearest'):
    calibrate.calibrate(rows(), 12.0, 'threshold', None, 7)


@pytest.mark.parametrize(
  'flags, sentence',
  [
    (['--size=1'], '--size=1.0 must be above 1'),
    (['--mode=both'], '--add=None with --mode=both: give --add with'),
    (['--most=-1'], '--most -1 must be an integer of at least 0'),
    ([], 'nowhere is not a work directory'),
  ],
)
def test_bad_flags_are_one_sentence(tmp_path, flags, sentence):
  with pytest.raises((ValueError, OSError), match=sentence):
    calibrate.main([f'--workdir={tmp_path}/nowhere', *flags])
