"""Tokens of whole documents, as marks have them: `tokens(file=PATH[,digest=HEX])`, a tokenizer of `text.tokenizers`.

Unlike units (`text.units`) they are parts of no words: what the tokenizer makes of a document decides, and a token may
reach over spaces. Ids are the tokenizer's own.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from text import paths, units
from text.batch import EOS
from text.specification import arguments, canonical

if TYPE_CHECKING:
  from text.tokenizers import Tokenizer

ARGUMENTS = {'tokens': {'file': '', 'digest': ''}}
COPY = 'tokenizer.json'  # of a run's tokenizer, in its work directory
KEPT = 2**24  # bytes of text whose tokens are remembered


@dataclasses.dataclass(frozen=True, eq=False)
class Read:
  """Of a stretch of text: ids_N int32 of its tokens, ends_N where each ends."""

  ids_N: np.ndarray
  ends_N: np.ndarray
  _pretokens: Callable[[], np.ndarray | None] = dataclasses.field(repr=False)

  @functools.cached_property
  def cuts_P(self) -> np.ndarray:
    """Where what the tokenizer cuts before it merges begins and ends; nothing where it does not cut."""
    ends = self._pretokens()
    return np.zeros(0, np.int64) if ends is None else np.append(np.int64(0), ends)


class Tokens:
  """A tokenizer that was checked, and the tokens of the stretches that were read last.

  table: the bytes of every id, b'' for what no text has. sizes_V: their number. name: the specification in full.
  """

  def __init__(self, tokenizer: 'Tokenizer', file: str):
    self.tokenizer, self.table, self.file = tokenizer, tuple(tokenizer.vocabulary), file
    self.sizes_V = np.fromiter(map(len, self.table), np.int32, len(self.table))
    self._kept: collections.OrderedDict[bytes, Read] = collections.OrderedDict()
    self._size, self._lock = 0, threading.Lock()

  @property
  def name(self) -> str:
    """Equal where the tokens and the file are."""
    return in_file(self.file, self.tokenizer.digest)

  @functools.cached_property
  def ids(self) -> dict[bytes, tuple[int, ...]]:
    """All tokens that spell some bytes."""
    found = collections.defaultdict(list)
    for index, spelled in enumerate(self.table):
      if spelled:
        found[spelled].append(index)
    return {spelled: tuple(same) for spelled, same in found.items()}

  def special(self, byte: int) -> int:
    """What stands for BOS or EOS where nothing says it: the token of its byte, which no UTF-8 has, or, in a vocabulary
    without that, the first or the second id behind it.
    """
    return self.ids.get(bytes([byte]), (len(self.table) + (byte == EOS),))[0]

  def __call__(self, text: bytes) -> Read:
    """The tokens of a stretch. Raises ValueError where they do not spell it."""
    with self._lock:
      if text in self._kept:
        self._kept.move_to_end(text)
        return self._kept[text]
    ids_N = np.asarray(self.tokenizer.encode(text), np.int32)
    if b''.join(map(self.table.__getitem__, ids_N.tolist())) != text:
      raise ValueError(f"tokens: those of '{self.file}' do not spell {text!r:.50} byte for byte: use another tokenizer")
    pretokens = functools.partial(self.tokenizer.pretokens, text)
    found = Read(ids_N, np.cumsum(self.sizes_V[ids_N], dtype=np.int64), pretokens)
    with self._lock:
      if text not in self._kept:
        self._kept[text], self._size = found, self._size + len(text)
      while self._size > KEPT and len(self._kept) > 1:
        self._size -= len(self._kept.popitem(last=False)[0])
    return found


def parse(spec: str) -> Tokens:
  """The tokenizer of a specification; ValueError or OSError with one sentence where it cannot be used, also where it
  has another digest than the specification.
  """
  _, values = arguments(spec, 'tokens', ARGUMENTS)
  file, digest = values['file'], values['digest']
  if not file:
    raise ValueError(
      f"'{spec}' names no tokenizer: write tokens(file=PATH); `python -m text.tokenizers train` makes one"
    )
  found = _held.get(digest) or _opened(file, *_state(file))
  if digest and digest != (other := found.tokenizer.digest):
    raise ValueError(
      f"'{in_file(file, digest)}': there is another tokenizer, with digest {other}: bring back the one that the model "
      'has'
    )
  return found


def hold(tokenizer: 'Tokenizer', file: str | os.PathLike) -> str:
  """Keeps a tokenizer that `text.tokenizers` cannot open, such as that of a GGUF file, for this process; its
  specification.
  """
  found = _held[tokenizer.digest] = Tokens(tokenizer, os.fspath(file))
  return found.name


_held: dict[str, Tokens] = {}


def _state(file: str) -> tuple[int, ...]:
  """What changes when the file does."""
  found = paths.of(file, 'tokens: file')
  files = sorted(found.iterdir()) if found.is_dir() else [found]
  return tuple(stamp for part in files if part.is_file() for stamp in (part.stat().st_mtime_ns, part.stat().st_size))


@functools.lru_cache(16)
def _opened(file: str, *state: int) -> Tokens:
  from text import tokenizers  # here, so that models of bytes do without its library

  del state
  return Tokens(tokenizers.load(file), file)


def file_of(spec: str) -> tuple[str, str] | None:
  """(file, its digest or '') that a specification names."""
  _, values = arguments(spec, 'tokens', ARGUMENTS)
  return values['file'], values['digest']


def in_file(file: str | os.PathLike, digest: str) -> str:
  """The specification of a tokenizer in a file or directory."""
  return canonical('tokens', {'file': os.fspath(file)} | ({'digest': digest} if digest else {}))


def digest_in(file: str | os.PathLike, digest: str = '') -> str:
  """What decides the tokens of the tokenizer there; raises as `parse`."""
  return parse(in_file(file, digest)).tokenizer.digest


def copy(file: str | os.PathLike, target: pathlib.Path) -> None:
  """Puts the one file that decides on the tokens there, whole or not at all."""
  found = parse(in_file(file, '')).tokenizer
  units.put(paths.of(found.path, 'tokens: file').read_bytes(), target)
