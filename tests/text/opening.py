"""What tests of sources share: documents, files of them, and corpora opened whole."""

import gzip
import json

import pyarrow.parquet

from text import open_corpus

DOCUMENTS = [f'document {index} '.encode() * (index % 7 + 1) for index in range(300)]


def write(path, content: bytes):
  path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == '.gz' else content)
  return path


def jsonl(documents, field='text'):
  return b''.join(json.dumps({'id': 1, field: document.decode()}).encode() + b'\n' for document in documents)


def both(source):
  return [open_corpus(source, split) for split in ('train', 'validation')]


def content(corpus):
  return [corpus[index] for index in range(len(corpus))]


def parquet(path, columns, **kwargs):
  pyarrow.parquet.write_table(pyarrow.table(columns), path, **kwargs)
  return path


def zstd(path, data, frames=1):
  size = -(-len(data) // frames)
  codec = pyarrow.Codec('zstd')
  path.write_bytes(b''.join(codec.compress(data[at : at + size], asbytes=True) for at in range(0, len(data), size)))
  return path
