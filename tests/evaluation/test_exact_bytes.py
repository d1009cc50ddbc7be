"""Text from token models: drawn with the probabilities of bytes, from several models at once, up to its end."""

import numpy as np
import pytest

from byte_models.covers import Covers, TokenModel
from evaluation import exact_bytes
from tests.byte_models.tiny_tokens import Merges, Naive, Single, TableModel
from text.prefixes import END

MODEL, OTHER = TableModel(), TableModel(1, size=258)
TOKENIZER = Merges(((b'a', b'b'), (b'ab', b'a'), (b' ', b'a')))
SOURCE, BYTES = TokenModel(MODEL, TOKENIZER, 0, (1,)), TokenModel(OTHER, Single(), 256, (257,))


def test_models_of_different_tokens_are_averaged_byte_by_byte():
  ensemble = exact_bytes.Ensemble([SOURCE, BYTES], b'ab', 4, shares=[3, 1])
  for byte in (*b'a a', None):
    mean = 0.75 * ensemble._covers[0].next_bytes() + 0.25 * ensemble._covers[1].next_bytes()
    np.testing.assert_allclose(ensemble.next_bytes(), mean)
    assert mean.sum() == pytest.approx(1)
    if byte is not None:
      ensemble.advance(byte)
  naive = Naive(MODEL, TOKENIZER, (b'a', b'b', b'\0'))
  np.testing.assert_allclose(ensemble._covers[0].next_bytes(), naive.next_bytes(b'aba a'), rtol=1e-5)
  with pytest.raises(ValueError, match=r'shares \[1\]: give one positive number for each of 2 models'):
    exact_bytes.Ensemble([SOURCE, BYTES], shares=[1])


def test_text_goes_on_from_inside_a_token_and_stops_at_its_end():
  greedy = b''.join(exact_bytes.stream([SOURCE], b'xa', 12, temperature=0))
  expected, covers = b'', Covers(SOURCE, b'xa', 12)
  while len(expected) < 12 and (best := covers.next_bytes().argmax()) != END:
    expected += bytes([best])
    covers.advance(int(best))
  assert greedy == expected and greedy
  drawn = [b''.join(exact_bytes.stream([SOURCE, BYTES], b'', 3, seed=seed)) for seed in range(4)]
  assert drawn == [b''.join(exact_bytes.stream([SOURCE, BYTES], b'', 3, seed=seed)) for seed in range(4)]
  assert len(set(drawn)) > 1
  ending = TableModel(2, size=258)
  ending.last[...] = ending.last[...].at[:, 257].set(99.0)
  assert not [*exact_bytes.stream([TokenModel(ending, Single(), 256, (257,))], b'a', 5, temperature=0)]
  with pytest.raises(ValueError, match='max_bytes must be at least 1, got 0'):
    exact_bytes.stream([SOURCE], b'', 0)


def test_nats_are_those_of_bytes_and_at_most_those_of_tokens():
  text = b'ab abaa'
  found = exact_bytes.nats([SOURCE], text)
  canonical = -np.log(Naive(MODEL, TOKENIZER, ()).p(tuple(TOKENIZER.encode(text).tolist())))
  assert len(found) == len(text) + 1
  assert found[:-1].sum() <= canonical - Covers(SOURCE, text).gain() + 1e-6
  logits = np.asarray(OTHER(np.array([[256, *text]]), None), np.float64)[0][:, [*range(256), 257]]
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  np.testing.assert_allclose(exact_bytes.nats([BYTES], text), -log_p[np.arange(8), [*text, END]], rtol=1e-4)
