"""Marks: what the host knows of every byte of a batch beside its value, by name and by a rule.

A model states the marks that it reads in its attribute `marks`, name -> specification, such as
{'words': 'hat(max_bytes=64)', 'units': 'char(limit=0x3000)'}; {} where bytes are all that it reads. The specification
names a kind of KINDS: a new kind is a class and a line there, and nothing else in this code knows of it.

kind                              what stands at a byte
hat, whitespace, uax29, fixed     bool: a word begins here, by a splitter of `text.words`
byte, char, subword               int32: the unit of `text.units` whose last byte this is, -1 at the others of it; the
                                  units are parts of the words that the mark 'words' of the same model shows
tokens                            int32: the token of a tokenizer whose last byte this is, -1 at the others of it, see
                                  `Tokens`
script, only_scripts              int8: the script of the character here, see `Script`
ended                             bool: with this byte it is known that a word has ended before it, see `Ended`
levels                            int8: the level of what ends here by AU-Net's rules, see `Levels`
regex                             bool: a match of a regular expression ends or begins here, see `Regex`
pieces                            bool: a piece of a subword tokenizer ends here, see `Pieces`
entropy                           float32: nats of what follows here, by a model that has read the document before, from
                                  a directory of `text.entropies`

BOS and EOS are words and units of their own, and so are the first symbols of rows that continue a document.
"""

import dataclasses
import functools
import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from text import entropies, stochastic_tokens
from text import levels as levels_lib
from text import pattern as pattern_lib
from text import pieces as pieces_lib
from text import tokens as tokens_lib
from text import units as units_lib
from text import words as words_lib
from text.batch import BOS, EOS, Batch
from text.specification import arguments

Specs = Mapping[str, str]


class Document:
  """A text of which pieces are marked: its bytes are symbols 1 to `length`, between BOS and EOS. This one is in memory.

  A piece is a run of its symbols, [start, stop). Those before first_scored are context: what they show was paid for.
  key: what is drawn for a piece is drawn from this.
  """

  key: tuple[int, ...] = ()

  def __init__(self, content: bytes):
    self.length, self._content = len(content), content

  def read(self, begin: int, end: int) -> bytes:
    """The bytes [begin, end)."""
    return self._content[begin:end]

  def words(self, splitter: words_lib.Splitter, begin: int, end: int, exact: bool) -> tuple[int, list[bytes]]:
    """(where the first of them begins, the words) that have one of the bytes [begin, end), of which the first may be
    context. exact: pieces that meet at a cut find the same word there; else the words of these bytes alone will do.
    """
    del exact
    return begin, splitter.words(self.read(begin, end))

  def stretches(self, begin: int, end: int) -> Iterable[tuple[int, bytes]]:
    """(where it begins, a stretch of the text) for all that have one of the bytes [begin, end): what a tokenizer reads
    at a time, the same for all pieces.
    """
    del begin, end
    return [(0, self._content)]


class Kind:
  """Values of bytes by a rule. Those of this base follow from the byte and BACK bytes before it, by `of`; BOS and EOS
  get EMPTY.

  DTYPE, EMPTY: of an array of them, and its value in padding. lookahead: bytes behind a byte that decide on its mark,
  about; 0 where it can be known with the byte, as decoding in a model that reads it at every byte takes for granted.
  leaks: whether the user wants it at every byte all the same. remedy: what a model that reads it there does instead.
  """

  DTYPE: Any = np.int8
  EMPTY: Any = 0
  BACK = 0
  lookahead, leaks = 0, False
  remedy = (
    "use one that does not, such as 'fixed(size=8)' or 'ended(hat)', or the families tfree_hat and word_ar, which wait"
  )

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Kind':
    """From a specification; others: all of the model's. Raises ValueError with one sentence."""
    del others
    arguments(spec, 'mark', {name: {} for name, kind in KINDS.items() if kind is cls})
    return cls()

  def check_rows(self, seq_len: int) -> None:
    """ValueError where rows to be trained on are too short for it."""

  def of(self, content: bytes) -> np.ndarray:
    """[bytes] of a text."""
    raise NotImplementedError

  def since(self, read: Callable[[int, int], bytes], begin: int) -> int:
    """From which byte of a text `of` finds the values of bytes from `begin` on; read(a, b) gives the bytes [a, b)."""
    del read
    return max(begin - self.BACK, 0)

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    """[stop - start], of the symbols of a piece."""
    del first_scored
    begin, end = max(start - 1, 0), min(stop - 1, document.length)
    first, values = self.since(document.read, begin), np.full(stop - start, self.EMPTY, self.DTYPE)
    values[begin + 1 - start : end + 1 - start] = self.of(document.read(first, end))[begin - first :]
    return values

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    """[count] of the last symbols of a row that decoding has read so far, BOS included; EMPTY where it has fewer.

    state: [2] int32, 0 in a row's first call, to keep what makes the next one cheap.
    """
    del state
    values, size = np.full(count, self.EMPTY, self.DTYPE), min(count, len(row) - has_bos)
    if size:
      text = row[has_bos:]
      first = self.since(lambda begin, end: text[begin:end], len(text) - size)
      values[-size:] = self.of(text[first:])[-size:]
    return values


@dataclasses.dataclass(frozen=True)
class Words(Kind):
  """Where words begin. exact: other marks depend on the words at a row's borders, so they are looked for beyond it."""

  splitter: words_lib.Splitter
  exact: bool

  DTYPE, EMPTY = np.bool_, False

  @property
  def lookahead(self) -> int:
    """Whether a character begins a word is known with its last byte."""
    return 0 if self.splitter.kind == 'fixed' else 3

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Words':
    return cls(words_lib.parse(spec), any(_kind(other) is Units for other in others.values()))

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    del first_scored
    begin, end = max(start - 1, 0), min(stop - 1, document.length)
    origin, found = document.words(self.splitter, begin, end, self.exact)
    word_W = _starts(origin + 1, np.fromiter(map(len, found), np.int64, len(found)))
    values = np.zeros(stop - start, bool)
    values[word_W[(word_W > start) & (word_W < stop)] - start] = True
    values[0] = True
    values[-1] |= stop == document.length + 2
    return values

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    """state: (where the splitter starts to read, where the last word begins for it).

    Starts that earlier calls said are False. As `text.words.Stream` does, since what the splitter makes of the open
    word may depend on the word before. A word that is cut for its length counts as one.
    """
    if not state[0]:
      state[:] = has_bos
    context, open_ = state.tolist()
    ends, characters = self.splitter.uncapped(row[context:])
    ends = ends[ends > open_ - context]
    starts = context + self.splitter.cap(ends, characters, open_ - context)[:-1]
    starts = np.concatenate([[0, has_bos], starts]) - (len(row) - count)
    values = np.zeros(count, bool)
    values[starts[(starts >= 0) & (starts < count)]] = True
    if len(ends) > 1:
      state[:] = context + int(ends[-3]) if len(ends) > 2 else open_, context + int(ends[-2])
    return values


@dataclasses.dataclass(frozen=True)
class Units(Kind):
  """Ids of the units that spell the words, each at its last byte; how rows cut them: `text.rows`."""

  units: units_lib.Units
  splitter: words_lib.Splitter

  DTYPE, EMPTY = np.int32, -1

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Units':
    units = units_lib.parse(spec)
    if _kind(others.get('words', '')) is not Words:
      raise ValueError(f"mark '{spec}': units are parts of words, so name a splitter as the mark 'words', too")
    return cls(units, words_lib.parse(others['words']))

  @property
  def lookahead(self) -> int:
    """Those of a word depend on all of it."""
    return self.splitter.limit

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    begin, end = max(start - 1, 0), min(stop - 1, document.length)
    origin, found = document.words(self.splitter, begin, end, True)
    ids_U = np.fromiter(itertools.chain.from_iterable(map(self.units, found)), np.int32)
    sizes_U = self.units.sizes[ids_U]
    begin_U = _starts(origin + 1, sizes_U)
    end_U = begin_U + sizes_U
    here_U = (begin_U < stop) & (end_U > start)
    border_U = np.where(begin_U < first_scored, first_scored, stop)
    values = np.full(stop - start, -1, np.int32)
    values[(np.minimum(end_U, border_U) - 1 - start)[here_U]] = ids_U[here_U]
    if not start:
      values[0] = BOS
    if stop == document.length + 2:
      values[-1] = EOS
    return values

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    raise ValueError(f"mark '{self.units.name}': which unit ends at a byte is not known while its word goes on")


PAID = -2  # at a byte whose token was paid for in the row before


@dataclasses.dataclass(frozen=True)
class Tokens(Kind):
  """Ids of the tokens of the document, not of the row, each at its last byte; how rows cut them: `text.rows`.

  tokens(file=PATH[,digest=HEX][,bos=ID][,eos=ID][,stochastok=P][,dropout=P]): the tokenizer (text/tokens.py), and what
  stands at BOS and EOS (-1: `text.tokens.Tokens.special`). A byte that is scored and part of a token
  that was paid for before it has PAID in place of -1. stochastok, dropout: other tokens for the same bytes, drawn anew
  for every row of training (text/stochastic_tokens.py); what a row cuts keeps its canonical tokens, so that the rows on
  both sides of a cut know the same.
  """

  tokens: tokens_lib.Tokens
  bos: int
  eos: int
  stochastok: float
  dropout: float

  DTYPE, EMPTY = np.int32, -1
  lookahead = 2**30  # later text may decide on the tokens of any earlier

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Tokens':
    del others
    options = {'bos': -1, 'eos': -1, 'stochastok': 0.0, 'dropout': 0.0}
    values = arguments(spec, 'mark', {'tokens': tokens_lib.ARGUMENTS['tokens'] | options})[1]
    tokens = tokens_lib.parse(tokens_lib.in_file(values.pop('file'), values.pop('digest')))
    for name, byte in (('bos', BOS), ('eos', EOS)):
      if values[name] < 0:
        values[name] = tokens.special(byte)
    if values['dropout']:
      stochastic_tokens.merges(tokens)  # that it has them is known now
    return cls(tokens, **values)

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    values = np.full(stop - start, -1, np.int32)
    ids_U, end_U, open_P = self._between(document, max(start - 1, 0), min(stop - 1, document.length))
    if self.stochastok or self.dropout:
      ids_U, end_U = self._drawn(document, ids_U, end_U, open_P, first_scored, stop)
    is_paid_U = end_U - self.tokens.sizes_V[ids_U] < first_scored
    for end in end_U[is_paid_U & (end_U > first_scored)].tolist():
      values[first_scored - start : end - start] = PAID
    values[np.minimum(end_U, np.where(is_paid_U, first_scored, stop)) - 1 - start] = ids_U
    if not start:
      values[0] = self.bos
    if stop == document.length + 2:
      values[-1] = self.eos
    return values

  def check_rows(self, seq_len: int) -> None:
    if seq_len < (longest := int(self.tokens.sizes_V.max())):
      token = self.tokens.table[int(self.tokens.sizes_V.argmax())]
      raise ValueError(
        f"seq_len={seq_len}: '{self.tokens.file}' has a token of {longest} bytes, {token!r:.50}, and a row that lies "
        'inside one has nothing to be trained on: use longer rows'
      )

  def _between(self, document: Document, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids, where each ends, where what the tokenizer cuts before it merges ends), the latter two as symbols of the
    document, for the tokens that have one of the bytes [begin, end).
    """
    parts = [(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for origin, stretch in document.stretches(begin, end) if begin < end else ():
      read = self.tokens(stretch)
      first = np.searchsorted(read.ends_N, begin - origin, 'right')
      last = np.searchsorted(read.ends_N, end - 1 - origin, 'right') + 1
      here, cuts_P = slice(int(first), int(last)), read.cuts_P if self.dropout else parts[0][2]
      parts.append((read.ids_N[here], origin + 1 + read.ends_N[here], origin + 1 + cuts_P))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))

  def _drawn(self, document: Document, ids_U, end_U, cut_P, first_scored: int, stop: int):
    """The tokens with others for what lies between first_scored and stop."""
    draw, begin_U = stochastic_tokens.draws(*document.key), end_U - self.tokens.sizes_V[ids_U]
    low, high = first_scored, stop
    if self.dropout:  # of what is merged by itself
      inside = cut_P[(cut_P >= first_scored) & (cut_P <= stop)]
      low, high = (inside[0], inside[-1]) if len(inside) > 1 else (stop, stop)
    changes = np.flatnonzero((begin_U >= low) & (end_U <= high))
    if not len(changes):
      return ids_U, end_U
    first, last = int(changes[0]), int(changes[-1]) + 1
    if self.dropout:
      begin, end = int(begin_U[first]), int(end_U[last - 1])
      text, cuts = document.read(begin - 1, end - 1), inside[(inside >= begin) & (inside <= end)] - begin
      stretches = (text[a:b] for a, b in itertools.pairwise(np.unique(cuts).tolist()))
      new = [i for part in stretches for i in stochastic_tokens.dropped(part, self.tokens, self.dropout, draw)]
    else:
      of = stochastic_tokens.expansions(self.tokens)
      new = stochastic_tokens.stochastok(ids_U[first:last].tolist(), of, self.stochastok, draw)
    ids_U = np.concatenate([ids_U[:first], np.array(new, np.int32), ids_U[last:]])
    return ids_U, begin_U[0] + np.cumsum(self.tokens.sizes_V[ids_U], dtype=np.int64)

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    raise ValueError(f"mark '{self.tokens.name}': which token ends at a byte is not known while the text goes on")


@dataclasses.dataclass(frozen=True)
class Entropy(Kind):
  """Of whole documents, which a directory knows by what they hold. model: the digest that it must have; '' for any.

  Not known of a text that is being written.
  """

  directory: str
  model: str

  DTYPE, EMPTY = np.float32, 0.0

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Entropy':
    del others
    _, values = arguments(spec, 'mark', {'entropy': {'directory': '', 'model': ''}})
    return cls(**values)

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    del first_scored
    found = entropies.opened(self.directory)
    if self.model and found.about.get('model') != self.model:
      raise ValueError(
        f"mark 'entropy': {self.directory} was made from the entropy model {found.about.get('model')} "
        f'({found.about.get("workdir")}, step {found.about.get("step")}) and not from {self.model}: make it again'
      )
    return np.array(found.of(document.read(0, document.length))[start:stop])

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    raise ValueError("mark 'entropy' is of documents that a model has read before: what is being written has none")


@dataclasses.dataclass(frozen=True)
class Pieces(Kind):
  """Whether a piece of a subword tokenizer ends here: a label, since the pieces of a word depend on all of it.

  pieces(file=PATH[,digest=HEX][,words=hat(max_bytes=64)][,spaces=next]): the tokenizer (text/pieces.py), and the
  splitter whose words it is used on. spaces: one ' ' that begins a word belongs to the 'next' piece, or 'closes' the
  one before, which then ends at the space and not at the letter before it (dynamic-pooling's labels).
  """

  sizes: Callable[[bytes], tuple[int, ...]]
  splitter: words_lib.Splitter
  closes: bool

  DTYPE, EMPTY = np.bool_, False

  @property
  def lookahead(self) -> int:
    """Those of a word depend on all of it."""
    return self.splitter.limit

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Pieces':
    del others
    defaults = {'file': '', 'words': 'hat(max_bytes=64)', 'digest': '', 'spaces': 'next'}
    values = arguments(spec, 'mark', {'pieces': defaults})[1]
    if values['spaces'] not in ('next', 'closes'):
      raise ValueError(f"mark '{spec}': spaces='{values['spaces']}' must be next or closes")
    if not values['file']:
      raise ValueError(f"mark '{spec}' names no file: write pieces(file=PATH); `python -m text.subwords` makes one")
    sizes = pieces_lib.parse(values['file'], values['digest'])
    return cls(sizes, words_lib.parse(values['words']), values['spaces'] == 'closes')

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    del first_scored
    begin, end = max(start - 1, 0), min(stop - 1, document.length)
    values = np.zeros(stop - start, bool)
    if end <= begin:
      return values
    origin, found = document.words(self.splitter, begin, end, True)
    sizes = np.fromiter(itertools.chain.from_iterable(map(self.sizes, found)), np.int64)
    ends = origin + np.cumsum(sizes)  # behind the last byte
    is_end = np.zeros(end - begin, bool)
    is_end[ends[(ends > begin) & (ends <= end)] - 1 - begin] = True
    if self.closes:
      is_space = np.frombuffer(document.read(begin, min(end + 1, document.length)) + b'.', np.uint8) == ord(' ')
      follows = np.append(begin > 0 and (origin == begin or begin in ends), is_end)[: len(is_end)]
      is_end = (is_end & ~is_space[1 : len(is_end) + 1]) | (follows & is_space[: len(is_end)])
    values[begin + 1 - start : end + 1 - start] = is_end
    return values

  def of_last(self, row: bytes, has_bos: bool, count: int, state: np.ndarray) -> np.ndarray:
    raise ValueError("mark 'pieces': which piece ends at a byte is not known while its word goes on")


# As the first word of Unicode's name of a character has them; unicodedata knows no property Script.
SCRIPTS = (
  'LATIN', 'GREEK', 'CYRILLIC', 'ARMENIAN', 'HEBREW', 'ARABIC', 'DEVANAGARI', 'BENGALI', 'TAMIL', 'THAI', 'GEORGIAN',
  'HANGUL', 'HIRAGANA', 'KATAKANA', 'CJK', 'DIGIT',
)  # fmt: skip


class Script(Kind):
  """1 + the place in SCRIPTS of the character that ends here, or else up to three bytes before; 0 if it has none.

  So the mark of a byte that only begins a character is not that of this character, which later bytes decide.
  """

  BACK = 6

  def of(self, content: bytes) -> np.ndarray:
    """[bytes] int8."""
    codes, sizes = characters(content)
    is_byte = (codes >= 0xDC80) & (codes <= 0xDCFF)  # of no character
    at_end = np.full(3 + len(content), -1, np.int8)
    at_end[2 + np.cumsum(sizes)[~is_byte]] = scripts()[codes[~is_byte]]
    values = at_end[3:]
    for back in (1, 2, 3):
      values = np.where(values < 0, at_end[3 - back : len(at_end) - back], values)
    return np.maximum(values, 0)


@dataclasses.dataclass(frozen=True)
class OnlyScripts(Script):
  """The same of text in a few scripts, 'only_scripts(of=latin+cyrillic)': others are refused, but for digits."""

  wanted: str

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'OnlyScripts':
    del others
    wanted = arguments(spec, 'mark', {'only_scripts': {'of': ''}})[1]['of']
    for name in wanted.split('+'):
      if name.upper() not in SCRIPTS or name != name.lower():
        raise ValueError(f"mark '{spec}': '{name}' is no script: use {', '.join(SCRIPTS).lower()}")
    return cls(wanted)

  def of(self, content: bytes) -> np.ndarray:
    values = super().of(content)
    for value in np.unique(values[values > 0]).tolist():
      if (name := SCRIPTS[value - 1]) != 'DIGIT' and name.lower() not in self.wanted.split('+'):
        raise ValueError(
          f'the text has characters of the script {name.lower()}, and the model is for {self.wanted}: add it to its '
          'scripts, or name one in `others` that stands for it'
        )
    return values


def characters(content: bytes) -> tuple[np.ndarray, np.ndarray]:
  """(codes, sizes in bytes) of the characters of a text; a byte of none has 0xDC00 and its value for a code, which no
  character has.
  """
  codes = np.frombuffer(content.decode('utf-8', 'surrogateescape').encode('utf-32-le', 'surrogatepass'), '<u4')
  is_byte = (codes >= 0xDC80) & (codes <= 0xDCFF)
  return codes, 1 + ((codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)) * ~is_byte


@functools.cache
def scripts() -> np.ndarray:
  """1 + the place in SCRIPTS of every code of Unicode, 0 if it has none: [0x110000] int8."""
  places = {name: 1 + place for place, name in enumerate(SCRIPTS)}
  return np.array([places.get(unicodedata.name(chr(c), '').split(' ')[0], 0) for c in range(0x110000)], np.int8)


_BLANK, _DARK = rb'[\t-\r ]', rb'[!-~\xc3-\xdf\xe0\xe4-\xf4]'  # white space, and bytes that begin nothing of the kind


class _Since(Kind):
  """A rule that begins anew behind what ANCHOR matches, if all of that stands before; else the text is read from its
  beginning. So a piece costs what lies between.
  """

  ANCHOR: re.Pattern[bytes]
  DTYPE, EMPTY = np.bool_, False

  def since(self, read: Callable[[int, int], bytes], begin: int) -> int:
    size = 256
    while True:
      first = max(begin - size, 0)
      found = [match.end() for match in self.ANCHOR.finditer(read(first, begin))]
      if found or not first:
        return first + found[-1] if found else 0
      size *= 4


@dataclasses.dataclass(frozen=True)
class Ended(_Since):
  """With this byte it is known that a word has ended before it, 'ended(hat)', 'ended(whitespace)' or 'ended(uax29)':
  most often the last byte of the character that begins the next word. Words have any length.
  """

  splitter: words_lib.Splitter

  ANCHOR = re.compile(rb'(?=\n' + _DARK + rb')')

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Ended':
    del others
    kind = arguments(spec, 'mark', {'ended': {'by': 'hat'}})[1]['by']
    if kind not in words_lib.RULES:
      raise ValueError(f"mark '{spec}': by is one of {', '.join(words_lib.RULES)}")
    return cls(words_lib.parse(kind))

  def of(self, content: bytes) -> np.ndarray:
    return words_lib.ended(self.splitter, content)


@dataclasses.dataclass(frozen=True)
class Levels(_Since):
  """Levels of `text.levels` by one, two or three strategies: 'levels(word1,word2)'. BOS and EOS have 0.

  They are what the text up to a byte says. published=true: those that the published code trains with, for comparison
  with it; they depend on later bytes (text/levels.py says where), so a model that reads them must say leaks=true, too.
  Decoding knows no later bytes, and takes what the text up to a byte says in either case.
  """

  strategies: tuple[str, ...]
  published: bool
  leaks: bool

  DTYPE, EMPTY = np.int8, 0
  OPTIONS = {'one': 'word1', 'two': '', 'three': '', 'published': False, 'leaks': False}  # noqa: RUF012
  remedy = 'leave out published=true, or write leaks=true for a model that is told where a line or a number goes on'

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Levels':
    del others
    *strategies, published, leaks = arguments(spec, 'mark', {'levels': cls.OPTIONS})[1].values()
    return cls(levels_lib.check(strategies), published, leaks)

  @property
  def lookahead(self) -> int:
    """How much white space or how many digits follow."""
    return 64 if self.published else 0

  @property
  def ANCHOR(self) -> re.Pattern[bytes]:
    """A white space, or two, and what is none."""
    return _ANCHORS[levels_lib.reach(self.strategies)]

  def of(self, content: bytes) -> np.ndarray:
    return levels_lib.levels(content, self.strategies, self.published)

  def of_piece(self, document: Document, start: int, stop: int, first_scored: int) -> np.ndarray:
    if not self.published:
      return super().of_piece(document, start, stop, first_scored)
    values = np.zeros(document.length + 2, np.int8)  # of the whole document, as the published code does it
    values[1:-1] = self.of(document.read(0, document.length))
    return values[start:stop]


_ANCHORS = {
  'white space': re.compile(rb'(?=' + _BLANK + _DARK + rb')'),
  'blank': re.compile(_BLANK + rb'(?=' + _BLANK + _DARK + rb')'),
  'text': re.compile(rb'(?!)'),
}


@dataclasses.dataclass(frozen=True)
class Regex(_Since):
  """The last byte of a match's last or first character: 'regex("[,.;] ")', 'regex(pattern=\\s+,at=start)'; see
  `text.pattern`. Lines are searched one by one.

  A model that reads it is refused where later bytes change what a byte is, as they do for '\\s+' at its end; random
  texts and their prefixes are tried, and the sentence has one. leaks=true: the model is told all the same.
  """

  pattern: str
  at: str
  leaks: bool

  ANCHOR = re.compile(rb'\n')

  @classmethod
  def parse(cls, spec: str, others: Specs) -> 'Regex':
    del others
    _, values = arguments(spec, 'mark', {'regex': {'pattern': ' ', 'at': 'end', 'leaks': False}})
    if values['at'] not in pattern_lib.SIDES:
      raise ValueError(f"mark '{spec}': at is one of {', '.join(pattern_lib.SIDES)}")
    pattern_lib.parse(values['pattern'])
    return cls(**values)

  @property
  def lookahead(self) -> int:
    """As far as random prefixes show."""
    return 64 if pattern_lib.leak(self.pattern, self.at) else 0

  @property
  def remedy(self) -> str:
    """With an example."""
    example = pattern_lib.leak(self.pattern, self.at)
    return f'{example}, but not at its own end, so mark what one character decides, or write leaks=true'

  def of(self, content: bytes) -> np.ndarray:
    return pattern_lib.matches(pattern_lib.parse(self.pattern), self.at, content)


KINDS: dict[str, type[Kind]] = {
  **dict.fromkeys(words_lib.DEFAULTS, Words),
  **dict.fromkeys(units_lib.ARGUMENTS, Units),
  'ended': Ended,
  'levels': Levels,
  'regex': Regex,
  'entropy': Entropy,
  'only_scripts': OnlyScripts,
  'pieces': Pieces,
  'script': Script,
  'tokens': Tokens,
}


def check_kinds(specs: Specs) -> None:
  """ValueError with one sentence for a kind that is not known; options and files are not looked at."""
  for name, spec in specs.items():
    if _kind(spec) is None:
      raise ValueError(f"mark '{name}': '{spec}' is not known: use one of {', '.join(KINDS)}")


def parse(specs: Specs) -> dict[str, Kind]:
  """Name -> kind of the marks of a model; ValueError with one sentence for what is not known or does not fit."""
  check_kinds(specs)
  return {name: _kind(spec).parse(spec, specs) for name, spec in specs.items()}


def mark(batch: Batch, specs: Specs) -> Batch:
  """The batch with these marks, numpy where they are made here; those that it has stay.

  Every segment is a document of its own, or a piece that has no BOS or EOS. Raises ValueError for a batch that lacks
  some while it is being traced.
  """
  missing = {name: spec for name, spec in specs.items() if name not in batch.marks}
  if not missing:
    return batch
  if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(batch)):
    name, spec = next(iter(missing.items()))
    raise ValueError(
      f"the batch lacks the mark '{name}' ({spec}) under jax.jit: fill it before, with text.marks.mark(batch, "
      'model.marks)'
    )
  ids_BxL, bytes_BxL, bos_BxL, eos_BxL = map(np.asarray, (batch.segment_ids, batch.bytes, batch.bos, batch.eos))
  ids, symbols, bos, eos = (np.ascontiguousarray(x).reshape(-1) for x in (ids_BxL, bytes_BxL, bos_BxL, eos_BxL))
  change_BxL = np.ones(ids_BxL.shape, bool)
  change_BxL[:, 1:] = ids_BxL[:, 1:] != ids_BxL[:, :-1]
  pieces = []
  for begin, end in itertools.pairwise([*np.flatnonzero(change_BxL).tolist(), len(ids)]):
    if ids[begin]:
      document = Document(symbols[begin + int(bos[begin]) : end - int(eos[end - 1])].tobytes())
      start = int(not bos[begin])
      pieces.append((begin, document, start, start + end - begin, start))
  kinds = {name: kind for name, kind in parse(specs).items() if name in missing}
  return dataclasses.replace(batch, marks={**batch.marks, **of_pieces(kinds, pieces, ids_BxL.shape)})


def of_pieces(
  kinds: Mapping[str, Kind], pieces: Iterable[tuple[int, Document, int, int, int]], shape: tuple[int, int]
) -> dict[str, np.ndarray]:
  """Name -> [B, L], the marks of pieces (place of the first symbol in the rows laid end to end, document, start, stop,
  first_scored); EMPTY elsewhere.
  """
  found = {name: np.full(math.prod(shape), kind.EMPTY, kind.DTYPE) for name, kind in kinds.items()}
  for place, document, start, stop, first_scored in pieces:
    for name, kind in kinds.items():
      found[name][place : place + stop - start] = kind.of_piece(document, start, stop, first_scored)
  return {name: values.reshape(shape) for name, values in found.items()}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Read:
  """What decoding has read of every row, for the marks of what it reads next. N: symbols that a row may have.

  bytes_BxN: of which length_B are known, BOS included. state_Bx2: what each kind of mark keeps, by name.
  """

  bytes_BxN: Array
  length_B: Array
  state_Bx2: dict[str, Array]

  @staticmethod
  def nothing(specs: Specs, batch_size: int, max_bytes: int) -> 'Read':
    """Of empty rows; without marks there is nothing to keep."""
    return Read(
      jnp.zeros((batch_size, max_bytes if specs else 0), jnp.uint8),
      jnp.zeros(batch_size, jnp.int32),
      {name: jnp.zeros((batch_size, 2), jnp.int32) for name in specs},
    )

  def prompts(self, bytes_BxP: Array, length_B: Array) -> 'Read':
    """After right-padded prompts in empty rows."""
    prompts = jnp.where(jnp.arange(bytes_BxP.shape[1])[None] < length_B[:, None], bytes_BxP, 0).astype(jnp.uint8)
    bytes_BxN = self.bytes_BxN.at[:, : bytes_BxP.shape[1]].set(prompts[:, : self.bytes_BxN.shape[1]])
    return dataclasses.replace(self, bytes_BxN=bytes_BxN, length_B=length_B.astype(jnp.int32))

  def then(self, specs: Specs, byte_B: Array, count: int = 1) -> tuple[dict[str, Array], 'Read']:
    """(the marks of the last `count` bytes by name, [B, count]; what is read) after one more byte of every row.

    By a callback on the host. That a byte begins a word is said once, with the byte that decides it: up to three later.
    """
    rows_B = jnp.arange(byte_B.shape[0])
    bytes_BxN = self.bytes_BxN.at[rows_B, self.length_B].set(byte_B.astype(jnp.uint8), mode='drop')
    read = dataclasses.replace(self, bytes_BxN=bytes_BxN, length_B=self.length_B + 1)
    if not specs:
      return {}, read
    kinds = parse(specs)
    shapes = {name: jax.ShapeDtypeStruct((len(rows_B), count), kind.DTYPE) for name, kind in kinds.items()}
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.state_Bx2)
    find = functools.partial(_of_last, kinds, count)
    marks, state = jax.pure_callback(find, (shapes, like), read.bytes_BxN, read.length_B, read.state_Bx2)
    return marks, dataclasses.replace(read, state_Bx2=state)


def _of_last(kinds: Mapping[str, Kind], count: int, bytes_BxN: Any, length_B: Any, state_Bx2: Any) -> tuple:
  bytes_BxN, states = np.asarray(bytes_BxN), {name: np.array(state_Bx2[name]) for name in kinds}
  rows = [row[:length].tobytes() for row, length in zip(bytes_BxN, np.asarray(length_B), strict=True)]
  found = {
    name: np.stack([kind.of_last(row, row[0] == BOS, count, states[name][r]) for r, row in enumerate(rows)])
    for name, kind in kinds.items()
  }
  return found, states


def _kind(spec: Any) -> type[Kind] | None:
  name = re.match(r'\s*(\w*)', spec)[1] if isinstance(spec, str) else ''
  return KINDS.get(name)


def _starts(begin: int, sizes: np.ndarray) -> np.ndarray:
  return begin + np.cumsum(sizes, dtype=np.int64) - sizes
