import numpy as np
import pytest

from evaluation.segmentation import segment, show_chunks


def starts(length, *at):
  mask = np.zeros(length, bool)
  mask[list(at)] = True
  return mask


@pytest.mark.parametrize(
  ('text', 'stages', 'shown'),
  [
    (b'ab cd', [], 'ab cd'),
    (b'ab cd', [()], 'ab cd'),
    (b'ab cd', [(0, 2)], '|ab| cd'),
    (b'ab cd', [(2,)], 'ab| cd'),
    (b'ab cd ef', [(0, 2, 5), (0, 5)], '‖ab| cd‖ ef'),
    (b'abcdef', [(0, 1, 2, 3, 4), (1, 2, 3, 4), (2, 3, 4), (3, 4), (4,)], '|a‖b⦀c{3}d{4}ef'),
    ('né'.encode(), [(2,)], 'n\\xc3|\\xa9'),
    ('🙂é'.encode(), [(0, 4)], '|🙂|é'),
    ('🙂'.encode(), [(1, 3)], '\\xf0|\\x9f\\x99|\\x82'),
    (b'a\xff\xfe\x1b[0m', [(1,)], 'a|\\xff\\xfe\\x1b[0m'),
    (b'a\r\nb\tc', [(2,)], 'a\\x0d|↵\nb\tc'),
    (b'a|b\\', [(2,)], 'a\\||b\\'),
    (b'', [()], ''),
  ],
)
def test_chunks_are_marked_where_they_begin(text, stages, shown):
  assert show_chunks(text, [starts(len(text), *at) for at in stages]) == shown


def test_marks_of_another_length_are_refused():
  with pytest.raises(ValueError, match=r'stage 1 .* 3 bytes'):
    show_chunks(b'abc', [starts(3), starts(4)])


def test_segment_gives_each_document_its_own_boundaries(two_byte_model):
  model = two_byte_model(positional=False)
  random = np.random.default_rng(0)
  documents = [random.integers(0, 256, length, np.uint8).tobytes() for length in (7, 0, 200, 126, 127, 128)]
  for document, stages in zip(documents, segment(model, documents), strict=True):
    values = np.frombuffer(document, np.uint8)
    np.testing.assert_array_equal(stages[0], values % 5 == 0)
    np.testing.assert_array_equal(stages[1], values % 25 == 0)


def test_segmenting_nothing_is_refused(two_byte_model):
  with pytest.raises(ValueError, match='no document'):
    segment(two_byte_model(positional=False), [])
