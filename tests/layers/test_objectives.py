"""Objectives on bytes beside the next one, against plain loops over documents."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import byte_models
from layers import objectives
from layers.contract import EVAL, Context
from layers.paths import flatten
from studies.equal_losses import MODELS
from tests.byte_models import tiny_blt
from tests.hnet.tiny import ONE_STAGE, branch
from tests.layers.common import random
from text import marks
from text.batch import Batch

ROWS, LENGTH, WIDTH, VOCABULARY = 2, 24, 8, 256
LENGTHS = st.lists(st.integers(1, 10), min_size=1, max_size=4)
drawn = settings(deadline=None, derandomize=True, max_examples=20)


def rows(sizes, seed=0):
  """Two rows of documents of these sizes, over few values so that they come again, and padding."""
  ids = np.zeros((ROWS, LENGTH), np.int32)
  filled = np.repeat(np.arange(len(sizes)) + 1, sizes)[:LENGTH]
  ids[:, : len(filled)] = filled
  return Batch(np.random.default_rng(seed).integers(0, 5, ids.shape).astype(np.uint8), ids)


def states(seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=(ROWS, LENGTH, WIDTH)), jnp.float32)


def make(spec):
  (module,) = objectives.build(objectives.parse([spec]), WIDTH, VOCABULARY, rngs=nnx.Rngs(0))
  return module


def embed(bytes_):
  """Vectors of bytes."""
  return random(VOCABULARY, WIDTH, seed=5)[bytes_]


def documents(batch):
  """(row, first position, values) of each document."""
  for row in range(ROWS):
    for _, group in itertools.groupby(range(LENGTH), lambda t, row=row: batch.segment_ids[row, t]):
      places = list(group)
      if batch.segment_ids[row, places[0]]:
        yield row, places[0], batch.bytes[row, places].tolist()


@drawn
@given(LENGTHS, st.sampled_from(['independent', 'chained']))
def test_each_head_scores_the_byte_so_many_places_on_in_its_document(sizes, form):
  batch, module = rows(sizes), make(f'multi_byte(heads=4,form={form},decay=0.5)')
  logits = [np.asarray(jax.nn.log_softmax(of_head)) for of_head in module.logits(states(), batch)]
  wanted = 0.0
  for ahead in (2, 3, 4):
    nats = [
      -logits[ahead - 2][row, first + t, values[t + ahead]]
      for row, first, values in documents(batch)
      for t in range(len(values) - ahead)
    ]
    wanted += 0.5 ** (ahead - 2) * (np.mean(nats) if nats else 0.0)
  np.testing.assert_allclose(module(states(), batch, embed, EVAL), wanted, rtol=1e-5, atol=1e-6)


def test_chained_heads_are_given_the_bytes_before_and_no_later_ones():
  module, batch = make('multi_byte(heads=4,form=chained)'), rows([LENGTH])
  other = Batch(batch.bytes.copy(), batch.segment_ids)
  other.bytes[:, 10:] = 250
  for ahead, (one, two) in enumerate(zip(*(module.logits(states(), b) for b in (batch, other)), strict=True), 2):
    equal = np.isclose(one, two).all((0, 2))
    assert equal[: 10 - (ahead - 1)].all() and not equal[10 - (ahead - 1)]  # reads bytes up to t + ahead - 1


@drawn
@given(LENGTHS, st.integers(0, 6), st.sampled_from([1.0, 4.0]))
def test_order_is_the_cross_entropy_of_what_comes_soon(sizes, window, temperature):
  batch, module = rows(sizes), make(f'order(window={window},temperature={temperature})')
  logits, nats = np.asarray(jax.nn.log_softmax(module.out(states()))), []
  for row, first, values in documents(batch):
    for t in range(len(values) - 1):
      weights = {}
      for distance, value in enumerate(values[t + 1 :]):
        if distance <= window and value not in weights:
          weights[value] = np.exp((window - distance) / temperature)
      total = sum(weights.values())
      nats.append(-sum(w / total * logits[row, first + t, value] for value, w in weights.items()))
  np.testing.assert_allclose(module(states(), batch, embed, EVAL), np.mean(nats) if nats else 0.0, rtol=1e-5, atol=1e-6)


def test_a_window_of_nothing_is_the_next_byte():
  batch, module = rows([9, 8]), make('order(window=0)')
  target, has = objectives.shifted(batch, 1)
  nll = -np.take_along_axis(np.asarray(jax.nn.log_softmax(module.out(states()))), np.asarray(target)[..., None], -1)
  np.testing.assert_allclose(module(states(), batch, embed, EVAL), nll[..., 0][np.asarray(has)].mean(), rtol=1e-5)


@drawn
@given(LENGTHS, st.sampled_from(['', ',published=true']))
def test_levels_are_the_cross_entropy_of_the_next_bytes_level_given_the_byte(sizes, published):
  batch, module = rows(sizes), make(f'levels(word1,word2{published})')
  level = np.random.default_rng(1).integers(0, 3, batch.bytes.shape).astype(np.int8)
  batch.marks[module.mark] = level
  leaves = {path: np.float64(leaf) for path, leaf in flatten(module).items()}
  nats, x = [], np.float64(states())
  for row, first, values in documents(batch):
    for t in range(first, first + len(values) - 1):
      both = np.concatenate([x[row, t], embed(batch.bytes[row, t + 1])])
      logits = both / np.sqrt(np.mean(both**2) + 1e-5) * leaves['norm.scale'] @ leaves['out.kernel']
      nats.append(np.log(np.exp(logits).sum()) - logits[level[row, t + 1]])
  np.testing.assert_allclose(module(states(), batch, embed, EVAL), np.mean(nats) if nats else 0.0, rtol=1e-5)


@pytest.mark.parametrize('family', ['blt', 'hnet', 'tfree_hat'])
def test_levels_are_labels_of_the_whole_text_which_training_needs_and_evaluation_does_not(family):
  of = {'blt': tiny_blt.branch(), 'hnet': branch(ONE_STAGE), 'tfree_hat': MODELS['tfree_hat']}[family]
  of = {**of, 'objectives': ['levels(word1,word2,published=true)']}
  model = byte_models.build(byte_models.parse(of), rngs=nnx.Rngs(0))
  assert model.labels == {'levels(word1,word2,published=true)': 'levels(word1,word2,published=true)'}
  batch = marks.mark(Batch.of([b'ab  \n c, 12'], length=LENGTH), model.marks)
  assert 'levels' not in jax.eval_shape(lambda m: m(batch), model).aux_losses
  with pytest.raises(ValueError, match='the batch lacks the label .levels'):
    jax.eval_shape(lambda m: m(batch, context=Context(jax.random.key(0))), model)
  batch = marks.mark(batch, model.labels)
  loss, slope = jax.jit(jax.value_and_grad(lambda m: m(batch).aux_losses['levels']))(model)
  assert 0 < float(loss) < 3 and float(jnp.abs(slope.embeddings[...]).max()) > 0


@pytest.mark.parametrize('family', ['hnet', 'tfree_hat'])
def test_a_model_has_their_losses_and_the_same_bits(family):
  specs = ('multi_byte(heads=3,form=chained)', 'order')
  of = branch(ONE_STAGE) if family == 'hnet' else MODELS['tfree_hat']
  batch = rows([12, 9])
  outputs = []
  for changes in ({}, {'objectives': specs}):
    model = byte_models.build(byte_models.parse({**of, **changes}), rngs=nnx.Rngs(0))
    run = jax.jit(lambda m, b: (lambda o: (o.nll, o.aux_losses))(m(b)))
    outputs.append(run(model, marks.mark(batch, model.marks)))
  (plain, _), (nll, losses) = outputs
  np.testing.assert_array_equal(plain, nll)
  assert {'multi_byte', 'order'} <= losses.keys() and all(np.isfinite(value) for value in losses.values())
  slope = jax.jit(jax.grad(lambda m, b: m(b).aux_losses['order']))(model, marks.mark(batch, model.marks))
  assert float(jnp.abs(slope.embeddings[...]).max()) > 0  # it trains the model and not its head alone


@pytest.mark.parametrize(
  ('specs', 'sentence'),
  [
    ('order', "objectives 'order': a list of specifications"),
    (['later'], "objective 'later' is not known"),
    (['order', 'order(window=2)'], 'one of a kind'),
    (['multi_byte(heads=1)'], 'multi_byte: heads 1 must be'),
    (['multi_byte(form=tree)'], "multi_byte: form 'tree' is not one of"),
    (['order(temperature=0)'], 'order: temperature=0.0 must be above 0'),
    (['levels(word0)'], "level 'word0' is not known"),
    (['levels(word1,three=word2)'], 'name the first, and none behind one that is missing'),
    (['order(windw=2)'], "no argument 'windw'"),
  ],
)
def test_what_is_wrong_is_one_sentence(specs, sentence):
  with pytest.raises(ValueError, match=re.escape(sentence)) as error:
    byte_models.parse(branch(ONE_STAGE, objectives=specs))
  assert '\n' not in str(error.value)
