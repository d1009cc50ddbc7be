import hashlib
import itertools
import math
import pickle

import numpy as np
import pytest

from evaluation import markov_bits_per_byte
from text import synthetic

SMALL = [
  'markov(order=1,states=2,p=0.3,q=0.1)',
  'markov(order=3,states=2)',
  'markov(order=2,states=2,p=0.3,q=1)',
  'markov(order=2,states=3,seed=4)',
  'markov(order=1,states=3,dense=true)',
  'markov(order=2,states=2,dense=true,seed=1)',
  'markov(order=3,states=3,dense=true,seed=2)',
]


def process(spec):
  return synthetic.parse(spec).process()


def block_entropy(probability):
  return -math.fsum(p * math.log2(p) for p in probability if p)


def strings(source, length):
  return [bytes(string) for string in itertools.product(b'0123'[: source.states], repeat=length)]


def naive_probability(source, string):
  """A chain of order k on contexts, from its transition matrix and the eigenvector of that."""
  s, k = source.states, source.order
  symbols = [byte - ord('0') for byte in string]
  whole = np.zeros((s**k, s**k))  # between contexts, oldest character first
  for context in itertools.product(range(s), repeat=k):
    row = source.transition_CxS[int(''.join(map(str, context)), s) if source.dense else context[0]]
    for new in range(s):
      whole[int(''.join(map(str, context)), s), int(''.join(map(str, (*context[1:], new))), s)] += row[new]
  if source.dense:
    values, vectors = np.linalg.eig(whole.T)
    pi = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    pi /= pi.sum()
  else:  # k chains side by side, which do not know of each other
    values, vectors = np.linalg.eig(source.transition_CxS.T)
    one = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    pi = np.ones(1)
    for _ in range(k):
      pi = np.kron(pi, one / one.sum())
    np.testing.assert_allclose(pi @ whole, pi, atol=1e-12)
  contexts = [c for c in itertools.product(range(s), repeat=k) if list(c[: len(symbols)]) == symbols[:k]]
  probability = sum(pi[int(''.join(map(str, c)), s)] for c in contexts)
  for at in range(k, len(symbols)):
    context = int(''.join(map(str, symbols[at - k : at])), s)
    probability *= whole[context, int(''.join(map(str, symbols[at - k + 1 : at + 1])), s)]
  return probability


@pytest.mark.parametrize('spec', SMALL)
def test_markov_probabilities_are_those_of_the_chain(spec):
  source = process(spec)
  for length in (0, 1, 2, 5):
    for string in strings(source, length):
      assert 2 ** -source.bits(string) == pytest.approx(naive_probability(source, string), rel=1e-6, abs=1e-15)


@pytest.mark.parametrize('spec', SMALL)
def test_the_entropy_rate_is_the_growth_of_the_block_entropy(spec):
  source = process(spec)
  blocks = [[2 ** -source.bits(string) for string in strings(source, length)] for length in range(7)]
  assert [math.fsum(block) for block in blocks] == pytest.approx([1] * 7, abs=1e-9)
  growth = np.diff([block_entropy(block) for block in blocks])
  np.testing.assert_allclose(growth[source.order :], source.entropy_rate, atol=1e-8)
  assert growth[0] == pytest.approx(source.unigram_entropy, abs=1e-8)
  assert source.entropy_rate <= source.unigram_entropy + 1e-12


def test_the_switching_source_has_the_entropy_of_its_formula():
  h = lambda p: -p * math.log2(p) - (1 - p) * math.log2(1 - p)
  source = process('markov(order=4,p=0.3,q=0.1)')
  assert source.entropy_rate == pytest.approx(0.25 * h(0.3) + 0.75 * h(0.1), abs=1e-8)
  assert source.unigram_entropy == pytest.approx(h(0.25), abs=1e-8)
  source = process('markov')
  assert (source.entropy_rate, source.unigram_entropy) == pytest.approx((h(0.8), 1.0), abs=1e-8)


@pytest.mark.parametrize(
  'spec', ['markov(order=2', 'markov(order=3,p=0.2,q=0.6', 'markov(order=2,states=3,dense=true', 'markov(states=4']
)
def test_a_counted_model_of_the_order_comes_to_the_entropy(spec):
  source = synthetic.parse(f'{spec},documents=100,length=4000)')
  train, held_out = source.open('train'), source.open('validation')
  order = dict(source.arguments)['order']
  bits = markov_bits_per_byte(train, held_out, (order,))[order]
  assert bits == pytest.approx(held_out.bits_per_byte, rel=0.01)
  assert bits == pytest.approx(train.entropy_rate, rel=0.02)
  assert train.bits_per_byte == pytest.approx(train.entropy_rate, rel=0.004)
  if '(order=3' in spec or spec == 'markov(order=2':  # what is needed lies exactly k characters back
    lower = markov_bits_per_byte(train, held_out, (order - 1,))[order - 1]
    assert lower == pytest.approx(train.unigram_entropy, rel=0.02)
  counts = np.bincount(np.frombuffer(b''.join(train), np.uint8))
  assert block_entropy(counts / counts.sum()) == pytest.approx(train.unigram_entropy, rel=0.01)


def parses(words, text):
  """In how many ways a text is a concatenation of words."""
  ways = [1] + [0] * len(text)
  for end in range(1, len(text) + 1):
    ways[end] = sum(ways[end - len(word)] for word in words if text[:end].endswith(word))
  return ways[-1]


def test_words_are_parsed_in_one_way():
  source = process('words(vocabulary=8,seed=3)')
  assert len(set(source.words)) == 8
  for sequence in itertools.product(source.words, repeat=3):
    text = b''.join(sequence)
    assert parses(source.words, text) == 1
    starts = source.word_starts(text)
    assert np.flatnonzero(starts).tolist() == [0, len(sequence[0]), len(sequence[0] + sequence[1])]
    cut = text[:-1]  # the last word is not whole
    assert source.word_starts(cut).tolist() == starts[:-1].tolist()
  with pytest.raises(ValueError, match='no word at byte 0'):
    source.word_starts(b'0')


@pytest.mark.parametrize('vocabulary', [2, 300, 20_000])
def test_no_word_begins_with_another(vocabulary):
  words = sorted(process(f'words(vocabulary={vocabulary})').words)
  assert len(words) == vocabulary
  assert not any(longer.startswith(shorter) for shorter, longer in itertools.pairwise(words))
  assert all(word.isalpha() and word.islower() for word in words)


def beginnings(source, length):
  """Every string of `length` bytes that the source can begin with."""
  found, whole = set(), {b''}
  while whole:
    longer = {text + word for text in whole for word in source.words}
    found |= {text[:length] for text in longer if len(text) >= length}
    whole = {text for text in longer if len(text) < length}
  return found


@pytest.mark.parametrize('spec', ['words(vocabulary=3)', 'words(vocabulary=2,zipf=2.5,seed=1)'])
def test_word_entropy_is_the_growth_of_the_block_entropy(spec):
  source = process(spec)
  blocks = {
    length: [2 ** -source.bits(text) for text in beginnings(source, length)]
    for length in (*range(10, 16), *range(24, 30))
  }
  assert [math.fsum(block) for block in blocks.values()] == pytest.approx([1] * len(blocks), abs=1e-9)
  early, late = (np.mean([block_entropy(blocks[n]) for n in range(first, first + 6)]) for first in (10, 24))
  growth = (late - early) / 14  # of means, since where words end is not yet forgotten
  assert growth == pytest.approx(source.entropy_rate, rel=0.05)


def test_words_are_zipfian_and_their_bits_exact():
  corpus = synthetic.parse('words(vocabulary=50,zipf=1.3,documents=100)').open('train')
  source = process('words(vocabulary=50,zipf=1.3)')
  p = np.arange(1, 51) ** -1.3
  p /= p.sum()
  np.testing.assert_allclose(source.probability_V, p, rtol=1e-4)
  words = [word for document in corpus for word in source.split(document)[0]]
  assert len(words) == 100 * 1500
  bits = -math.fsum(math.log2(p[source.words.index(word)]) for word in words[:1500])
  assert corpus.source_bits(corpus[0]) == pytest.approx(bits, rel=1e-4)
  mean_length = p @ [len(word) for word in source.words]
  assert corpus.entropy_rate == pytest.approx(block_entropy(p) / mean_length, rel=1e-4)
  assert corpus.bits_per_byte == pytest.approx(corpus.entropy_rate, rel=0.005)
  counts = np.bincount(np.frombuffer(b''.join(corpus), np.uint8))
  assert block_entropy(counts / counts.sum()) == pytest.approx(corpus.unigram_entropy, rel=0.005)
  assert int(corpus.word_starts(corpus[3]).sum()) == 1500


@pytest.mark.parametrize('spec', ['markov(documents=40,length=300', 'words(documents=40,length=100'])
def test_a_specification_is_the_same_text_everywhere(spec):
  source = synthetic.parse(f'{spec})')
  corpora = {split: source.open(split) for split in synthetic.SPLITS}
  assert [len(corpus) for corpus in corpora.values()] == [40, 2, 2]
  assert len({document for corpus in corpora.values() for document in corpus}) == 44
  again = synthetic.parse(source.name)
  assert again == source and again.open('train').fingerprint == corpora['train'].fingerprint
  assert synthetic.parse(f'{spec},seed=1)').open('train').fingerprint != corpora['train'].fingerprint
  for split, groups in pickle.loads(pickle.dumps(source.groups())).items():
    assert [document for group in groups for document in group] == list(corpora[split])
    assert len({group.key for group in groups}) == len(groups)
  copy = pickle.loads(pickle.dumps(corpora['test']))
  assert list(copy) == list(corpora['test']) and copy.bits_per_byte == corpora['test'].bits_per_byte


def test_the_bytes_are_the_ones_of_the_first_release():
  digest = lambda spec: hashlib.sha256(b'\n'.join(synthetic.parse(spec).open('train'))).hexdigest()[:16]
  assert {spec: digest(spec) for spec in GOLDEN} == GOLDEN


GOLDEN = {
  'markov(documents=20,length=500)': '3b8d5118fc365356',
  'markov(order=3,states=5,dense=true,documents=20,length=500)': 'c3b5bd7c264a3540',
  'markov(states=7,seed=9,documents=20,length=500)': 'aaf92122251509e6',
  'words(documents=20)': '9dacb966e3821cfc',
  'words(vocabulary=5000,zipf=0.7,seed=2,documents=20)': 'a7ff67ae8138326d',
}


def test_long_documents_are_drawn_a_few_at_a_time(monkeypatch):
  monkeypatch.setattr(synthetic, '_BLOCK_SIZE', 1000)
  source = synthetic.parse('markov(documents=7,length=300)')
  assert [len(list(group)) for group in source.groups()['train']] == [3, 3, 1]
  assert len(set(source.open('train'))) == 7


def test_bytes_of_no_source_are_impossible():
  assert process('markov').bits(b'012') == math.inf
  assert process('words').bits(b'the') == math.inf
  assert process('markov(p=1,q=1)').bits(b'0011') == 2 and process('markov(p=1,q=1)').bits(b'000') == math.inf


@pytest.mark.parametrize(
  ('spec', 'word'),
  [
    ('letters', 'use one of markov, words'),
    ('markov(k=2)', "no argument 'k'"),
    ('markov(order=0)', 'order=0 must be from 1 to 64'),
    ('markov(states=1)', 'states=1'),
    ('markov(states=63)', 'states=63'),
    ('markov(p=0)', 'p=0.0'),
    ('markov(q=nan)', 'q=nan'),
    ('markov(states=3,p=0.5)', 'two states'),
    ('markov(dense=true,q=0.5)', 'two states'),
    ('markov(dense=maybe)', 'true or false'),
    ('markov(order=21,dense=true)', 'choose a lower order'),
    ('words(vocabulary=1)', 'vocabulary=1'),
    ('words(zipf=-1)', 'zipf=-1.0'),
    ('words(seed=-1)', 'seed=-1'),
    ('words(documents=0)', 'documents=0'),
    ('words(length=2000000)', 'length=2000000'),
  ],
)
def test_a_bad_specification_is_refused_in_one_sentence(spec, word):
  with pytest.raises(ValueError, match=word):
    synthetic.parse(spec)


def test_an_unknown_split_is_refused():
  with pytest.raises(ValueError, match="'all' is not known"):
    synthetic.parse('words').open('all')
