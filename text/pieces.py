"""The pieces of a subword tokenizer, as lengths: labels of boundaries that learn from it (`text.marks`, 'pieces').

A tokenizer.json of the `tokenizers` library: a byte-level BPE as in `text.units`, or a Unigram model (SentencePiece's)
whose words begin with '▁' for a space. Of the latter only the model is used, on every word by itself. Bytes that are
not UTF-8 are pieces of their own, and so are runs of characters that it does not know.
"""

import functools
import re
from collections.abc import Callable

from text import units
from text.specification import quoted

SPACE = '▁'
_ALONE = re.compile('([\udc80-\udcff])')  # bytes that are not UTF-8, as 'surrogateescape' has them
_KEPT_WORDS = 2**16  # whose pieces are remembered


@functools.cache
def parse(file: str, digest: str = '') -> Callable[[bytes], tuple[int, ...]]:
  """word -> bytes of each of its pieces.

  Raises ValueError for a tokenizer that is damaged, of another kind, that changes the text before it cuts it, or that
  has another digest (`text.units.digest_of`); OSError for a file that cannot be read.
  """
  spec = units.in_file(file, digest)
  settings, _ = _read(file, units.read(spec))
  if settings['model'].get('type') != 'Unigram':
    of_file = units.parse(spec)
    return lambda word: tuple(len(of_file.table[unit]) for unit in of_file(word))
  if settings.get('normalizer'):
    raise ValueError(f"pieces of '{file}': it has a normalizer, so that its pieces do not spell the text: take it out")
  return _unigram(settings['model'])


def _read(file: str, content: bytes) -> tuple[dict, object]:
  try:
    return units.read_tokenizer(content)
  except ValueError as error:
    raise ValueError(f'pieces of {quoted(file)}: the file {error}: make it again, or name another') from None


def _unigram(settings: dict) -> Callable[[bytes], tuple[int, ...]]:
  from tokenizers import models

  # Without its fallback to bytes, which would not say which character they are of.
  model = models.Unigram([(piece, score) for piece, score in settings['vocab']], settings['unk_id'], False)

  @functools.lru_cache(_KEPT_WORDS)
  def sizes(word: bytes) -> tuple[int, ...]:
    found = []
    for part in _ALONE.split(word.decode('utf-8', 'surrogateescape')):
      if _ALONE.match(part):
        found.append(1)
      elif part:
        pieces = [token.value for token in model.tokenize(part.replace(' ', SPACE))]
        ends = [sum(map(len, pieces[: count + 1])) for count in range(len(pieces))]
        found += [len(part[start:end].encode()) for start, end in zip([0, *ends], ends, strict=False)]
    return tuple(found)

  return sizes
