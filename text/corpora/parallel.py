"""The same text in many languages: the help pages of LibreOffice, the Universal Declaration of Human Rights."""

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from text.corpora.archives import Archive
from text.corpora.markup import lines_of

_SPAN = re.compile(r'<span\b[^>]*>|</span>')
_BROKEN = re.compile(r'\[text/\S* not found\]')
_PARAGRAPH = re.compile(r'<p id="(par_[^"]*)"[^>]*>(.*?)</p>', re.S)
_ARTICLE = re.compile(r'<article data-number="(\d+)">(.*?)</article>', re.S)
ZERO_WIDTH_SPACE = '\u200b'


def help_pages(archives: Sequence[Archive], dropped: Counter, *, aligned: bool = False) -> Iterator[tuple[str, bytes]]:
  """(split, page) in the language of the last archive, or of the first where there are several; a paragraph is a line.

  archives: English, then translations. With two, all that the second translates; with one, all of English. aligned:
  the first archive is of the language wanted, the others are all languages, English first; only paragraphs that every
  language translates, and only pages outside the training split.
  Pages share paragraphs, which are kept where English has them first. The split is drawn from the name of the page, so
  a page is on the same side in every language.
  """
  english, *others = [_paragraphs(archive) for archive in (archives[1:] if aligned else archives)]
  wanted = _paragraphs(archives[0]) if aligned else others[0] if others else english
  seen: set[str] = set()
  for page, paragraphs in english.items():
    split, lines, left_out = _split_of(page), [], Counter()
    for identifier, source in paragraphs.items():
      translations = [other.get(page, {}).get(identifier, source) for other in others]
      if source in seen:
        left_out['paragraphs of an earlier page'] += 1
      elif source in translations:
        left_out['paragraphs without translation'] += 1
      else:
        lines.append(wanted[page][identifier])
      seen.add(source)
    if aligned and split == 'train':
      dropped['pages of the training split'] += 1
      continue
    dropped.update(left_out)
    if lines:
      yield split, '\n'.join(lines).encode()
    else:
      dropped['pages without text'] += 1


def declaration(archives: Sequence[Archive], dropped: Counter, *, language: str) -> Iterator[tuple[str, bytes]]:
  """('test', article) for the thirty articles in order, without the headings; a paragraph is a line."""
  page = archives[0].read(rf'package/declaration/{language}\.html').decode('utf-8')
  articles = [lines_of(re.sub(r'<h2>.*?</h2>', '', text, flags=re.S)) for _, text in _ARTICLE.findall(page)]
  if len(articles) != 30:
    raise ValueError(f'the declaration in {language} has {len(articles)} articles, not 30')
  for lines in articles:
    yield 'test', '\n'.join(lines).encode()


@functools.lru_cache(maxsize=16)
def _paragraphs(archive: Archive) -> dict[str, dict[str, str]]:
  """Page → paragraph id → text, in the order of the pages' names and of the page.

  Khmer is written without spaces, and these files mark its words by U+200B: taken out, since it would give the words
  away to a model that is to find them.
  """
  pages = {}
  for name, content in archive.members(r'usr/share/libreoffice/help/[^/]+/text/.*\.html'):
    body = content.decode('utf-8').partition('id="DisplayArea"')[2]
    paragraphs: dict[str, str] = {}
    for identifier, fragment in _PARAGRAPH.findall(body):
      text = ' '.join(lines_of(_shown(fragment))).replace(ZERO_WIDTH_SPACE, '')
      if text and not _BROKEN.search(text):
        paragraphs.setdefault(identifier, text)
    pages[name.split('/text/', 1)[1]] = paragraphs
  return dict(sorted(pages.items()))


def _shown(fragment: str) -> str:
  """Without the alternatives for other systems and programs: spans that are hidden, only the default one is shown."""
  kept, hidden, position = [], [], 0
  for tag in _SPAN.finditer(fragment):
    if not any(hidden):
      kept.append(fragment[position : tag.start()])
    position = tag.end()
    if tag[0] != '</span>':
      hidden.append('hidden="true"' in tag[0] and 'id="default' not in tag[0])
    elif hidden:
      hidden.pop()
  return ''.join(kept) + ('' if any(hidden) else fragment[position:])


def _split_of(page: str) -> str:
  share = int.from_bytes(hashlib.sha256(page.encode()).digest()[:8], 'big') / 2**64
  return 'validation' if share < 0.05 else 'test' if share < 0.1 else 'train'
