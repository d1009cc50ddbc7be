"""Tokenizer files of every kind: ids whose bytes are the document, any bytes at all, and what is refused."""

import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.text.tiny_subwords import PIECES, TEXT
from text import tokenizers, units

DOCUMENTS = st.lists(
  st.one_of(PIECES, st.sampled_from([b'</s>', b'<s>', '▁'.encode(), b'<0x41>', b'  \n'])), max_size=6
)
BYTES = {f'<0x{byte:02X}>': byte for byte in range(256)}


def gpt2(**settings):
  """Byte-level, as GPT-2 and Llama 3 are."""
  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=400, initial_alphabet=units.alphabet(), special_tokens=['</s>'], show_progress=False
  )
  tokenizer.train_from_iterator([TEXT.decode()], trainer)
  for key, value in settings.items():
    setattr(tokenizer, key, value)
  return tokenizer


def sentencepiece(model='BPE'):
  """As Llama 2 is: '▁' for spaces and before the text, bytes of what it does not know, no pre-tokenizer."""
  words = Tokenizer(getattr(models, model)())
  words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='never')
  trainer = {'BPE': trainers.BpeTrainer, 'Unigram': trainers.UnigramTrainer}[model]
  words.train_from_iterator([TEXT.decode()[:250]], trainer(vocab_size=250, show_progress=False))
  found = json.loads(words.to_str())['model']
  if model == 'BPE':
    vocab = {name: index for index, name in enumerate(['<unk>', '<s>', '</s>', *BYTES, *found['vocab']])}
    result = models.BPE(vocab, [tuple(pair) for pair in found['merges']], unk_token='<unk>', byte_fallback=True)
  else:
    special = [('<unk>', 0.0), ('<s>', 0.0), ('</s>', 0.0), *((name, -20.0) for name in BYTES)]
    result = models.Unigram([*special, *((piece, score) for piece, score in found['vocab'])], 0, True)
  tokenizer = Tokenizer(result)
  tokenizer.add_special_tokens(['<unk>', '<s>', '</s>'])
  tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
  tokenizer.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()])
  return tokenizer


def gemma():
  tokenizer = sentencepiece()
  tokenizer.normalizer = normalizers.Replace(' ', '▁')
  tokenizer.add_tokens([AddedToken('\n\n', normalized=False), AddedToken('▁▁', normalized=False)])
  return tokenizer


def metaspace():
  tokenizer = sentencepiece('Unigram')
  tokenizer.normalizer = None
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='always')
  return tokenizer


def wordpiece():
  """No published one spells its text: this one is of the 256 bytes."""
  letters = units.alphabet()
  names = ['[UNK]', *letters, *(f'##{letter}' for letter in letters), 'the', '##at', 'Ġthe']
  vocab = {name: index for index, name in enumerate(names)}
  tokenizer = Tokenizer(models.WordPiece(vocab, unk_token='[UNK]', max_input_chars_per_word=20))
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
  return tokenizer


KINDS = {
  'gpt2': gpt2,
  'qwen': lambda: gpt2(normalizer=normalizers.NFC()),
  'llama2': sentencepiece,
  'gemma': gemma,
  'unigram': lambda: sentencepiece('Unigram'),
  'metaspace': metaspace,
  'wordpiece': wordpiece,
}
WITH_SPACE = {'llama2', 'unigram', 'metaspace', 'wordpiece'}  # before the text


@pytest.fixture(scope='module', params=KINDS)
def case(request, tmp_path_factory):
  """(kind, the object of the library, ours)."""
  library = KINDS[request.param]()
  path = tmp_path_factory.mktemp(request.param) / 'tokenizer.json'
  library.save(str(path))
  return request.param, library, tokenizers.load(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(DOCUMENTS)
def test_ids_spell_the_document_whatever_its_bytes(case, parts):
  document, tokenizer = b''.join(parts), case[2]
  ids = tokenizer.encode(document)
  assert ids.dtype == np.int32 and tokenizer.decode(ids) == document
  ends = tokenizer.pretokens(document)
  if ends is not None:
    reached = np.cumsum(tokenizer.sizes[ids])
    assert not len(document) or ends[-1] == len(document)
    assert set(ends.tolist()) <= set(reached.tolist())


TEXTS = ['the cat sat on the mat', 'Überblick 日本語 1914!', 'x  y\n\n z.', '🙂 naïve', "it's 3  "]


@pytest.mark.parametrize('text', TEXTS)
def test_the_library_gives_the_same_ids_but_for_the_space_before_the_text(case, text):
  name, library, tokenizer = case
  ids = library.encode(text, add_special_tokens=False).ids
  ours = tokenizer.encode(f' {text}'.encode() if name in WITH_SPACE else text.encode())
  assert ours.tolist() == ids


def test_pretokens_are_those_of_the_library():
  tokenizer = tokenizers.Stock(gpt2().to_str().encode())
  text = "The cats' 1914  naïve 日本語\n\n end"
  spans = [end for _, (_, end) in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)]
  assert tokenizer.pretokens(text.encode()).tolist() == [len(text[:end].encode()) for end in spans]
  assert tokenizers.Stock(sentencepiece().to_str().encode()).pretokens(b'the cat') is None
  whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  assert tokenizers.Stock(gpt2(pre_tokenizer=whole).to_str().encode()).pretokens(b'the cat') is None


def test_special_tokens_have_no_bytes_and_their_names_are_text():
  tokenizer = tokenizers.Stock(gpt2().to_str().encode())
  assert tokenizer.vocabulary[0] == b'' and 0 not in tokenizer.encode(b'a</s>b')
  assert tokenizer.decode([0, *tokenizer.encode(b'a'), 0]) == b'a'
  assert tokenizer.missing == () and tokenizer.stock
  with pytest.raises(ValueError, match='ids are from 0 to 399, not 400'):
    tokenizer.decode([400])


def test_a_digest_is_of_what_decides_the_ids(tmp_path):
  library = gpt2()
  first = tokenizers.Stock(library.to_str().encode())
  library.enable_truncation(8)
  library.decoder = decoders.Fuse()
  assert tokenizers.Stock(library.to_str(pretty=True).encode()).digest == first.digest
  library.add_special_tokens(['<pad>'])
  assert tokenizers.Stock(library.to_str().encode()).digest != first.digest
  library.save(str(tmp_path / 'tokenizer.json'))
  loaded = tokenizers.load(tmp_path)
  assert pickle.loads(pickle.dumps(loaded)).digest == loaded.digest
  with pytest.raises(ValueError, match=f'is another one, with digest {loaded.digest} and not {first.digest}'):
    tokenizers.load(tmp_path, first.digest)


@pytest.mark.parametrize(
  ('settings', 'reason'),
  [
    ({'normalizer': normalizers.Lowercase()}, 'has a normalizer (Lowercase) that changes the text'),
    ({'normalizer': normalizers.Strip()}, 'has a normalizer (Strip) that changes the text'),
    ({'pre_tokenizer': pre_tokenizers.Whitespace()}, 'leaves characters out'),
    ({'pre_tokenizer': pre_tokenizers.Split(Regex(r'\s'), 'removed')}, 'leaves characters out'),
  ],
)
def test_a_tokenizer_that_loses_bytes_is_refused(tmp_path, settings, reason):
  gpt2(**settings).save(str(tmp_path / 'tokenizer.json'))
  with pytest.raises(ValueError) as error:
    tokenizers.load(tmp_path)
  message = str(error.value)
  assert message.startswith("tokenizer '") and reason in message and message.endswith('name one that spells every byte')


def test_a_byte_without_a_token_is_named():
  library = gpt2()
  settings = json.loads(library.to_str())
  vocab = settings['model']['vocab']
  for byte in (4, 0xFF):  # as in SmolLM2, which lacks 21
    del vocab[units.alphabet()[byte]]
  tokenizer = tokenizers.Stock(json.dumps(settings).encode(), 'x.json')
  assert tokenizer.missing == (4, 0xFF)
  for document in (b'the \x04', b'the \xff'):
    with pytest.raises(ValueError, match=r"^tokenizer 'x.json' has no token for byte 0x(04|ff): name another$"):
      tokenizer.encode(document)


def test_files_that_are_none(tmp_path):
  with pytest.raises(FileNotFoundError, match='there is no such file'):
    tokenizers.load(tmp_path / 'nothing.json')
  with pytest.raises(FileNotFoundError, match='there is no tokenizer.json in this directory'):
    tokenizers.load(tmp_path)
  (tmp_path / 'tokenizer.json').write_text('{}')
  with pytest.raises(ValueError, match='is damaged or no tokenizer.json'):
    tokenizers.load(tmp_path)


def test_what_a_run_of_words_is_cut_into_is_joined_again():
  tokenizer = tokenizers.Stock(gpt2().to_str().encode())
  document = b'the \xff cat'
  ends = [0, *tokenizer.pretokens(document).tolist()]
  parts = [document[start:end] for start, end in itertools.pairwise(ends)]
  assert parts == [b'the', b' ', b'\xff', b' cat']
