"""Levels of chunks and how they are cut, against lists of chunks: any pattern, documents, capacity and limit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.chunks import Level, pick
from tests.layers.common import random

ROWS, LENGTH = 3, 24
# Of the level inside and of the one inside that: capacity and limit. Each is a program of its own.
CUTS = [((None, None), (None, None)), ((9, None), (4, None)), ((None, 5), (None, 3)), ((6, 8), (6, 2))]


@st.composite
def documents(draw):
  """[ROWS, LENGTH] segment ids: documents of any length, then padding; rows of padding alone, too."""
  ids = np.zeros((ROWS, LENGTH), np.int32)
  for row in range(ROWS):
    lengths = draw(st.lists(st.integers(1, LENGTH), max_size=6))
    ids[row] = np.pad(np.repeat(np.arange(len(lengths)) + 1, lengths), (0, LENGTH))[:LENGTH]
  return ids


ANY = st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH).map(np.array)
SPECIAL = st.sampled_from([np.zeros(LENGTH, bool), np.ones(LENGTH, bool), np.arange(LENGTH) == LENGTH - 1])
PATTERNS = st.lists(SPECIAL | ANY, min_size=ROWS, max_size=ROWS).map(np.stack)


@functools.partial(jax.jit, static_argnames='cuts')
def both(ids, bytes_, patterns, with_starts, values, cuts):
  """[(level, pattern on it, segments, their next_BxC, values of the level inside at bytes)] from the outside in."""
  level, result = Level.of_bytes(ids, {'bytes': bytes_, 'far': -jnp.arange(LENGTH)[None] * jnp.ones_like(ids)}), []
  for pattern, (capacity, limit) in zip(patterns, cuts, strict=True):
    slots = level.segment_ids_BxC
    first = jnp.diff(slots, axis=1, prepend=0) != 0
    emit = (pattern[:, : slots.shape[1]] | (first & with_starts)) & level.valid
    segments = level.cut(emit, capacity, limit)
    at_bytes = segments.inner.to_bytes(values[:, : segments.slot_BxM.shape[1]])
    result.append((level, emit, segments, segments.next_BxC, at_bytes))
    level = segments.inner
  return result


@settings(max_examples=120, deadline=None, derandomize=True)
@given(documents(), st.tuples(PATTERNS, PATTERNS), st.booleans(), st.sampled_from(CUTS))
def test_cuts_equal_lists_of_chunks(ids, patterns, with_starts, cuts):
  """with_starts: every document begins a chunk, as with every boundary; without, some have none."""
  values = random(ROWS, LENGTH)
  bytes_ = np.random.default_rng(0).integers(0, 256, ids.shape).astype(np.uint8)
  found = jax.device_get(both(ids, bytes_, patterns, with_starts, values, cuts))
  for (level, emit, segments, next_BxC, at_bytes), (capacity, limit) in zip(found, cuts, strict=True):
    width = level.segment_ids_BxC.shape[1]
    capacity = width if capacity is None else capacity
    counts, dropped = [], 0
    for row in range(ROWS):
      slots, valid = np.arange(width), level.segment_ids_BxC[row] > 0
      wanted = np.flatnonzero(emit[row])
      kept = wanted[:limit]
      starts = kept[:capacity]
      counts.append(len(kept))
      dropped += len(wanted) - len(kept)
      np.testing.assert_array_equal(np.flatnonzero(segments.starts_BxC[row]), starts)
      np.testing.assert_array_equal(segments.slot_BxM[row], [*starts, *[width] * (capacity - len(starts))])
      last = np.array([np.sum(starts <= t) - 1 for t in slots])
      own = [k >= 0 and valid[t] and level.segment_ids_BxC[row, starts[k]] == level.segment_ids_BxC[row, t]
             for t, k in enumerate(last)]  # fmt: skip
      np.testing.assert_array_equal(segments.index_BxC[row], np.where(own, last, -1))
      later = {t: [k for k, start in enumerate(starts) if start > t][:1] for t in slots}
      ids = level.segment_ids_BxC[row]
      follows = [k[0] if k and valid[t] and ids[starts[k[0]]] == ids[t] else capacity for t, k in later.items()]
      np.testing.assert_array_equal(next_BxC[row], follows)
      behind = last >= 0
      np.testing.assert_array_equal(segments.offset_BxC[row][behind], slots[behind] - starts[last[behind]])
      inner, rest = segments.inner, [0] * (capacity - len(starts))
      assert inner.count_B[row] == len(starts)
      np.testing.assert_array_equal(inner.valid[row], np.arange(capacity) < len(starts))
      np.testing.assert_array_equal(inner.segment_ids_BxC[row], [*level.segment_ids_BxC[row, starts], *rest])
      of_bytes = level.byte_BxC[row, starts]
      np.testing.assert_array_equal(inner.byte_BxC[row], [*of_bytes, *[LENGTH] * (capacity - len(starts))])
      np.testing.assert_array_equal(inner.marks['bytes'][row], [*bytes_[row, of_bytes], *rest])
      np.testing.assert_array_equal(inner.marks['far'][row], [*-of_bytes, *rest])
      placed = np.zeros(LENGTH, np.float32)
      placed[of_bytes] = values[row, : len(starts)]
      np.testing.assert_array_equal(at_bytes[row], placed)
    assert (segments.needed, segments.dropped) == (max(counts), dropped)
    assert segments.inner.length == LENGTH and segments.inner.marks['bytes'].dtype == np.uint8
    if with_starts and limit is None and max(counts) <= capacity:
      np.testing.assert_array_equal(segments.index_BxC >= 0, level.valid)


def test_level_zero_has_every_byte_as_a_slot():
  ids = np.array([[1, 1, 2, 0], [0, 0, 0, 0]], np.int32)
  level = Level.of_bytes(ids, {})
  np.testing.assert_array_equal(level.byte_BxC, [[0, 1, 2, 3]] * 2)
  np.testing.assert_array_equal(level.count_B, [3, 0])
  np.testing.assert_array_equal(level.valid, ids > 0)
  assert level.length == 4 and level.marks == {}


def test_pick_takes_the_slots_that_it_is_given():
  values = random(2, 5, 3)
  index = np.array([[4, 0, 0], [2, 3, 1]])
  np.testing.assert_array_equal(pick(values, index), np.stack([values[0, index[0]], values[1, index[1]]]))
