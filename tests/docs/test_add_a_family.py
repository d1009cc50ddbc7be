"""docs/add_a_family.md as it stands: its model keeps the contract, trains, scores and writes."""

import dataclasses

import jax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import byte_models
import evaluation
import training
from evaluation import oracles
from tests.docs import pages
from tests.test_contract import BATCHES, LENGTH, PROMPT, ROWS, ROWS_OF_TEXT, SHORT, assert_together, drawn, texts
from training import flops


@pytest.fixture(scope='module')
def page():
  before = dict(byte_models.families)
  yield pages.run('add_a_family.md')
  byte_models.families.clear()
  byte_models.families.update(before)


@pytest.fixture(scope='module')
def subject(page):
  model = byte_models.build(byte_models.parse({'family': 'feed_forward', 'order': 5, 'width': 8}), rngs=nnx.Rngs(0))
  assert isinstance(model, byte_models.Model)
  return oracles.Subject(oracles.informative(model), LENGTH, PROMPT)


@drawn(max_examples=8)
@given(
  batch=BATCHES,
  other=ROWS_OF_TEXT,
  last=st.integers(0, LENGTH - 2),
  prompts=st.lists(st.integers(1, PROMPT), min_size=ROWS, max_size=ROWS),
  documents=st.lists(texts(LENGTH), min_size=3, max_size=3),
)
def test_the_three_oracles_hold(subject, batch, other, last, prompts, documents):
  assert_together(oracles.causality(subject, batch, other, last))
  assert_together(oracles.streaming(subject, other, prompts, 0, ROWS))
  assert_together(oracles.isolation(subject, [document[:SHORT] for document in documents], (2, 0, 1), batch))


def test_the_config_trains_scores_and_writes(page, tmp_path):
  config = page['get_config']()
  config.update({'num_steps': 2, 'batch_size': 2, 'seq_len': 64})
  config.eval.update({'every_steps': 0, 'max_bytes': 300})
  last = training.train(config, tmp_path)
  model = training.load(tmp_path).model
  assert 0 < last['validation_bpb'] < 20 and dataclasses.asdict(model.config)['order'] == 12
  assert len(evaluation.generate(model, [b'a', b''], 8, stop_at_eos=False)[0]) == 8
  assert all(leaf.dtype == 'float32' for leaf in jax.tree.leaves(model))


def test_a_family_without_a_backbone_says_that_it_cannot_be_resized(page):
  with pytest.raises(ValueError, match='a feed_forward model has no layers to add'):
    flops.match(page['get_config'](), 1e6)


def test_what_is_wrong_is_one_sentence(page):
  with pytest.raises(ValueError, match=r'^model\.order 0'):
    byte_models.parse({'family': 'feed_forward', 'order': 0})
  with pytest.raises(ValueError, match=r'model\.ordre\. Did you mean "model\.order"'):
    byte_models.parse({'family': 'feed_forward', 'ordre': 3})
