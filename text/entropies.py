"""Entropies that a model of bytes has had of documents, kept in a directory: `python -m studies.entropies` makes one.

  text.npy        [bytes] uint8: all documents, one after the other, sorted by what they hold
  begins.npy      [N + 1] int64: where each begins in the text, and its end
  entropies.npy   [bytes + 2 N] float32, nats: at a symbol, BOS and EOS included, of the prediction of what follows it
  config.json     the model: its work directory, step, and a digest of its parameters

Documents are found by what they hold, so that a text may be divided, mixed and shuffled in any way, and so are their
beginnings, of which the entropies are the same. A document that is not there is an error, and never one without
patches.
"""

import functools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from text import regular_file

DTYPES = {'text': np.uint8, 'begins': np.int64, 'entropies': np.float32}


class Entropies:
  """A directory, memory-mapped. Raises OSError or ValueError, with one sentence, for what is none."""

  def __init__(self, directory: str | os.PathLike):
    self.directory = pathlib.Path(directory)
    arrays = {}
    for name in ('config.json', *(f'{name}.npy' for name in DTYPES)):
      regular_file.check(self.directory / name, 'entropies')
      if not (self.directory / name).is_file():
        raise FileNotFoundError(
          f'{directory} holds no entropies ({name} is missing): `python -m studies.entropies` makes such a directory'
        )
    for name, dtype in DTYPES.items():
      arrays[name] = np.load(self.directory / f'{name}.npy', mmap_mode='r', allow_pickle=False)
      if arrays[name].dtype != dtype or arrays[name].ndim != 1:
        raise ValueError(f'{directory} is damaged: {name}.npy is no list of {np.dtype(dtype)}')
    self.about = json.loads((self.directory / 'config.json').read_text())
    self._text, self._begins, self._entropies = arrays.values()
    if len(self._entropies) != len(self._text) + 2 * (len(self._begins) - 1) or self._begins[-1] != len(self._text):
      raise ValueError(f'{directory} is damaged: its arrays have lengths that do not fit together')

  def of(self, content: bytes) -> np.ndarray:
    """[bytes + 2] float32 of a document, or of the beginning of one, BOS and what follows it included."""
    low, high = 0, len(self._begins) - 1  # the first that is not before it is it, or begins with it
    while low < high:
      middle = (low + high) // 2
      low, high = (middle + 1, high) if self._document(middle, len(content)) < content else (low, middle)
    if low == len(self._begins) - 1 or self._document(low, len(content)) != content:
      raise ValueError(
        f'{self.directory} has no entropies of a document of {len(content)} bytes that begins with {content[:30]!r}: '
        'make them for all text that is read, validation included (python -m studies.entropies)'
      )
    begin = int(self._begins[low]) + 2 * low
    return self._entropies[begin : begin + len(content) + 2]

  def _document(self, index: int, most: int) -> bytes:
    begin, end = self._begins[index : index + 2].tolist()
    return self._text[begin : min(end, begin + most)].tobytes()


@functools.lru_cache(8)
def opened(directory: str) -> Entropies:
  """Of this process, once."""
  return Entropies(directory)


def write(
  directory: pathlib.Path, documents: Iterable[tuple[bytes, np.ndarray]], about: Mapping[str, Any]
) -> tuple[int, int]:
  """(documents, entropies) written to a new directory. Raises OSError where there is something."""
  directory.mkdir(parents=True)
  found: dict[bytes, np.ndarray] = {}
  for content, values in documents:
    found.setdefault(content, values)
  ordered = sorted(found)
  arrays = {
    'text': np.frombuffer(b''.join(ordered), np.uint8),
    'begins': np.cumsum([0, *map(len, ordered)], dtype=np.int64),
    'entropies': np.concatenate([found[content] for content in ordered]).astype(np.float32),
  }
  for name, values in arrays.items():
    np.save(directory / f'{name}.npy', values)
  (directory / 'config.json').write_text(json.dumps(dict(about), indent=2) + '\n', encoding='utf-8')
  return len(ordered), len(arrays['entropies'])
