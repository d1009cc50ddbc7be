"""Text: plain and packed files, JSON lines, Parquet, prepared directories, TensorFlow Datasets, words of any bytes."""

import gzip
import json
import pathlib
import random
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet

import text
from tests.fuzz import mutation
from tests.fuzz.running import Target
from text import marks, prepare, prepared, words
from text.mixture import MixedRows, Mixture

DOCUMENTS = [f'document {number}, caf\u00e9 \u4f60\u597d. '.encode() * (number % 5 + 1) for number in range(40)]
_BOMB = 400_000_000  # bytes of zeros


def _zst(data: bytes) -> bytes:
  return pyarrow.Codec('zstd').compress(data, asbytes=True)


# --- files


def _prepare_files(seeds: pathlib.Path) -> None:
  if not seeds.exists():
    seeds.mkdir()
    lines = b''.join(
      json.dumps({'id': number, 'text': document.decode()}).encode() + b'\n'
      for number, document in enumerate(DOCUMENTS)
    )
    for name, data in (('data.txt', DOCUMENTS[4]), ('data.jsonl', lines)):
      (seeds / name).write_bytes(data)
      (seeds / f'{name}.gz').write_bytes(gzip.compress(data, mtime=0))
      (seeds / f'{name}.zst').write_bytes(_zst(data))
    zeros = bytes(_BOMB)
    (seeds / 'bomb.gz').write_bytes(gzip.compress(zeros, 9, mtime=0))
    (seeds / 'bomb.zst').write_bytes(_zst(zeros))
  for path in sorted(seeds.glob('data*')):
    _read(path)


def _make_files(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  source = rng.choice(sorted(seeds.glob('data*')))
  data, kind = source.read_bytes(), rng.randrange(40)
  path = case / source.name
  if kind == 0:  # another kind of file under this name
    data = rng.choice(sorted(seeds.glob('data*'))).read_bytes()
  elif kind == 1 and source.suffix in ('.gz', '.zst'):
    shutil.copy(seeds / f'bomb{source.suffix}', path)
    return
  elif kind == 2:  # a sparse file: one long line of zeros
    with open(path, 'wb') as file:
      file.truncate(10**8)
    return
  elif kind < 12 and '.jsonl' in source.name:
    records = [{'id': 1, 'text': 'a'}, {'text': 'b', 'id': 2}]
    data = b'\n'.join(mutation.json_bytes(rng, mutation.edit(rng, records[number % 2])) for number in range(4))
    data = gzip.compress(data) if source.suffix == '.gz' else _zst(data) if source.suffix == '.zst' else data
  elif kind < 16:
    data = rng.randbytes(rng.choice((0, 1, 100, 10_000)))
  else:
    data = mutation.damage(rng, data, head=16)
  path.write_bytes(data)


def _read(path: pathlib.Path) -> None:
  field = '#text' if '.jsonl' in path.name or '.parquet' in path.name else ''
  list(text.open_corpus(f'files:{path}{field}@all', 'train'))


def _run_file(case: pathlib.Path) -> None:
  _read(next(case.iterdir()))


# --- Parquet


def _prepare_parquet(seeds: pathlib.Path) -> None:
  if not seeds.exists():
    seeds.mkdir()
    table = pyarrow.table({'id': list(range(40)), 'text': [document.decode() for document in DOCUMENTS]})
    for compression in ('none', 'snappy', 'zstd', 'gzip'):
      pyarrow.parquet.write_table(table, seeds / f'{compression}.parquet', compression=compression, row_group_size=15)
    (seeds / 'packed.parquet.gz').write_bytes(gzip.compress((seeds / 'none.parquet').read_bytes()))
    bomb = pyarrow.table({'text': pyarrow.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), ['a' * 100_000])})
    pyarrow.parquet.write_table(
      bomb.cast(pyarrow.schema([('text', pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))])),
      seeds / 'bomb',
      compression='zstd',
      store_schema=False,
    )
    kinds = {
      'text': pyarrow.array([[1], None]),
      'struct': pyarrow.array([{'text': 'a'}, None]),
      'null': pyarrow.array([None, None]),
      'number': pyarrow.array([1, 2]),
      'none': pyarrow.array(['a', None]),
      'bytes': pyarrow.array([b'\xff', b'\xfe\x00']),
    }
    for name, column in kinds.items():
      pyarrow.parquet.write_table(pyarrow.table({'text': column}), seeds / f'kind-{name}')
    pyarrow.parquet.write_table(
      pyarrow.Table.from_arrays([pyarrow.array(['a']), pyarrow.array([1])], ['text', 'text']), seeds / 'kind-twice'
    )
  for path in sorted(seeds.glob('*.parquet*')):
    _read(path)


def _make_parquet(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  kind = rng.randrange(30)
  if kind < 2:
    shutil.copy(seeds / 'bomb', case / 'data.parquet')
    return
  if kind < 5:
    shutil.copy(rng.choice(sorted(seeds.glob('kind-*'))), case / 'data.parquet')
    return
  source = rng.choice(sorted(seeds.glob('*.parquet*')))
  data = source.read_bytes()
  if kind < 20 and source.suffix != '.gz':  # the footer, where all counts and places stand
    size = int.from_bytes(data[-8:-4], 'little') + 8
    footer = mutation.damage(rng, data[-size:-8], most=2)
    data = data[:-size] + footer + len(footer).to_bytes(4, 'little') + b'PAR1'
  else:
    data = mutation.damage(rng, data)
  (case / ('data.parquet.gz' if source.suffix == '.gz' else 'data.parquet')).write_bytes(data)


# --- prepared directories


class _Documents:
  key = 'documents'

  def __iter__(self):
    return iter(DOCUMENTS)


def _prepare_prepared(seeds: pathlib.Path) -> None:
  if not seeds.exists():
    prepare.prepare([_Documents()], seeds, source='memory', splits=prepare.ByHash(0.2, 0.2), shard_bytes=900)
  _run_prepared_in(seeds)


def _make_prepared(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  directory = shutil.copytree(seeds, case / 'data')
  metadata, is_sealed = json.loads((directory / prepared.METADATA).read_bytes()), rng.random() < 0.9
  for path in rng.sample(sorted(directory.iterdir()), rng.choice((0, 1, 1, 2))):
    if path.name != prepared.METADATA:
      _spoil(rng, path)
  if is_sealed:  # as somebody who means harm would do it
    for description in metadata['splits'].values():
      for file in (*description['index'], *description['shards']):
        if (directory / file['file']).exists():
          file |= prepared.describe_file(directory / file['file'])
  if rng.random() < 0.5:
    metadata = mutation.edit(rng, metadata)
  if is_sealed and isinstance(metadata, dict):
    metadata['metadata_sha256'] = prepared.metadata_digest(metadata)
  (directory / prepared.METADATA).write_bytes(mutation.json_bytes(rng, metadata))


def _spoil(rng: random.Random, path: pathlib.Path) -> None:
  kind = rng.randrange(6)
  if kind == 0:
    path.unlink()
  elif path.suffix == '.npy' and kind < 4:
    array = np.load(path)
    if kind == 1:
      kind_of_array, size = rng.choice(('<i8', '|O', '<i4', '|V8')), mutation.number(rng)
      header = f"{{'descr': {kind_of_array!r}, 'fortran_order': False, 'shape': ({size},), }}"
      if rng.random() < 0.3:
        header = rng.choice(mutation.STRINGS)[:9000].encode('utf-8', 'replace').decode()
      text_bytes = header.encode('latin-1', 'replace') + b'\n'
      path.write_bytes(b'\x93NUMPY\x02\x00' + len(text_bytes).to_bytes(4, 'little') + text_bytes + array.tobytes())
    else:
      if len(array):
        array[rng.randrange(len(array))] = rng.choice((0, -1, 1, 10**6, 2**40, 2**62, -(2**63)))
      with open(path, 'wb') as file:
        np.save(file, array)
  elif path.suffix == '.npy' and kind == 4:
    with open(path, 'wb') as file:
      rng.choice(
        (lambda: np.savez(file, a=np.arange(3)), lambda: np.save(file, np.array([{}, None]), allow_pickle=True))
      )()
  else:
    path.write_bytes(mutation.damage(rng, path.read_bytes(), head=200))


def _run_prepared(case: pathlib.Path) -> None:
  _run_prepared_in(case / 'data')


def _run_prepared_in(directory: pathlib.Path) -> None:
  prepared.verify(directory)
  for split in ('train', 'validation'):
    corpus = text.open_corpus(f'prepared:{directory}', split)
    MixedRows(Mixture([corpus]), 32, 0).batch(0, 40)
    for document in corpus:
      if not document:
        raise AssertionError('a document of zero bytes')


# --- TensorFlow Datasets


def _prepare_tfds(seeds: pathlib.Path) -> None:
  if not seeds.exists():
    prepare.prepare([_Documents()], seeds, source='memory', splits=prepare.ByHash(0.2, 0.2))
  _run_tfds_in(seeds)


def _make_tfds(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  directory = shutil.copytree(seeds, case / 'data')
  names = [
    'features.json',
    'features.json',
    'dataset_info.json',
    'dataset_info.json',
    *(path.name for path in directory.glob('*array_record*')),
  ]
  path = directory / rng.choice(names)
  if path.suffix != '.json' or rng.random() < 0.1:
    path.write_bytes(mutation.damage(rng, path.read_bytes(), head=200))
    return
  values = json.loads(path.read_bytes())
  if path.name == 'features.json' and rng.random() < 0.4:
    inner = values['featuresDict']['features']['text']
    rng.choice((values, inner))['pythonClassName'] = rng.choice(
      ('antigravity.Text', 'this.Text', 'os.system', 'subprocess.Popen', 'tests.fuzz.__main__.X', 'pdb.Pdb', 'x', '')
    )
  else:
    values = mutation.edit(rng, values)
  path.write_bytes(mutation.json_bytes(rng, values))


def _run_tfds(case: pathlib.Path) -> None:
  _run_tfds_in(case / 'data')


def _run_tfds_in(directory: pathlib.Path) -> None:
  list(text.open_corpus(f'tfds:{directory}', 'train'))


# --- words and units of any bytes


def _prepare_splitting(seeds: pathlib.Path) -> None:
  seeds.mkdir(exist_ok=True)
  (seeds / 'document').write_bytes(DOCUMENTS[3])
  _run_splitting(seeds)


def hostile_text(rng: random.Random, most: int) -> bytes:
  """Up to about `most` bytes: text, what is not UTF-8, symbols of the models, marks that pile up."""
  pieces, size = [], rng.randrange(most + 1)
  parts = (
    b'\xfe',
    b'\xff',
    b'\xc0',
    b'\x00',
    b'\xed\xa0\x80',
    b'\xf4\x90\x80\x80',
    b'\xe2\x80',
    '\u0301'.encode() * 40,
    '\u202e'.encode(),
    '\u200d'.encode() * 9,
    '\U0001f468\u200d\U0001f469\u200d\U0001f467'.encode(),
    b' ' * 50,
    b'\r\n',
    b'a' * 100,
    b"don't 3.14 ",
    '\ufdfa\u1100\u1161\u11a8'.encode(),
    b'\x1f',
  )
  while sum(map(len, pieces)) < size:
    pieces.append(rng.choice((rng.choice(parts), rng.randbytes(rng.randrange(30)), rng.choice(DOCUMENTS)[:30])))
  return b''.join(pieces)[:most]


def _make_splitting(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  del seeds
  (case / 'document').write_bytes(hostile_text(rng, rng.choice((20, 300, 5000))))


def _run_splitting(case: pathlib.Path) -> None:
  document = (case / 'document').read_bytes()
  for spec in ('hat(max_bytes=9)', 'whitespace(max_bytes=7)', 'uax29(max_bytes=8)', 'fixed(size=3)'):
    splitter = words.parse(spec)
    ends = [0, *splitter(document).tolist()]
    sizes = np.diff(ends)
    if ends[-1] != len(document) or (len(document) and not (sizes.min() > 0 and sizes.max() <= splitter.limit)):
      raise AssertionError(f'{spec}: no words: {ends}')
    for spelling in ('byte', 'char(limit=0x110000)') if document else ():
      marks.mark(text.Batch.of([document[:500]]), {'words': spec, 'units': spelling, 'script': 'script'})


TARGETS = (
  # All text is held in memory, twice while it is joined, and characters of JSON take up to four bytes.
  Target('files', _prepare_files, _make_files, _run_file, factor=12),
  Target('parquet', _prepare_parquet, _make_parquet, _run_file, factor=12, constant=500),
  Target('prepared', _prepare_prepared, _make_prepared, _run_prepared),
  Target('tfds', _prepare_tfds, _make_tfds, _run_tfds),
  Target('splitting', _prepare_splitting, _make_splitting, _run_splitting),
)
