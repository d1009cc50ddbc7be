"""A tokenizer.json of the `tokenizers` library as it is (GPT-2, Llama, SmolLM2, SentencePiece's BPE and Unigram, …).

The library does the work; what its text interface lacks is added. Bytes that are not UTF-8, text that it takes for its
unknown or a special token, and a '▁' in the text of tokenizers that write it for a space are spelled with the tokens of
single bytes; so is '<0x0A>' in a text for a Unigram model. Three settings are off, so that tokens spell the text: the
space before it, NFC (text that is in this form has the same tokens with it), and the reading of names of special tokens
as these tokens.
"""

import hashlib
import itertools
import json
import re
from typing import TYPE_CHECKING

from text.tokenizers import spelling
from text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
  import tokenizers

_PROBE = ' The cat, and 1234 x_y  \t the CAT’s\n\n  (naïve);  \n'
_KEYS = ('added_tokens', 'normalizer', 'pre_tokenizer', 'model')  # of a tokenizer.json, which decide the ids


class Stock(Tokenizer):
  """Raises ValueError with a phrase for a file that is damaged or changes every text (case, white space)."""

  stock = True

  def __init__(self, content: bytes, path: str = '', name: str = ''):
    library = spelling.read(content, as_it_is=True)
    settings = json.loads(library.to_str())
    model = settings['model']
    super().__init__(name or model['type'].lower(), path, _digest(settings), _vocabulary(library, model))
    self._library, self._speller = library, spelling.Speller(library)
    self._has_pretokens = _splits(settings['pre_tokenizer'])
    alone = ['[\udc80-\udcff]', *map(re.escape, filter(None, [self._speller.space]))]
    if model['type'] == 'Unigram':  # takes a name in the text for the token
      alone.append(spelling.BYTE.pattern.replace('(', '(?:'))
    self._alone = re.compile(f'({"|".join(alone)})')
    self._bytes = _ids_of_bytes(library, self.vocabulary)
    self._cut(_PROBE.encode())

  @property
  def library(self) -> 'tokenizers.Tokenizer':
    """The object of the `tokenizers` library."""
    return self._library

  def _cut(self, document: bytes, with_ends: bool = False) -> tuple[list[int], list[int] | None]:
    ids, ends, at, with_ends = [], [], 0, with_ends and self._has_pretokens
    for part in self._alone.split(document.decode('utf-8', 'surrogateescape')):
      if not part:
        continue
      bytes_ = part.encode('utf-8', 'surrogateescape')
      if self._alone.match(part):
        ids += self._single(bytes_)
      else:
        found, borders = self._text(part, bytes_, with_ends)
        ids += found
        ends += (at + border for border in borders)
      at += len(bytes_)
      ends.append(at)
    return ids, sorted(set(ends)) if with_ends else None

  def _text(self, text: str, bytes_: bytes, with_ends: bool) -> tuple[list[int], list[int]]:
    """(ids, ends of pretokens but the last) of a text that is UTF-8."""
    encoding = self._library.encode(text, add_special_tokens=False)
    table, ids, words = self.vocabulary, encoding.ids, encoding.word_ids if with_ends else None
    if not all(map(table.__getitem__, ids)):  # the unknown or a special token
      spans = zip(ids, encoding.offsets, words or ids, strict=True)
      spelled = [(self._single(text[a:b].encode()) if not table[i] else [i], word) for i, (a, b), word in spans]
      ids = [i for part, _ in spelled for i in part]
      words = [word for part, word in spelled for _ in part]
    parts = [table[index] for index in ids]
    if b''.join(parts) != bytes_:
      self._refuse(text, bytes_)
    if words is None:
      return ids, []
    ends = itertools.accumulate(map(len, parts))
    return ids, [end for end, (before, after) in zip(ends, itertools.pairwise(words), strict=False) if before != after]

  def _single(self, bytes_: bytes) -> list[int]:
    found = [self._bytes[byte] for byte in bytes_]
    if -1 in found:
      raise ValueError(f"tokenizer '{self.path}' has no token for byte {bytes_[found.index(-1)]:#04x}: name another")
    return found

  def _refuse(self, text: str, bytes_: bytes) -> None:
    self._single(bytes(byte for byte in bytes_ if byte in self.missing)[:1])
    try:
      self._speller(text)
      reason = 'adds a space to it'
    except ValueError as error:
      reason = str(error)
    raise ValueError(f"tokenizer '{self.path}' changes the text, since it {reason}: name one that spells every byte")


def _digest(settings: dict) -> str:
  content = json.dumps({key: settings[key] for key in _KEYS}, sort_keys=True, ensure_ascii=True)
  return hashlib.sha256(content.encode()).hexdigest()[:16]


def _vocabulary(library: 'tokenizers.Tokenizer', model: dict) -> list[bytes]:
  speller, names = spelling.Speller(library), library.get_vocab(with_added_tokens=True)
  in_model = library.get_vocab(with_added_tokens=False)
  prefix = model.get('continuing_subword_prefix') or ''
  table = [b''] * (1 + max(names.values(), default=-1))
  for name, index in names.items():
    if not (spellings := speller.spellings(index)):
      continue
    # An added token has two where its name could be read in an alphabet, too; only one of the model is written in it.
    table[index] = spellings[-1] if name in in_model else spellings[0]
    if prefix and name.startswith(prefix) and name != prefix:
      table[index] = table[index].removeprefix(prefix.encode())
  return table


def _ids_of_bytes(library: 'tokenizers.Tokenizer', vocabulary: tuple[bytes, ...]) -> list[int]:
  """The id of each byte, -1 for none; that of <0x41> rather than of A."""
  found = [-1] * 256
  for index, token in enumerate(vocabulary):
    if len(token) == 1 and found[token[0]] < 0:
      found[token[0]] = index
  for byte in range(256):
    index = library.token_to_id(f'<0x{byte:02X}>')
    if index is not None and vocabulary[index] == bytes([byte]):
      found[byte] = index
  return found


def _splits(pre_tokenizer: dict | None) -> bool:
  """Whether a pre-tokenizer cuts anything."""
  for step in spelling.steps(pre_tokenizer):
    whole = {'ByteLevel': 'use_regex', 'Metaspace': 'split'}.get(step['type'])
    if whole is None or step.get(whole, True):
      return True
  return False
