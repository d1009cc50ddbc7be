"""Word accuracy against a naive loop, and against models that know the text: these have every word right, in any script
and with any splitter.
"""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from byte_models.word_ar import WORD_END, scores
from evaluation import accuracy as lib
from evaluation import predictions
from evaluation.finite import NotFiniteError
from layers.contract import ByteModel, ModelOutput
from tests.byte_models import tiny_word_ar
from text import MemoryCorpus, words


def documents_of(model, seed, lengths=(40, 3, 1, 25)):
  """Bytes that are mostly the model's own likeliest ones, so that some words are right."""
  rng = np.random.default_rng(seed)
  documents = []
  for length in lengths:
    symbols = [254]
    while len(symbols) <= length:
      likeliest = int(model.naive_logits(symbols).argmax())
      symbols.append(likeliest if rng.random() < 0.8 else int(rng.choice([32, 97, 200])))
    documents.append(bytes(symbols[1:]))
  return documents


def naive(model, documents, splitter, seen):
  """(right, probability) of each word by kind: greedy decoding from its first byte on, and a byte behind its last."""
  split, found = words.parse(splitter), collections.defaultdict(list)
  for document in documents:
    before = start = 0
    for end in split(document).tolist():
      right, probability = True, 1.0
      for at in range(start, end + 1):
        logits = model.naive_logits([254, *document[:at]])
        if at < end:
          right &= int(logits.argmax()) == document[at]
          probability *= np.exp(logits[document[at]] - np.logaddexp.reduce(logits))
        else:
          following, text = int(logits.argmax()), document[before:end]
          truth = document[end] if end < len(document) else 255
          begun = 'ª'.encode() if 0xC2 <= following <= 0xF4 else bytes([following])  # of a character: as a letter
          right &= following in (truth, 255) or len(text) in split(text + begun).tolist()
      count = seen.get(document[start:end], 0)
      for kind in ('all', 'never' if not count else 'rare' if count < lib.RARE else 'often'):
        found[kind].append((right, probability))
      before, start = start, end
  return found


@pytest.mark.parametrize('splitter', ['fixed(size=3)', 'whitespace(max_bytes=5)', 'hat(max_bytes=8)'])
@pytest.mark.parametrize('seed', range(3))
def test_accuracy_equals_a_naive_loop(two_byte_model, splitter, seed):
  model = two_byte_model(positional=False, seed=seed)
  documents = documents_of(model, seed)
  some = lib.word_counts(documents[:1], splitter)
  seen = {word: count * (1 if index % 2 else lib.RARE) for index, (word, count) in enumerate(sorted(some.items()))}
  expected = naive(model, documents, splitter, seen)
  scores = lib.word_accuracy(model, MemoryCorpus(documents), splitter=splitter, seen=seen, seq_len=16, batch_size=3)
  assert [score.kind for score in scores] == ['all', 'often', 'rare', 'never']
  assert sum(score.greedy > 0 for score in scores) >= 1
  for score in scores:
    items = expected[score.kind]
    assert score.words == len(items)
    if items:
      greedy, sampled = np.mean(items, 0)
      assert score.greedy == pytest.approx(greedy) and score.sampled == pytest.approx(sampled, rel=1e-4)
    else:
      assert score.greedy is None and score.sampled is None


TEXTS = {
  'english': "The cat's 3.14 hats (don't) cost $4,000.50 — “Bob’s”, U.S.A. … fooBar 25-x\r\n\n\t a  b. c.d 3. 4",
  'chinese': '我们在中国学习机器学习，这是一个例子。他说：“你好！”（2024年3月5日）、苹果iPhone手机',
  'thai': 'ภาษาไทยไม่มีช่องว่างระหว่างคำ แต่มีช่องว่างระหว่างประโยค ๑๒๓',
  'japanese': '私は日本語を勉強しています。カタカナとひらがな！東京タワーは333メートルです',
  'emoji': 'hi 👩‍👩‍👧‍👦 ok 🇩🇪🇫🇷 👍🏽 ❤️ x😀😀y 🏳️‍🌈!',
  'greek': 'Η γλώσσα «ελληνικά» είναι· αρχαία; ΑΒΓ άέή',
  'russian': 'Он сказал: «Привет, мир» — и ушёл. Ёлка 25-я',
  'combining': 'e\u0301a\u0308 n\u0303o \u0301x q\u0323\u0307 .\u0301. \u0300',
  'arabic': 'مرحبا بالعالم، كيف حالك؟ ١٢٣ لا',
  'devanagari': 'नमस्ते दुनिया। यह हिन्दी है १२३ क्ष',
  'spaces': 'a\xa0b\u2007c\u202fd 5\u20442 1⁄2 a \t b',
  'mixed': 'don’t 世界 naïve «да» 😀a\u0301 e\u0301 ไทย, x',
}
SPLITTERS = [f'{kind}(max_bytes={limit})' for kind in ('hat', 'whitespace', 'uax29') for limit in (1, 5, 64)]
SPLITTERS += ['fixed(size=1)', 'fixed(size=3)', 'fixed(size=8)']
INVALID = [b'\xe4\xb8 a\xff\xfe \xf0\x9f\x98x \xed\xa0\x80\xc0 \x80', b'', b'\xff', b'\xfe\xff']
DOCUMENTS = [*(text.encode() for text in TEXTS.values()), *INVALID]


class Oracle(ByteModel):
  """All mass on the byte that follows in the row."""

  def __init__(self):
    self.sureness = nnx.Param(jnp.float32(100.0))

  def __call__(self, batch, *, context=None, capacities=None):
    following_BxL = jnp.roll(jnp.asarray(batch.bytes), -1, 1)
    return ModelOutput(jnp.zeros(batch.bytes.shape), jax.nn.one_hot(following_BxL, 256) * self.sureness[...])


def greedy(model, documents, splitter, seq_len=64):
  scores = lib.word_accuracy(model, MemoryCorpus(documents), splitter=splitter, seen={}, seq_len=seq_len, batch_size=4)
  assert scores[0].words == sum(len(words.parse(splitter)(document)) for document in documents)
  return scores[0].greedy


@pytest.mark.parametrize('splitter', SPLITTERS)
def test_all_mass_on_the_true_byte_is_every_word_right_in_every_script(splitter):
  for document in DOCUMENTS:
    if document:
      assert greedy(Oracle(), [document], splitter) == 1.0, document
  assert greedy(Oracle(), DOCUMENTS, splitter, seq_len=8) == 1.0  # rows cut words and characters


PIECES = st.one_of(st.text(max_size=12).map(str.encode), st.binary(max_size=8), st.sampled_from(DOCUMENTS))


@settings(deadline=None, max_examples=40)
@given(st.lists(PIECES, min_size=1, max_size=4).map(b''.join), st.sampled_from(SPLITTERS))
def test_all_mass_on_the_truth_is_every_word_right_whatever_the_bytes(document, splitter):
  assert greedy(Oracle(), [document + b'.'], splitter, seq_len=16) == 1.0


class OneWrong(Oracle):
  """The oracle, but for one byte of the document, where it says another."""

  def __init__(self, place, said):
    super().__init__()
    self.place, self.said = place, said

  def __call__(self, batch, *, context=None, capacities=None):
    output = super().__call__(batch)
    wrong = jax.nn.one_hot(self.said, 256) * 1e3
    return dataclasses.replace(output, logits=output.logits.at[:, self.place].add(wrong))


@pytest.mark.parametrize(
  ('text', 'splitter', 'place', 'said', 'expected'),
  [
    ('ab, cd', 'uax29', 2, b';', [1, 0, 1, 1]),  # another mark ends the word, too
    ('ab, cd', 'uax29', 2, b'c', [0, 0, 1, 1]),  # a letter goes on with it
    ('ab, cd', 'uax29', 2, b'\xff', [1, 0, 1, 1]),  # the end of the document
    ('ab, cd', 'uax29', 2, b'\xc3', [0, 0, 1, 1]),  # what only begins a character counts as a letter,
    ('ab, cd', 'uax29', 3, b'\xc3', [1, 1, 0, 1]),  # which begins a word behind what is none
    ('中国，中', 'hat', 3, b'\xe4', [1, 0, 1]),  # and behind an ideograph
    ('中国，中', 'uax29', 6, b'\xe4', [1, 1, 0, 1]),
    ('да нет', 'hat', 4, b'\xd0', [0, 0]),
    ('да нет', 'hat', 11, b'\xd0', [1, 0]),  # it would go on at the end of the document
    ('ab, cd', 'fixed(size=2)', 2, b'c', [1, 0, 1]),  # with a fixed size everything ends a word
  ],
)
def test_a_byte_that_is_not_the_true_one_may_end_a_word(text, splitter, place, said, expected):
  document = text.encode()
  ends = words.parse(splitter)(document).tolist()
  right = dict(zip(ends, expected, strict=True))
  model = OneWrong(place, said[0])
  assert greedy(model, [document], splitter) == pytest.approx(np.mean([right[end] for end in ends]))


def knowing(words_, symbols, before, behind):
  """In place of `scores.logits`: all mass on the true symbol, ends of words included."""
  size = before.shape[-1]
  following = jnp.where(jnp.roll(words_.starts_BxL, -1, 1), WORD_END, jnp.roll(symbols.ids_BxL, -1, 1))
  of_end = jax.nn.one_hot(following, size) if behind is not None else None
  return jax.nn.one_hot(symbols.ids_BxL, size), of_end


@pytest.mark.parametrize('branch', ['hat', 'word_pooled', 'megabyte', 'char'])
def test_all_mass_on_the_true_symbols_is_every_word_right_with_ends_of_words_patches_and_units(branch, monkeypatch):
  values = tiny_word_ar.branch(units='char(limit=0x3100)') if branch == 'char' else tiny_word_ar.KINDS[branch]
  model = tiny_word_ar.build(values)
  monkeypatch.setattr(scores, 'logits', knowing)
  predictions._predict.clear_cache()
  for splitter in (model.config.words, 'hat(max_bytes=64)', 'uax29(max_bytes=5)', 'fixed(size=3)'):
    assert greedy(model, DOCUMENTS, splitter) == 1.0, splitter
  predictions._predict.clear_cache()


class WithEnds(Oracle):
  """Knows the text, and would end a word before every c."""

  word_end = WORD_END

  def likeliest(self, batch, *, capacities=None):
    is_wrong = jnp.asarray(batch.bytes) == ord('c')
    return ~is_wrong, jnp.where(is_wrong, self.word_end, batch.bytes), jnp.zeros(batch.bytes.shape), ()


def test_the_end_of_a_word_as_a_symbol_ends_one_also_where_the_model_has_none():
  documents = [b'abcdef', b'xcyz']
  assert greedy(WithEnds(), documents, 'fixed(size=2)') == pytest.approx(3 / 5)  # not cd and xc
  assert greedy(WithEnds(), documents, 'hat') == 0.0


def test_the_probability_of_a_word_does_not_depend_on_how_much_text_stands_before_it():
  class Constant(Oracle):
    def likeliest(self, batch, *, capacities=None):
      return jnp.ones(batch.bytes.shape, bool), batch.bytes, jnp.full(batch.bytes.shape, 5.3), ()

  for count in (1, 50_000):  # sums of float32 are wrong by a hundredth there
    corpus = MemoryCorpus([b'ab' * count])
    scores = lib.word_accuracy(Constant(), corpus, splitter='fixed(size=2)', seen={}, seq_len=1024, batch_size=8)
    assert scores[0].sampled == pytest.approx(np.exp(-10.6), rel=1e-5)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_model_whose_logits_are_not_finite_is_refused_with_the_document(value):
  class Broken(Oracle):
    def __call__(self, batch, *, context=None, capacities=None):
      output = super().__call__(batch)
      return dataclasses.replace(output, nll=jnp.where(jnp.asarray(batch.bytes) == 7, value, 0.0))

  corpus = MemoryCorpus([b'fine', b'also fine', b'fin\x07 here'], 'three')
  with pytest.raises(NotFiniteError, match=r"not finite at byte 3 of document 2 of 'three'"):
    lib.word_accuracy(Broken(), corpus, splitter='hat', seen={}, seq_len=8, batch_size=2)


def test_counts_are_of_words_with_the_splitter():
  assert lib.word_counts([b'a b a ', b'a'], 'whitespace') == {b'a ': 2, b'b ': 1, b'a': 1}


def test_nothing_to_score_and_unknown_splitters_are_refused(two_byte_model):
  model = two_byte_model(positional=False)
  with pytest.raises(ValueError, match="'nonsense' is not known"):
    lib.word_counts([b'a'], 'nonsense')
  with pytest.raises(ValueError, match='there are no words to score'):
    lib.word_accuracy(model, MemoryCorpus([b'']), splitter='hat', seen={}, seq_len=8, batch_size=1)


@pytest.mark.parametrize('units', ['byte', 'char(limit=0x3000)'])
def test_probabilities_of_words_do_not_depend_on_where_rows_cut_their_units(units):
  model = jax.tree.map(
    jnp.zeros_like, tiny_word_ar.build(tiny_word_ar.branch(units=units))
  )  # every symbol is as likely as every other
  corpus = MemoryCorpus(['naïve cafés 日本語の本'.encode(), 'ещё раз'.encode()])
  sampled = [
    lib.word_accuracy(model, corpus, splitter='hat(max_bytes=64)', seen={}, seq_len=seq_len, batch_size=2)[0].sampled
    for seq_len in (3, 16, 64)
  ]
  assert sampled == pytest.approx([sampled[-1]] * 3, rel=1e-5)
