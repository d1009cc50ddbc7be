"""The source `tfds:NAME[/CONFIG][:VERSION][:SPLIT][#feature]`: any TensorFlow Dataset, read without TensorFlow.

Data sets that lie under $TFDS_DATA_DIR (default ~/tensorflow_datasets) are read in either format of theirs, ArrayRecord
or TFRecord (whose checksums are not verified); others are downloaded and prepared by tensorflow_datasets, as
ArrayRecord. NAME may also be the directory of a prepared data set.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from typing import Any

from text import paths, regular_file
from text.corpus import MemoryCorpus

READ_AHEAD = 256  # records of an ArrayRecord file, read at a time


@dataclasses.dataclass(frozen=True)
class TfdsGroup:
  """The documents of one file of a data set: records [skip, skip + take)."""

  directory: str
  path: str
  skip: int
  take: int
  feature: str
  key: str

  def __iter__(self) -> Iterator[bytes]:
    features = _tfds().builder_from_directory(self.directory).info.features
    for record in _records(self.path, self.skip, self.take):
      yield bytes(features.deserialize_example_np(record)[self.feature])


@dataclasses.dataclass(frozen=True)
class Tfds:
  """A split of its own may be named (with slices, 'train[:90%]'); where none is, the asked split's name is taken."""

  spec: str

  @property
  def division(self) -> str:
    return 'none' if self._parsed()[2] else 'own'

  def open(self, split: str) -> MemoryCorpus:
    """The documents of one split; raises ValueError or OSError: see `groups`."""
    groups, whole = self._groups(split)
    documents = [document for group in groups for document in group]
    if not all(documents):
      raise ValueError(
        f"data source 'tfds:{self.spec}' has {documents.count(b'')} documents of zero bytes: prepare it (python -m "
        'text.prepare), which leaves them out and counts them'
      )
    if not documents:
      raise ValueError(f"data source 'tfds:{self.spec}' has no document in its split '{split}': name another split")
    shown = '' if self.division == 'none' else f' ({split})'
    return MemoryCorpus(documents, f'tfds:{self.spec}{shown}', split, whole=whole)

  def groups(self) -> list[TfdsGroup]:
    """One group per file of the named split, of all splits where none is named. Raises ValueError, or OSError where it
    cannot be downloaded, with one sentence: unknown data set, split or feature.
    """
    return self._groups(None)[0]

  def _groups(self, asked: str | None) -> tuple[list[TfdsGroup], int]:
    """(one group per file, documents of all splits together)."""
    name, version, split, feature = self._parsed()
    builder = self._builder(name, version)
    splits = builder.info.splits
    feature = self._feature(feature, builder.info.features)
    wanted = split or asked
    try:
      instructions = splits[wanted or '+'.join(splits)].file_instructions
    except (KeyError, ValueError) as error:
      raise ValueError(
        f"data source 'tfds:{self.spec}' has no split '{wanted}' (it has: {', '.join(splits)}): name one of these, "
        f"e.g. 'tfds:{name}:{next(iter(splits), 'train')}'"
      ) from error
    directory = str(builder.data_dir)
    for path in (str(item.filename) for item in instructions):  # dataset_info.json may name any
      if '\0' in path or os.path.dirname(os.path.normpath(path)) != os.path.normpath(directory):
        raise ValueError(f"data source 'tfds:{self.spec}' names {path!r:.200} outside its directory: repair it")
      regular_file.check(path, 'data file')
    groups = [
      TfdsGroup(
        directory, path, item.skip, item.examples_in_shard if item.take < 0 else item.take, feature,
        f'{path} {os.path.getsize(path)} {item.skip} {item.take} {feature}',
      )
      for item in instructions
      for path in [str(item.filename)]
    ]  # fmt: skip
    return groups, sum(split.num_examples for split in splits.values())

  def _parsed(self) -> tuple[str, str, str, str]:
    form = r'(?P<name>[^:#]+)(:(?P<version>\d+\.\d+\.\d+))?(:(?P<split>[^#]+))?(#(?P<feature>.+))?'
    match = re.fullmatch(form, paths.expanded(self.spec, 'data source tfds:', text=True))
    if not match:
      raise ValueError(f"data source 'tfds:{self.spec}' is not of the form tfds:NAME[/CONFIG][:SPLIT][#feature]")
    return tuple(match[part] or '' for part in ('name', 'version', 'split', 'feature'))

  def _builder(self, name: str, version: str) -> Any:
    tfds = _tfds()
    for file in ('dataset_info.json', 'features.json'):
      regular_file.check(os.path.join(os.path.expanduser(name), file), f"data source 'tfds:{self.spec}':")
    try:
      if os.path.isfile(os.path.join(name, 'dataset_info.json')):
        _refuse_foreign_classes(os.path.join(name, 'features.json'))
        return tfds.builder_from_directory(name)
      builder = tfds.builder(f'{name}:{version}' if version else name, data_dir=_data_dir())
      if not builder.info.splits:
        builder.download_and_prepare(file_format='array_record')
      return builder
    except Exception as error:  # tensorflow_datasets and its downloaders raise errors of many kinds
      reason = str(error).strip().split('\n')[0]
      root = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
      raise ValueError(
        f"data source 'tfds:{self.spec}' can be neither found under {root} nor downloaded ({type(error).__name__}: "
        f'{reason:.200}): check the name, or set TFDS_DATA_DIR to where it lies'
      ) from error

  def _feature(self, feature: str, features: Any) -> str:
    texts = [name for name, kind in features.items() if type(kind).__name__ == 'Text']
    if feature:
      if feature not in features:
        raise ValueError(f"data source 'tfds:{self.spec}' has no feature '{feature}' (it has: {', '.join(features)})")
      if feature not in texts:
        kind = type(features[feature]).__name__
        raise ValueError(f"data source 'tfds:{self.spec}': feature '{feature}' is {kind}, not Text: name another one")
      return feature
    if 'text' in texts or len(texts) == 1:
      return 'text' if 'text' in texts else texts[0]
    raise ValueError(
      f"data source 'tfds:{self.spec}' has {len(texts)} text features ({', '.join(texts)}) among its features "
      f'({", ".join(features)}): name one that is text, as #feature'
    )


def _refuse_foreign_classes(path: str) -> None:
  """tensorflow_datasets imports whatever module a features.json names: only its own may be."""

  def names(value: Any) -> Iterator[Any]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
      if str(key).replace('_', '').lower() in ('pythonclassname', 'type'):
        yield item
      if isinstance(item, dict | list):
        yield from names(item)

  if os.path.isfile(path):
    with open(path, 'rb') as file:
      for name in names([json.load(file)]):
        if not str(name).startswith('tensorflow_datasets.core.features.'):
          raise ValueError(f'features.json has a feature of the foreign class {name!r:.99}')


def _data_dir() -> str | None:
  """$TFDS_DATA_DIR; None for the library's own choice."""
  place = os.environ.get('TFDS_DATA_DIR')
  if not place and paths.home() is None:  # a directory `~` would be made
    raise ValueError('no home directory is known here')
  return paths.expanded(place, 'TFDS_DATA_DIR', text=True) if place else None


def _tfds() -> Any:
  import tensorflow_datasets

  return tensorflow_datasets


def _records(path: str, skip: int, take: int) -> Iterator[bytes]:
  if '.array_record' in os.path.basename(path):
    from array_record.python import array_record_module

    try:
      reader = array_record_module.ArrayRecordReader(path)
      for start in range(skip, skip + take, READ_AHEAD):
        yield from reader.read(range(start, min(start + READ_AHEAD, skip + take)))
    except (RuntimeError, IndexError, ValueError) as error:
      raise OSError(f"data file '{path}' cannot be read ({error}): prepare the data set again") from error
    return
  with open(path, 'rb') as file:  # a TFRecord: length, its checksum (4 bytes), the record, its checksum (4 bytes)
    for number in range(skip + take):
      header = file.read(12)
      length = int.from_bytes(header[:8], 'little')
      record = file.read(length + 4) if len(header) == 12 and length < os.path.getsize(path) else b''
      if len(record) != length + 4:
        raise OSError(f"data file '{path}' ends or breaks off at record {number}: prepare the data set again")
      if number >= skip:
        yield record[:-4]
