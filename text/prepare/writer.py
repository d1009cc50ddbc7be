"""What a prepared directory says of itself: the index, corpus.json, and the files of tensorflow_datasets."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from text import prepared
from text.prepare import shards
from text.prepare.assignment import SPLITS
from text.prepare.shards import PARTIAL, Shard


def finish(
  out: Path, request: dict[str, Any], found: dict[str, Any], files: list[Shard], report: Callable[[str], None]
) -> dict[str, Any]:
  """Writes index and metadata, of which corpus.json comes last, since it says that everything is there; returns it.

  request, found: what was asked for and what came out, for corpus.json. files: all shards, in order, written.
  """
  splits = {}
  for split in SPLITS:
    mine = [shard for shard in files if shard.file.split('.')[0].endswith(f'-{split}')]
    if mine:
      splits[split] = _describe(out, split, mine)
      report(f'{split}: {splits[split]["documents"]:,} documents, {splits[split]["bytes"]:,} bytes')
    else:
      report(f'{split}: no document')
  sha256 = hashlib.sha256('\n'.join(split['fingerprint'] for split in splits.values()).encode()).hexdigest()
  metadata = {**request, **found, 'sha256': sha256, 'splits': splits}
  metadata['metadata_sha256'] = prepared.metadata_digest(metadata)
  _write_tfds_metadata(out, metadata)
  with shards.written(out / PARTIAL / prepared.METADATA) as file:
    file.write(json.dumps(metadata, indent=2).encode() + b'\n')
  os.replace(out / PARTIAL / prepared.METADATA, out / prepared.METADATA)
  shutil.rmtree(out / PARTIAL)
  return metadata


def _describe(out: Path, split: str, files: list[Shard]) -> dict[str, Any]:
  """What corpus.json says of a split; writes its index."""
  lengths_N = np.concatenate([shard.lengths_N for shard in files])
  offsets_N = np.concatenate([np.load(shards.sidecar_path(out, shard.file).with_suffix('.npy')) for shard in files])
  fingerprint = hashlib.sha256(f'{split}\n{len(lengths_N)}\n'.encode())
  fingerprint.update(lengths_N.astype('<i8').tobytes())
  for shard in files:
    fingerprint.update(shard.digests_Nx32.tobytes())
  index = []
  for kind, array in (('lengths', lengths_N), ('offsets', offsets_N)):
    path = out / prepared.index_file(kind, split)
    with shards.written(path) as file:
      np.save(file, array.astype('<i8'))
    index.append(prepared.describe_file(path))
  descriptions = []
  for shard in files:
    sidecar = shards.finished(out, shard)
    totals = {'documents': len(shard.lengths_N), 'bytes': int(shard.lengths_N.sum())}
    descriptions.append({'file': shard.file, **totals, 'size': sidecar['size'], 'sha256': sidecar['sha256']})
  totals = {'documents': len(lengths_N), 'bytes': int(lengths_N.sum())}
  return {**totals, 'fingerprint': fingerprint.hexdigest(), 'index': index, 'shards': descriptions}


def _escaped(text: str) -> str:
  """With escapes for what is not UTF-8, as in the names of files; a protocol buffer takes no other text."""
  return text.encode(errors='backslashreplace').decode()


def _write_tfds_metadata(out: Path, metadata: dict[str, Any]) -> None:
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import dataset_info, file_adapters, naming
  from tensorflow_datasets.core import splits as tfds_splits

  name, _, config = metadata['name'].partition('/')
  identity = dataset_info.DatasetIdentity(
    name=name,
    config_name=config or None,
    version=tfds.core.Version(metadata['version']),
    data_dir=str(out),
    module_name='',
  )
  info = dataset_info.DatasetInfo(
    builder=identity,
    features=tfds.features.FeaturesDict({'text': tfds.features.Text()}),
    description=_escaped(metadata['source']),
    license=_escaped(metadata.get('licence') or '') or None,
  )
  info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
  template = naming.ShardedFileTemplate(data_dir=out, dataset_name=name, filetype_suffix='array_record')
  info.set_splits(
    tfds_splits.SplitDict(
      [
        tfds_splits.SplitInfo(
          name=split,
          shard_lengths=[shard['documents'] for shard in description['shards']],
          num_bytes=sum(shard['size'] for shard in description['shards']),
          filename_template=template,
        )
        for split, description in metadata['splits'].items()
      ]
    )
  )
  try:
    info.write_to_directory(out)
  except OSError as error:
    raise OSError(f"'{out}' cannot be written in ({error}): make room and type the same command again") from error
