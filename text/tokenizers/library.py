"""Tokenizers that the `tokenizers` library trains and a tokenizer.json holds: all are of the 256 bytes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from text import units
from text.tokenizers import patterns

if TYPE_CHECKING:
  from tokenizers import Tokenizer

_LONGEST = 2**14  # bytes of a token, where none is asked for


def supported(vocab_size: int, found: int) -> ValueError:
  """The error of a vocabulary that is too large."""
  return ValueError(f'vocab_size={vocab_size}: the text supports only {found} tokens: ask for fewer, or give more text')


def bpe(documents: Iterable[bytes], vocab_size: int, expression: str, length: int = 0) -> 'Tokenizer':
  """Byte-level BPE. length: bytes of the longest token, 0 = any. Raises ValueError where the text has fewer tokens."""
  from tokenizers import models, trainers

  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    min_frequency=2,
    initial_alphabet=units.alphabet(),
    max_token_length=(length or _LONGEST) + 1,  # it takes that for the first length that is too much
    show_progress=False,
  )
  return _trained(models.BPE(), trainer, documents, vocab_size, expression)


def unigram(documents: Iterable[bytes], vocab_size: int, expression: str, length: int) -> 'Tokenizer':
  """A Unigram model of bytes (Kudo 2018); raises as `bpe`."""
  from tokenizers import models, trainers

  trainer = trainers.UnigramTrainer(
    vocab_size=vocab_size, initial_alphabet=units.alphabet(), max_piece_length=length, show_progress=False
  )
  return _trained(models.Unigram(), trainer, documents, vocab_size, expression)


def of_bytes(model: Any, expression: str) -> 'Tokenizer':
  """A tokenizer of the 256 bytes with a model, which cuts as an expression says."""
  from tokenizers import Tokenizer, decoders

  tokenizer = Tokenizer(model)
  tokenizer.pre_tokenizer = patterns.pre_tokenizer(expression)
  tokenizer.decoder = decoders.ByteLevel()
  return tokenizer


def tokens(tokenizer: 'Tokenizer') -> list[bytes]:
  """Those of more than one byte, by their ids."""
  vocabulary = tokenizer.get_vocab(with_added_tokens=False)
  return [token for token in map(units.unwritten, sorted(vocabulary, key=vocabulary.get)) if len(token) > 1]


def _trained(model: Any, trainer: Any, documents: Iterable[bytes], vocab_size: int, expression: str) -> 'Tokenizer':
  tokenizer = of_bytes(model, expression)
  tokenizer.train_from_iterator((text for document in documents for text in patterns.texts(document)), trainer)
  if (found := tokenizer.get_vocab_size()) < vocab_size:
    raise supported(vocab_size, found)
  return tokenizer
