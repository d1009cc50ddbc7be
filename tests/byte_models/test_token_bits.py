"""Bits of token models are those of the text: tokens that spell it byte for byte, every one scored once.

The model and its logits are the goldens of Hugging Face's own code; each of its 61 tokens is made a character here, so
that the text of the golden's tokens, and what it must cost, are known without any tokenizer.
"""

import json
import math
import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy.special import log_softmax
from tokenizers import (
  AddedToken,
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

from byte_models import covers, llama, token_bits
from tests.byte_models import tiny_tokens
from tests.goldens import GOLDENS
from text.tokenizers import spelling

CHARACTERS = 'abcdefghijklmnopqrstuvwxyzÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ日本語の文章を書くのだ、。🙂🙃'
CHARACTERS = ''.join(dict.fromkeys(CHARACTERS + '0123456789 \n.,-+*/'))[:61]


@pytest.fixture(scope='module')
def golden():
  """(tokens [80], nats of all but the first) of the golden's first row."""
  found = load_file(GOLDENS / 'llama' / 'io.safetensors')
  tokens = found['tokens'][0].tolist()
  return tokens, -log_softmax(found['logits'][0].astype(np.float64), -1)[np.arange(79), tokens[1:]]


@pytest.fixture
def weights(tmp_path):
  """Writes the golden's weights with a tokenizer.json, and gives the directory."""

  def write(tokenizer, **config):
    directory = tmp_path / 'weights'
    shutil.copytree(GOLDENS / 'llama', directory, dirs_exist_ok=True)
    values = json.loads((directory / 'config.json').read_text())
    (directory / 'config.json').write_text(json.dumps(values | config))
    tokenizer.save(str(directory / 'tokenizer.json'))
    return directory

  return write


def of_characters(**options):
  """Every character a token, by its place in CHARACTERS."""
  return Tokenizer(models.BPE({character: index for index, character in enumerate(CHARACTERS)}, [], **options))


def run(capsys, weights, *arguments):
  token_bits.main([f'--weights={weights}', *map(str, arguments)])
  return capsys.readouterr().out.splitlines()


def line(path, text, nats, note=''):
  size = len(text.encode())
  return f'{path}: {size} bytes, {len(nats)} tokens, {sum(nats) / math.log(2) / size:.4f} bits per byte{note}'


def test_settings_that_are_no_part_of_the_text_change_nothing(golden, weights, tmp_path, capsys):
  tokens, nats = golden
  text = ''.join(CHARACTERS[token] for token in tokens[1:])
  path = tmp_path / 'text.txt'
  path.write_text(text)
  tokenizer = of_characters(dropout=0.5)
  tokenizer.add_special_tokens([AddedToken(text[3:5], special=True), AddedToken(text[9:12], special=True, rstrip=True)])
  tokenizer.enable_truncation(4)
  tokenizer.enable_padding(length=200, pad_id=3, pad_token=CHARACTERS[3])
  tokenizer.post_processor = processors.TemplateProcessing('a $A b', special_tokens=[('a', 0), ('b', 1)])
  expected = line(path, text, nats)
  assert run(capsys, weights(of_characters()), f'--begin={tokens[0]}', path)[0] == expected
  assert run(capsys, weights(tokenizer), f'--begin={tokens[0]}', path)[0] == expected


def test_files_are_added_up_and_each_counts_once(golden, weights, tmp_path, capsys):
  tokens, nats = golden
  texts = [''.join(CHARACTERS[token] for token in tokens[1:stop]) for stop in (80, 30, 1)]  # the last is empty
  paths = [tmp_path / name for name in ('long', 'short', 'empty')]
  for path, text in zip(paths, texts, strict=True):
    path.write_text(text)
  os.link(paths[1], tmp_path / 'again')
  (tmp_path / 'linked').symlink_to('short')
  more = [tmp_path / 'again', tmp_path / 'linked', os.path.relpath(paths[0])]
  lines = run(capsys, weights(of_characters()), f'--begin={tokens[0]}', *paths, *more)
  size = sum(len(text.encode()) for text in texts)
  bits = (nats.sum() + nats[:29].sum()) / math.log(2)
  assert lines == [
    line(paths[0], texts[0], nats),
    line(paths[1], texts[1], nats[:29]),
    f'{paths[2]}: 0 bytes',
    f'all: {size} bytes, {bits / size:.4f} bits per byte',
  ]


@pytest.mark.parametrize('seq_len, context', [(32, None), (32, 1), (32, 31), (79, None), (80, 40)])
def test_a_text_longer_than_the_context_is_scored_in_rows(golden, weights, tmp_path, capsys, seq_len, context):
  tokens, _ = golden
  text = ''.join(CHARACTERS[token] for token in tokens[1:])
  (tmp_path / 'text').write_text(text)
  directory = weights(of_characters(), max_position_embeddings=seq_len)
  options = [f'--begin={tokens[0]}'] + ([] if context is None else [f'--context={context}'])
  (found, _) = run(capsys, directory, *options, tmp_path / 'text')
  model, context = llama.from_pretrained(directory), seq_len // 2 if context is None else context
  expected, begin, done = [], 0, 1
  while done < len(tokens):
    row = tokens[begin : begin + seq_len]
    logits = forward(model, np.pad(row, (0, seq_len - len(row)))[None])[0]
    log_p = log_softmax(np.asarray(logits, np.float64), -1)
    expected += [-log_p[at - 1, row[at]] for at in range(done - begin, len(row))]
    begin, done = begin + len(row) - context, begin + len(row)
  note = f' (in rows of {seq_len} tokens, {context} of them context)' if seq_len < 80 else ''
  assert len(expected) == 79 and found == line(tmp_path / 'text', text, expected, note)
  np.testing.assert_allclose(token_bits.nats(model, tokens, context=context), expected, atol=1e-4)


forward = jax.jit(lambda model, tokens: model(tokens, jnp.ones_like(tokens)))


def test_what_cannot_be_scored_is_one_sentence(weights, tmp_path):
  (tmp_path / 'text').write_text('abc')
  (tmp_path / 'empty').write_text('')
  (tmp_path / 'latin').write_bytes(b'caf\xe9')
  (tmp_path / 'long').write_text('ab')
  larger = of_characters()
  larger.add_tokens(['abc'])
  for tokenizer, arguments, sentence in (
    (larger, ['text'], "gives token 61 ('abc'), but the model has 61 tokens"),
    (of_characters(), ['empty'], 'empty is empty: there are no bits per byte'),
    (of_characters(), ['text', 'latin'], 'latin is not UTF-8 (byte 3)'),
    (of_characters(), ['--seq_len=257', 'text'], '--seq_len=257: rows have 2 to 256 tokens'),
    (of_characters(), ['--seq_len=1', 'text'], '--seq_len=1: rows have 2 to 256 tokens'),
    (of_characters(), ['--seq_len=8', '--context=8', 'text'], '--context=8: a row of 8 tokens repeats 1 to 7'),
    (of_characters(), ['--begin=61', 'text'], '--begin=61: give the id of a token'),
    (with_(of_characters(), normalizer=normalizers.Lowercase()), ['text', 'upper'], 'a normalizer (Lowercase) that'),
  ):
    (tmp_path / 'upper').write_text('abC')
    files = [argument if argument.startswith('--') else str(tmp_path / argument) for argument in arguments]
    with pytest.raises(ValueError) as error:
      token_bits.main([f'--weights={weights(tokenizer)}', *files])
    assert sentence in str(error.value) and '\n' not in str(error.value)
  directory = weights(of_characters())
  (directory / 'tokenizer.json').write_text('{}')
  with pytest.raises(ValueError, match=r'tokenizer\.json is damaged or no tokenizer\.json .*: copy it again'):
    token_bits.main([f'--weights={directory}', str(tmp_path / 'text')])


def test_what_bytes_cost_is_beside_what_tokens_cost(tmp_path, capsys):
  tokenizers = of_bytes(), of_pieces()
  model = tiny_tokens.llama(size=320, end=0)
  text = 'the cat sat on the mat, the other ca'
  (tmp_path / 'text').write_text(text)
  for name, tokenizer in zip(('bytes', 'pieces'), tokenizers, strict=True):
    llama.save_pretrained(model, tmp_path / name)
    tokenizer.save(str(tmp_path / name / 'tokenizer.json'))
  source = token_bits.source(model, tokenizers[0])
  assert (source.begin, source.end) == (0, (0,))
  ids, size = tokenizers[0].encode(text).ids, len(text)
  for options, kept, note in ([], None, ''), (['--seq_len=8'], 4, ' (in rows of 8 tokens, 4 of them context)'):
    bits = token_bits.nats(model, [0, *ids], kept and 8).sum() / math.log(2)
    gain = covers.Covers(source, text.encode(), tokens=kept).gain() / math.log(2)
    exactly = f'exactly {(bits - gain) / size:.4f} ({gain:.4f} bits less in all)'
    found = run(capsys, tmp_path / 'bytes', '--exact', *options, tmp_path / 'text')[0]
    assert gain > 0.01 and found.endswith(f'{len(ids)} tokens, {bits / size:.4f} bits per byte, {exactly}{note}')
  with pytest.raises(ValueError, match='--exact: its tokens begin with a space that is no byte of it: leave'):
    run(capsys, tmp_path / 'pieces', '--exact', tmp_path / 'text')


def test_a_model_of_numbers_that_are_not_finite_is_said(weights, tmp_path, monkeypatch):
  (tmp_path / 'text').write_text('abc')
  monkeypatch.setattr(token_bits, '_nats', lambda model, row: np.full(row.shape[1] - 1, np.nan, np.float32))
  with pytest.raises(ValueError, match='text: token 0 has nan nats, so weights or activations hold nan or inf'):
    token_bits.main([f'--weights={weights(of_characters())}', str(tmp_path / 'text')])


# --- what tokens spell


def with_(tokenizer, **parts):
  for name, part in parts.items():
    setattr(tokenizer, name, part)
  return tokenizer


def trained(model, trainer, **parts):
  tokenizer = with_(Tokenizer(model), **parts)
  tokenizer.train_from_iterator(['the cat sat on the mat, the other cats sat 123 の本。'] * 3, trainer)
  return tokenizer


def of_bytes(splitter=None, **options):
  """As GPT-2's."""
  splitter = splitter or pre_tokenizers.ByteLevel(add_prefix_space=False)
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(
    vocab_size=300, initial_alphabet=alphabet, special_tokens=['<|end|>'], show_progress=False
  )
  return trained(models.BPE(**options), trainer, pre_tokenizer=splitter, decoder=decoders.ByteLevel())


def of_pieces(**parts):
  """As Llama 2's: '▁' for a space, which is added before a text, and bytes for characters that are unknown."""
  bytes_ = [f'<0x{byte:02X}>' for byte in range(256)]
  trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=['<unk>', '<s>', *bytes_], show_progress=False)
  normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
  steps = [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
  parts = {'normalizer': normalizer, 'decoder': decoders.Sequence(steps), **parts}
  return trained(models.BPE(unk_token='<unk>', byte_fallback=True), trainer, **parts)


def of_metaspace(scheme='always'):
  vocabulary = [('<unk>', 0.0), ('<s>', 0.0), *((f'<0x{byte:02X}>', -9.0) for byte in range(256))]
  vocabulary += [('▁', -2.0), ('▁the', -1.0), ('t', -3.0), ('cat', -2.0)]
  tokenizer = Tokenizer(models.Unigram(vocabulary, 0, byte_fallback=True))
  return with_(tokenizer, pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme=scheme))


def safe(tokenizer):
  """As a tokenizer.json is read."""
  return spelling.read(tokenizer.to_str().encode())


SPELLING = {
  'bytes': of_bytes,
  'bytes behind a space': lambda: of_bytes(pre_tokenizers.ByteLevel(add_prefix_space=True)),
  'digits and bytes': lambda: of_bytes(
    pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])
  ),
  'pieces': of_pieces,
  'metaspace': of_metaspace,
  'metaspace at the first word': lambda: of_metaspace('first'),
  'metaspace alone': lambda: of_metaspace('never'),
}
# Without '▁', which in most of the kinds cannot be told from a space.
TEXTS = st.lists(
  st.sampled_from(['the', ' cat', '  ', '<s>', '<0x41>', '<unk>', '<|end|>', '\n', '日本', 'é', 'e\u0301', '🙂', '12'])
  | st.text(st.characters(codec='utf-8', exclude_characters='▁'), max_size=3),
  max_size=6,
).map(''.join)


@pytest.fixture(scope='module', params=SPELLING)
def spelled(request):
  tokenizer = safe(SPELLING[request.param]())
  return tokenizer, spelling.Speller(tokenizer)


def naive(tokenizer, index):
  """The bytes of a token by the table that GPT-2's code prints, or by SentencePiece's rules."""
  name = tokenizer.id_to_token(index)
  if tokenizer.get_vocab_size() < 301 and 'Ġ' in tokenizer.get_vocab():
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}
    return bytes(table[character] for character in name)
  return bytes([int(name[3:5], 16)]) if name.startswith('<0x') else name.replace('▁', ' ').encode()


@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_tokens_spell_any_text(spelled, text):
  tokenizer, speller = spelled
  # A Unigram model of the library reads names of bytes and of the unknown token as these, which is refused below.
  assume(not isinstance(tokenizer.model, models.Unigram) or not re.search('<0x[0-9A-F]{2}>|<unk>', text))
  found = b''.join(naive(tokenizer, index) for index in speller(text))
  assert found in (text.encode(), b' ' + text.encode())


def test_special_tokens_in_a_text_are_text_and_other_added_tokens_are_what_they_say():
  tokenizer = of_bytes()
  tokenizer.add_tokens(['日本', 'the cat', '\u00e9'])
  speller = spelling.Speller(safe(tokenizer))
  ids = speller('<|end|> the cat 日本é')
  names = [tokenizer.id_to_token(index) for index in ids]
  assert '<|end|>' not in names and {'日本', 'the cat', 'é'} <= set(names)
  assert tokenizer.encode('<|end|>').tokens == ['<|end|>']  # as it was read before


def test_merges_are_not_dropped():
  tokenizer = of_bytes(dropout=0.9)
  speller = spelling.Speller(safe(tokenizer))
  expected = speller('the other cats sat on the mat')
  assert all(speller('the other cats sat on the mat') == expected for _ in range(5))
  assert any(tokenizer.encode('the other cats sat on the mat').ids != expected for _ in range(5))


def with_special(tokenizer, name):
  tokenizer.add_special_tokens([name])
  return tokenizer


def with_added(token):
  tokenizer = of_bytes()
  tokenizer.add_tokens([token])
  return tokenizer


def normalized(*steps):
  before = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
  return with_(of_bytes(*before), normalizer=normalizers.Sequence(list(steps)))


REFUSED = {
  'NFC': (lambda: normalized(normalizers.NFC()), 'ae\u0301', 'has a normalizer (NFC) that changes the text (at byte 1'),
  'NFKC': (lambda: normalized(normalizers.NFKC()), 'ﬁ', 'has a normalizer (NFKC)'),
  'lower case': (lambda: normalized(normalizers.Lowercase()), 'the Cat', 'has a normalizer (Lowercase)'),
  'stripped': (lambda: normalized(normalizers.Strip()), 'the cat\n', 'has a normalizer (Strip) that changes the text'),
  'prepended': (lambda: normalized(normalizers.Prepend('x')), 'the', 'has a normalizer (Prepend)'),
  'replaced': (lambda: normalized(normalizers.Replace('\r\n', '\n')), 'a\r\nb', 'has a normalizer (Replace)'),
  'accents': (
    lambda: normalized(normalizers.NFD(), normalizers.StripAccents()), 'né', 'has a normalizer (NFD, StripAccents)'
  ),
  'a character that is a space': (of_pieces, 'a▁b', "writes '▁' for a space, and the text has '▁' itself (at byte 1"),
  'the same in a pre-tokenizer': (of_metaspace, 'the▁', "writes '▁' for a space, and the text has '▁' itself"),
  'the name of a byte': (of_metaspace, 'cat<0x41>', "spells b'A' where the text goes on differently (at byte 3"),
  'the name of the unknown token': (of_metaspace, 'the<unk>', "as its unknown token '<unk>' (at byte 3"),
  'the name of a special token': (
    lambda: with_special(of_metaspace(), '<s>'), 'a<s>', "as its special token '<s>' (at byte 1"
  ),
  'a special token that is a whole word': (
    lambda: of_bytes(pre_tokenizers.ByteLevel(False, use_regex=False), ignore_merges=True), '<|end|>',
    "reads a part of the text as its special token '<|end|>' (at byte 0",
  ),
  'unknown characters': (lambda: of_characters(unk_token='a'), 'bcß', "as its unknown token 'a' (at byte 2"),
  'unknown words': (
    lambda: with_(
      Tokenizer(models.WordLevel({'[UNK]': 0, 'the': 1}, '[UNK]')), pre_tokenizer=pre_tokenizers.Whitespace()
    ),
    'the cat', "reads a part of the text as its unknown token '[UNK]'",
  ),
  'unknown pieces': (
    lambda: with_(Tokenizer(models.Unigram([('<unk>', 0.0), ('a', -1.0)], 0)), normalizer=None), 'ab',
    "reads a part of the text as its unknown token '<unk>' (at byte 1, before 'b')",
  ),
  'characters that are left out': (of_characters, 'abßc', "has no token for 'ß' and leaves it out (at byte 2"),
  'spaces between words': (
    lambda: with_(of_characters(), pre_tokenizer=pre_tokenizers.Whitespace()), 'ab c',
    'has a pre_tokenizer (Whitespace) that leaves characters out (at byte 2',
  ),
  'space at the end': (
    lambda: with_(of_characters(), pre_tokenizer=pre_tokenizers.WhitespaceSplit()), 'ab ',
    'has a pre_tokenizer (WhitespaceSplit) that leaves characters out (at byte 2',
  ),
  'delimiters': (
    lambda: with_(of_characters(), pre_tokenizer=pre_tokenizers.Split('-', 'removed')), 'a-b',
    'has a pre_tokenizer (Split) that leaves characters out',
  ),
  'spaces within the text': (
    lambda: of_bytes(pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(True)])), 'a1',
    'has a pre_tokenizer (Digits, ByteLevel) that adds spaces within the text (at byte 1',
  ),
  'marks of parts': (
    lambda: with_(
      Tokenizer(models.WordPiece(vocab={'[UNK]': 0, 'c': 1, '##a': 2, 'the': 3}, unk_token='[UNK]')),
      pre_tokenizer=pre_tokenizers.WhitespaceSplit(),
    ),
    'ca', "has continuing_subword_prefix '##', which is not in the text (at byte 1",
  ),
  'ends of words': (
    lambda: with_(Tokenizer(models.BPE({'a': 0, 'b': 1, 'b</w>': 2}, [], end_of_word_suffix='</w>'))), 'ab',
    "has end_of_word_suffix '</w>', which is not in the text (at byte 1",
  ),
  'space before an added token': (
    lambda: with_added(AddedToken('<x>', lstrip=True, normalized=False)), 'the  <x> cat',
    "has an added token '<x>' with lstrip, which takes in white space beside it (at byte 3",
  ),
  'space behind an added token': (
    lambda: with_added(AddedToken('<x>', rstrip=True, normalized=False)), 'the <x>  cat',
    "has an added token '<x>' with rstrip",
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_a_setting_that_changes_what_is_scored_is_named(name):
  make, text, phrase = REFUSED[name]
  speller = spelling.Speller(safe(make()))
  with pytest.raises(ValueError) as error:
    speller(text)
  assert phrase in str(error.value) and '\n' not in str(error.value)


def test_a_setting_that_leaves_a_text_as_it_is_is_not_in_the_way():
  for make in (lambda: normalized(normalizers.NFC(), normalizers.Lowercase()), lambda: with_added('<x>')):
    assert spelling.Speller(safe(make()))('the cat') == spelling.Speller(safe(of_bytes()))('the cat')
