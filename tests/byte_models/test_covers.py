"""Byte probabilities of token models against sums over all strings of tokens of a tiny vocabulary."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byte_models.covers import Covers, TokenModel
from tests.byte_models.tiny_tokens import Longest, Merges, Naive, TableModel

LETTERS = (b'a', b'b', b' ', b'\xc3', b'\xa9')
ENDS = (*LETTERS, b'\0', b'\x97')  # a character that nothing is merged with, and é's neighbour that is no letter
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
few = settings(derandomize=True, deadline=None, max_examples=60)


@few
@given(tokenizers(), TEXTS, st.integers(0, 5), st.booleans())
def test_bytes_have_the_sum_over_all_strings_of_tokens(tokenizer, text, begun, exact):
  naive, source = Naive(MODEL, tokenizer, ENDS), TokenModel(MODEL, tokenizer, 0, (1,))
  covers = Covers(source, text[:begun], 5, exact)
  for byte in text[begun:]:
    covers.advance(byte)
  expected = naive.next_bytes(text, exact)
  np.testing.assert_allclose(covers.next_bytes(), expected, rtol=1e-5, atol=1e-12)
  whole = Covers(source, text, 0)
  canonical = naive.p(tuple(tokenizer.encode(text).tolist()))
  assert whole.gain() == pytest.approx(math.log(naive.mass(text) / canonical), abs=1e-5)
  assert whole.gain() > -1e-12
