import dataclasses
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from flax import nnx

import byte_models
import hnet
import training
from evaluation import bits_per_byte
from tests.text import tiny_subwords
from tests.training import comparison, runs, tiny
from text import units
from training import checkpoint, config_flag
from training import config as config_lib
from training import workdir as workdir_lib
from training.state import flatten
from training.trainer import Trainer


@pytest.fixture(scope='module')
def whole(source, tmp_path_factory):
  """The work directory of an undisturbed run with everything on: average, accumulation, dropout."""
  workdir = tmp_path_factory.mktemp('whole')
  training.train(runs.thorough(tiny.get_config(source).to_dict()), workdir)
  return workdir


def lines(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def stop_after(step, monkeypatch, action):
  """Calls `action` while the validation at `step` runs (the tiny config validates every ten steps)."""
  evaluate, calls = bits_per_byte.evaluate, []

  def watched(*args, **kwargs):
    calls.append(None)
    if 10 * len(calls) == step:
      action()
    return evaluate(*args, **kwargs)

  monkeypatch.setattr(bits_per_byte, 'evaluate', watched)


def interrupted(config, workdir, monkeypatch):
  """A run stopped by SIGTERM in the validation of step 10, so after step 11."""
  with monkeypatch.context() as patch:
    stop_after(10, patch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(training.Interrupted, match=r'^SIGTERM: stopped after step 11, which is saved in ') as stopped:
      training.train(config, workdir)
  assert stopped.value.signal_number == signal.SIGTERM
  return workdir


def test_a_run_leaves_config_metrics_checkpoints_and_a_model(whole, make_config):
  assert json.loads((whole / 'config.json').read_text()) == config_lib.resolve(runs.thorough(make_config()))
  assert [line['step'] for line in lines(whole)] == list(range(1, 21))
  assert 4 < lines(whole)[-1]['validation_bpb'] < lines(whole)[9]['validation_bpb'] < 8
  for name in ('loss', 'bpb', 'gradient_norm', 'learning_rate', 'bytes_per_second', 'model_flops_utilization'):
    assert lines(whole)[-1][name] > 0
  assert runs.steps(whole) == [15, 20] and list((whole / 'tensorboard').glob('events.out.tfevents.*'))
  loaded = training.load(whole)
  assert (loaded.step, loaded.config['model']['family']) == (20, 'tiny') and isinstance(loaded.model, tiny.Tiny)
  assert training.load(whole, 'best').step == 20 and training.load(whole, 15).step == 15


def test_a_step_takes_nothing_from_the_host_that_was_not_put_on_the_devices(make_config, tmp_path, monkeypatch):
  monkeypatch.setattr(Trainer, 'put', lambda self, batch: batch)
  with pytest.raises(jax.errors.JaxRuntimeError, match='Disallowed host-to-device transfer'):
    training.train(make_config(), tmp_path)


def test_a_loaded_model_has_the_averaged_parameters_and_scores_what_training_said(whole, source):
  model = training.load(whole).model
  arrays = comparison.saved_arrays(whole / 'checkpoints' / '20')
  np.testing.assert_array_equal(model.head.bias[...], arrays['ema/head.bias'])
  assert not np.array_equal(arrays['ema/head.bias'], arrays['params/head.bias'])
  corpus = training.loop.text.open_corpus(source, 'validation')
  result = bits_per_byte.evaluate(model, corpus, seq_len=32, batch_size=8, max_bytes=2000)
  assert result.bits_per_byte == lines(whole)[-1]['validation_bpb']


def test_a_run_stopped_by_a_signal_goes_on_bit_exactly_and_logs_each_step_once(
  whole, make_config, tmp_path, monkeypatch
):
  config = runs.thorough(make_config())
  interrupted(config, tmp_path, monkeypatch)
  assert runs.steps(tmp_path)[-1] == 11 and len(lines(tmp_path)) == 11
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 12, "loss": 1.0}\n{"step": 13, "lo')  # what a kill leaves behind
  training.train(config, tmp_path)
  assert [line['step'] for line in lines(tmp_path)] == list(range(1, 21))
  assert comparison.differences(whole, tmp_path, 20) == []


def test_a_run_in_a_hurry_is_killed_by_the_second_signal(make_config, tmp_path, monkeypatch):
  def twice():
    os.kill(os.getpid(), signal.SIGINT)
    while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
      time.sleep(0.01)  # any thread may receive it, and two at once would count as one
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)

  stop_after(10, monkeypatch, twice)
  before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
  try:
    with pytest.raises(KeyboardInterrupt):
      training.train(make_config(), tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  finally:
    signal.signal(signal.SIGINT, before)


def test_a_closed_terminal_saves_however_often_it_says_so(make_config, tmp_path, monkeypatch):
  def hang_up():
    for _ in range(2):  # the terminal, and its shell
      os.kill(os.getpid(), signal.SIGHUP)
      time.sleep(0.1)

  stop_after(10, monkeypatch, hang_up)
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  try:
    with pytest.raises(training.Interrupted, match=r'^SIGHUP: stopped after step 11, which is saved in ') as stopped:
      training.train(make_config(), tmp_path)
    assert stopped.value.signal_number == signal.SIGHUP and runs.steps(tmp_path)[-1] == 11
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    training.train(make_config(), tmp_path)
    assert runs.steps(tmp_path)[-1] == 20 and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)


def test_a_changed_model_is_refused_and_nothing_is_touched(stopped, make_config):
  before = {path: path.stat().st_mtime_ns for path in stopped.rglob('*')}
  with pytest.raises(ValueError, match=r'was trained with another config \(model\.width: 8 -> 16\)'):
    training.train(runs.thorough(make_config(**{'model.width': 16})) | {'num_steps': 10}, stopped)
  assert {path: path.stat().st_mtime_ns for path in stopped.rglob('*')} == before


def test_other_text_is_refused(source, make_config, tmp_path):
  documents = pathlib.Path(shutil.copytree(pathlib.Path(source.removeprefix('files:')).parent, tmp_path / 'text'))
  config = make_config(num_steps=2, **{'data.source': f'files:{documents}/*.txt'})
  training.train(config, tmp_path / 'run')
  for document in list(documents.iterdir())[:10]:
    document.unlink()
  with pytest.raises(
    ValueError, match=r"holds other text than .* was trained on \('files:.*' had \d+ documents then, \d+ now, "
  ):
    training.train(config | {'num_steps': 3}, tmp_path / 'run')


def test_the_same_text_in_another_place_is_the_same_and_another_share_is_not(source, make_config, tmp_path):
  here = pathlib.Path(source.removeprefix('files:')).parent
  there = pathlib.Path(shutil.copytree(here, tmp_path / 'there'))
  mixture = lambda folder, weight: ((f'files:{folder}/*.txt', weight), (f'noise:upper_case:files:{folder}/*.txt', 1.0))
  config = make_config(num_steps=2, **{'data.source': mixture(here, 1.0)})
  training.train(config, tmp_path / 'run')
  moved = config | {'num_steps': 3, 'data': config['data'] | {'source': mixture(there, 1.0)}}
  metrics = training.train(moved, tmp_path / 'run')
  each = [metrics[f'validation_bpb/{name}'] for name, _ in mixture(there, 1.0)]
  assert min(each) < metrics['validation_bpb'] < max(each) and 0 <= metrics['data_wait'] <= 1
  with pytest.raises(ValueError, match=r'rows then, \d+ now.*\): bring that text back or use'):
    training.train(moved | {'num_steps': 4, 'data': config['data'] | {'source': mixture(there, 2.0)}}, tmp_path / 'run')


def test_what_a_kill_left_half_written_is_said_and_cleared_away(stopped, tmp_path, capsys):
  workdir = runs.copy_of(stopped, tmp_path)
  half = workdir / 'checkpoints' / '12.orbax-checkpoint-tmp'
  half.mkdir()
  training.train(json.loads((workdir / 'config.json').read_text()) | {'num_steps': 12}, workdir)
  said = capsys.readouterr().out
  assert f'{half} was being written when the run was stopped' in said and 'goes on from step 10 of 12' in said
  assert runs.steps(workdir) == [10, 12] and not half.exists()


def test_a_run_can_be_extended_but_not_shortened(stopped, tmp_path, capsys):
  workdir = runs.copy_of(stopped, tmp_path)
  config = json.loads((workdir / 'config.json').read_text())
  assert training.train(config, workdir)['validation_bpb'] == lines(stopped)[-1]['validation_bpb']
  said = capsys.readouterr().out
  source = config['data']['source']
  assert 'has been trained to step 10 already' in said
  assert f'trains on {source} (train): 5' in said and f'validates on {source} (validation): ' in said
  assert said.count(' of 60 documents, ') == 2 and 'stand in the training text' not in said
  with pytest.raises(ValueError, match=r'num_steps is 9, but .* has been trained to step 10 already'):
    training.train(config | {'num_steps': 9}, workdir)
  training.train(config | {'num_steps': 12}, workdir)
  assert 'config changed since the run began: num_steps: 10 -> 12' in capsys.readouterr().out
  assert [line['step'] for line in lines(workdir)] == list(range(1, 13)) and workdir_lib.read_config(workdir)[
    'num_steps'
  ] == 12


def test_a_run_that_diverged_stops_with_a_sentence_and_keeps_its_checkpoints(make_config, tmp_path, capsys):
  with pytest.raises(
    training.Diverged, match=r'^10 updates in a row, up to step 17, had a non-finite loss or gradient'
  ):
    training.train(make_config(**{'model.poison': (0.35, 1.0)}), tmp_path)
  assert 'step 8: loss nan or gradient norm' in capsys.readouterr().out
  assert lines(tmp_path)[7]['loss'] is None and lines(tmp_path)[-1]['step'] < 17
  assert np.isfinite(training.load(tmp_path).model.head.bias[...]).all()


def test_the_first_parameters_can_come_from_another_run(stopped, make_config, tmp_path):
  config = make_config(
    init_from=str(stopped), num_steps=1, **{'optimizer.learning_rate': 1e-30, 'optimizer.weight_decay': 0.0}
  )
  training.train(config, tmp_path / 'next')
  ours, theirs = (flatten(training.load(workdir).model) for workdir in (tmp_path / 'next', stopped))
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  with pytest.raises(
    ValueError, match=r'init_from .* holds another model: parameter embeddings\.embedding is float32\[256, 8\]'
  ):
    training.train(make_config(init_from=str(stopped), **{'model.width': 4}), tmp_path / 'other')
  with pytest.raises(FileNotFoundError, match='nowhere is not a work directory: there is no such directory'):
    training.train(make_config(init_from='nowhere'), tmp_path / 'other')
  assert not (tmp_path / 'other').exists()


def test_the_first_parameters_can_be_official_weights(tmp_path):
  branch = {'family': 'hnet', 'arch_layout': ['m1', ['T1'], 'm1'], 'd_model': [64, 64], 'd_intermediate': [0, 128]}
  branch |= {
    'ssm_cfg': {'d_state': 16},
    'attn_cfg': {'num_heads': [2, 2], 'rotary_emb_dim': [16, 16], 'window_size': [31, -1]},
  }
  model = byte_models.build(byte_models.parse(branch), rngs=nnx.Rngs(1))
  hnet.save_pretrained(model, tmp_path)
  found = workdir_lib.initial_params(str(tmp_path), training.description.abstract_model(branch))
  jax.tree.map(np.testing.assert_array_equal, found, flatten(model))


def test_a_full_disk_harms_no_earlier_checkpoint_and_training_goes_on(
  whole, make_config, tmp_path, monkeypatch, capsys
):
  # A file size limit stands for the full disk: writes fail inside Orbax's thread and in the metrics alike.
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  limit = lambda size: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

  def fill():
    while runs.steps(tmp_path) != [5]:  # that checkpoint was begun before the disk was full
      time.sleep(0.01)
    limit(3000)()

  stop_after(10, monkeypatch, fill)
  stop_after(20, monkeypatch, limit(soft))
  try:
    training.train(runs.thorough(make_config(**{'checkpoint.keep_latest': 9})), tmp_path)
  finally:
    limit(soft)()
  said = capsys.readouterr().out
  assert 'the checkpoint of step 10 could not be written' in said and 'metrics cannot be written' in said
  assert (
    10 not in runs.steps(tmp_path) and {5, 20} <= set(runs.steps(tmp_path)) and training.load(tmp_path, 5).step == 5
  )
  assert comparison.differences(whole, tmp_path, 20) == []


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(make_config, tmp_path, monkeypatch, capsys):
  async def no_space(self, directory, **_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(checkpoint.writing.ocp.StandardCheckpointHandler, 'async_save', no_space)
  with pytest.raises(OSError, match=r'the last checkpoint, of step 3, could not be written to .*; there is none'):
    training.train(make_config(num_steps=3), tmp_path)
  assert 'the checkpoint of step 3 could not be written' in capsys.readouterr().out


def test_the_best_checkpoint_is_kept_beside_the_latest(make_config, tmp_path, monkeypatch):
  scores = iter([3.0, 4.0, 5.0])
  evaluate = bits_per_byte.evaluate
  scored = lambda *args, **kwargs: dataclasses.replace(evaluate(*args, **kwargs), bits_per_byte=next(scores))
  monkeypatch.setattr(bits_per_byte, 'evaluate', scored)
  training.train(make_config(num_steps=30, **{'checkpoint.keep_latest': 1}), tmp_path)
  assert runs.steps(tmp_path) == [10, 30] and training.load(tmp_path, 'best').step == 10


def test_a_validation_that_is_not_finite_is_left_out_and_said_and_training_goes_on(
  source, make_config, tmp_path, capsys
):
  (tmp_path / 'bad.txt').write_bytes(b'the cat \x07 sat')
  good, bad = source, f'files:{tmp_path}/bad.txt@all'
  config = make_config(num_steps=10, **{'data.validation': [good, bad], 'model.poison_byte': 7})
  values = training.train(config, tmp_path / 'two')
  said = capsys.readouterr().out
  assert re.search(r'step 10: no validation score: .* document 0 of .*bad.txt', said)
  for found in (values, lines(tmp_path / 'two')[-1]):
    scores = {name for name in found if name.startswith('validation')}
    assert {f'validation_bpb/{good}', f'validation_eos_bits/{good}'} <= scores
    assert 'validation_bpb' not in scores and not any(name.endswith(bad) for name in scores)
  with pytest.raises(ValueError, match=r'no checkpoint in .* has a validation score'):
    training.load(tmp_path / 'two', 'best')
  values = training.train(
    make_config(num_steps=10, **{'data.validation': bad, 'model.poison_byte': 7}), tmp_path / 'one'
  )
  assert not any(name.startswith('validation') for name in values) and runs.steps(tmp_path / 'one') == [5, 10]


def test_best_needs_a_score_and_a_step_must_exist(whole, tmp_path):
  with pytest.raises(FileNotFoundError, match=r'there is no checkpoint of step 7 in .* \(it has 15, 20\)'):
    training.load(whole, 7)
  shutil.copytree(whole / 'checkpoints' / '15', tmp_path / 'checkpoints' / '15')
  shutil.copy(whole / 'config.json', tmp_path)
  with pytest.raises(ValueError, match=r'no checkpoint in .* has a validation score'):
    training.load(tmp_path, 'best')
  with pytest.raises(ValueError, match="step must be a number or 'best', got 'last'"):
    training.load(whole, 'last')
  with pytest.raises(FileNotFoundError, match=r'is not a work directory: it has no config\.json'):
    training.load(tmp_path / 'checkpoints')
  with pytest.raises(FileNotFoundError, match='is not a work directory: there is no such directory'):
    training.load(tmp_path / 'nothing')


def test_what_the_command_line_can_set_trains(source, make_config, tmp_path):
  config, second = make_config(), f'noise:upper_case:{source}'
  entries = [f"data.source=(('{source}', 3.0), ('{second}', 1.0))", f"data.validation=('{second}',)", 'num_steps=1']
  entries += ['optimizer.lr_multipliers=paper', 'eval.seq_len=16', 'optimizer.groups.head.pattern=^head']
  config_flag.change(config, entries)
  training.train(config, tmp_path)
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert saved['data']['source'] == [[source, 3.0], [second, 1.0]] and saved['data']['validation'] == [second]
  assert saved == config_lib.resolve(saved) and saved['eval']['seq_len'] == 16
  assert saved['optimizer']['groups'] == {'head': {'pattern': '^head', 'multiplier': 1.0, 'frozen_steps': 0}}


@pytest.fixture(scope='module')
def of_subwords(source, tmp_path_factory):
  """A run of subwords from sub.json of the directory around it, stopped at step 10; its config as a user writes it."""
  directory = tmp_path_factory.mktemp('subwords')
  tiny_subwords.write(directory / 'sub.json', vocabulary=300)
  config = tiny.get_config(source).to_dict() | {'num_steps': 10}
  config['model'] |= {'words': 'whitespace(max_bytes=16)', 'units': 'subword(file=sub.json)'}
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(directory)
    training.train(config, 'a,b=1')
  return directory, config


def test_a_work_directory_holds_the_file_of_its_units_wherever_both_are(of_subwords, tmp_path, monkeypatch, capsys):
  directory, config = of_subwords
  content = (directory / 'sub.json').read_bytes()
  assert (directory / 'a,b=1' / 'units.json').read_bytes() == content and not list(directory.glob('**/*partial*'))
  workdir = pathlib.Path(shutil.copytree(directory / 'a,b=1', tmp_path / 'moved, away'))
  monkeypatch.chdir(tmp_path)
  loaded = training.load('moved, away')
  monkeypatch.chdir('/')
  for spec in (loaded.config['model']['units'], loaded.model.marks['units']):
    assert units.file_of(spec) == (str(workdir / 'units.json'), units.digest_of(content))
  assert len(units.parse(loaded.model.marks['units']).table) == 300
  # The same command goes on without the file, and where another directory has it.
  training.train(config | {'num_steps': 11}, workdir)
  assert f"'sub.json' is no longer what it was: its copy {workdir}/units.json is used" in capsys.readouterr().out
  (tmp_path / 'elsewhere.json').write_bytes(content)
  moved = f'subword(file={tmp_path}/elsewhere.json)', units.in_file('nothing.json', units.digest_of(content))
  for step, spec in enumerate(moved, 12):
    model = config['model'] | {'units': spec}
    training.train(config | {'num_steps': step, 'model': model}, workdir)
  assert training.load(workdir).step == 13 and (workdir / 'units.json').read_bytes() == content
  # A next run takes parameters, and the file, from there.
  model = config['model'] | {'units': loaded.model.marks['units']}
  training.train(config | {'num_steps': 1, 'model': model, 'init_from': str(workdir)}, tmp_path / 'next')
  assert (tmp_path / 'next' / 'units.json').read_bytes() == content


def test_other_units_are_refused(of_subwords, tmp_path):
  directory, config = of_subwords
  workdir, other = shutil.copytree(directory / 'a,b=1', tmp_path / 'run'), tmp_path / 'other.json'
  other.write_bytes((directory / 'sub.json').read_bytes() + b'\n')
  changed = config | {'model': config['model'] | {'units': f'subword(file={other})'}}
  with pytest.raises(ValueError, match=r"another config \(model\.units: 'subword\(file=units\.json,digest="):
    training.train(changed | {'num_steps': 12}, workdir)
  with pytest.raises(ValueError, match=r'init_from .* has units subword\(digest=.* and the model'):
    training.train(changed | {'init_from': str(workdir)}, tmp_path / 'next')
  assert not (tmp_path / 'next').exists()


def test_a_run_of_an_earlier_version_reads_the_file_where_it_is(of_subwords, tmp_path, monkeypatch):
  directory, config = of_subwords
  workdir = pathlib.Path(shutil.copytree(directory / 'a,b=1', tmp_path / 'run'))
  (workdir / 'units.json').unlink()
  for spec in ('subword(file=sub.json)', f'subword(file={directory}/sub.json)'):
    saved = json.loads((workdir / 'config.json').read_text())
    saved['model']['units'] = spec
    (workdir / 'config.json').write_text(json.dumps(saved))
    monkeypatch.chdir(directory)
    assert training.load(workdir).step == 10
  monkeypatch.chdir(tmp_path)
  assert training.load(workdir).step == 10
  training.train(config | {'model': config['model'] | {'units': spec}, 'num_steps': 11}, workdir)  # and keeps it now
  assert (workdir / 'units.json').read_bytes() == (directory / 'sub.json').read_bytes()


@pytest.mark.parametrize('workers', [0, 1])
def test_a_model_of_words_trains_and_is_evaluated_on_marked_batches(make_config, tmp_path, workers):
  config = make_config(**{'model.words': 'whitespace(max_bytes=16)', 'data.workers': workers, 'num_steps': 10})
  values = training.train(config, tmp_path)
  assert 4.0 < values['bytes_per_word'] < 4.6  # of the words of `source`, most of three letters and a space
  assert values['validation_bytes_per_chunk_0'] == pytest.approx(values['bytes_per_word'], rel=0.1)
  # Where words begin: behind white space, by a rule, and never inside a character.
  assert values['validation_behind_whitespace_f1_0'] == 1 and values['validation_on_whitespace_f1_0'] == 0
  assert values['validation_inside_codepoint_0'] == values['validation_entropy_bits_0'] == 0
  assert values['validation_f_minus_g_0'] == 0 < values['validation_size_cv_0'] < 1
  assert values['validation_enrichment_0'] > 0 and 'validation_enrichment_prev_z_0' in values
