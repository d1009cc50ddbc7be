"""A short run of every target of tests.fuzz, its own instruments, and what it has found once."""

import gzip
import json
import os
import pathlib
import pickle
import socket
import struct
import subprocess
import sys
import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tokenizers
from absl import flags
from ml_collections import config_dict

import byte_models
import hnet
from byte_models import gguf_file, llama
from configs import quickstart
from evaluation import generation
from hnet import parts
from layers import checks, weights
from layers.stack import parse_layout
from tests.fuzz import mutation, running, sandbox
from text import command_line, mixture, noise, open_corpus, prepare, prepared, records, sources, synthetic, units, words
from training import command_line as training_command_line
from training import config as config_lib
from training import config_flag

ROOT = pathlib.Path(__file__).parents[1]
# Those that compile nothing; the rest takes minutes.
QUICK = 'config,overrides,strings,tokenizer,gguf,files,parquet,prepared,tfds,splitting'


def test_a_short_run_leaves_nothing_uncaught(tmp_path):
  command = [sys.executable, '-m', 'tests.fuzz', '--cases=15', f'--targets={QUICK}', f'--keep={tmp_path}', '--seed=7']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
  assert '| all | 150 |' in done.stdout


# --- the instruments


def target(run, **more):
  return running.Target('probe', lambda seeds: seeds.mkdir(exist_ok=True), lambda *_: None, run, **more)


def outcome(run, tmp_path, **more):
  tally = running.Tally()
  running.run(target(run, **more), tmp_path, 0, 0, seconds=30, cases=1, keep=None, tally=tally)
  return tally


def test_what_works_and_what_is_refused_is_counted(tmp_path):
  tally = outcome(lambda case: None, tmp_path)
  assert (tally.worked, tally.refused, tally.problems) == (1, 0, [])


@pytest.mark.parametrize(
  ('run', 'found'),
  [
    (lambda case: [][1], 'IndexError'),
    (lambda case: int('x'), 'ValueError'),
    (lambda case: os.abort(), 'died'),
    (lambda case: time.sleep(20), 'no end'),
    (lambda case: np.ones(5 * 10**7), 'MB of memory'),
    (lambda case: open(case.parent / 'elsewhere', 'w').close(), 'elsewhere'),
    (lambda case: os.system('true'), 'os.system'),
    (lambda case: eval('1 + 1'), 'compile'),
    (lambda case: pickle.loads(b'cos\nsystem\n.'), 'pickle.find_class'),
    (lambda case: socket.create_connection(('localhost', 9)), 'socket'),
  ],
)
def test_each_instrument_sees_what_it_is_there_for(run, found, tmp_path):
  [(_, problem)] = outcome(run, tmp_path, seconds=2.0 if found == 'no end' else 60.0).problems
  assert found in problem


def test_a_case_is_the_same_whatever_was_run_before():
  draw = lambda number: mutation.edit(running.generator(3, 'config', number), {'a': [1, 2], 'b': {'c': 'm4'}})
  assert str(draw(5)) == str(draw(5)) != str(draw(6))


def test_an_error_of_the_system_counts_where_it_names_the_file(tmp_path):
  with pytest.raises(OSError) as raised:
    (tmp_path / 'absent').read_bytes()
  assert sandbox.told(raised.value)[1] == 'refused'


# --- defects that it found


def test_a_sentence_is_one_short_line_without_what_a_terminal_obeys():
  told = command_line.sentence(ValueError('tensor \x1b]0;x\x07 of\n\na\ud800 \u202ename' + 'y' * 10**6 + ' remedy'))
  assert told.isprintable() and len(told) < 1500 and told.endswith('remedy')
  assert told.startswith('tensor \\x1b]0;x\\x07 of a\\ud800 \\u202ename')


@pytest.mark.parametrize('family', [{}, [], None, 3])
def test_a_family_that_is_no_name_is_refused(family):
  with pytest.raises(ValueError, match='family'):
    byte_models.parse({'family': family})


@pytest.mark.parametrize(
  'call',
  [
    lambda: checks.integer(10**12, 'd_model', 1),
    lambda: checks.number(10**400, 'rope_theta'),
    lambda: checks.number(float('nan'), 'rope_theta'),
    lambda: parse_layout('T1000000000'),
    lambda: parts.parse('boundary', 'stride(' + 5000 * '9' + ')'),
    lambda: parts.boundaries.Stride.chunk_size(10**400),
    lambda: parse_layout('m1' * 10**5),
    lambda: words.parse('hat(max_bytes=1000000000000)'),
    lambda: synthetic.parse('markov(documents=1000000,length=1048576)'),
    lambda: sources.parse('noise:drop:' * 3000 + 'python_docs').open('train'),
    lambda: units.parse('subword(file=a\0b)'),
    lambda: noise.parse('repeat(most=1000000000000)'),
    lambda: mixture.parse_sources([('python_docs', 10**400)]),
    lambda: open_corpus('files:a\0b', 'train'),
    lambda: open_corpus('files:\ud800/*.txt', 'train'),
    lambda: noise.parse('\x1b\ue000' * 3000),
    lambda: llama.parse({'rope_parameters': 3}),
    lambda: llama.parse({key: 10**12 for key in llama._SIZES}),
    lambda: generation.check([b'a'], 10**12, 1.0, 1.0, 0),
  ],
)
def test_sizes_and_names_that_no_model_has_are_refused_before_anything_is_made(call):
  with pytest.raises((ValueError, OSError)) as raised:
    call()
  assert sandbox.told(raised.value)[1] == 'refused'


def test_a_whole_number_above_every_float_is_refused_where_a_config_has_a_number():
  values = config_lib.resolve(quickstart.get_config())
  values['loss_weights'] = {'ratio': 10**400}
  with pytest.raises(ValueError, match='loss_weights.ratio must be a finite number'):
    config_lib.parse(values)


def test_stages_inside_each_other_are_counted():
  layout = ['T1']
  for _ in range(900):
    layout = ['m1', layout, 'm1']
  with pytest.raises(ValueError, match='more than 16 stages'):
    hnet.parse({'family': 'hnet', 'arch_layout': layout, 'd_model': [8], 'd_intermediate': [8]})


def test_lists_inside_each_other_are_counted_before_they_are_walked(tmp_path):
  deep = []
  for _ in range(600):
    deep = [deep]
  with pytest.raises(ValueError, match='at more than 64 levels'):
    byte_models.parse({'family': 'tfree_hat', 'rope_scaling': deep})
  (tmp_path / 'config.json').write_text(json.dumps({'a': deep}))
  with pytest.raises(ValueError, match='config.json has lists or mappings inside each other at more than 64 levels'):
    weights.read_json(tmp_path / 'config.json')
  for _ in range(10_000):
    deep = [deep]
  with pytest.raises(ValueError, match='the config holds a value that JSON cannot save'):
    config_lib.resolve({'model': deep})


@pytest.mark.parametrize('ending', ['gz', 'zst'])
def test_a_small_file_that_unpacks_without_end_is_refused(ending, tmp_path, monkeypatch):
  monkeypatch.setattr(records, 'FREE_UNPACKED', 10**6)
  zeros = bytes(3 * 10**6)
  packed = gzip.compress(zeros) if ending == 'gz' else pyarrow.Codec('zstd').compress(zeros, asbytes=True)
  (tmp_path / f'a.txt.{ending}').write_bytes(packed)
  with pytest.raises(ValueError, match='unpacks to more than 200 times its size'):
    open_corpus(f'files:{tmp_path}/a.txt.{ending}@all', 'train')


def test_a_value_in_every_row_of_a_parquet_file_is_held_once_and_counted(tmp_path, monkeypatch):
  monkeypatch.setattr(records, 'FREE_UNPACKED', 10**7)
  column = pyarrow.DictionaryArray.from_arrays(np.zeros(1000, np.int32), ['a' * 100_000])
  pyarrow.parquet.write_table(pyarrow.table({'text': column}), tmp_path / 'a.parquet', compression='zstd')
  with pytest.raises(ValueError, match='unpacks to more than'):
    open_corpus(f'files:{tmp_path}/a.parquet#text@all', 'train')


def test_two_columns_of_one_name_are_refused(tmp_path):
  table = pyarrow.Table.from_arrays([pyarrow.array(['a']), pyarrow.array(['b'])], ['text', 'text'])
  pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
  with pytest.raises(ValueError, match='several columns'):
    open_corpus(f'files:{tmp_path}/a.parquet#text@all', 'train')


def test_a_parquet_file_with_a_column_of_no_utf8_name_is_refused(tmp_path):
  pyarrow.parquet.write_table(pyarrow.table({'texts': ['a']}), tmp_path / 'a.parquet', store_schema=False)
  content = (tmp_path / 'a.parquet').read_bytes()
  (tmp_path / 'a.parquet').write_bytes(content.replace(b'texts', b'te\xf8ts'))
  with pytest.raises(ValueError, match='is not Parquet'):
    open_corpus(f'files:{tmp_path}/a.parquet#text@all', 'train')


class Documents:
  key = 'documents'

  def __iter__(self):
    return iter([b'one', b'two and more', b'three'])


@pytest.fixture
def directory(tmp_path):
  prepare.prepare([Documents()], tmp_path / 'some', source='memory', splits=prepare.ByHash(0, 0))
  return tmp_path / 'some'


def reseal(directory, change):
  """Metadata that were changed by somebody who knows how to make the checksums fit."""
  metadata = json.loads((directory / prepared.METADATA).read_bytes())
  change(metadata)
  for split in metadata['splits'].values():
    for file in (*split['index'], *split['shards']):
      if isinstance(file, dict) and (directory / str(file.get('file'))).exists():
        file |= prepared.describe_file(directory / file['file'])
  metadata['metadata_sha256'] = prepared.metadata_digest(metadata)
  (directory / prepared.METADATA).write_text(json.dumps(metadata))


@pytest.mark.parametrize(
  'change',
  [
    lambda metadata: metadata['splits']['train']['shards'].append(3),
    lambda metadata: metadata['splits']['train']['shards'][0].pop('file'),
    lambda metadata: metadata['splits']['train']['shards'][0].update(documents='2'),
    lambda metadata: metadata['splits']['train']['shards'][0].update(documents=-1),
    lambda metadata: metadata.update(name=3),
  ],
)
def test_resealed_metadata_of_another_form_are_refused(directory, change):
  reseal(directory, change)
  with pytest.raises(ValueError, match='does not say what each split consists of'):
    prepared.open_prepared(directory, 'train')


@pytest.mark.parametrize('name', ['../../secret', '/etc/passwd', '..', ''])
def test_a_prepared_directory_names_only_files_of_its_own(directory, name):
  def change(metadata):
    metadata['splits']['train']['shards'][0]['file'] = name

  metadata = json.loads((directory / prepared.METADATA).read_bytes())
  change(metadata)
  metadata['metadata_sha256'] = prepared.metadata_digest(metadata)
  (directory / prepared.METADATA).write_text(json.dumps(metadata))
  with pytest.raises(ValueError, match='does not say what each split consists of'):
    prepared.open_prepared(directory, 'train')


@pytest.mark.parametrize('length', [-1, 0, 2**62])
def test_lengths_that_cannot_be_are_refused(directory, length):
  file = directory / prepared.index_file('lengths', 'train')
  lengths = np.load(file)
  lengths[0] = length
  np.save(file, lengths)
  reseal(directory, lambda metadata: None)
  with pytest.raises(ValueError, match='impossible lengths'):
    prepared.open_prepared(directory, 'train')


def test_an_offset_behind_the_end_is_refused_where_it_is_read(directory):
  file = directory / prepared.index_file('offsets', 'train')
  offsets = np.load(file)
  offsets[0] = 2**40
  np.save(file, offsets)
  reseal(directory, lambda metadata: None)
  with pytest.raises(ValueError, match='ends before document 0'):
    list(prepared.open_prepared(directory, 'train'))


def test_a_header_that_python_cannot_parse_is_a_sentence(directory):
  header = b"{'descr': ('<i8', 'fortran_order': False".ljust(117) + b'\n'  # a bracket that nothing closes
  file = directory / prepared.index_file('lengths', 'train')
  file.write_bytes(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header)
  reseal(directory, lambda metadata: None)
  with pytest.raises(ValueError, match='is not an array'):
    prepared.open_prepared(directory, 'train')


def test_an_empty_shard_is_a_sentence(directory):
  shard = prepared.read_metadata(directory)['splits']['train']['shards'][0]['file']
  (directory / shard).write_bytes(b'')
  reseal(directory, lambda metadata: None)
  with pytest.raises(ValueError, match='is empty'):
    list(prepared.open_prepared(directory, 'train'))


def test_a_data_set_without_splits_is_a_sentence(directory):
  path = directory / 'dataset_info.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), 'splits': []}))
  with pytest.raises(ValueError, match="has no split 'train'"):
    open_corpus(f'tfds:{directory}', 'train')


@pytest.mark.parametrize('template', ['../../{DATASET}-{SPLIT}', '/etc/{DATASET}', 'a\0b'])
def test_a_data_set_names_only_files_of_its_own(directory, template):
  path = directory / 'dataset_info.json'
  path.write_text(path.read_text().replace('{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}', json.dumps(template)[1:-1]))
  with pytest.raises(ValueError, match='outside its directory'):
    open_corpus(f'tfds:{directory}', 'train')


class PanicException(BaseException):
  """What a panic in Rust arrives as."""


def test_a_panic_of_a_library_in_rust_is_a_sentence(tmp_path, monkeypatch):
  def panic(text):
    raise PanicException('index out of bounds')

  (tmp_path / 'a.json').write_text('{}')
  monkeypatch.setattr('tokenizers.Tokenizer.from_str', panic)
  with pytest.raises(ValueError, match='is damaged or no tokenizer.json'):
    units.parse(f'subword(file={tmp_path}/a.json)')


def test_units_that_do_not_spell_a_word_are_a_sentence(tmp_path):
  model = tokenizers.models.BPE({character: index for index, character in enumerate(units.alphabet())}, [])
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  content = json.loads(tokenizer.to_str())
  content['model']['vocab']['b'] = content['model']['vocab']['a']  # two units of one number
  (tmp_path / 'a.json').write_text(json.dumps(content))
  with pytest.raises(ValueError, match='do not spell'):
    units.parse(f'subword(file={tmp_path}/a.json)')(b'ab')


@pytest.mark.parametrize('key', ['pythonClassName', 'python_class_name', 'type'])
def test_a_data_set_does_not_say_what_is_imported(directory, key):
  (directory / 'features.json').write_text(json.dumps({key: 'antigravity.Text'}))
  with pytest.raises(ValueError, match="foreign class 'antigravity.Text'"):
    open_corpus(f'tfds:{directory}', 'train')
  assert 'antigravity' not in sys.modules


@pytest.mark.parametrize(
  'content',
  [
    b'GGUF\x03\0\0\0' + struct.pack('<QQ', 0, 2**62),  # pairs
    b'GGUF\x03\0\0\0' + struct.pack('<QQQ', 0, 1, 1) + b'x' + struct.pack('<IIQ', 9, 0, 2**62),  # an array
  ],
)
def test_a_gguf_file_cannot_claim_more_than_it_has(content, tmp_path):
  pytest.importorskip('gguf')
  (tmp_path / 'a.gguf').write_bytes(content)
  with pytest.raises(ValueError, match='is not a whole GGUF file'):
    gguf_file.read(tmp_path / 'a.gguf')


def test_deep_json_is_a_sentence(tmp_path):
  (tmp_path / 'config.json').write_text('[' * 100_000)
  with pytest.raises(ValueError, match='is not JSON'):
    weights.read_json(tmp_path / 'config.json')
  (tmp_path / prepared.METADATA).write_text('[' * 100_000)
  with pytest.raises(ValueError, match='is not JSON'):
    prepared.read_metadata(tmp_path)


@pytest.mark.parametrize(
  ('entry', 'sentence'),
  [
    ('data.source.x=1', r"^unknown config key data\.source\.x: data\.source is 'a' and has no keys"),
    ('data.source=("\udcff', '^config key data.source: .* cannot be read'),
    ('model.x={"a.b": 1}', r'^unknown config key model\.x'),
    (f'model.x={"(" * 100_000}', '^config key model.x: .* cannot be read'),
    ('optimizer.eps=1' + '0' * 400, None),
    (f'num_steps={"9" * 5000}', None),  # more digits than Python reads: `config.parse` says what it must be
  ],
)
def test_an_override_that_cannot_be_is_a_sentence(entry, sentence):
  config = config_dict.ConfigDict({'data': {'source': 'a'}})
  if sentence is None:
    config_flag.change(config, [entry])
    return
  with pytest.raises(ValueError, match=sentence):
    config_flag.change(config, [entry])


def test_a_flag_with_a_name_that_is_no_name_is_a_sentence(capsys):
  known = flags.FlagValues()
  flags.DEFINE_string('config', '', '', flag_values=known)
  with pytest.raises(SystemExit):
    training_command_line._guarded(known, ['train.py', '--' + 'c' * 2000])
  assert capsys.readouterr().err.startswith('error: a flag in the command has a name of a thousand characters')


GUIDED = """
import dataclasses, runpy
from tests.fuzz.targets import TARGETS
if {broken}:
  target = TARGETS['splitting']
  TARGETS['splitting'] = dataclasses.replace(target, run=lambda case: [].pop(), prepare=lambda seeds: None)
runpy.run_module('tests.fuzz.guided', run_name='__main__')
"""


@pytest.mark.parametrize('broken', [False, True])
def test_a_guided_run_keeps_the_input_that_nothing_catches(broken, tmp_path):
  pytest.importorskip('atheris')
  code = GUIDED.format(broken=broken)
  command = [sys.executable, '-c', code, '--target=splitting', '--minutes=0.05', f'--keep={tmp_path}']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert bool(done.returncode) == broken, done.stderr[-3000:]
  assert [path.name.startswith('splitting-crash') for path in tmp_path.iterdir()] == [True] * broken
