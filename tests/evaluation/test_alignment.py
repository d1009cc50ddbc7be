"""Longest common subsequences against the table of lengths, number by number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import alignment as lib


def longest(a, b):
  table = np.zeros((len(a) + 1, len(b) + 1), int)
  for i, j in np.ndindex(len(a), len(b)):
    table[i + 1, j + 1] = table[i, j] + 1 if a[i] == b[j] else max(table[i, j + 1], table[i + 1, j])
  return table[-1, -1]


@pytest.mark.parametrize('largest', [0, 30, 2**27])  # cut down to single characters, in places, and not at all
@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 3), max_size=20))
def test_places_are_of_a_longest_common_subsequence(largest, a, b):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(lib, '_LARGEST', largest)
    at_a, at_b = lib.common(np.array(a, np.int64), np.array(b, np.int64))
  assert len(at_a) == len(at_b) == longest(a, b)
  assert (np.diff(at_a) > 0).all() and (np.diff(at_b) > 0).all()
  assert [a[i] for i in at_a] == [b[j] for j in at_b]
