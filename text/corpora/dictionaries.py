"""Two English dictionaries in the format of dictd: an index of headwords, and one file of entries."""

import gzip
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from text.corpora.archives import Archive

_DIGITS = {digit: value for value, digit in
           enumerate(b'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/')}  # fmt: skip
# Every paragraph of GCIDE ends with where it is from: '[1913 Webster]', '[WordNet 1.5 +PJC]', '[PJC]'.
_ORIGIN = re.compile(r'[ \t]*\[(?:(?:1913 Webster|Webster 1913(?: Suppl\.)?|WordNet \d\.\d|PJC|AS)(?: ?\+ ?(?=\w))?)+\]'
                     r'[ \t]*$', re.M)  # fmt: skip
_SENSE = re.compile(r'^ {3,}(?:(?:n|v|adj|adv) )?\d+: ', re.M)


def gcide(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """Entries of the Collaborative International Dictionary, without the tag of origin on every paragraph."""
  for entry in _entries(archives[0], 'gcide'):
    text, tags = _ORIGIN.subn('', entry.decode('cp1252'))
    dropped['tags of origin'] += tags
    yield re.sub(r'\n\s*\n', '\n\n', text).strip().encode()


def wordnet(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """Entries of WordNet, each sense once.

  A sense stands in the file under each of its synonyms, word for word, so that a split by entries would test on
  sentences of the training split; it is kept under the first one.
  """
  seen: set[str] = set()
  for entry in _entries(archives[0], 'wn'):
    text = entry.decode('utf-8')
    starts = [match.start() for match in _SENSE.finditer(text)]
    kept = [text[: starts[0]]] if starts else [text]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
      sense = text[start:end]
      meaning = ' '.join(sense.split(': ', 1)[1].split())
      if meaning in seen:
        dropped['senses that a synonym had before'] += 1
      else:
        seen.add(meaning)
        kept.append(sense)
    if starts and len(kept) == 1:
      dropped['entries without a sense of their own'] += 1
    else:
      yield ''.join(kept).strip().encode()


def _entries(archive: Archive, name: str) -> Iterator[bytes]:
  """Entries in the order of the file; several headwords may point to one."""
  files = dict(archive.members(rf'usr/share/dictd/{name}\.(?:index|dict\.dz)'))
  text = gzip.decompress(files[f'usr/share/dictd/{name}.dict.dz'])
  rows = [line.split(b'\t')[:3] for line in files[f'usr/share/dictd/{name}.index'].splitlines()]
  about = {(start, size) for word, start, size in rows if word.startswith((b'00-', b'00database'))}
  spans = {(_number(start), _number(size)) for _, start, size in rows if (start, size) not in about}
  return (text[start : start + size] for start, size in sorted(spans))


def _number(digits: bytes) -> int:
  value = 0
  for digit in digits:
    value = value * 64 + _DIGITS[digit]
  return value
