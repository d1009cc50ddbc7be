"""Suites that read a text, each against models and sources of which the numbers are known."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax, softmax

from evaluation import evaluate, suites
from evaluation.suites import gold, legal_bytes, parity, utf8
from tests.byte_models import tiny_word_ar
from tests.evaluation.test_accuracy import Oracle
from text import MemoryCorpus, noise, open_corpus
from text.corpus import Joined

TEXT = [b'It was green, and 2 cats sat there; nobody knew.\n' * 2, 'Zweites, länger, mit 🙂.\n'.encode()]
WORDS = (
  b'some words of many letters, others of quite different ones; stones, rivers, cloudy evenings, silver windows, '
  b'yellow gardens, little apples over green mountains stay where birds wait until comes a storm'
)


def measured(spec, model, corpus=None, config=None, seq_len=32, max_bytes=0):
  """{(metric, stage, *what else tells it): row}."""
  name, own = suites.parse(spec)
  options = suites.Options(seq_len, 4, max_bytes, own)
  rows = suites.SUITES[name].measure(model, config or {}, corpus, options)
  key = lambda row: (row.metric, *([] if row.stage is None else [row.stage]), *row.extras.values())
  return {key(row): row for row in rows}


@pytest.fixture(scope='module')
def uniform(two_byte_model):
  """Every byte costs eight bits."""
  model = two_byte_model(positional=False)
  model.last = nnx.Param(jnp.zeros((256, 256)))
  model.before = nnx.Param(jnp.zeros((256, 256)))
  return model


def test_domains_are_the_parts_of_a_text(two_byte_model):
  model = two_byte_model(positional=True)
  parts = [MemoryCorpus([document], name) for document, name in zip(TEXT, 'ab', strict=True)]
  found = measured('domains', model, Joined(parts, 'both'), max_bytes=40)
  scores = [evaluate(model, part, seq_len=32, batch_size=4, max_bytes=40) for part in parts]
  for part, score in zip(parts, scores, strict=True):
    row = found['bits_per_byte', part.name]
    assert row.value == pytest.approx(score.bits_per_byte, abs=1e-6) and row.bytes == score.text_bytes
  mean = np.mean([score.bits_per_byte for score in scores])
  assert found['mean_bits_per_byte',].value == pytest.approx(mean, abs=1e-6)


def test_the_source_itself_is_at_its_entropy_and_frequencies_close_nothing(two_byte_model, uniform):
  corpus = open_corpus('synthetic:markov(order=1,states=2,p=0.9,q=0.6,documents=40,length=60)', 'validation')
  process = corpus._process
  model, table = two_byte_model(positional=False), np.full((256, 256), -30.0)
  for context, row in ((254, process.initial_C), (48, process.transition_CxS[0]), (49, process.transition_CxS[1])):
    table[context, 48:50] = np.log(row)
  model.last, model.before = nnx.Param(jnp.array(table, jnp.float32)), nnx.Param(jnp.zeros((256, 256)))
  found = measured('known_entropy', model, corpus)
  assert found['excess',].value == pytest.approx(0, abs=1e-5) and found['closed',].value == pytest.approx(1, abs=1e-4)
  assert found['source_bits_per_byte',].value == pytest.approx(corpus.bits_per_byte)
  assert measured('known_entropy', uniform, corpus)['bits_per_byte',].value == pytest.approx(8)
  with pytest.raises(suites.Refused, match="the entropy of plain is not known: name a source 'synthetic:"):
    measured('known_entropy', uniform, MemoryCorpus(TEXT, 'plain'))


def test_robustness_is_nothing_without_noise_and_the_bits_of_noisy_text_with_it(two_byte_model):
  model, corpus = two_byte_model(positional=False), MemoryCorpus(TEXT)
  found = measured('robustness(noises=drop(rate=0)+repeat(rate=1,most=1)+upper_case)', model, corpus)
  none, twice, upper = 'drop(rate=0.0,seed=0)', 'repeat(rate=1.0,most=1,seed=0)', 'upper_case(seed=0)'
  clean = evaluate(model, corpus, seq_len=32, batch_size=4)
  assert found['bits_per_byte', 'clean'].value == pytest.approx(clean.bits_per_byte, abs=1e-6)
  nothing = {name: found[name, none].value for name in ('drop', 'unchanged', 'unchanged_drop')}
  assert nothing == {'drop': 0, 'unchanged': 1, 'unchanged_drop': 0}
  drops = [row.value for key, row in found.items() if key[0] == 'drop']
  assert len(drops) == 3 and found['mean_drop',].value == pytest.approx(np.mean(drops))
  noisy = MemoryCorpus([''.join(c * 2 for c in document.decode()).encode() for document in TEXT])
  bits = evaluate(model, noisy, seq_len=32, batch_size=4).bits_per_byte
  assert found['bits_per_byte', twice].value == pytest.approx(bits, abs=1e-6)
  assert found['bits_per_clean_byte', twice].value == pytest.approx(2 * bits, abs=1e-5)
  assert found['unchanged', twice].value == 1
  same = sum(len(c.encode()) for document in TEXT for c in document.decode() if c.upper() == c)
  assert found['unchanged', upper].value == same / sum(map(len, TEXT))


def test_unchanged_bytes_are_compared_with_themselves(two_byte_model):
  model, document = two_byte_model(positional=False), b'aB1 cD2'
  nats = lambda text: [-log_softmax(model.naive_logits([254, *text[:at]]))[text[at]] for at in range(len(text))]
  before, after = nats(document), nats(document.upper())
  apart = [(b - a) / math.log(2) for a, b, old in zip(before, after, document, strict=True) if old in b'BD12 ']
  found = measured('robustness(noises=upper_case)', model, MemoryCorpus([document]))
  assert found['unchanged_drop', 'upper_case(seed=0)'].value == pytest.approx(np.mean(apart), rel=1e-5)


def test_misspellings_are_compared_where_the_word_stands(two_byte_model, monkeypatch):
  monkeypatch.setattr(noise, 'gold_pairs', lambda: {'green': ('grene', 'gren'), 'there': ('ther',)})
  model, text = two_byte_model(positional=True), 'He was green, there. Green is greens; green'

  def bits(text):
    symbols = [254, *text.encode()]
    return -sum(log_softmax(model.naive_logits(symbols[:at]))[symbols[at]] for at in range(1, len(symbols))) / math.log(
      2
    )

  found = measured('misspellings(before=5,behind=3)', model, MemoryCorpus([text.encode()]))
  expected = []
  for start, right, wrong in ((7, 'green', 'grene'), (14, 'there', 'ther'), (38, 'green', 'grene')):
    around = text[max(0, start - 5) : start], text[start + 5 :][:3]
    expected.append(bits(wrong.join(around)) - bits(right.join(around)))
  row = found['bits_apart', 3]
  assert row.value == pytest.approx(np.mean(expected), rel=1e-5)
  assert found['accuracy', 3, 0.5].value == pytest.approx(np.mean(np.array(expected) > 0))
  with pytest.raises(suites.Refused, match='plain has no word that a misspelling is known of'):
    measured('misspellings', model, MemoryCorpus([b'nothing'], 'plain'))


def test_who_knows_the_next_byte_writes_every_answer_and_who_knows_nothing_none(uniform):
  corpus = MemoryCorpus([WORDS])
  found = measured('characters(items=3,shots=1)', Oracle(), corpus)
  assert found['mean_exact', 12].value == 1
  assert {key[1] for key in found if key[0] == 'exact'} >= {'spell', 'contains_word', 'swap_char'}
  assert not any('parts' in str(key) for key in found)
  few = measured('characters(items=2,shots=0,tasks=spell)', uniform, corpus)
  assert few['exact', 'spell', 2].value == 0
  with pytest.raises(ValueError, match="characters: 'spel' is no task: use all, or of spell, spell_inverse"):
    measured('characters(tasks=spel)', uniform, corpus)


def test_ranking_takes_the_likeliest_of_the_answers(two_byte_model):
  from text import character_tasks

  model, words = two_byte_model(positional=True), [f'{a}{b}stone' for a in 'abcdm' for b in 'efghk']
  found = measured('characters(items=6,shots=0,tasks=delete_char)', model, MemoryCorpus([' '.join(words).encode()]))
  items = character_tasks.items('delete_char', character_tasks.words_of([' '.join(words)]), 6, 0, 0)

  def nats(text):
    symbols = [254, *text.encode()]
    return -sum(log_softmax(model.naive_logits(symbols[:at]))[symbols[at]] for at in range(1, len(symbols)))

  right = [np.argmin([nats(item.prompt + answer) for answer in item.answers]) == item.right for item in items]
  assert found['accuracy', 'delete_char', 6, 0.25].value == np.mean(right)


def may_follow(prefix, byte):
  if byte == 255:
    return utf8._is_valid(prefix)
  return utf8._is_valid(prefix + bytes([byte]), final=False)


@pytest.mark.parametrize('seq_len', [16, 64])
def test_the_mass_of_legal_bytes_equals_a_loop_over_what_decodes(two_byte_model, seq_len):
  model = two_byte_model(positional=False)
  found = measured('legal_bytes', model, MemoryCorpus(['é中🙂a€'.encode(), 'Ω x'.encode()]), seq_len=seq_len)
  masses = {'first': [], 'inside': []}
  for document in ('é中🙂a€'.encode(), 'Ω x'.encode()):
    for at in range(len(document)):
      p = softmax(model.naive_logits([254, *document[:at]]))
      mass = sum(p[byte] for byte in range(256) if may_follow(document[:at], byte))
      masses['first' if utf8._is_valid(document[:at]) else 'inside'].append(mass)
  masses['all'] = masses['first'] + masses['inside']
  for place, of_place in masses.items():
    assert found['mass', place].value == pytest.approx(np.mean(of_place), rel=1e-5)
    assert found['illegal_bits', place].value == pytest.approx(-np.mean(np.log2(of_place)), rel=1e-4)
    assert found['mass', place].bytes == len(of_place)


def test_models_without_probabilities_of_bytes_are_refused():
  model = tiny_word_ar.build(tiny_word_ar.KINDS['hat'])
  with pytest.raises(suites.Refused, match='^it predicts units, or words and their ends'):
    measured('legal_bytes', model, MemoryCorpus(TEXT))
  assert legal_bytes.legal()[0, 255] and not legal_bytes.legal()[1, 255] and not legal_bytes.legal()[:, 254].any()


def test_samples_are_valid_cut_off_or_broken(uniform, monkeypatch):
  prompts = []

  def samples(model, given, *options):
    prompts.append(given)
    return [b'whole', 'é中'.encode()[:-1], b'a\xffb', b'']

  monkeypatch.setattr(utf8, 'generate', samples)
  texts = ['xé中🙂'.encode(), b'short'] * 2
  corpus = MemoryCorpus(texts)
  within = lambda document, start, stop: texts[document][start:stop] if stop <= corpus.lengths[document] else None
  monkeypatch.setattr(corpus, 'read', within)
  found = measured('utf8(samples=4,prompt=6)', uniform, corpus)
  values = [found[metric, 'text', 4].value for metric in ('strict', 'truncated', 'complete')]
  assert values == [2 / 4, 3 / 4, (5 + 2 + 2) / 12]
  assert prompts == [[b''] * 4, ['xé中'.encode(), b'short'] * 2]


def test_words_of_official_weights_are_not_told_apart(two_byte_model):
  model, corpus = two_byte_model(positional=False), MemoryCorpus(TEXT)
  assert {key[1] for key in measured('words', model, corpus)} == {'all'}
  config = {'data': {'source': 'synthetic:words(vocabulary=5,documents=2,length=9)'}}
  found = measured('words(words=whitespace)', model, corpus, config)
  assert found['words', 'never'].value == found['words', 'all'].value == 24
  assert found['greedy', 'often'].value is None


def test_parity_of_a_model_that_knows_nothing_is_that_of_bytes(uniform, monkeypatch):
  texts = {
    'corpus:x/eng (test)': [b'abcd', b'ab'],
    'corpus:x/b (test)': [b'abcdef', b'abcd'],
    'corpus:x/c (test)': [b'a', b'b'],
  }
  parts = [MemoryCorpus(documents, name) for name, documents in texts.items()]
  monkeypatch.setattr(parity, 'open_corpus', lambda source, split: Joined(parts, source))
  found = measured('parity', uniform)
  assert found['bits_per_byte', 'eng'].value == pytest.approx(8)
  for language, total, ratios in (('b', 10, (6 / 4, 4 / 2)), ('c', 2, (1 / 4, 1 / 2))):
    assert found['bits_premium', language].value == pytest.approx(total / 6, rel=1e-6)
    assert found['bytes_premium', language].value == pytest.approx(total / 6)
    assert found['bits_parity', language].value == pytest.approx(np.mean(ratios), rel=1e-6)
  assert found['spread',].value == pytest.approx(5, rel=1e-6)
  differences = [abs(a - b) for a in (6, 10, 2) for b in (6, 10, 2)]
  assert found['gini',].value == pytest.approx(np.mean(differences) / 2 / 6, rel=1e-6)
  with pytest.raises(ValueError, match="parity: 'corpus:udhr' has the parts eng, b, c, 'fra' is not one of several"):
    measured('parity(base=fra)', uniform)


def test_gold_units_are_scored_as_boundaries_are(two_byte_model, monkeypatch):
  from evaluation import boundary_scores, unit_starts
  from text import gold as units

  documents = [(b'ab', b'cd', b'e'), (b'fgh', b'i')]
  corpus = MemoryCorpus([units.join(document) for document in documents])
  monkeypatch.setattr(gold, 'open_gold', lambda name: corpus)
  model = two_byte_model(positional=False)
  with pytest.raises(suites.Refused, match='^it has no stage that cuts'):
    measured('gold', model)
  model.emits = ('starts', 'starts')
  found = measured('gold(name=words)', model)
  texts, starts = list(map(b''.join, documents)), list(map(unit_starts, documents))
  for place, score in enumerate(boundary_scores(model, texts, starts, seq_len=32, batch_size=4)[1:]):
    name = 'random.f1' if place % 2 else 'f1'
    assert found[name, place // 2].value == score.f1 and found[name, place // 2].bytes == 9
  assert measured('gold', model, max_bytes=5)['f1', 0].bytes == 5


@pytest.mark.parametrize('name', ['hat', 'word_pooled'])
def test_word_models_are_asked_about_characters_and_noise_too(name):
  model, corpus = tiny_word_ar.build(tiny_word_ar.KINDS[name]), MemoryCorpus([WORDS])
  found = measured('characters(items=2,tasks=spell,shots=1)', model, corpus)
  assert 0 <= found['accuracy', 'spell', 2, 0.25].value <= 1
  assert measured('robustness(noises=drop)', model, corpus)['unchanged', 'drop(rate=0.1,seed=0)'].value > 0.8
