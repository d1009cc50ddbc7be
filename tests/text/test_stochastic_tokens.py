"""StochasTok and BPE-dropout against the distributions that all outcomes of their draws have."""

import collections
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings

from tests.byte_models import tiny_token_lm
from tests.text import tiny_subwords
from text import stochastic_tokens, tokens
from text.stochastic_tokens import draws, merged, stochastok

TABLE = [b'', b'a', b'b', b'c', b'ab', b'bc', b'abc', b'cab', b'a']  # two tokens spell 'a'
SAMPLES = 6000


class Vocabulary:
  """What `text.tokens.Tokens` needs of a tokenizer."""

  vocabulary, digest, path = TABLE, '0', 'here'


def observed(sample):
  found = collections.Counter(tuple(sample(draws(7, number))) for number in range(SAMPLES))
  return {outcome: count / SAMPLES for outcome, count in found.items()}


def assert_like(found, expected):
  assert sum(expected.values()) == pytest.approx(1) and found.keys() <= expected.keys()
  for outcome, p in expected.items():
    assert found.get(outcome, 0.0) == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / SAMPLES) + 1e-12), outcome


def expanded(ids, attempts):
  """Sequence -> probability after so many attempts, by all places and pairs."""
  if not attempts:
    return {tuple(ids): 1.0}
  found = collections.Counter()
  for place, index in enumerate(ids):
    spelled, options = TABLE[index], []
    for left, a in enumerate(TABLE):
      options += [(left, right) for right, b in enumerate(TABLE) if a and b and a + b == spelled]
    for pair in options or [(index,)]:
      new = [*ids[:place], *pair, *ids[place + 1 :]]
      for outcome, p in expanded(new, attempts - 1).items():
        found[outcome] += p / len(ids) / max(len(options), 1)
  return found


@pytest.mark.parametrize('ids, p', [([6, 2], 0.5), ([6, 2], 1.0), ([7, 6, 1], 1.0), ([7, 6, 4, 3], 0.74)])
def test_stochastok_has_the_distribution_of_all_its_choices(ids, p):
  table = stochastic_tokens.expansions(tokens.Tokens(Vocabulary, 'here'))
  found = observed(lambda draw: stochastok(ids, table, p, draw))
  assert_like(found, expanded(ids, int(p * len(ids))))


def test_stochastok_tries_as_often_as_the_rate_says():
  """Each try adds a token but where it meets one that has no expansions."""
  table, always = stochastic_tokens.expansions(tokens.Tokens(Vocabulary, 'here')), lambda index: [(index, index)]
  for count in (1, 9, 10, 99, 250):
    for p in (0.1, 0.5, 1.0):
      assert len(stochastok([6] * count, always, p, draws(1))) == count + int(p * count)
      assert len(stochastok([6] * count, table, p, draws(1))) <= count + int(p * count)
  assert stochastok([1, 2, 3], table, 1.0, draws(1)) == [1, 2, 3] and stochastok([], table, 1.0, draws(1)) == []


MERGES = {(b'a', b'b'): 0, (b'b', b'c'): 1, (b'ab', b'c'): 2, (b'a', b'bc'): 3, (b'abc', b'abc'): 4}


def by_steps(pieces, p):
  """Pieces -> probability: in every step each possible merge is left out with p, and the first that is not is done."""
  ranked = [(MERGES[pair], at) for at, pair in enumerate(itertools.pairwise(pieces)) if pair in MERGES]
  found = collections.Counter({tuple(pieces): p ** len(ranked)})
  for place, (_, at) in enumerate(sorted(ranked)):
    for outcome, q in by_steps([*pieces[:at], pieces[at] + pieces[at + 1], *pieces[at + 2 :]], p).items():
      found[outcome] += (1 - p) * p**place * q
  return found


@pytest.mark.parametrize('text, p', [(b'abc', 0.3), (b'abcab', 0.5), (b'abcabc', 0.1)])
def test_bpe_dropout_has_the_distribution_of_all_merges_that_are_left_out(text, p):
  found = observed(lambda draw: merged(text, MERGES, p, draw))
  assert_like(found, by_steps([text[at : at + 1] for at in range(len(text))], p))


@pytest.fixture(scope='module')
def bpe():
  return tokens.parse(tokens.in_file(tiny_token_lm.tokenizer(), ''))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(text=tiny_subwords.WORDS)
def test_without_dropout_merges_are_the_tokenizers_and_with_all_of_it_there_are_none(bpe, text):
  ends = bpe.tokenizer.pretokens(text).tolist()
  stretches = [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
  spell = lambda p: [i for part in stretches for i in stochastic_tokens.dropped(part, bpe, p, draws(1))]
  assert spell(0.0) == bpe(text).ids_N.tolist()
  assert [bpe.table[index] for index in spell(1.0)] == [bytes([byte]) for byte in text]
  assert b''.join(bpe.table[index] for index in spell(0.5)) == text


def test_a_long_stretch_is_merged_in_time(bpe):
  text = tiny_subwords.TEXT * 4
  assert b''.join(merged(text, stochastic_tokens.merges(bpe), 0.1, draws(1))) == text


@pytest.mark.parametrize(
  ('pattern', 'change', 'sentence'),
  [
    (None, {}, 'it does not cut text before it merges'),
    (r' ?\S+|\s+', {'type': 'WordPiece'}, 'it is no byte-level BPE'),
    (r' ?\S+|\s+', {'merges': []}, 'it does more than to merge by rank'),
  ],
)
def test_tokenizers_that_have_no_merges_to_leave_out_are_named(tmp_path, pattern, change, sentence):
  directory = tiny_token_lm.write(tmp_path, pattern=pattern)
  found = tokens.parse(tokens.in_file(directory, ''))
  settings = json.loads((directory / 'tokenizer.json').read_text())
  (directory / 'tokenizer.json').write_text(json.dumps(settings | {'model': settings['model'] | change}))
  with pytest.raises(ValueError, match=f"bpe_dropout of '{directory}': {sentence}"):
    stochastic_tokens.merges(found)
