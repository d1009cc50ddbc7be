"""SuperBPE (Liu et al., COLM 2025, arXiv:2503.13423): BPE within words first, then over them, with the stock library.

Tokens of the first stage are the characters of a text that a second BPE is trained on; its merges, in names of bytes,
follow those of the first. Two kinds of merges of the second stage are left out, as the authors do, with all that is
made of them: tokens with a colon and a space behind it, and tokens of too many words. The text is counted with these
merges in it, so that what follows them comes as if they had been made.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from text import units
from text.tokenizers import library, patterns

if TYPE_CHECKING:
  from tokenizers import Tokenizer

SECOND = r'\p{N}{1,3}| ?[^\s\p{L}\p{N}]{2,}[\r\n/]*| +(?!\S)'  # the cuts of the second stage, and of the result
_FIRST_CODE, _CODES = 0xF0000, 0x20000  # private characters


def train(documents: Iterable[bytes], vocab_size: int, pattern: str, first: float, words: int) -> 'Tokenizer':
  """first: share of the vocabulary that is made within words. words: in a token, at most.

  Raises ValueError where the text has fewer tokens, and for a share that leaves one of the stages nothing to do.
  """
  documents = list(documents)
  size = round(first * vocab_size)
  if not 256 < size < vocab_size:
    raise ValueError(f'superbpe: first={first} gives the first stage {size} of {vocab_size} tokens: use 0.5 to 0.95')
  if size > _CODES:
    raise ValueError(f'superbpe: the first stage can have {_CODES} tokens, not {size}: use a smaller first')
  stage = library.bpe(documents, size, patterns.of(pattern))
  settings = json.loads(stage.to_str())['model']
  vocab, merges = dict(settings['vocab']), [tuple(pair) for pair in settings['merges']]
  names, wanted = sorted(vocab, key=vocab.get), vocab_size
  stage.pre_tokenizer = patterns.pre_tokenizer(SECOND)
  texts = list(_in_codes(stage, documents))
  while True:  # until enough are left
    found, count = _second(texts, size, wanted)
    new_vocab, new_merges = _kept(found, names, vocab, set(merges), vocab_size, words)
    if len(new_vocab) == vocab_size:
      break
    if count < wanted:
      raise library.supported(vocab_size, len(new_vocab))
    wanted += max(64, 2 * (vocab_size - len(new_vocab)))
  from tokenizers import models

  return library.of_bytes(models.BPE(new_vocab, [*merges, *new_merges]), SECOND)


def _in_codes(stage: 'Tokenizer', documents: Iterable[bytes]) -> Iterable[str]:
  """Every text as tokens of the first stage, a private character each, with spaces where the second one cuts."""
  for document in documents:
    for text in patterns.texts(document):
      encoding, parts, before = stage.encode(text), [], 0
      for index, word in zip(encoding.ids, encoding.word_ids, strict=True):
        parts += [' '] * (word != before) + [chr(_FIRST_CODE + index)]
        before = word
      yield ''.join(parts)


def _second(texts: Iterable[str], size: int, wanted: int) -> tuple[list[tuple[str, str]], int]:
  """(merges of the text of codes, how many tokens there are with them)."""
  from tokenizers import Tokenizer, models, pre_tokenizers, trainers

  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Split(' ', 'removed')
  alphabet = [chr(_FIRST_CODE + index) for index in range(size)]
  trainer = trainers.BpeTrainer(vocab_size=wanted, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
  tokenizer.train_from_iterator(texts, trainer)
  return [tuple(pair) for pair in json.loads(tokenizer.to_str())['model']['merges']], tokenizer.get_vocab_size()


def _kept(
  found: Iterable[tuple[str, str]], names: list[str], vocab: dict[str, int], known: set, vocab_size: int, words: int
) -> tuple[dict[str, int], list[tuple[str, str]]]:
  """(vocabulary, merges of the second stage) without those that are left out, in names of bytes."""
  vocab, merges = dict(vocab), []
  for pair in found:
    if len(vocab) == vocab_size:
      break
    left, right = (''.join(names[ord(code) - _FIRST_CODE] for code in side) for side in pair)
    if left not in vocab or right not in vocab or (left, right) in known or not _fits(left + right, words):
      continue
    vocab.setdefault(left + right, len(vocab))
    known.add((left, right))
    merges.append((left, right))
  return vocab, merges


def _fits(name: str, words: int) -> bool:
  text = units.unwritten(name)
  return b': ' not in text and len(text.split()) <= words
