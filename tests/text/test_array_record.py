"""Where texts lie in ArrayRecord files, against the libraries that write and parse them."""

import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from text.array_record import OPTIONS, USABLE_BYTES, example, read_at, text_offsets

sizes = st.one_of(st.integers(0, 300), st.integers(USABLE_BYTES - 200, USABLE_BYTES + 200), st.integers(0, 200_000))


@pytest.mark.parametrize('size', [0, 1, 100, 110, 127, 128, 16_350, 16_383, 16_384, 2_097_152])
def test_an_example_is_what_tfds_serialises(size):
  import tensorflow_datasets as tfds

  features = tfds.features.FeaturesDict({'text': tfds.features.Text()})
  text = bytes(range(256)) * (size // 256) + b'x' * (size % 256)
  assert example(text) == features.serialize_example({'text': text})


def written(path, texts, options=OPTIONS):
  writer = ArrayRecordWriter(str(path), options)
  for text in texts:
    writer.write(example(text))
  writer.close()
  return path.read_bytes()


def texts_of(sizes):
  return [
    bytes((index * 7 + place * 13 + place // 251) % 256 for place in range(size)) for index, size in enumerate(sizes)
  ]


@settings(max_examples=15, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=6))
def test_every_text_is_found_at_its_offset(tmp_path_factory, sizes):
  texts = texts_of(sizes)
  file = written(tmp_path_factory.mktemp('a') / 'file', texts)
  offsets = text_offsets(file, sizes)
  assert [read_at(file, int(offset), size) for offset, size in zip(offsets, sizes, strict=True)] == texts


@pytest.mark.parametrize('options', ['group_size:2,uncompressed', 'group_size:1,transpose'])
def test_a_file_of_another_layout_is_refused_or_does_not_hold_the_texts(tmp_path, options):
  texts = [b'one' * 50, b'two' * 50, b'three' * 50]
  file = written(tmp_path / 'file', texts, options)
  with pytest.raises(ValueError, match='no chunk'):
    text_offsets(file, [len(text) for text in texts])


def test_a_file_that_ends_early_is_refused(tmp_path):
  file = written(tmp_path / 'file', [b'text' * 30_000] * 3)
  with pytest.raises(ValueError, match='no chunk'):
    text_offsets(file[:200_000], [120_000] * 3)
