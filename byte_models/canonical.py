"""Which strings of tokens a tokenizer writes, and where a text is cut whatever follows: asked of its encoder alone.

A string of tokens is *valid* if some text's encoding begins with it. For merges that nothing looks beyond (BPE whose
pieces are cut without looking ahead) these are the strings that are the encoding of their own bytes. Rules that look
ahead have more: GPT-2 writes two newlines as one token at the end of a text and as two before a letter, and a character
is written in one way whole and in another where the text ends inside it. So a string also counts where it begins the
encoding of its bytes with one of a few continuations behind them (`_continuations`). One that needs a continuation
that is not among these is taken for invalid: probabilities are then a little too small, never too large.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from text.prefixes import Prefixes

_KEPT = 1024  # strings of tokens whose successors are remembered, a byte a token of the vocabulary each
# After these a cut may fall elsewhere: letters, a contraction, digits in threes from the right, punctuation, space.
_PROBES = (b'', b'a', b's', b"'s", b'0', b'00', b'.', b' ', b'\n')


class Tokenizer(Protocol):
  """What `text.tokenizers.load` gives, as far as it matters here: see `text.tokenizers`."""

  vocabulary: tuple[bytes, ...]

  def encode(self, document: bytes) -> np.ndarray: ...

  def pretokens(self, document: bytes) -> np.ndarray | None: ...


class Canonical:
  """The rules of one tokenizer, with the table of its vocabulary."""

  def __init__(self, tokenizer: Tokenizer, table: Prefixes):
    self._tokenizer, self._table = tokenizer, table
    self._marks = functools.lru_cache(_KEPT)(lambda tokens: np.full(len(table.ids), -1, np.int8))
    self._pairs = np.zeros((256, 256), bool)  # bytes that stand side by side in some token
    for token in table.spelled:
      bytes_ = np.frombuffer(token, np.uint8)
      self._pairs[bytes_[:-1], bytes_[1:]] = True

  def encode(self, text: bytes) -> tuple[int, ...]:
    """The tokens of a text. Raises ValueError where they do not spell it."""
    tokens = tuple(map(int, self._tokenizer.encode(text)))
    if (spelled := self.spell(tokens)) != text:
      at = next((i for i, (a, b) in enumerate(zip(spelled, text, strict=False)) if a != b), len(spelled))
      raise ValueError(
        f'the tokenizer loses bytes: of {text[at : at + 12]!r} (byte {at}) it makes tokens that spell '
        f'{spelled[at : at + 12]!r}: use one with a token for every byte'
      )
    return tokens

  def spell(self, tokens: tuple[int, ...]) -> bytes:
    """The bytes of tokens."""
    return b''.join(self._tokenizer.vocabulary[token] for token in tokens)

  def is_valid(self, tokens: tuple[int, ...], text: bytes) -> bool:
    """Whether tokens that spell `text` are valid, as above."""
    length = len(tokens)
    return any(self._encode(text + more)[:length] == tokens for more in _continuations(text))

  def successors(self, tokens: tuple[int, ...], lo: int, hi: int) -> np.ndarray:
    """Which of the tokens at places lo..hi - 1 of the table may follow valid ones: [hi - lo] bool.

    One without bytes, which ends a text, may where the tokens are the encoding of what they spell.
    """
    marks, text = self._marks(tokens), self.spell(tokens)
    for place in np.flatnonzero(marks[lo:hi] < 0) + lo:
      more = self._table.spelled[place]
      whole = (*tokens, int(self._table.ids[place]))
      marks[place] = self.is_valid(whole, text + more) if more else self._encode(text) == tokens
    return marks[lo:hi] == 1

  def certain(self, text: bytes) -> int:
    """A place shortly before the end of a text where it is cut whatever follows it, and from which on it can be encoded
    alone; 0 where there is none.

    Of the ends of pretokens that stay where they are before every one of some continuations, the last but two; where a
    tokenizer has no pretokens, of the places between two bytes that are side by side in no token.
    """
    tokens = self.encode(text)
    cuts = set(itertools.accumulate(len(self._tokenizer.vocabulary[token]) for token in tokens))
    for more in {*_PROBES, *_continuations(text)}:
      if (ends := self._tokenizer.pretokens(text + more)) is None:
        bytes_ = np.frombuffer(text, np.uint8)
        ends = 1 + np.flatnonzero(~self._pairs[bytes_[:-1], bytes_[1:]])
      cuts.intersection_update(map(int, ends))
    for cut in sorted(cuts)[-3::-1]:
      alone = self._encode(text[cut:])
      if alone == tokens[len(tokens) - len(alone) :]:
        return cut
    return 0

  def _encode(self, text: bytes) -> tuple[int, ...]:
    return tuple(self._tokenizer.encode(text).tolist())


def _continuations(text: bytes) -> Iterator[bytes]:
  """What may stand behind a text for its last tokens to be valid: nothing; bytes that end the character it ends in;
  behind white space and digits, where rules look ahead, one of each kind of characters.
  """
  yield b''
  lead = next((back for back in range(1, min(4, len(text)) + 1) if text[-back] & 0xC0 != 0x80), 0)
  missing = {0b110: 2, 0b1110: 3, 0b11110: 4}
  size = next((size for bits, size in missing.items() if lead and text[-lead] >> (7 - size) == bits), 0)
  if size > lead:
    yield from (bytes([byte]) + b'\x80' * (size - lead - 1) for byte in range(0x80, 0xC0))
    return
  last = text[-4:].decode('utf-8', 'ignore')[-1:]
  if last.isspace():
    yield from (b'a', b'0', b'.', b' ', b'\n', b'\0')
  elif last.isnumeric():
    yield from (b'0', b'00')
