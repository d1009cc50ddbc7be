"""The server: what it answers, what it refuses, and in which order."""

import concurrent.futures
import json
import shutil
import socket
import threading

import pytest
from starlette.testclient import TestClient

import training
from evaluation import generate
from viewer import __main__ as command
from viewer import export, server

MOST = 64
TEXT = 'a naïve cat'.encode()


@pytest.fixture
def client(shelf):
  app = server.app(shelf, export.SAMPLES, MOST)
  with TestClient(app, base_url='http://127.0.0.1', raise_server_exceptions=False) as client:
    yield client


def cut(client, body=TEXT, **query):
  return client.post('/cut', params={'column': 'trained', **query}, content=body)


def test_the_page_and_its_columns(client):
  page = client.get('/')
  assert page.status_code == 200 and '<script type="module" src="main.js">' in page.text
  assert "script-src 'self'" in page.headers['content-security-policy']
  assert client.get('/main.js').headers['content-type'].startswith('text/javascript')
  about = client.get('/columns.json').json()
  found = [(column['name'].split(' ')[0], column['kind'], column['steps']) for column in about['columns']]
  assert found == [
    ('trained', 'model', [5, 10]),
    ('two_stages', 'model', []),
    ('hat(max_bytes=64)', 'words', []),
    ('bpe', 'tokenizer', []),
  ]
  assert about['most'] == MOST and [sample['name'] for sample in about['samples']] == list(export.TEXTS)


def test_answers_are_those_of_the_columns(client, shelf):
  for column in shelf.columns:
    answer = cut(client, column=column)
    assert answer.status_code == 200
    assert answer.json() == json.loads(json.dumps(shelf.cut(column, None, TEXT)))
  assert cut(client, step=5).json()['bits'] != cut(client, step=10).json()['bits']
  assert cut(client, b'').json()['bits'] == [] and len(cut(client, b'').json()['likeliest']) == 1
  assert len(cut(client, bytes(range(200, 256))).json()['bits']) == 56  # not UTF-8


@pytest.mark.parametrize(
  ('query', 'body', 'status', 'sentence'),
  [
    ({'column': '<script>'}, TEXT, 400, "there is no column '<script>'"),
    ({'column': ''}, TEXT, 400, 'there is no column'),
    ({'step': 7}, TEXT, 404, 'there is no checkpoint of step 7'),
    ({'step': 'x'}, TEXT, 400, "step='x' is not a number"),
    ({'number': 1e300}, TEXT, 400, 'is not a number'),
    ({'step': 2**60}, TEXT, 400, 'is too large'),
    ({}, b'x' * (MOST + server.MOST_WRITTEN + 1), 413, 'the text has more than 1,088 bytes'),
  ],
)
def test_what_cannot_be_cut_is_a_sentence(query, body, status, sentence, client):
  answer = cut(client, body, **query)
  assert answer.status_code == status and list(answer.json()) == ['error'] and sentence in answer.json()['error']


def test_pages_of_other_sites_are_refused(client):
  answer = client.post('/cut?column=trained', content=TEXT, headers={'sec-fetch-site': 'cross-site'})
  assert answer.status_code == 403 and 'another site' in answer.json()['error']
  assert client.get('/columns.json', headers={'host': 'evil.example'}).status_code == 400
  assert client.get('/../columns.py').status_code == client.get('/%2e%2e/columns.py').status_code == 404


def test_a_bug_is_no_trace_on_the_page(client, shelf, monkeypatch, capsys):
  monkeypatch.setattr(shelf, 'cut', lambda *_: 1 / 0)
  answer = cut(client)
  assert answer.status_code == 500 and 'bug of the viewer or the model (ZeroDivisionError)' in answer.json()['error']
  assert 'Traceback' not in answer.text and 'Traceback' in capsys.readouterr().err


def test_a_checkpoint_that_vanishes_is_a_sentence_and_no_longer_listed(client, shelf):
  shutil.rmtree(shelf.columns['trained'].directory / 'checkpoints' / '5')
  answer = cut(client, step=5)
  assert answer.status_code == 404 and 'there is no checkpoint of step 5' in answer.json()['error']
  assert client.get('/columns.json').json()['columns'][0]['steps'] == [10]


def test_texts_that_are_no_longer_asked_for_are_dropped(client, shelf, monkeypatch):
  began, go_on, asked = threading.Event(), threading.Event(), []

  def slow(name, step, document):
    asked.append(document)
    began.set()
    assert go_on.wait(60)
    return {}

  monkeypatch.setattr(shelf, 'cut', slow)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    first = pool.submit(cut, client, b'1', view='a', number=1)
    assert began.wait(60)
    later = [pool.submit(cut, client, b'%d' % n, view=view, number=n) for view, n in (('a', 2), ('b', 1))]
    newest = pool.submit(cut, client, b'3', view='a', number=3)
    threading.Timer(0.3, go_on.set).start()
    assert [first.result().status_code, newest.result().status_code] == [200, 200]
    assert [answer.result().status_code for answer in later] == [409, 200]
  assert sorted(asked) == [b'1', b'1', b'3']  # not the second text of view a


def go_on(client, **query):
  answer = client.post('/continue', params={'column': 'two_stages', **query}, content=b'the ')
  return answer.status_code, [json.loads(line) for line in answer.text.splitlines()]


def test_a_continuation_comes_in_pieces_and_is_that_of_generation(client, shelf):
  status, lines = go_on(client, max_bytes=40, seed=3)
  assert status == 200 and len(lines) > 1
  model = training.load(shelf.columns['two_stages'].directory).model
  expected = generate(model, [b'the '], 40, seed=3)[0]
  assert ''.join(line['bytes'] for line in lines).encode('latin-1') == expected


def test_what_cannot_be_continued_is_a_sentence(client, shelf, monkeypatch):
  for query, sentence in {
    ('max_bytes', 0): 'max_bytes must be at least 1',
    ('max_bytes', 1025): 'must be at most 1024',
    ('temperature', -1): 'temperature must be',
    ('temperature', 'nan'): 'temperature must be',
    ('column', 'hat(max_bytes=64)'): 'is a rule that cuts text',
    ('seed', -1): 'the seed must be',
  }.items():
    status, lines = go_on(client, **dict([query]))
    assert status == 400 and sentence in lines[0]['error']

  def broken(*_):
    yield b'as far as this'
    raise ValueError('nan came')

  monkeypatch.setattr(shelf, 'stream', broken)
  status, lines = go_on(client)
  assert (status, lines) == (200, [{'bytes': 'as far as this'}, {'error': 'nan came'}])


def test_an_export_is_one_page_whose_texts_cannot_end_its_scripts(shelf, tmp_path):
  hostile = '</script><script>alert(1)</script><!--'
  samples = [{'name': hostile, 'bytes': hostile}, {'name': 'bytes', 'bytes': '\xff\xfe'}]
  export.write(tmp_path / 'page', shelf, samples)
  data = json.loads((tmp_path / 'page' / 'data.json').read_text())
  steps = [(found['column'], found['step'], found['sample']) for found in data['cuts']]
  assert [('trained', step, sample) for step in (5, 10) for sample in (0, 1)] == steps[:4] and len(steps) == 10
  assert data['cuts'][0]['result'] == json.loads(json.dumps(shelf.cut('trained', 5, hostile.encode())))
  page = (tmp_path / 'page' / 'index.html').read_text()
  assert page.count('</script>') == 2 and '<!--' not in page and 'import {' not in page and ' src=' not in page


def test_commands_that_cannot_be_carried_out_are_a_sentence(directory, tmp_path):
  trained = str(directory / 'trained')
  with socket.create_server(('127.0.0.1', 0)) as other:
    port = other.getsockname()[1]
    big = tmp_path / 'big.txt'
    big.write_bytes(b'x' * 5000)
    for arguments, sentence in {
      (trained, f'--port={port}'): f'--port={port}: another program listens at port {port}',
      (trained, '--host=203.0.113.1', '--port=0'): 'nothing can listen there',
      (trained, '--port=70000'): '--port=70000 must be from 0 to 65535',
      (trained, '--max_bytes=0'): '--max_bytes=0 must be from 1',
      (trained, f'--text={big}'): 'has 5,000 bytes, at most 4,096 are shown',
      (trained, f'--text={tmp_path}/none.txt'): 'none.txt',
      (trained, f'--export={tmp_path}'): 'is there already and stays as it is',
      (trained, f'--export={tmp_path}/a/b'): 'there is no directory',
      (trained, '--words=hut'): "splitter 'hut'",
      (trained, '--tokenizer=none.json'): 'there is no such file',
      (f'{tmp_path}/x*',): 'names no run',
      (): 'RUNS',
    }.items():
      with pytest.raises((ValueError, OSError), match=sentence.replace('(', r'\(')):
        command.main(list(arguments))


def test_it_listens_on_this_machine_alone_unless_told_otherwise(capsys):
  with command._listen('127.0.0.1', 0) as listening:
    assert listening.getsockname()[0] == '127.0.0.1'
  told = capsys.readouterr()
  assert told.out.startswith('http://127.0.0.1:') and not told.err
  with command._listen('0.0.0.0', 0):
    assert 'whoever reaches this machine' in capsys.readouterr().err
