"""What a column says of a text, beside other code that says it; and runs that cannot be shown."""

import math
import runpy

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

import byte_models
from evaluation import NotFiniteError, evaluate
from evaluation.oracles import informative
from tests.byte_models import tiny_word_ar
from tests.hnet import tiny
from text import BOS, MemoryCorpus, words
from viewer import columns

TwoByteModel = runpy.run_path('tests/evaluation/conftest.py')['TwoByteModel']
MODEL = TwoByteModel(positional=True)


@settings(max_examples=15, derandomize=True, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode), st.just(b'x' * 200)))
def test_surprisal_and_likeliest_bytes_are_those_of_a_naive_loop(document):
  found, symbols = columns.look(MODEL, document), [BOS, *document]
  log_p = np.array([log_softmax(MODEL.naive_logits(symbols[: index + 1])) for index in range(len(symbols))])
  bits = [-row[byte] / math.log(2) for row, byte in zip(log_p, document, strict=False)]
  np.testing.assert_allclose(found['bits'], bits, rtol=1e-3, atol=1e-3)
  assert len(found['likeliest']) == len(document) + 1
  for row, likeliest in zip(log_p, found['likeliest'], strict=True):
    np.testing.assert_allclose(
      [p for _, p in likeliest], np.sort(np.exp(row))[: -columns.LIKELIEST - 1 : -1], rtol=2e-3
    )
    np.testing.assert_allclose([np.exp(row[ord(byte)]) for byte, _ in likeliest], [p for _, p in likeliest], rtol=2e-3)
  starts = [[index for index, byte in enumerate(document) if byte % divisor == 0] for divisor in (5, 25)]
  assert [stage['starts'] for stage in found['stages']] == starts


@pytest.mark.parametrize(
  ('name', 'branch'),
  [
    ('hat', tiny_word_ar.KINDS['hat']),
    ('bolmo_chunker', tiny.branch(tiny.ONE_STAGE, chunking='bolmo_chunker')),
  ],
)
def test_models_of_other_symbols_than_bytes(name, branch):
  """Their bits are those of `evaluate`, and what greedy decoding would write is told without p."""
  model = informative(byte_models.build(byte_models.parse(branch), rngs=nnx.Rngs(0)))
  document = 'In 1914 naïve cafés, 日本語'.encode()
  found = columns.look(model, document)
  result = evaluate(model, MemoryCorpus([document]), seq_len=64, batch_size=1)
  assert sum(found['bits']) == pytest.approx(result.bits_per_byte * len(document), rel=1e-3)
  assert [p for ((_, p),) in found['likeliest']] == [None] * len(document)
  if name == 'hat':
    parts = words.parse(branch['words']).words(document)
    assert found['stages'][0]['starts'] == np.cumsum([0, *map(len, parts)])[:-1].tolist()


def test_a_model_compiles_once_for_each_padded_length():
  class Counted(TwoByteModel):
    traced = 0

    def __call__(self, batch, **options):
      Counted.traced += 1
      return super().__call__(batch, **options)

  for size in (0, 1, 100, 127):
    columns.look(Counted(positional=False), b'x' * size)
  assert Counted.traced == 1
  for size in (128, 200, 255):
    columns.look(Counted(positional=False, seed=1), b'x' * size)
  assert Counted.traced == 2


def test_what_is_not_finite_is_a_sentence():
  broken = TwoByteModel(positional=False)
  broken.last[...] = broken.last[...].at[ord('b')].set(jnp.nan)
  assert len(columns.look(broken, b'aaa')['bits']) == 3
  with pytest.raises(NotFiniteError, match='at byte 1 of the text'):
    columns.look(broken, b'abc')


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.binary(max_size=60))
def test_rules_cut_where_their_words_begin(document):
  (cutter,) = columns.find_cutters(['hat(max_bytes=8)'], [])
  starts = columns.Shelf([cutter]).cut(cutter.name, None, document)['stages'][0]['starts']
  parts = words.parse('hat(max_bytes=8)').words(document)
  assert starts == np.cumsum([0, *map(len, parts)])[:-1].tolist()


def test_a_tokenizer_cuts_where_its_tokens_begin(shelf, directory):
  from text import tokenizers

  (name,) = (name for name, column in shelf.columns.items() if column.kind == 'tokenizer')
  tokenizer, document = (
    tokenizers.load(directory / 'tokenizer.json'),
    'the cats sat: naïve 日本語 \xff'.encode('latin-1', 'ignore'),
  )
  sizes = [len(tokenizer.vocabulary[index]) for index in tokenizer.encode(document)]
  assert shelf.cut(name, None, document)['stages'][0]['starts'] == np.cumsum([0, *sizes])[:-1].tolist()
  assert sum(sizes) == len(document)


def test_models_that_were_used_last_are_kept(shelf, monkeypatch):
  loaded, load = [], columns.training.load
  monkeypatch.setattr(columns.training, 'load', lambda *args, **more: loaded.append(args[1]) or load(*args, **more))
  monkeypatch.setattr(columns, 'MODELS_KEPT', 1)
  for step in (10, None, 5, 10):  # None is the newest
    shelf.cut('trained', step, b'a b')
  assert loaded == [10, 5, 10]


def test_runs_are_found_by_paths_and_globs_and_named_by_what_differs(directory, tmp_path):
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'trained').symlink_to(directory / 'trained')
  names = lambda *patterns: [run.name for run in columns.find_runs(patterns, report=pytest.fail)]
  assert names(f'{directory}/*') == ['trained', 'two_stages']
  assert names(f'{directory}/trained', f'{directory}/t*', f'{tmp_path}/other/trained') == ['trained', 'two_stages']
  assert columns._names([tmp_path / 'a' / 'x', tmp_path / 'b' / 'x']) == ['a/x', 'b/x']


def test_runs_that_cannot_be_shown_are_a_sentence_each(directory, tmp_path):
  begun = tmp_path / 'begun'
  begun.mkdir()
  (begun / 'config.json').write_bytes((directory / 'trained' / 'config.json').read_bytes())
  (tmp_path / 'notes').mkdir()
  (tmp_path / 'whole').symlink_to(directory / 'trained')
  for pattern, sentence in {
    f'{tmp_path}/nothing*': 'names no run',
    f'{tmp_path}/no*': 'names no run',
    f'{tmp_path}/begun': 'there is no checkpoint in .*: the run has not saved one',
    f'{tmp_path}/notes': 'it has no config.json',
    'gs://bucket/run': 'is a URL',
  }.items():
    with pytest.raises((ValueError, OSError), match=sentence):
      columns.find_runs([pattern], report=pytest.fail)
  told = []
  assert [run.name for run in columns.find_runs([f'{tmp_path}/*'], told.append)] == ['trained']
  assert len(told) == 1 and 'begun' in told[0]
