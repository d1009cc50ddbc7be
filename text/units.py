"""What models spell words with, by rule: bytes, characters or subwords. Where they stand in a batch: `text.marks`.

A specification names them:

byte                             every byte
char(limit=0x3000)               every character with a code point from 128 to limit - 1 is one unit
subword(file=PATH[,digest=HEX])  a byte-level BPE, tokenizer.json of the `tokenizers` library, on every word by itself;
                                 a PATH with a comma stands in quotes, file="a,b.json"

Ids 0 to 255 are the bytes themselves, so that units spell every text: bytes that are not UTF-8, characters above the
limit, words that training has not seen. Bytes that UTF-8 never has are always units of their own, and what models use
as symbols is among them: BOS, EOS and the end of a word. No unit reaches over the end of a word.

The units of a word depend on all of it; those of a word that goes on may be others.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from text import paths, regular_file
from text.specification import arguments, quoted

COPY = 'units.json'  # of a run's subwords, in its work directory
ARGUMENTS = {'byte': {}, 'char': {'limit': '0x3000'}, 'subword': {'file': '', 'digest': ''}}
_BYTES = tuple(bytes([value]) for value in range(256))
_NEVER = re.compile(rb'([\xc0\xc1\xf5-\xff])')  # in UTF-8
_KEPT_WORDS = 2**16  # whose units are remembered


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
  """A parsed specification; `units(word)` are the ids of what spells a word.

  name: in full, equal where the units are equal. table: the bytes of every id; those of a word's units, laid end to
  end, are the word.
  """

  name: str
  table: tuple[bytes, ...] = dataclasses.field(repr=False)
  split: Callable[[bytes], tuple[int, ...]]

  def __call__(self, word: bytes) -> tuple[int, ...]:
    return self.split(word)

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """Bytes of every id, int32."""
    return np.fromiter(map(len, self.table), np.int32, len(self.table))


@functools.cache
def parse(spec: str) -> Units:
  """The units that a specification names.

  Raises ValueError for an unknown one, a limit outside 128..0x110000, and a tokenizer file that is damaged, that is
  not byte-level, that changes the text before it cuts it, or that has another digest; OSError where it cannot be read.
  """
  kind, values = arguments(spec, 'units', ARGUMENTS)
  if kind == 'char':
    return _characters(spec, values['limit'])
  if kind == 'subword':
    return _subwords(spec, values['file'])
  return Units(kind, _BYTES, tuple)


def file_of(spec: str) -> tuple[str, str] | None:
  """(file, its digest or '') that a specification names, None for units that need no file; ValueError as `parse`."""
  kind, values = arguments(spec, 'units', ARGUMENTS)
  return (values['file'], values['digest']) if kind == 'subword' else None


def in_file(file: str | os.PathLike, digest: str) -> str:
  """The specification of subwords in a file."""
  return f'subword(file={quoted(os.fspath(file))},digest={digest})'


def digest_of(content: bytes) -> str:
  """What a specification calls the digest of a tokenizer file."""
  return hashlib.sha256(content).hexdigest()[:16]


def digest_in(file: str | os.PathLike, digest: str = '') -> str:
  """That of the file; raises as `read`, also where it is another than the one given."""
  return digest_of(read(in_file(file, digest)))


def copy(file: str | os.PathLike, target: pathlib.Path) -> None:
  """Puts the file there, whole or not at all."""
  put(read(in_file(file, '')), target)


def put(content: bytes, target: pathlib.Path) -> None:
  """Writes a file, whole or not at all."""
  partial = target.with_name(f'{target.name}.part{os.getpid()}')
  try:
    partial.write_bytes(content)
    os.replace(partial, target)
  finally:
    partial.unlink(missing_ok=True)


def read(spec: str) -> bytes:
  """The content of the file that a specification of subwords names; raises as `parse` where it cannot be read or is
  another one.
  """
  path, digest = file_of(spec)
  name = f"units '{spec}'"
  if not path:
    raise ValueError(f'{name} names no file: write subword(file=PATH); `python -m text.subwords` makes one')
  file = paths.of(path, f'{name}: file')
  regular_file.check(file, f'{name}:')
  try:
    content = file.read_bytes()
  except FileNotFoundError:
    raise FileNotFoundError(
      f"{name}: there is no file '{path}' (working directory {os.getcwd()}): `python -m text.subwords` makes one"
    ) from None
  except OSError as error:
    raise OSError(f"{name}: '{path}' cannot be read ({error.strerror or error}): name a tokenizer.json") from error
  if digest and digest != (found := digest_of(content)):
    raise ValueError(f"{name}: '{path}' is another file, with digest {found}: bring back the one that the model has")
  return content


def _characters(spec: str, limit: str) -> Units:
  try:
    stop = int(limit, 0)
  except ValueError:
    raise ValueError(f"units '{spec}': limit='{limit}' is not a whole number, such as 0x3000") from None
  if not 128 <= stop <= 0x110000:
    raise ValueError(f"units '{spec}': limit={limit} must be from 128 to 0x110000, the end of Unicode")

  @functools.lru_cache(_KEPT_WORDS)
  def split(word: bytes) -> tuple[int, ...]:
    if word.isascii():
      return tuple(word)
    ids = []
    for code in map(ord, word.decode('utf-8', 'surrogateescape')):  # 0xDC00 + byte for one that is not UTF-8
      if code < 128:
        ids.append(code)
      elif 0xDC80 <= code <= 0xDCFF:
        ids.append(code - 0xDC00)
      elif code < stop:
        ids.append(256 + code - 128)
      else:
        ids.extend(chr(code).encode())
    return tuple(ids)

  characters = (chr(code).encode('utf-8', 'surrogatepass') for code in range(128, stop))
  return Units(f'char(limit={stop:#x})', (*_BYTES, *characters), split)


def alphabet() -> list[str]:
  """The character that byte-level tokenizers write for every byte: itself if it can be seen, else one from 256 on."""
  visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = itertools.count(256)
  return [chr(byte if byte in visible else next(others)) for byte in range(256)]


_CHARACTERS = dict(enumerate(alphabet()))
_BYTE_OF = {ord(character): chr(byte) for byte, character in _CHARACTERS.items()}
_LETTERS = frozenset(_CHARACTERS.values())


def parts(word: bytes) -> list[bytes]:
  """What a word is cut into before it is cut into subwords: bytes that UTF-8 never has stand alone."""
  return [part for part in _NEVER.split(word) if part]


def written(word: bytes) -> str:
  """Bytes in the alphabet of byte-level tokenizers."""
  return word.decode('latin-1').translate(_CHARACTERS)


def unwritten(name: str) -> bytes:
  """What a name in that alphabet stands for; a name of other letters stands for itself."""
  characters = name.translate(_BYTE_OF) if _LETTERS.issuperset(name) else None
  return name.encode() if characters is None else characters.encode('latin-1')


def read_tokenizer(content: bytes) -> tuple[dict[str, Any], Any]:
  """(what a tokenizer.json says, the `tokenizers.Tokenizer`). Raises ValueError with a phrase for a damaged one."""
  from tokenizers import Tokenizer  # here, so that models of bytes do without it

  try:
    settings = json.loads(content)
    if isinstance(settings, dict) and 'rules_version' in settings:
      raise ValueError(f'they are rules of {settings.get("kind")}, which only text.tokenizers.load opens')
    return settings, Tokenizer.from_str(content.decode())
  except BaseException as error:  # `tokenizers` raises nothing more special, and a panic in Rust is no Exception
    if isinstance(error, KeyboardInterrupt | SystemExit):
      raise
    raise ValueError(f'is damaged or no tokenizer.json ({error!s:.100})') from None


def _subwords(spec: str, path: str) -> Units:
  """Id 256 + n: the n-th unit of more than one byte by the tokenizer's ids, which number single bytes as they like.

  Where they number those first, as GPT-2's and ours do, it is the tokenizer's own id.
  """
  name, content = f"units '{spec}'", read(spec)
  model, vocabulary = _tokenizer(name, path, content)
  table, numbers = list(_BYTES), {character: byte for byte, character in _CHARACTERS.items()}
  for token in sorted(vocabulary, key=vocabulary.get):
    if len(token) > 1:
      numbers[token] = len(table)
      table.append(unwritten(token))

  @functools.lru_cache(_KEPT_WORDS)
  def split(word: bytes) -> tuple[int, ...]:
    found = tuple(numbers[token.value] for part in parts(word) for token in model.tokenize(written(part)))
    if b''.join(map(table.__getitem__, found)) != word:
      raise ValueError(f"{name}: the units of '{path}' do not spell {word!r:.50}: make it again, or name another")
    return found

  return Units(in_file(path, digest_of(content)), tuple(table), split)


def _tokenizer(name: str, path: str, content: bytes) -> tuple[Any, dict[str, int]]:
  """(the BPE of a tokenizer.json, its units in the alphabet of bytes -> ids)."""
  from tokenizers import models

  try:
    settings, tokenizer = read_tokenizer(content)
  except ValueError as error:
    raise ValueError(f"{name}: '{path}' {error}: make it again, or name another") from None
  before = settings.get('pre_tokenizer') or {}
  steps = {step['type'] for step in [before, *before.get('pretokenizers', [])] if step}
  added = {token['content'] for token in settings.get('added_tokens', [])}
  everything = tokenizer.get_vocab(with_added_tokens=False)
  vocabulary = {token: index for token, index in everything.items() if _LETTERS.issuperset(token)}
  is_spelled = vocabulary.keys() >= _LETTERS and everything.keys() - vocabulary.keys() <= added
  if not isinstance(tokenizer.model, models.BPE) or 'ByteLevel' not in steps or not is_spelled:
    raise ValueError(f"{name}: '{path}' is not a byte-level BPE: name one whose alphabet is the 256 bytes")
  if tokenizer.normalizer:
    raise ValueError(f"{name}: '{path}' has a normalizer, so that its units do not spell the text: take it out")
  for key in ('dropout', 'continuing_subword_prefix', 'end_of_word_suffix'):
    if value := getattr(tokenizer.model, key):
      raise ValueError(f"{name}: '{path}' has {key} {value!r}, so that units do not follow from bytes: take it out")
  return tokenizer.model, vocabulary
