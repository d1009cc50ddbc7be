"""The command: what it writes of every kind, what a card says, and what is refused."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byte_models import token_bits
from tests.text.tiny_subwords import PIECES
from tests.text.tokenizers import naive
from text import open_corpus, tokenizers, units
from text.tokenizers import __main__ as command
from text.tokenizers import training

SPECS = {kind: kind for kind in training.KINDS} | {
  'char_bpe': 'char_bpe(length=5)',
  'lib': 'lib(articles=20)',
  'pathpiece': 'pathpiece(start_size=360)',
  'superbpe': 'superbpe(first=0.9)',
}


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp('text')
  for number, document in enumerate(naive.documents(7, count=40, words=60)):
    (folder / f'{number}.txt').write_bytes(document + b'\xff')
  return f'files:{folder}/*.txt'


def train(spec, source, out, *more):
  command.main(['train', spec, f'--source={source}', '--vocab_size=330', f'--out={out}', *more])
  return json.loads((out / 'card.json').read_text())


@pytest.fixture(scope='module', params=SPECS)
def trained(request, source, tmp_path_factory):
  """(kind, card, tokenizer)."""
  out = tmp_path_factory.mktemp(request.param) / 'out'
  card = train(SPECS[request.param], source, out, '--special_tokens=<s>,</s>')
  return request.param, card, tokenizers.load(out)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.one_of(PIECES, st.sampled_from([b'<s>', b'</s>', b' ka', b'the '])), max_size=12).map(b''.join))
def test_every_kind_spells_any_bytes(trained, document):
  _, _, tokenizer = trained
  ids = tokenizer.encode(document)
  assert tokenizer.decode(ids) == document and not set(ids.tolist()) & {328, 329}


def test_a_card_says_what_was_trained_and_counts_held_out_text(trained, source):
  kind, card, tokenizer = trained
  assert len(tokenizer.vocabulary) == card['vocab_size'] == 330 and tokenizer.vocabulary[-2:] == (b'', b'')
  assert set(tokenizer.vocabulary) >= {bytes([byte]) for byte in range(256)}
  assert tokenizer.name == card['kind'] == kind and tokenizer.digest == card['digest']
  assert card['specification'].startswith(f'{kind}(') and card['longest_token'] == max(map(len, tokenizer.vocabulary))
  held_out = list(open_corpus(source, 'validation'))
  tokens = sum(len(tokenizer.encode(document)) for document in held_out)
  assert card['held_out']['bytes'] == sum(map(len, held_out)) and card['held_out']['tokens'] == tokens
  assert len(card['trained_on']['fingerprint']) == 64
  assert (
    ('transformers' in card['opens_with']) == tokenizer.stock == (kind in ('bpe', 'char_bpe', 'superbpe', 'unigram'))
  )


@pytest.mark.parametrize('kind', ['boundlessbpe', 'lib', 'superbpe'])
def test_the_same_text_gives_the_same_files_whatever_the_process(kind, source, tmp_path):
  train(SPECS[kind], source, tmp_path / 'first')
  flags = ['train', SPECS[kind], f'--source={source}', '--vocab_size=330', f'--out={tmp_path}/again']
  environment = {**os.environ, 'PYTHONHASHSEED': '7', 'RAYON_NUM_THREADS': '1'}
  subprocess.run([sys.executable, '-m', 'text.tokenizers', *flags], check=True, env=environment, capture_output=True)
  for file in (tmp_path / 'first').iterdir():
    assert file.read_bytes() == (tmp_path / 'again' / file.name).read_bytes(), file


def test_rules_are_no_tokenizer_json_and_say_so(source, tmp_path):
  train('picky', source, tmp_path / 'rules')
  file = tmp_path / 'rules' / 'rules.json'
  with pytest.raises(ValueError, match='they are rules of picky, which only text.tokenizers.load opens'):
    units.parse(f'subword(file={file})')
  file.rename(tmp_path / 'tokenizer.json')
  with pytest.raises(ValueError, match='they are rules of picky, which only text.tokenizers.load opens'):
    token_bits.load(str(tmp_path))
  assert tokenizers.load(tmp_path).name == 'picky'
  for damage in ('"vocabulary"', '"events"', '"Ā"'):
    file.write_text((tmp_path / 'tokenizer.json').read_text().replace(damage, '"x y"'))
    with pytest.raises(ValueError, match=f"tokenizer '{file}' is damaged"):
      tokenizers.load(file)
  file.write_text((tmp_path / 'tokenizer.json').read_text().replace('picky', 'choosy'))
  with pytest.raises(ValueError, match=f"tokenizer '{file}' holds rules of kind 'choosy', which is not known: use "):
    tokenizers.load(file)


def test_a_published_tokenizer_is_shown(source, tmp_path, capsys):
  train('bpe', source, tmp_path / 'bpe')
  capsys.readouterr()
  command.main(['show', str(tmp_path / 'bpe' / 'tokenizer.json'), f'--source={source}', '--max_bytes=500'])
  lines = capsys.readouterr().out.splitlines()
  assert "Tokenizer('bpe', " in lines[0] and 'bytes per token on' in lines[0] and lines[1].startswith("'")


@pytest.mark.parametrize(
  ('flags', 'error', 'sentence'),
  [
    (['bpe', '--vocab_size=256'], ValueError, 'vocab_size=256 must be at least 257: the 256 bytes, one token more'),
    (['bpe', '--vocab_size=99999'], ValueError, r'vocab_size=99999: the text supports only \d+ tokens'),
    (['word2vec'], ValueError, "tokenizer 'word2vec' is not known: use one of boundlessbpe, bpe"),
    (['bpe(merges=3)'], ValueError, "has no argument 'merges': bpe takes pattern"),
    (['bpe(pattern=hat)'], ValueError, "pattern 'hat': the words of hat are no regular expression"),
    (['bpe(pattern="[a")'], ValueError, "pattern '\\[a' is no expression of the tokenizers library"),
    (['bpe(pattern=gpt5)'], ValueError, "pattern 'gpt5' is not known: use one of gpt2, gpt4"),
    (['superbpe(first=0.1)'], ValueError, 'first=0.1 gives the first stage 33 of 330 tokens'),
    (['bpe', '--out=nowhere/x'], FileNotFoundError, "there is no directory 'nowhere'"),
    (['bpe', '--out=.'], FileExistsError, 'is there already and stays as it is'),
  ],
)
def test_what_is_refused(source, tmp_path, monkeypatch, flags, error, sentence):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(error, match=sentence):
    command.main(['train', '--vocab_size=330', '--out=out', f'--source={source}', *flags])
  assert not list(tmp_path.iterdir())
