"""The contract of the word models: causality, streaming, isolation, and what training needs of a model.

Their logits are not one set a byte, so that the shared test cannot ask for them; what is asked here is the same.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import assume, given
from hypothesis import strategies as st

import byte_models
from layers.paths import flatten, rebuild
from tests.byte_models import tiny_word_ar as tiny
from tests.layers.common import jit
from tests.test_contract import ALONE, BATCHES, LENGTH, PROMPT, ROWS, ROWS_OF_TEXT, drawn, example, segment_ids, texts
from text import EOS
from text.batch import Batch
from text.words import mark

TOLERANCE = 1e-4


class Subject:
  """A model and its compiled forms."""

  def __init__(self, values):
    self.make = lambda: byte_models.build(byte_models.parse(values), rngs=nnx.Rngs(0))
    self.model = tiny.build(values)

  def marked(self, batch):
    return mark(batch, self.model.words)

  def __call__(self, batch):
    return jax.device_get(tiny.forward(self.model, self.marked(batch)))

  def logits(self, batch):
    return jax.device_get(tiny.symbol_logits(self.model, self.marked(batch)))


@pytest.fixture(scope='module', params=tiny.KINDS)
def subject(request):
  return Subject(tiny.KINDS[request.param])


def assert_same(ours, theirs, where, there=None):
  there = where if there is None else there
  np.testing.assert_allclose(ours.nll[where], theirs.nll[there], atol=TOLERANCE, rtol=0)
  np.testing.assert_array_equal(ours.segmentations[0][where], theirs.segmentations[0][there])


@drawn(max_examples=15)
@given(batch=BATCHES, other=ROWS_OF_TEXT, last=st.integers(0, LENGTH - 2))
def test_causality_later_bytes_change_nothing_before_them_as_long_as_the_words_are_the_same(
  subject, batch, other, last
):
  changed = Batch(np.where(np.arange(LENGTH) <= last, batch.bytes, other), batch.segment_ids)
  ours, theirs = subject(batch), subject(changed)
  same = np.logical_and.accumulate(ours.segmentations[0] == theirs.segmentations[0], 1)
  same &= np.arange(LENGTH) <= last
  np.testing.assert_allclose(ours.nll[same], theirs.nll[same], atol=TOLERANCE, rtol=0)


@drawn(max_examples=8)
@given(
  bytes_BxL=ROWS_OF_TEXT,
  prompts=st.lists(st.integers(1, PROMPT), min_size=ROWS, max_size=ROWS),
  begins=st.lists(st.booleans(), min_size=ROWS, max_size=ROWS),
  row=st.integers(0, ROWS - 1),
)
def test_streaming_equals_the_parallel_form_in_a_batch_and_alone(subject, bytes_BxL, prompts, begins, row):
  bytes_BxL = np.where((np.arange(LENGTH) == 0) & np.array(begins)[:, None], 254, bytes_BxL).astype(np.uint8)
  assume(subject.model.words is None or not np.any(bytes_BxL[:, -1] == EOS))
  batch = Batch(bytes_BxL, np.ones_like(bytes_BxL, np.int32))
  output, (of_byte, of_end) = subject(batch), subject.logits(batch)
  starts = output.segmentations[0]
  symbols = [tiny.symbols_of(subject.model, bytes_BxL[r], starts[r], prompts[r]) for r in range(ROWS)]
  inputs = np.zeros((ROWS, 2 * LENGTH), np.uint8)
  for r in range(ROWS):
    inputs[r, : len(symbols[r])] = [symbol for symbol, _, _ in symbols[r]]
  arguments = bytes_BxL[:, :PROMPT], np.array(prompts), starts[:, :PROMPT], inputs
  logits = np.asarray(tiny.decode(subject.model, *arguments, max_bytes=4 * LENGTH))
  for r in range(ROWS):
    nats = np.zeros(LENGTH)
    for step, (symbol, position, is_byte) in enumerate(symbols[r]):
      expected = (of_byte if is_byte else of_end)[r, position]
      np.testing.assert_allclose(logits[r, step], expected, atol=TOLERANCE, rtol=0)
      nats[position + (not is_byte)] -= jax.nn.log_softmax(logits[r, step])[symbol]
    np.testing.assert_allclose(nats[prompts[r] :], output.nll[r, prompts[r] :], atol=TOLERANCE, rtol=0)
  alone = tiny.decode(subject.model, *(value[row : row + 1] for value in arguments), max_bytes=4 * LENGTH)
  count = len(symbols[row])
  np.testing.assert_allclose(alone[0, :count], logits[row, :count], atol=TOLERANCE, rtol=0)


@drawn(max_examples=10)
@given(
  documents=st.lists(texts(LENGTH), min_size=3, max_size=3),
  lengths=st.tuples(st.integers(1, ALONE), st.integers(1, ALONE)),
  place=st.permutations(range(3)),
  rest=BATCHES,
)
def test_isolation_packed_equals_padded_equals_alone(subject, documents, lengths, place, rest):
  documents = [document[:length] for document, length in zip(documents, (*lengths, ALONE), strict=True)]
  in_place = [documents[index] for index in place]
  packed_bytes, packed_ids = rest.bytes.copy(), rest.segment_ids.copy()
  joined = np.concatenate(in_place)
  packed_bytes[0, : len(joined)] = joined
  packed_ids[:1] = segment_ids([[len(document) for document in in_place]])
  packed = subject(Batch(packed_bytes, packed_ids))
  padded_bytes, padded_ids = rest.bytes.copy(), rest.segment_ids.copy()
  for row, document in enumerate(documents):
    padded_bytes[row, : len(document)] = document
  padded_ids[:3] = segment_ids([[len(document)] for document in documents])
  padded = subject(Batch(padded_bytes, padded_ids))
  begin = np.cumsum([0, *map(len, in_place)])
  for position, row in enumerate(place):
    length = len(documents[row])
    assert_same(packed, padded, np.s_[0, begin[position] : begin[position] + length], np.s_[row, :length])
  alone = subject(Batch(documents[2][None], np.ones((1, ALONE), np.int32)))
  assert_same(alone, padded, np.s_[0], np.s_[2, :ALONE])


@drawn(max_examples=4)
@given(batch=BATCHES)
def test_nll_is_that_of_a_naive_loop_over_the_words(subject, batch):
  output = subject(batch)
  starts, scored = output.segmentations[0], np.asarray(batch.scored)
  assert output.nll.dtype == np.float32 and starts.dtype == bool
  np.testing.assert_array_equal(output.nll[~scored], 0)
  assert not starts[batch.segment_ids == 0].any()
  rows = [row for row in range(ROWS) if batch.segment_ids[row].any()][:1]  # the loop is slow
  for row in rows:
    for segment in range(1, batch.segment_ids[row].max() + 1):
      where = batch.segment_ids[row] == segment
      expected = tiny.naive_nats(subject.model, batch.bytes[row, where], starts[row, where])
      np.testing.assert_allclose(output.nll[row, where], expected, atol=TOLERANCE, rtol=0)


def test_every_array_is_a_float32_parameter_and_has_a_gradient(subject):
  batch = subject.marked(example())
  gradient = flatten(jit(jax.grad(lambda model: jnp.sum(model(batch).nll)))(subject.model))
  assert {leaf.dtype for leaf in flatten(subject.model).values()} == {jnp.dtype('float32')}
  assert all(np.isfinite(leaf).all() for leaf in gradient.values())
  assert [path for path, leaf in gradient.items() if not np.any(leaf)] == []


def test_models_of_one_configuration_share_one_compiled_program(subject):
  again = jax.eval_shape(subject.make)
  assert jax.tree.structure(again) == jax.tree.structure(subject.model)
  other = rebuild(again, {path: 2 * leaf for path, leaf in flatten(subject.model).items()})
  subject(example())
  programs = tiny.forward._cache_size()
  tiny.forward(other, subject.marked(example()))
  assert tiny.forward._cache_size() == programs


def test_parameters_and_costs_are_described(subject):
  model = subject.model
  assert model.lr_multipliers(None) == (1.0, 1.0) and model.lr_multipliers([1, 0.5]) == (1.0, 0.5)
  with pytest.raises(ValueError, match="lr_multipliers 'paper': two non-negative numbers"):
    model.lr_multipliers('paper')
  stages = {path: model.stage_of(path) for path in flatten(model)}
  assert {path for path, stage in stages.items() if stage} == {path for path in stages if path.startswith('backbone.')}
  assert {path for path in stages if not model.decays(path)} == {path for path in stages if path.endswith('.scale')}
  assert sum(model.flops_per_byte(LENGTH, None).values()) > 0
