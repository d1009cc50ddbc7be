"""docs/add_a_chunker.md as it stands: its parts hold what is asked of every part, and its config trains."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import byte_models
import training
from evaluation import oracles
from hnet import parts
from layers.chunks import Level
from tests.docs import pages
from tests.hnet.tiny import branch
from tests.test_contract import BATCHES, LENGTH, PROMPT, ROWS, ROWS_OF_TEXT, assert_together, drawn
from text.marks import script


@pytest.fixture(scope='module')
def page():
  """The names that the page's code defines; its parts are in the registry meanwhile."""
  before = {kind: dict(classes) for kind, classes in parts.KINDS.items()}
  yield pages.run('add_a_chunker.md')
  for kind, classes in before.items():
    parts.KINDS[kind].clear()
    parts.KINDS[kind].update(classes)


@pytest.fixture(scope='module')
def subject(page):
  chunking = dict(page['get_config']().model.chunking)
  model = byte_models.build(byte_models.parse(branch(['t1', ['T1'], 't1'], chunking=chunking)), rngs=nnx.Rngs(0))
  return oracles.Subject(oracles.informative(model), LENGTH, PROMPT)


@drawn(max_examples=8)
@given(batch=BATCHES, other=ROWS_OF_TEXT, last=st.integers(0, LENGTH - 2), prompt=st.integers(1, PROMPT))
def test_the_model_is_causal_streams_and_keeps_documents_apart(subject, batch, other, last, prompt):
  assert_together(oracles.causality(subject, batch, other, last))
  assert_together(oracles.streaming(subject, other, [prompt] * ROWS, 0, ROWS))


def test_chunks_are_lines_or_parts_of_them(page):
  content = b'ab\n\ncdefghijkl\nm'
  bytes_1xL = jnp.asarray(np.frombuffer(content, np.uint8))[None]
  level = Level.of_bytes(jnp.ones(bytes_1xL.shape, jnp.int32), {'bytes': bytes_1xL})
  cut = page['Lines'](parts.Sizes(8, 8), rngs=nnx.Rngs(0), most=4)(None, level, None)
  assert np.flatnonzero(cut.emit[0]).tolist() == [0, 3, 4, 8, 12, 15]


def test_the_config_trains_and_its_loss_is_weighed(page, tmp_path):
  config = page['get_config']()
  config.update({'num_steps': 2, 'batch_size': 2, 'seq_len': 64})
  config.eval.update({'every_steps': 0, 'max_bytes': 300})
  config.model.update({'arch_layout': ('m1', ('T1',), 'm1'), 'd_model': (64, 64), 'd_intermediate': (0, 64)})
  config.model.attn_cfg.rotary_emb_dim = (16, 16)
  last = training.train(config, tmp_path)
  assert last['few_loss'] >= 0 and 1 < last['bytes_per_chunk_0'] <= 8
  assert jax.tree.leaves(training.load(tmp_path).model)


def test_the_lines_that_the_design_page_counts_are_there():
  counted = re.findall(r'^\| .* \| (\d+) \(`(\w+)`\) \|$', (pages.DOCS / 'design.md').read_text(), re.MULTILINE)
  actual = pages.class_lines(pages.python('add_a_chunker.md')) | pages.class_lines(inspect.getsource(script))
  assert len(counted) == 4
  assert {name: int(lines) for lines, name in counted} == {name: actual[name] for _, name in counted}


@pytest.mark.parametrize(
  ('chunking', 'sentence'),
  [
    ({'boundary': 'lines(0)'}, 'write lines(N) with N of 1 or more'),
    ({'boundary': 'lines(least=2)'}, "has no argument 'least': lines takes most"),
    ({'pool': 'projectd'}, "pool 'projectd' is not known"),
  ],
)
def test_what_is_wrong_is_one_sentence(page, chunking, sentence):
  with pytest.raises(ValueError, match=re.escape(sentence)):
    byte_models.parse(branch(['t1', ['T1'], 't1'], chunking={'boundary': 'lines', **chunking}))
