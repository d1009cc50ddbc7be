"""Word accuracy against a naive loop over documents, and what it asks of models with ends of words."""

import collections
import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from evaluation import accuracy as lib
from text import MemoryCorpus, words
from text import units as text_units


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
  split, found = words.parse(splitter), collections.defaultdict(list)
  for document in documents:
    start = 0
    for end in split(document).tolist():
      right, probability = True, 1.0
      for at in range(start, end + 1):
        logits = model.naive_logits([254, *document[:at]])
        if at < end:
          right &= int(logits.argmax()) == document[at]
          probability *= np.exp(logits[document[at]] - np.logaddexp.reduce(logits))
        else:
          following = int(logits.argmax())
          right &= following == 255 or split(document[start:end] + bytes([following]))[0] == end - start
      count = seen.get(document[start:end], 0)
      for kind in ('all', 'never' if not count else 'rare' if count < lib.RARE else 'often'):
        found[kind].append((right, probability))
      start = end
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
      assert math.isnan(score.greedy)


class Echo(nnx.Module):
  """Knows the text, as bytes in place; says the end of a word behind every space, and only there."""

  words = 'whitespace(max_bytes=16)'
  word_end = 0xC0

  def __init__(self):
    self.scale = nnx.Param(jnp.ones(()))

  def likeliest(self, batch):
    following = jnp.where(batch.bytes == 32, self.word_end, jnp.roll(batch.bytes, -1, 1))
    return jnp.ones(batch.bytes.shape, bool), following, jnp.zeros(batch.bytes.shape)


def test_the_end_of_a_word_is_part_of_it():
  documents = [b'one two three', b'four\nfive six ']
  scores = lib.word_accuracy(Echo(), MemoryCorpus(documents), splitter=Echo.words, seen={}, seq_len=64, batch_size=2)
  # 'four\n' is cut where the model goes on with 'f'; 'three' ends with the document
  assert dataclasses.astuple(scores[0])[:3] == ('all', 6, pytest.approx(1.0)) and scores[-1].words == 6
  wrong = lib.word_accuracy(
    Echo(), MemoryCorpus(documents), splitter='fixed(size=4)', seen={}, seq_len=64, batch_size=2
  )
  assert wrong[0].words == 8


class EchoOfUnits(nnx.Module):
  """Knows the text but for one unit, as characters; says the end of a word behind every word of its own."""

  words, units = 'whitespace(max_bytes=16)', 'char'
  word_end = 0xC0

  def __init__(self, wrong):
    self.scale, self.wrong = nnx.Param(jnp.ones(())), wrong

  @property
  def unit_table(self):
    return text_units.parse(self.units).table

  def likeliest(self, batch):
    is_last = batch.units >= 0
    is_wrong = batch.units == 256 + ord(self.wrong) - 128
    for _ in range(3):  # it is wrong at every byte of that unit
      is_wrong |= jnp.roll(is_wrong, -1, 1) & ~is_last
    behind = jnp.where(jnp.roll(batch.word_starts, -1, 1), self.word_end, ord('x'))
    return ~is_wrong, jnp.where(is_last, behind, -1), jnp.where(is_last, 0.5, 0.0)


def test_every_unit_of_a_word_has_to_be_right_and_units_share_the_probability():
  documents = ['naïve café über 日本'.encode(), 'é à'.encode()]
  accuracy = lambda wrong, splitter: lib.word_accuracy(
    EchoOfUnits(wrong), MemoryCorpus(documents), splitter=splitter, seen={}, seq_len=64, batch_size=2
  )[0]
  right = accuracy('ß', EchoOfUnits.words)
  assert (right.words, right.greedy) == (6, 1.0)
  sizes = [6, 5, 5, 6, 2, 1]  # units of each word: Japanese letters are bytes here
  assert right.sampled == pytest.approx(np.mean(np.exp(-0.5 * np.array(sizes))))
  assert accuracy('é', EchoOfUnits.words).greedy == pytest.approx(4 / 6)
  # 'na' and 'ï' cut in two: a unit over the border is wrong on both sides, and its word does not end inside it
  cut = accuracy('ï', 'fixed(size=3)')
  assert cut.words == 11 and cut.greedy < accuracy('ß', 'fixed(size=3)').greedy < 1


def test_counts_are_of_words_with_the_splitter():
  assert lib.word_counts([b'a b a ', b'a'], 'whitespace') == {b'a ': 2, b'b ': 1, b'a': 1}


def test_nothing_to_score_and_unknown_splitters_are_refused(two_byte_model):
  model = two_byte_model(positional=False)
  with pytest.raises(ValueError, match="'nonsense' is not known"):
    lib.word_counts([b'a'], 'nonsense')
  with pytest.raises(ValueError, match='there are no words to score'):
    lib.word_accuracy(model, MemoryCorpus([b'']), splitter='hat', seen={}, seq_len=8, batch_size=1)
