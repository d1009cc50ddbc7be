"""Levels of chunks against loops over rows, for any boundary pattern."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.chunks import Level, pick
from tests.layers.common import random

ROWS, LENGTH = 3, 24


def rows_of(draw, strategy):
  return np.stack([draw(strategy) for _ in range(ROWS)])


@st.composite
def documents(draw):
  """[ROWS, LENGTH] segment ids: documents of any length, then padding; rows of padding alone, too."""
  ids = np.zeros((ROWS, LENGTH), np.int32)
  for row in range(ROWS):
    lengths = draw(st.lists(st.integers(1, LENGTH), max_size=6))
    ids[row] = np.pad(np.repeat(np.arange(len(lengths)) + 1, lengths), (0, LENGTH))[:LENGTH]
  return ids


def patterns(draw, ids):
  """Boundaries on the slots of a level: always at document starts and never on padding; none, all, last or any else."""
  any_ = st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH).map(np.array)
  last = st.just(np.arange(LENGTH) == LENGTH - 1)
  wanted = rows_of(draw, st.one_of(st.just(np.zeros(LENGTH, bool)), st.just(np.ones(LENGTH, bool)), last, any_))
  starts = np.diff(ids, axis=1, prepend=0) != 0
  return (wanted | starts) & (ids > 0)


@st.composite
def cases(draw):
  ids = draw(documents())
  outer = patterns(draw, ids)
  # The slots of the level inside hold the documents of the chunks that were picked.
  inner_ids = np.stack([np.pad(i[b], (0, LENGTH - b.sum())) for i, b in zip(ids, outer, strict=True)])
  return ids, outer, patterns(draw, inner_ids)


@jax.jit
def both_levels(ids, outer, inner, values):
  bytes_ = Level.of_bytes(ids)
  chunks = bytes_.compact(outer)
  groups = chunks.compact(inner)
  return [(level, level.valid, level.to_bytes(values)) for level in (bytes_, chunks, groups)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
def test_levels_equal_lists_of_chunks(case):
  ids, *patterns = case
  values = random(ROWS, LENGTH)
  slots = [[(int(s), index, index) for index, s in enumerate(row) if s] for row in ids]  # (document, parent, byte)
  for depth, (level, valid, to_bytes) in enumerate(jax.device_get(both_levels(ids, *patterns, values))):
    if depth:
      boundary = patterns[depth - 1]
      slots = [
        [(s, index, byte) for index, (s, _, byte) in enumerate(row) if b[index]]
        for row, b in zip(slots, boundary, strict=True)
      ]
    for row, expected in enumerate(slots):
      count = len(expected)
      assert level.count_B[row] == count
      np.testing.assert_array_equal(valid[row], np.arange(LENGTH) < count)
      columns = np.array(expected, int).reshape(count, 3).T
      np.testing.assert_array_equal(level.segment_ids[row, :count], columns[0])
      np.testing.assert_array_equal(np.flatnonzero(level.picked_BxC[row]), columns[1])
      np.testing.assert_array_equal(level.byte_BxC[row, :count], columns[2])
      assert not level.segment_ids[row, count:].any()
      placed = np.zeros(LENGTH, np.float32)
      placed[columns[2]] = values[row, :count]
      np.testing.assert_array_equal(to_bytes[row], placed)


def test_pick_takes_the_slots_that_it_is_given():
  values = random(2, 5, 3)
  index = np.array([[4, 0, 0], [2, 3, 1]])
  np.testing.assert_array_equal(pick(values, index), np.stack([values[0, index[0]], values[1, index[1]]]))
