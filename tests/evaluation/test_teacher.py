"""What a token model teaches about bytes: the worked example of the paper's forms, chain rule, and naive sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byte_models.covers import TokenModel
from evaluation import teacher
from tests.byte_models.tiny_tokens import Merges, Naive, Single, TableModel
from text.prefixes import END, Prefixes

A, B, C = b'abc'
few = settings(derandomize=True, deadline=None, max_examples=30)


def test_the_worked_example():
  vocabulary = (b'a', b'ab', b'abc', b'b')
  table, logits = Prefixes(vocabulary), np.log([[0.4, 0.3, 0.2, 0.1]])
  symbols, p = teacher.of_tokens(table, vocabulary, logits, (2,), ends=True)
  expected = np.zeros((4, 257))
  expected[0, [A, B]], expected[1, [END, B]] = (0.9, 0.1), (4 / 9, 5 / 9)
  expected[2, [END, C]], expected[3, END] = (0.6, 0.4), 1
  assert symbols.tolist() == [A, B, C, END]
  np.testing.assert_allclose(p, expected, atol=1e-7)
  symbols, p = teacher.of_tokens(table, vocabulary, logits, (1,), ends=False)
  assert symbols.tolist() == [A, B] and p[1, B] == 1 and p[0].tolist() == expected[0].astype(np.float32).tolist()


WORDS = st.binary(min_size=1, max_size=4).map(lambda word: bytes(b % 3 for b in word))  # zero is a byte as well


@few
@given(st.lists(WORDS, min_size=1, max_size=60), st.data(), st.floats(1, 12))
def test_forms_are_sums_over_tokens_and_ends_multiply_to_the_tokens(words, data, scale):
  vocabulary = (b'', *words, b'')  # the last ends a text; words come twice
  logits = scale * np.random.default_rng(data.draw(st.integers(0, 9))).normal(size=(1, len(vocabulary)))
  table = Prefixes(vocabulary, (len(vocabulary) - 1,))
  p_V = np.exp(logits[0] - logits[0].max())
  p_V[0] = 0
  p_V /= p_V.sum()
  token = data.draw(st.integers(1, len(words)))
  symbols, p = teacher.of_tokens(table, vocabulary, logits, (token,), ends=True)
  _, marginal = teacher.of_tokens(table, vocabulary, logits, (token,), ends=False)
  for at, (row, without) in enumerate(zip(p, [*marginal, None], strict=True)):
    begun, sums = vocabulary[token][:at], np.zeros(257)
    for other, spelled in enumerate(vocabulary):
      if spelled.startswith(begun) and p_V[other]:
        sums[spelled[at] if len(spelled) > at else END] += p_V[other]
    np.testing.assert_allclose(row, sums / sums.sum(), rtol=1e-6)
    if without is not None:
      np.testing.assert_allclose(without[:END], sums[:END] / sums[:END].sum(), rtol=1e-6)
      assert without[END] == 0
  same = sum(p for p, spelled in zip(p_V, vocabulary, strict=True) if spelled == vocabulary[token])
  assert np.prod(p[np.arange(len(symbols)), symbols], dtype=np.float64) == pytest.approx(same, rel=1e-6)
  np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)


def test_documents_are_read_behind_the_token_that_begins_texts():
  model = TableModel(places=16)
  tokenizer = Merges(((b'a', b'b'), (b'ab', b'a')))
  source, text = TokenModel(model, tokenizer, 0, (1,)), b'abaab\xffa'
  naive, tokens = Naive(model, tokenizer, ()), tuple(tokenizer.encode(text).tolist())
  size = range(len(tokenizer.vocabulary))
  logits = np.log([[naive.p((*tokens[:at], token)) for token in size] for at in range(len(tokens))])
  for form in ('marginal', 'end_of_token'):
    symbols, p = teacher.targets(source, text, form)
    ends = form == 'end_of_token'
    expected = teacher.of_tokens(source.table, tokenizer.vocabulary, logits, tokens, ends)
    np.testing.assert_array_equal(symbols, expected[0])
    np.testing.assert_allclose(p, expected[1], atol=1e-6)
    assert bytes(symbol for symbol in symbols.tolist() if symbol != END) == text
    assert (symbols == END).sum() == ends * len(tokens)
  _, exact = teacher.targets(source, text, 'exact')
  np.testing.assert_allclose(exact[4], naive.next_bytes(text[:4]), rtol=1e-5, atol=1e-12)
  with pytest.raises(ValueError, match="form 'eot': give one of end_of_token, exact, marginal"):
    teacher.targets(source, text, 'eot')
  with pytest.raises(ValueError, match=r'17 tokens is longer than the context of the teacher \(16\)'):
    teacher.targets(source, b'\xff' * 17)


def test_tokens_of_single_bytes_make_all_forms_alike():
  source, text = TokenModel(TableModel(size=257), Single(), 256), bytes([7, 0, 255, 7])
  _, marginal = teacher.targets(source, text)
  _, exact = teacher.targets(source, text, 'exact')
  symbols, ends = teacher.targets(source, text, 'end_of_token')
  np.testing.assert_allclose(exact, marginal, atol=1e-6)
  np.testing.assert_allclose(ends[symbols != END], marginal, atol=1e-6)
  assert np.all(ends[symbols == END] == np.eye(257)[END])
