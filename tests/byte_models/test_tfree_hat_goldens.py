"""Tiny models against the published code: every intermediate, gradients, generation (tests/goldens/tfree_hat).

Generation: what was sampled while a character was unfinished is compared step by step, and the logits that the
published code replaces afterwards with the parallel form.
"""

import functools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from byte_models import tfree_hat
from byte_models.tfree_hat.official import parts
from layers import segments
from layers.paths import flatten
from layers.weights import scatter
from tests.goldens import GOLDENS
from text.batch import Batch
from text.marks import mark

NAMES = ('plain', 'window')
TEXTS = ('text0', 'text1')
PROMPT, LENGTH = 24, 56


@functools.cache
def load(name, **overrides):
  return tfree_hat.from_pretrained(GOLDENS / 'tfree_hat' / name, **{'delivery': 'published', **overrides})


def numbers(name, kind):
  return load_file(GOLDENS / 'tfree_hat' / name / f'{kind}.safetensors')


def cases(name):
  return json.loads((GOLDENS / 'tfree_hat' / name / 'generation.json').read_text())['cases']


def both(io):
  """The texts as two rows, with the words of the published splitter."""
  ids = [io[f'{text}.byte_ids'].astype(np.uint8).tobytes() for text in TEXTS]
  batch = Batch.of(ids)
  starts = np.zeros(batch.bytes.shape, bool)
  for row, text in enumerate(TEXTS):
    starts[row, io[f'{text}.cumulative_seq_lengths_per_word'][:-1]] = True
  return Batch(batch.bytes, batch.segment_ids, {'words': starts})


@jax.jit
def intermediates(model, batch):
  words = model.locate(batch)
  a = model.encode(batch)
  g = model.pool(a, words)
  z = model.backbone(g, words)
  p = model.predictive(z, words)
  y = model.decode(a, p, words, batch)
  return {
    'encoder_output': a,
    'word_embeddings': g,
    'backbone_output': z,
    'predictive_word_embeddings': p,
    'decoder_output': y,
    'logits': model.head(y),
    'word_index_per_byte': words.index_BxC,  # of rows of one document
    'byte_position_ids': segments.positions(batch.segment_ids),
  }


@pytest.mark.parametrize('name', NAMES)
def test_intermediates_and_logits_equal_the_published_code(name):
  io = numbers(name, 'io')
  found = intermediates(load(name), both(io))
  for row, text in enumerate(TEXTS):
    for key, values in found.items():
      expected = io[f'{text}.{key}']
      np.testing.assert_allclose(values[row, : len(expected)], expected, atol=1e-4, rtol=0, err_msg=key)


@pytest.mark.parametrize('name', NAMES)
def test_words_are_those_of_the_published_splitter(name):
  batch = both(numbers(name, 'io'))
  unmarked, model = Batch(batch.bytes, batch.segment_ids), load(name)
  np.testing.assert_array_equal(mark(unmarked, model.marks).marks['words'], batch.marks['words'])
  unmarked = model.locate(unmarked)
  np.testing.assert_array_equal(unmarked.starts_BxC, batch.marks['words'])


def test_a_window_may_count_the_own_byte():
  io = numbers('window', 'io')
  logits = intermediates(load('window', window_counts_self=True), both(io))['logits']
  for row, text in enumerate(TEXTS):
    expected = io[f'{text}.logits_if_window_counts_self']
    np.testing.assert_allclose(logits[row, : len(expected)], expected, atol=1e-4, rtol=0)
    assert np.abs(expected - io[f'{text}.logits']).max() > 1


@pytest.mark.parametrize('name', NAMES)
def test_cross_entropy_and_gradients_equal_the_published_code(name):
  io, expected = numbers(name, 'io'), numbers(name, 'grads')
  batch = both(io)

  def loss(model):
    per_text = model(batch).nll.sum(1) / batch.scored.sum(1)
    return per_text.mean(), per_text

  (_, per_text), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(load(name))
  for row, text in enumerate(TEXTS):
    np.testing.assert_allclose(per_text[row], io[f'{text}.mean_cross_entropy'][0], rtol=1e-5)
  flat = {path: np.asarray(value) for path, value in flatten(gradient).items()}
  assert [path for path, value in flat.items() if '.unused.' in path and value.any()] == []
  ours = scatter(parts(load(name).config), flat)
  assert ours.keys() == expected.keys()
  for tensor, value in ours.items():
    np.testing.assert_allclose(value, expected[tensor], atol=3e-6, rtol=0, err_msg=tensor)


@jax.jit
def prefill(model, batch, length_B):
  logits, cache = model.prefill(batch, length_B, model.init_cache(len(batch.bytes), LENGTH))
  return model.by_byte(logits), cache  # a swap of columns: again over ids


@jax.jit
def step(model, byte_B, cache):
  logits, cache = model.step(byte_B, cache)
  return model.by_byte(logits), cache


@pytest.mark.parametrize('name', NAMES)
def test_steps_in_a_batch_equal_the_published_sampling(name):
  """The rows end their words at different steps; logits after a replayed character show what the replay has left."""
  model, expected = load(name), numbers(name, 'generation')
  rows = [(index, case) for index, case in enumerate(cases(name)) if case['kind'] != 'argmax']
  prompts = Batch.of([bytes(case['prompt_bytes']) for _, case in rows], PROMPT)
  logits, cache = prefill(model, mark(prompts, model.marks), prompts.segment_ids.sum(1))
  sampled = np.array([case['uncached']['sampled_bytes'] for _, case in rows], np.uint8)
  found = [logits]
  for byte_B in sampled.T[:-1]:
    logits, cache = step(model, byte_B, cache)
    found.append(logits)
  for row, (index, _) in enumerate(rows):
    wanted = expected[f'case{index}.uncached.logits_at_sampling']
    np.testing.assert_allclose(np.stack(found)[:, row], wanted, atol=1e-4, rtol=0, err_msg=f'case {index}')


def published_starts(text, prompt_lengths, sampled, limit):
  """Where words begin for the published decoder: an open word that is not UTF-8 stays open."""
  from hat_splitter import HATSplitter

  starts = list(np.cumsum([0, *prompt_lengths])[:-1])
  for end in range(len(text) - sampled + 1, len(text) + 1):
    try:
      words = HATSplitter().split_with_limit(text[starts[-1] : end].decode(), limit)
    except UnicodeDecodeError:
      continue
    if len(words) > 1:
      starts.append(starts[-1] + len(words[0]))
  return starts


@pytest.mark.parametrize('name', NAMES)
def test_the_parallel_form_equals_the_published_completions(name):
  """Also where the sampled text is not UTF-8: with the words that the published decoder made of it."""
  model, expected = load(name), numbers(name, 'generation')
  limit = int(model.config.words.removeprefix('hat(max_bytes=').removesuffix(')'))
  texts, starts = [], np.zeros((len(cases(name)), LENGTH), bool)
  for row, case in enumerate(cases(name)):
    sampled = case['uncached']['sampled_bytes']
    texts.append(bytes(case['prompt_bytes']) + bytes(sampled))
    prompt_lengths = case.get('prompt_word_lengths', [len(case['prompt_bytes'])])
    starts[row, published_starts(texts[-1], prompt_lengths, len(sampled), limit)] = True
  batch = Batch.of(texts, LENGTH)
  valid = np.array([case['kind'] != 'argmax' for case in cases(name)])
  np.testing.assert_array_equal(mark(batch, model.marks).marks['words'][valid], starts[valid])
  logits = intermediates(model, Batch(batch.bytes, batch.segment_ids, {'words': starts}))['logits']
  for row, case in enumerate(cases(name)):
    first = len(case['prompt_bytes']) - 1
    wanted = expected[f'case{row}.uncached.completion_logits']
    assert len(wanted) == len(case['uncached']['sampled_bytes'])
    np.testing.assert_allclose(
      logits[row, first : first + len(wanted)], wanted, atol=1e-4, rtol=0, err_msg=f'case {row}'
    )
