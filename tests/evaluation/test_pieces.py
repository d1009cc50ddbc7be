import collections
import math

import numpy as np
import pytest

from evaluation import pieces


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('pick @@ed pick @@l @@ed pick @@les', 0.826506),  # values of tokenization-scorer's tests
    ('pick @@e @@d pick @@l @@e @@d pick @@l @@e @@s', 0.920484),
  ],
)
def test_efficiency_is_that_of_tokenization_scorer(text, value):
  assert pieces.efficiency(collections.Counter(text.split()).values()) == pytest.approx(value, abs=1e-6)


def test_entropies_of_known_distributions():
  assert pieces.renyi_entropy([3] * 8, 2.5) == pytest.approx(3) and pieces.efficiency([3] * 8, 2.5) == pytest.approx(1)
  assert pieces.efficiency([1, 1], 1, vocabulary=4) == pytest.approx(0.5) and pieces.efficiency([5]) is None
  near = pieces.renyi_entropy([1, 2, 5], 1.0001), pieces.renyi_entropy([1, 2, 5], 1)
  assert near[0] == pytest.approx(near[1], abs=1e-3)
  with pytest.raises(ValueError, match='no piece'):
    pieces.renyi_entropy([])


def test_conditional_entropies_of_a_markov_chain_documents_apart():
  rng, state, text = np.random.default_rng(0), 0, []
  for _ in range(40_000):  # stays with probability 0.9: H(next | last) = H(0.9), whatever came before
    state = state if rng.random() < 0.9 else 1 - state
    text.append(state)
  h = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
  assert pieces.conditional_entropies([text], 40_000) == pytest.approx([1.0, h, h], abs=0.02)
  assert pieces.conditional_entropies(['ab', 'ab'], 4) == pytest.approx([1.0, 0.0, None])
  assert pieces.conditional_entropies(['ab', 'cb'], 2) == pytest.approx([1.0, 0.0, None])  # the first two alone


def test_fertility_and_parity_by_hand():
  assert pieces.fertility({b'the': 3, b'tower': 1}, {b'the': 1, b'tower': 3}) == (6 / 4, 1 / 4)
  assert pieces.parity([2, 30], [1, 10]) == (2.5, 32 / 11)
  assert pieces.gini([2, 2, 2]) == 0 and pieces.gini([0, 0, 1]) == pytest.approx(2 / 3)


def test_pieces_laid_end_to_end_are_the_document():
  starts = np.array([False, False, True, True, False])
  assert pieces.cut(b'abcde', starts) == [b'ab', b'c', b'de'] and pieces.cut(b'', starts[:0]) == []
