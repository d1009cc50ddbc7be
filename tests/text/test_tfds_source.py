"""TensorFlow Datasets as text, without TensorFlow."""

import shutil
import struct
import sys

import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from tests.text.opening import DOCUMENTS, content
from text import open_corpus, sources


@pytest.fixture(scope='module')
def tfds_root(tmp_path_factory):
  """A data set as tensorflow_datasets writes it, once as ArrayRecord and once as TFRecord."""
  root = tmp_path_factory.mktemp('tfds')
  features = tfds.features.FeaturesDict(
    {'text': tfds.features.Text(), 'label': tfds.features.ClassLabel(num_classes=3)}
  )
  for file_format in ('array_record', 'tfrecord'):
    directory = root / f'small_{file_format}' / '1.0.0'
    directory.mkdir(parents=True)
    records = [features.serialize_example({'text': document, 'label': 1}) for document in DOCUMENTS]
    infos = []
    for split, of_split in (('train', records[:200]), ('test', records[200:])):
      template = tfds.core.ShardedFileTemplate(
        data_dir=directory, dataset_name=directory.parent.name, split=split, filetype_suffix=file_format
      )
      halves = [of_split[:150], of_split[150:]] if split == 'train' else [of_split]
      for shard, half in enumerate(halves):
        path = str(template.sharded_filepath(shard_index=shard, num_shards=len(halves)))
        if file_format == 'array_record':
          writer = array_record_module.ArrayRecordWriter(path, 'group_size:1')
          for record in half:
            writer.write(record)
          writer.close()
        else:
          with open(path, 'wb') as file:  # checksums are not looked at
            for record in half:
              file.write(struct.pack('<QI', len(record), 0) + record + bytes(4))
      sizes = [len(half) for half in halves]
      infos.append(tfds.core.SplitInfo(name=split, shard_lengths=sizes, num_bytes=1, filename_template=template))
    tfds.folder_dataset.write_metadata(data_dir=directory, features=features, split_infos=infos, check_data=False)
  return root


@pytest.mark.parametrize('file_format', ['array_record', 'tfrecord'])
def test_a_tensorflow_dataset_is_read_without_tensorflow(tfds_root, monkeypatch, file_format):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tfds_root))
  monkeypatch.setattr(tfds.core.constants, 'DATA_DIR', str(tfds_root))
  directory = tfds_root / f'small_{file_format}' / '1.0.0'
  assert content(open_corpus(f'tfds:{directory}', 'train')) == DOCUMENTS[:200]
  assert content(open_corpus(f'tfds:{directory}#text', 'test')) == DOCUMENTS[200:]
  assert content(open_corpus(f'tfds:{directory}:train[25%:90%]#text', 'validation')) == DOCUMENTS[50:180]
  assert content(open_corpus(f'tfds:{directory}:train+test', 'train')) == DOCUMENTS
  assert content(open_corpus(f'tfds:small_{file_format}:1.0.0:test', 'train')) == DOCUMENTS[200:]
  groups = sources.document_groups(f'tfds:{directory}')
  assert sorted(document for group in groups for document in group) == sorted(DOCUMENTS)
  assert 'tensorflow' not in sys.modules


@pytest.mark.parametrize(
  'tail, split, message',
  [
    (':train#body', 'train', r"has no feature 'body' \(it has: .*text"),
    (':train#label', 'train', r"feature 'label' is ClassLabel, not Text"),
    ('', 'validation', r"has no split 'validation' \(it has: .*train.*\): name one of these, e\.g\. 'tfds:"),
    (':tra', 'train', r"has no split 'tra'"),
  ],
)
def test_what_a_tensorflow_dataset_lacks_is_named(tfds_root, tail, split, message):
  with pytest.raises(ValueError, match=message):
    open_corpus(f'tfds:{tfds_root}/small_array_record/1.0.0{tail}', split)


def test_a_cut_tfrecord_and_an_unknown_data_set_are_named(tfds_root, tmp_path, monkeypatch):
  copy = shutil.copytree(tfds_root / 'small_tfrecord' / '1.0.0', tmp_path / 'small_tfrecord' / '1.0.0')
  shard = next(copy.glob('*test*'))
  shard.write_bytes(shard.read_bytes()[:-10])
  with pytest.raises(OSError, match=r'ends or breaks off at record 99: prepare'):
    open_corpus(f'tfds:{copy}', 'test')
  with pytest.raises(ValueError, match=r"'tfds:no_such_data_set' can be neither found under .* nor downloaded"):
    open_corpus('tfds:no_such_data_set', 'train')
