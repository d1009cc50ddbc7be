"""Files of users: by which names they are reached, what is no file, and records as people have them."""

import contextlib
import errno
import glob
import os
import re
import socket

import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byte_models import gguf_file, token_bits
from hnet import convert
from layers import weights
from tests.text.opening import DOCUMENTS, content, jsonl, parquet, write, zstd
from text import globbing, open_corpus, sources, units
from text.corpora import packages

# --- names


def test_a_file_is_one_document_by_whatever_name_it_is_reached(tmp_path, monkeypatch):
  (tmp_path / 'data').mkdir()
  write(tmp_path / 'data' / 'a.txt', b'one')
  write(tmp_path / 'data' / 'b.txt', b'two')
  (tmp_path / 'data' / 'link.txt').symlink_to('a.txt')
  os.link(tmp_path / 'data' / 'b.txt', tmp_path / 'hard.txt')
  (tmp_path / 'other').symlink_to('data')
  (tmp_path / 'data' / 'loop').symlink_to('..')
  monkeypatch.chdir(tmp_path)
  for globs in (
    'data/*.txt',
    'data/*.txt,./data/*.txt',
    f'data/a*,{tmp_path}/data/*.txt',
    '**/*.txt',
    '*/*.txt,hard.txt',
  ):
    corpus = open_corpus(f'files:{globs}@all', 'train')
    assert sorted(content(corpus)) == [b'one', b'two'], globs
    assert len([group for group in sources.document_groups(f'files:{globs}')]) == 2
  assert open_corpus('files:data/a.txt,./data/a.txt@all', 'train').notes == ()
  told = open_corpus('files:data/*.txt@all', 'train').notes
  assert told == ('further names of files read already passed over: 1 (the first: data/link.txt)',)


def test_a_field_of_one_glob_holds_for_a_file_that_another_glob_names(tmp_path):
  write(tmp_path / 'a.jsonl', jsonl([b'one', b'two']))
  write(tmp_path / 'b.txt', b'three')
  write(tmp_path / 'c.json', b'{"text": "four"}')
  both_globs = f'{tmp_path}/*l#text', f'{tmp_path}/*'
  for globs in (both_globs, both_globs[::-1]):
    assert content(open_corpus(f'files:{",".join(globs)}@all', 'train')) == [
      b'one',
      b'two',
      b'three',
      b'{"text": "four"}',
    ]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_globs_find_what_the_standard_library_finds(tree, data):
  parts = st.sampled_from(['a', 'b', '*', '**', '?', '.*', 'c.txt', '[ab]', '[!a]', 'd[[]1]', '*.txt', '.h', '.', ''])
  pattern = '/'.join(data.draw(st.lists(parts, min_size=1, max_size=5)))
  with contextlib.chdir(tree):
    # It also gives `a/` for `a/**` where a is a file.
    found = {os.path.normpath(path) for path in glob.glob(pattern, recursive=True) if os.path.lexists(path)}
    ours = globbing.matches(pattern) if not pattern.startswith('/') else sorted(found)
  assert ours == sorted(ours) and len(ours) == len(set(ours))
  assert {os.path.normpath(path) for path in ours} - {'.'} == found - {'.'}


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
  root = tmp_path_factory.mktemp('tree')
  for folder in ('a/b/a', 'a/.h', 'b/d[1]', '.h/a', 'b/a/c.txt'):
    (root / folder).mkdir(parents=True)
    for name in ('a', 'c.txt', '.h', 'd[1]', 'x.txt'):
      if not (root / folder / name).exists():
        write(root / folder / name, b'x')
  return root


@contextlib.contextmanager
def without_privileges():
  """Root may enter every directory: a `with` block as another user."""
  if os.geteuid():
    yield
    return
  os.seteuid(65534)
  try:
    yield
  finally:
    os.seteuid(0)


@pytest.mark.parametrize('pattern', ['*/*.txt', '**/*.txt', 'shut/a.txt', 'shut/**', '*/deeper/*', 'open/link/*'])
def test_a_directory_that_a_glob_cannot_enter_is_named(tmp_path, monkeypatch, pattern):
  for folder in ('open', 'shut/deeper'):
    (tmp_path / folder).mkdir(parents=True)
    write(tmp_path / folder / 'a.txt', b'x')
  (tmp_path / 'open' / 'link').symlink_to('../shut')
  tmp_path.chmod(0o755)
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'shut').chmod(0)
  try:
    with without_privileges(), pytest.raises(OSError, match=r"'(shut|open/link).*' cannot be entered \(Permission den"):
      sources.document_groups(f'files:{pattern}')
    (tmp_path / 'open' / 'b.md').write_bytes(b'x')
    (tmp_path / 'open' / 'b.md').chmod(0)
    with without_privileges(), pytest.raises(OSError, match=r"data file 'open/b\.md' cannot be read \(Permission den"):
      sources.document_groups('files:open/*.*')
    with without_privileges():
      assert len(sources.document_groups('files:open/*.txt')) == 1
  finally:
    (tmp_path / 'shut').chmod(0o755)


def test_a_directory_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
  (tmp_path / 'shut').mkdir()
  write(tmp_path / 'a.txt', b'x')
  listed = os.scandir

  def scandir(path):
    if str(path).endswith('shut'):
      raise PermissionError(errno.EACCES, 'Permission denied', path)
    return listed(path)

  monkeypatch.setattr(os, 'scandir', scandir)
  with pytest.raises(OSError, match=r"data glob '.*' *: '.*/shut' cannot be entered \(Permission denied\): make it"):
    open_corpus(f'files:{tmp_path}/**/*.txt@all', 'train')
  assert len(open_corpus(f'files:{tmp_path}/*.txt@all', 'train')) == 1


def special(path):
  """What opening would wait for: {kind: path}."""
  os.mkfifo(path / 'pipe.txt')
  with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path):
    server.bind('socket.txt')
  return {'a named pipe (FIFO)': path / 'pipe.txt', 'a socket': path / 'socket.txt', 'a device': '/dev/zero'}


def test_a_pipe_a_socket_and_a_device_are_refused_and_not_waited_for(tmp_path):
  write(tmp_path / 'a.txt', b'x')
  for kind, path in special(tmp_path).items():
    with pytest.raises(OSError, match=rf"data file '{path}' is {re.escape(kind)} and not a file: put what it gives"):
      open_corpus(f'files:{tmp_path}/a.txt,{path}@all', 'train')
    with pytest.raises(OSError, match='and not a file'):
      sources.document_groups(f'files:{path}')
  with pytest.raises(OSError, match='and not a file'):
    open_corpus(f'files:{tmp_path}/*.txt', 'train')


@pytest.mark.parametrize(
  'opens',
  [
    lambda pipe: units.parse(f'subword(file={pipe})'),
    lambda pipe: weights.read_json(pipe),
    lambda pipe: weights.read_tensors(pipe.parent / 'weights'),
    lambda pipe: gguf_file.read(pipe),
    lambda pipe: token_bits.main([f'--weights={pipe.parent}', str(pipe)]),
    lambda pipe: token_bits.load(str(pipe.parent / 'weights')),
    lambda pipe: convert.read_state_dict(pipe),
    lambda pipe: convert.convert(pipe, pipe, pipe),
    lambda pipe: open_corpus(f'prepared:{pipe.parent}/prepared', 'train'),
    lambda pipe: open_corpus(f'tfds:{pipe.parent}/tfds', 'train'),
    lambda pipe: packages._sha256(str(pipe)),
  ],
)
def test_no_file_of_a_user_may_be_a_pipe(tmp_path, opens):
  for directory, name in (
    ('weights', weights.WEIGHTS), ('weights', 'tokenizer.json'), ('prepared', 'corpus.json'), ('tfds', 'features.json')
  ):  # fmt: skip
    (tmp_path / directory).mkdir(exist_ok=True)
    os.mkfifo(tmp_path / directory / name)
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises((OSError, ValueError), match=r'is a named pipe \(FIFO\) and not a file|torch'):
    opens(tmp_path / 'pipe')


# --- records


@pytest.mark.parametrize(
  'name', ['a.jsonl', 'a.ndjson', 'a.json', 'a.json.gz', 'a.ndjson.gz', 'a.jsonl.zst', 'a.json.zst']
)
def test_records_are_read_under_every_name_that_they_have(tmp_path, name):
  lines = jsonl(DOCUMENTS)
  path = tmp_path / name
  zstd(path, lines) if name.endswith('.zst') else write(path, lines)
  corpus = open_corpus(f'files:{path}#text@all', 'train')
  assert content(corpus) == DOCUMENTS and corpus.notes == ()


@pytest.mark.parametrize(
  'data, expected, notes',
  [
    (b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n', [b'a', b'b'], ()),
    (b'{"text": "a"}\n{"text": "b"}\n\n\n \r\n', [b'a', b'b'], ('empty lines passed over: 3 (the first: {}:3)',)),
    (b'\xef\xbb\xbf\n\n{"text": "a"}', [b'a'], ('empty lines passed over: 2 (the first: {}:1)',)),
    (
      b'{"text": "a", "text": "b"}\n{"text": "\\"text\\": \\"text\\""}\n{"text": "c", "of": {"text": 1}}',
      [b'b', b'"text": "text"', b'c'],
      ("lines that give the field 'text' twice, of which the last counts: 1 (the first: {}:1)",),
    ),
    ('{"text": "a\u2028b\x85c\\u0000\x0c\x1e"}'.encode(), ['a\u2028b\x85c\0\x0c\x1e'.encode()], ()),
    (b'{"text": "in one object"}', [b'in one object'], ()),
  ],
  ids=['BOM and CRLF', 'empty lines', 'BOM alone', 'a key twice', 'characters that end lines elsewhere', 'one object'],
)
def test_json_lines_as_they_are_found(tmp_path, data, expected, notes):
  data = data.replace(b'\x0c\x1e', b'\\f\\u001e')
  path = write(tmp_path / 'a.jsonl', data)
  corpus = open_corpus(f'files:{path}#text@all', 'train')
  assert content(corpus) == expected and corpus.notes == tuple(note.format(path) for note in notes)


def test_a_field_can_lie_inside_another_one(tmp_path):
  write(
    tmp_path / 'a.jsonl', b'{"meta": {"text": "inside"}, "text": 1}\n{"meta.text": "flat", "meta": {"text": "inside"}}'
  )
  assert content(open_corpus(f'files:{tmp_path}/a.jsonl#meta.text@all', 'train')) == [b'inside', b'flat']
  parquet(tmp_path / 'a.parquet', {'meta': [{'text': 'inside', 'id': 1}, {'text': 'too', 'id': 2}], 'id': ['x', 'y']})
  assert content(open_corpus(f'files:{tmp_path}/a.parquet#meta.text@all', 'train')) == [b'inside', b'too']
  parquet(tmp_path / 'b.parquet', {'meta': [{'text': 'inside'}, None]})
  with pytest.raises(ValueError, match=r"column 'meta\.text' is empty \(null\) in row 2"):
    open_corpus(f'files:{tmp_path}/b.parquet#meta.text@all', 'train')
  with pytest.raises(ValueError, match=r"has no column 'meta\.title' \(it has: meta\.text, meta\.id, id\)"):
    open_corpus(f'files:{tmp_path}/a.parquet#meta.title@all', 'train')


def test_shards_without_a_record_are_passed_over_and_said(tmp_path):
  parquet(tmp_path / 'a.parquet', {'text': ['one', 'two']})
  parquet(tmp_path / 'b.parquet', {'text': pyarrow.array([], pyarrow.string())})
  parquet(tmp_path / 'c.parquet', {'text': pyarrow.array([], pyarrow.null())})
  parquet(tmp_path / 'd.parquet', {})
  write(tmp_path / 'e.jsonl.gz', b'')
  with pyarrow.parquet.ParquetWriter(tmp_path / 'f.parquet', pyarrow.schema([('text', pyarrow.string())])) as writer:
    for rows in ([], ['three'], []):
      writer.write_table(pyarrow.table({'text': pyarrow.array(rows, pyarrow.string())}))
  corpus = open_corpus(f'files:{tmp_path}/*#text@all', 'train')
  assert content(corpus) == [b'one', b'two', b'three']
  assert corpus.notes == (f'files without a record passed over: 4 (the first: {tmp_path}/b.parquet)',)
  with pytest.raises(ValueError, match='has no document: none of its 3 files holds a record'):
    open_corpus(f'files:{tmp_path}/[b-d].parquet#text@all', 'train')
  parquet(tmp_path / 'g.parquet', {'body': ['x']})
  with pytest.raises(ValueError, match=r"g\.parquet' has no column 'text'"):
    open_corpus(f'files:{tmp_path}/*#text@all', 'train')
