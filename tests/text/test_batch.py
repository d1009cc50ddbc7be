"""Batch: what is in it, and which positions count."""

import dataclasses

import jax
import numpy as np
import pytest

from text import Batch

SEGMENTS = np.array([[1, 1, 1, 2, 2, 3, 3], [1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]], np.int32)
SCORED = np.array([[0, 1, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]], bool)
ENDS = np.array([[0, 0, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]], bool)


def test_rows_hold_exactly_the_given_bytes_padded_at_the_right():
  batch = Batch.of([b'ab\xff', b'\x00'], length=4)
  np.testing.assert_array_equal(batch.bytes, [[97, 98, 255, 0], [0, 0, 0, 0]])
  np.testing.assert_array_equal(batch.segment_ids, [[1, 1, 1, 0], [1, 0, 0, 0]])
  assert batch.bytes.dtype == np.uint8 and batch.segment_ids.dtype == np.int32 and batch.marks == {}
  assert Batch.of([b'abc', b'd']).bytes.shape == (2, 3)


@pytest.mark.parametrize('rows, length', [([], None), (b'abc', None), ('abc', None), ([b'abc', b'abcde'], 4)])
def test_rows_that_make_no_batch_are_refused(rows, length):
  with pytest.raises(ValueError, match=r'Batch\.of'):
    Batch.of(rows, length)


def test_the_first_position_of_a_segment_is_not_scored_and_padding_neither():
  batch = Batch(np.zeros_like(SEGMENTS, np.uint8), SEGMENTS)
  np.testing.assert_array_equal(batch.scored, SCORED)
  np.testing.assert_array_equal(batch.ends, ENDS)
  assert isinstance(batch.scored, np.ndarray) and isinstance(batch.ends, np.ndarray)


def test_masks_under_jit_equal_those_on_the_host():
  batch = Batch(np.zeros_like(SEGMENTS, np.uint8), SEGMENTS)
  scored, ends = jax.jit(lambda b: (b.scored, b.ends))(batch)
  np.testing.assert_array_equal(scored, SCORED)
  np.testing.assert_array_equal(ends, ENDS)


def test_begins_and_ends_of_documents_are_what_the_host_says_and_else_go_by_value():
  batch = Batch.of([b'\xfea\xff', b'\xfe\xfe\xff\xff', b'ab'])
  np.testing.assert_array_equal(np.argwhere(batch.bos), [[0, 0], [1, 0]])
  np.testing.assert_array_equal(np.argwhere(batch.eos), [[0, 2], [1, 3]])
  raw = dataclasses.replace(batch, specials=np.zeros(batch.bytes.shape, bool))
  assert not raw.bos.any() and not raw.eos.any()
  raw.specials[1, 3] = True
  for found in (raw, jax.jit(lambda batch: batch)(raw)):
    np.testing.assert_array_equal(np.argwhere(found.eos), [[1, 3]])
  begun = Batch.begun([b'', b'a\xff', b'\xfe'], 4)
  np.testing.assert_array_equal(begun.bytes, [[254, 0, 0, 0], [254, 97, 255, 0], [254, 254, 0, 0]])
  np.testing.assert_array_equal(np.argwhere(begun.bos), [[0, 0], [1, 0], [2, 0]])
  assert not begun.eos.any()


def test_one_column_has_no_scored_position_and_ends_everywhere():
  batch = Batch.of([b'a', b''], length=1)
  np.testing.assert_array_equal(batch.scored, [[False], [False]])
  np.testing.assert_array_equal(batch.ends, [[True], [False]])


def test_a_batch_is_a_pytree_of_its_arrays():
  batch = Batch.of([b'ab'])
  assert len(jax.tree.leaves(batch)) == 2
  device = jax.tree.map(jax.numpy.asarray, batch)
  assert isinstance(device, Batch) and isinstance(device.bytes, jax.Array) and device.marks == {}
