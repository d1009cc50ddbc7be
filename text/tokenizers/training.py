"""Every kind of tokenizer that is trained here, by its specification, and the directory that is written of one."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from text import corpus as corpora
from text.specification import arguments, canonical
from text.tokenizers import boundless, less_is_better, library, loading, pathpiece, patterns, picky, superbpe

# name -> (arguments with their defaults, trainer). A trainer takes the documents, vocab_size and these arguments; it
# returns a Tokenizer of the library, or what rules.json holds.
_CUT = {'pattern': 'gpt4'}
KINDS: dict[str, tuple[dict[str, Any], Callable[..., Any]]] = {
  'boundlessbpe': ({**_CUT, 'threshold': 0.9, 'superwords': True}, boundless.train),
  'bpe': (_CUT, lambda documents, vocab_size, pattern: library.bpe(documents, vocab_size, patterns.of(pattern))),
  # As the 'char' tokenizers of KL3M (arXiv:2503.17247): tokens of 3 or 4 bytes at most.
  'char_bpe': (
    {**_CUT, 'length': 3},
    lambda documents, vocab_size, pattern, length: library.bpe(documents, vocab_size, patterns.of(pattern), length),
  ),
  'lib': ({'pattern': 'lines', 'length': 12, 'articles': 300, 'seed': 0}, less_is_better.train),
  'pathpiece': ({**_CUT, 'length': 16, 'start': 'bpe', 'start_size': 0}, pathpiece.train),
  'picky': ({**_CUT, 'threshold': 0.9}, picky.train),
  'superbpe': ({**_CUT, 'first': 0.8, 'words': 4}, superbpe.train),
  'unigram': (
    {**_CUT, 'length': 16},
    lambda documents, vocab_size, pattern, length: library.unigram(documents, vocab_size, patterns.of(pattern), length),
  ),
}


def train(
  spec: str, documents: Iterable[bytes], vocab_size: int, special_tokens: Iterable[str] = ()
) -> tuple[str, str]:
  """(name of the file, its content) of a tokenizer with that many ids, special tokens the last among them.

  Raises ValueError for an unknown kind or argument, and a vocabulary that is too small, or larger than the text
  supports.
  """
  kind, values = arguments(spec, 'tokenizer', {name: defaults for name, (defaults, _) in KINDS.items()})
  special = list(dict.fromkeys(special_tokens))
  size = vocab_size - len(special)
  if size < 257:
    raise ValueError(
      f'vocab_size={vocab_size} must be at least {257 + len(special)}: the 256 bytes, one token more'
      f'{f", and {len(special)} special ones" if special else ""}'
    )
  found = KINDS[kind][1](documents, size, **values)
  if isinstance(found, dict):
    settings = {**found, 'special_tokens': special}
    return loading.RULES, json.dumps(settings, ensure_ascii=False, indent=0)
  found.add_special_tokens(special)
  return loading.STOCK, found.to_str(pretty=True)


def write(out: Path, spec: str, file: str, content: str, corpus: corpora.Corpus, held_out: Iterable[bytes]) -> dict:
  """Writes a directory at once, and reads it again; its card."""
  partial = out.with_name(f'{out.name}.part{os.getpid()}')
  partial.mkdir()
  try:
    (partial / file).write_text(content, encoding='utf-8')
    card = {**_card(spec, partial, corpus), 'held_out': measured(loading.load(partial), held_out)}
    (partial / loading.CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
    os.rename(partial, out)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return card


def measured(tokenizer: loading.Tokenizer, documents: Iterable[bytes]) -> dict[str, Any]:
  """Bytes and tokens of documents. Raises ValueError where tokens do not spell one."""
  documents_, bytes_, tokens = 0, 0, 0
  used = np.zeros(len(tokenizer.vocabulary), bool)
  for document in documents:
    ids = tokenizer.encode(document)
    if tokenizer.decode(ids) != document:
      raise ValueError(f"tokenizer '{tokenizer.path}' loses bytes of {document!r:.60}: this is a bug, report it")
    documents_, bytes_, tokens = documents_ + 1, bytes_ + len(document), tokens + len(ids)
    used[ids] = True
  return {
    'documents': documents_,
    'bytes': bytes_,
    'tokens': tokens,
    'bytes_per_token': round(bytes_ / tokens, 4) if tokens else None,
    'ids_used': round(float(used.mean()), 4),
  }


def _card(spec: str, directory: Path, corpus: corpora.Corpus) -> dict[str, Any]:
  tokenizer = loading.load(directory)
  kind, values = arguments(spec, 'tokenizer', {name: defaults for name, (defaults, _) in KINDS.items()})
  opens = (
    'the tokenizers library, transformers and text.tokenizers.load'
    if tokenizer.stock
    else 'text.tokenizers.load alone: no tokenizer.json can express these rules'
  )
  return {
    'kind': kind,
    'specification': canonical(kind, values),
    'vocab_size': len(tokenizer.vocabulary),
    'longest_token': int(tokenizer.sizes.max()),
    'digest': tokenizer.digest,
    'opens_with': opens,
    'trained_on': corpus.identity(),
  }
