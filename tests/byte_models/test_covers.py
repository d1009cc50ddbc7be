"""Byte probabilities of token models against sums over all strings of tokens of a tiny vocabulary."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byte_models.canonical import Canonical
from byte_models.covers import Covers, TokenModel
from tests.byte_models.tiny_tokens import BYTES, SIZE, Longest, Merges, Naive, Single, TableModel, llama
from tests.text.tokenizers import test_stock
from text.prefixes import END, Prefixes
from text.tokenizers import Stock

LETTERS = (b'a', b'b', b' ', b'\xc3', b'\xa9')
# What nothing is merged with; a digit, which takes no space; ×, no letter; what ends spaces of two and three bytes.
ENDS = (*LETTERS, b'\0', b'0', b'\x97', b'\x80', b'\x9a', b'\xa0')
MODEL = TableModel()


@st.composite
def tokenizers(draw):
  """Merges of what there is by then, so that tokens of several bytes and ends inside characters come up."""
  parts, pairs = list(LETTERS), []
  for _ in range(draw(st.integers(0, 7))):
    pair = draw(st.sampled_from(parts)), draw(st.sampled_from(parts))
    if pair not in pairs and len(b''.join(pair)) <= 4:
      pairs.append(pair)
      parts.append(b''.join(pair))
  return draw(st.sampled_from((Merges, Merges, Longest)))(tuple(pairs), draw(st.booleans()))


TEXTS = st.lists(st.sampled_from(LETTERS), max_size=5).map(b''.join)
few = functools.partial(settings, derandomize=True, deadline=None)


@few(max_examples=60)
@given(tokenizers(), TEXTS, st.integers(0, 5), st.booleans())
def test_bytes_have_the_sum_over_all_strings_of_tokens(tokenizer, text, begun, exact):
  naive, source = Naive(MODEL, tokenizer, ENDS), TokenModel(MODEL, tokenizer, 0, (1,))
  covers = Covers(source, text[:begun], 5, exact)
  for byte in text[begun:]:
    covers.advance(byte)
  np.testing.assert_allclose(covers.next_bytes(), naive.next_bytes(text, exact), rtol=1e-5, atol=1e-12)
  whole, canonical = Covers(source, text), naive.p(tuple(tokenizer.encode(text).tolist()))
  assert whole.gain() == pytest.approx(math.log(naive.mass(text) / canonical), abs=1e-5)
  assert whole.gain() > -1e-12


def test_what_looks_ahead_is_written_in_two_ways_at_once():
  """Two spaces are a token at the end and two before a letter; so are two digits before two more; é is a token, and its
  first byte one of its own.
  """
  pairs = ((b' ', b' '), (b'a', b'\xc3'), (b'\xc3', b'\xa9'), (b' ', b'b'), (b'1', b'1'))
  tokenizer = Merges(pairs, cuts=True)
  naive, source = Naive(MODEL, tokenizer, ENDS), TokenModel(MODEL, tokenizer, 0, (1,))
  for text in (b'a  ', b'a\xc3', b'  \xc3', b'a  b', b'a11'):
    covers = Covers(source, text)
    np.testing.assert_allclose(covers.next_bytes(), naive.next_bytes(text), rtol=1e-5, atol=1e-12)
    assert covers.gain() == pytest.approx(math.log(naive.mass(text) / naive.p(tuple(tokenizer.encode(text).tolist()))))
  strings = [found.tokens for found in Covers(source, b'a  ')._live if found.end == 3]
  assert len(strings) == 2


@few(max_examples=10)
@given(tokenizers(), st.lists(st.sampled_from(LETTERS), min_size=20, max_size=60).map(b''.join), st.booleans())
def test_a_long_text_is_the_same_by_bytes_and_as_a_prompt(tokenizer, text, exact):
  source = TokenModel(MODEL, tokenizer, 0, (1,))
  covers = Covers(source, b'', len(text), exact)
  for at, byte in enumerate(text):
    if at % 9 == 0:
      prompt = Covers(source, text[:at], 1, exact)
      np.testing.assert_allclose(covers.next_bytes(), prompt.next_bytes(), rtol=1e-5, atol=1e-12)
    covers.advance(byte)
  if exact:
    canonical = np.log(Naive(MODEL, tokenizer, ()).p(tuple(tokenizer.encode(text).tolist())))
    assert covers.log_probability() == pytest.approx(canonical + Covers(source, text).gain(), rel=1e-5)
    assert Covers(source, text, tokens=3).gain() == pytest.approx(Covers(source, text).gain(), abs=1e-4)


@few(max_examples=10)
@given(st.lists(st.integers(0, 255), max_size=6).map(bytes))
def test_tokens_of_single_bytes_are_the_byte_model(text):
  model = TableModel(size=259)
  row = jnp.array([[256, *text]])
  logits = np.asarray(model(row, None), np.float64)[0]
  covers = Covers(TokenModel(model, Single(), 256, (257,)), text)
  p = np.exp(logits[-1, :258]) / np.exp(logits[-1, :258]).sum()
  np.testing.assert_allclose(covers.next_bytes(), p[: END + 2][[*range(256), 257]] / (1 - p[256]), rtol=1e-4)
  assert covers.gain() == 0


def test_a_llama_steps_once_a_byte_and_gives_what_it_gives_at_once():
  model, tokenizer = llama(), Merges(((b'a', b'b'), (b'ab', b'a'), (b' ', b'a'), (b' a', b'b')), cuts=True)
  source, text = TokenModel(model, tokenizer, 0, (1,)), b'ab aba \xc3\xa9abab  b'
  forward = jax.jit(lambda row: jax.nn.log_softmax(model(row, jnp.ones_like(row))))

  def naive(tokens):
    row = np.zeros((1, 32), np.int32)
    row[0, 1 : 1 + len(tokens)] = tokens
    log_p = np.asarray(forward(row), np.float64)[0]
    return float(sum(log_p[at, token] for at, token in enumerate(tokens)))

  everything = Naive(MODEL, tokenizer, ENDS)
  covers = Covers(source, b'', len(text))
  steps, read = [], covers._read
  covers._read = lambda found: steps.append(found.log_p is None) or read(found)
  for at, byte in enumerate(text, 1):
    covers.advance(byte)
    covers.next_bytes()
    strings = [s for s in everything.covers(text[:at]) if all(everything.is_valid(s[:n]) for n in range(len(s) + 1))]
    assert covers.log_probability() == pytest.approx(np.logaddexp.reduce([*map(naive, strings)]), abs=1e-4)
  assert sum(steps) <= len(text) + 2  # the two spaces, and the first byte of é


def test_special_tokens_padding_and_bytes_that_come_twice_have_no_part():
  tokenizer, text = Merges(((b'a', b'b'),)), b'ba'
  source = TokenModel(MODEL, tokenizer, 0, (1,))
  assert {tokenizer.vocabulary[index] for index in (3 + ord('a'), 259)} == {b'a'}
  assert len(source.table.ids) == len(tokenizer.vocabulary) - 2 < SIZE  # neither what begins texts nor another special
  node = source.table.at(b'a')
  assert source.table.ids[node.lo : node.first].tolist() == [3 + ord('a'), 259]
  for exact in (True, False):
    covers = Covers(source, text, exact=exact)
    np.testing.assert_allclose(covers.next_bytes(), Naive(MODEL, tokenizer, ENDS).next_bytes(text, exact), rtol=1e-5)
  assert 259 not in {token for found in covers._live for token in found.tokens}
  # without the token that ends texts there is no end, and what it had is not in the sum
  ended, p = covers.next_bytes(), Covers(TokenModel(MODEL, tokenizer, 0), text, exact=False).next_bytes()
  np.testing.assert_allclose(p, np.append(ended[:END], 0) / (1 - ended[END]), rtol=1e-6)


@pytest.fixture(scope='module')
def stock():
  """Sources over tokenizers as GPT-2's, Llama 2's (with bytes of what it does not know), Gemma's and T5's."""
  made = (test_stock.gpt2(), test_stock.sentencepiece(), test_stock.gemma(), test_stock.sentencepiece('Unigram'))
  model, read = TableModel(size=800, scale=1.0), [Stock(tokenizer.to_str().encode()) for tokenizer in made]
  return [TokenModel(model, tokenizer, 799, (tokenizer.vocabulary.index(b''),)) for tokenizer in read]


@few(max_examples=25)
@given(st.integers(0, 3), test_stock.DOCUMENTS.map(b''.join), test_stock.DOCUMENTS.map(b''.join), st.data())
def test_any_bytes_have_at_least_what_their_tokens_have_and_those_of_longer_texts(stock, which, text, more, data):
  source = stock[which]
  naive, tokens = Naive(source.model, source.tokenizer, (), begin=799), source.rules.encode
  covers = Covers(source, text, 1)
  assert covers.gain() > -1e-9
  p_text = covers.gain() + naive.log_p(tokens(text))
  assert p_text > naive.log_p(tokens(text + more)) - 1e-3
  a, b = data.draw(st.integers(0, 255)), data.draw(st.sampled_from(b'a \xe6\x97\n'))
  p, masses = covers.next_bytes(), {}
  for byte in (a, b):
    longer = Covers(source, text + bytes([byte]))
    masses[byte] = longer.gain() + naive.log_p(tokens(text + bytes([byte])))
    assert masses[byte] < p_text + 1e-3
  if p[a] > 1e-6 and p[b] > 1e-6:
    assert np.log(p[a]) - np.log(p[b]) == pytest.approx(masses[a] - masses[b], abs=1e-3)


def test_cuts_are_where_nothing_that_follows_moves_them():
  tokenizer = Merges(((b' ', b'a'), (b'a', b'b'), (b' ', b' ')), cuts=True)
  rules = Canonical(tokenizer, Prefixes(tokenizer.vocabulary))
  assert rules.certain(b'ab ab ab ab') == 2 and rules.certain(b'ab') == 0  # the last but two: the last one may move
  assert rules.certain(b'ab ab ab  ab\xc3') == 5
  alone = Canonical(pairs := dataclasses.replace(tokenizer, cuts=False), Prefixes(pairs.vocabulary))
  assert alone.certain(b'ab ab ab ab') == 2  # before each of the spaces, which no token has behind a letter


def test_what_does_not_fit_is_one_sentence():
  class Losing(Merges):
    def encode(self, document):
      return super().encode(document.replace(b'b', b'a'))

  class Partial(Single):
    vocabulary = BYTES[:200]

  model, tokenizer = TableModel(size=300, places=8), Merges()
  for make, sentence in (
    (
      lambda: TokenModel(TableModel(size=200), tokenizer, 0),
      'the tokenizer has 260 tokens and the model 200, so',
    ),
    (lambda: TokenModel(model, tokenizer, None), 'begin None: give the id of a token, from 0 to 299'),
    (lambda: TokenModel(model, tokenizer, 0, (300,)), 'end 300: give the id of a token, from 0 to 299'),
    (lambda: TokenModel(model, tokenizer, 0, (3 + ord('a'),)), "end 100 spells b'a', which texts have"),
    (lambda: Covers(TokenModel(model, Losing(), 0), b'aab'), "the tokenizer loses bytes: of b'b' (byte 2) it makes"),
    (lambda: Covers(TokenModel(model, tokenizer, 0), b'a' * 8), 'the prompt has 9 tokens and the model 8 places'),
    (
      lambda: Covers(TokenModel(model, Partial(), 0), b'').advance(200),
      r"no tokens that the tokenizer writes cover b'\xc8'",
    ),
    (lambda: Prefixes([b'', b''], [1]), 'the vocabulary of 2 tokens has none that spells a byte'),
  ):
    with pytest.raises(ValueError, match=re.escape(sentence)):
      make()
  covers = Covers(TokenModel(model, tokenizer, 0), b'a' * 6, 9)
  with pytest.raises(ValueError, match=r'the text has more tokens than there are places \(8\)'):
    for byte in b'aaa':
      covers.advance(byte)
      covers.next_bytes()
  model.last[...] = model.last[...].at[0, 5].set(jnp.nan)
  with pytest.raises(ValueError, match='the logits of the model are not finite'):
    Covers(TokenModel(model, tokenizer, 0))
