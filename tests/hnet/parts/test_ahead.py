"""The boundary that reads one slot behind its own, and what cannot be one."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hnet import parts
from hnet.parts.ahead import MARGIN
from hnet.parts.base import ENDS
from hnet.parts.priors import BCE
from layers.chunks import Level
from layers.contract import EVAL
from layers.paths import flatten
from tests.hnet import tiny
from tests.hnet.parts.common import IDS, LENGTH, ROWS, SIZES, STARTS, build, level_of
from tests.layers.common import random
from tests.text import tiny_subwords
from text import Batch, marks, pieces, words

LAST = (IDS > 0) & (np.diff(IDS, axis=1, append=0) != 0)


def test_p_is_half_of_one_minus_the_cosine_with_the_next_slot_and_the_loss_is_that_of_its_logarithm():
  boundary, e = build('boundary', 'cosine_ahead'), random(ROWS, LENGTH, SIZES.width)
  cut = boundary(e, level_of(IDS), EVAL)
  q, k = (np.asarray(e, np.float64) @ np.asarray(m.kernel[...], np.float64) for m in (boundary.query, boundary.key))
  labels = np.random.default_rng(2).random(IDS.shape) < 0.5
  losses = []
  for row, t in itertools.product(range(ROWS), range(LENGTH)):
    if not IDS[row, t]:
      p = 0.0
    elif LAST[row, t]:
      p = float(STARTS[row, t])
    else:
      cosine = q[row, t] @ k[row, t + 1] / np.linalg.norm(q[row, t]) / np.linalg.norm(k[row, t + 1])
      log_p = min(math.log1p(-min(cosine, 1 - MARGIN)) - math.log(2), -MARGIN)
      p = 1.0 if STARTS[row, t] else math.exp(log_p)
      if not STARTS[row, t]:
        losses.append(-log_p if labels[row, t] else -math.log(-math.expm1(log_p)))
    np.testing.assert_allclose(cut.p[row, t], p, atol=1e-6)
    assert cut.emit[row, t] == (p > 0.5) == cut.soft[row, t]
  level = level_of(IDS).marked(pieces=jnp.asarray(labels))
  loss = BCE(labels='pieces', by='fixed', spikes_left=1, of='logit')(cut, level, None, EVAL)
  np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


def test_what_is_given_takes_the_place_of_what_the_next_slot_says():
  boundary, e = build('boundary', 'cosine_ahead'), random(ROWS, LENGTH, SIZES.width)
  given = np.random.default_rng(3).random(IDS.shape) < 0.5
  cut = boundary(e, level_of(IDS).marked(**{ENDS: jnp.asarray(given)}), EVAL)
  np.testing.assert_array_equal(cut.emit, (given | STARTS) & (IDS > 0))
  np.testing.assert_array_equal(cut.soft, cut.emit)
  np.testing.assert_array_equal(cut.more['logit'], boundary(e, level_of(IDS), EVAL).more['logit'])


def test_scores_have_a_gradient_for_losses_of_their_own_and_none_for_what_reads_the_cut():
  boundary, e, level = build('boundary', 'cosine_ahead'), random(ROWS, LENGTH, SIZES.width), level_of(IDS)
  gradient = lambda of: flatten(jax.grad(lambda boundary: jnp.sum(of(boundary(e, level, EVAL)) ** 2))(boundary))
  assert all(np.any(leaf) for leaf in gradient(lambda cut: cut.p).values())
  assert all(np.any(leaf) for leaf in gradient(lambda cut: cut.more['logit']).values())
  assert not any(np.any(leaf) for leaf in gradient(lambda cut: cut.soft).values())


@pytest.fixture(scope='module')
def bpe(tmp_path_factory):
  return str(tiny_subwords.write(tmp_path_factory.mktemp('bpe') / 'bpe.json'))


def test_a_perfect_gate_cuts_text_into_the_pieces_of_the_tokenizer_that_labels_it(bpe):
  """States that turn around behind every end."""
  document, by = tiny_subwords.TEXT, f'pieces(file={bpe})'
  loss = BCE(labels='pieces', by=by, spikes_left=1, of='logit')
  batch = marks.mark(Batch.of([b'\xfe' + document]), {'pieces': by})
  label_BxC = np.asarray(batch.marks['pieces'])
  sign_BxC = np.where(np.cumsum(label_BxC, 1) - label_BxC & 1, -1.0, 1.0)
  e_BxCxD = jnp.asarray(sign_BxC[..., None] * np.ones(SIZES.width), jnp.float32)
  level = Level.of_bytes(jnp.asarray(batch.segment_ids), {'pieces': jnp.asarray(label_BxC)})
  cut = parts.parse('boundary', 'cosine_ahead').build(SIZES, rngs=nnx.Rngs(0))(e_BxCxD, level, EVAL)
  ends = np.flatnonzero(np.asarray(cut.emit)[0])  # slot 0 is BOS, the last one has no next
  found = [document[a:b] for a, b in itertools.pairwise([*ends.tolist(), len(document)])]
  words_of = words.parse('hat(max_bytes=64)').words(document)
  sizes = itertools.chain.from_iterable(map(pieces.parse(bpe), words_of))
  at = [0, *itertools.accumulate(sizes)]
  assert found == [document[a:b] for a, b in itertools.pairwise(at)] and len(found) > 100
  least = np.where(label_BxC[0, 1:-1], MARGIN, -math.log1p(-MARGIN / 2))
  np.testing.assert_allclose(loss(cut, level, None, EVAL), np.mean(least), rtol=1e-3)


@pytest.mark.parametrize('chunking', ['dynamic_pooling_pieces', 'bolmo_chunker'])
def test_no_boundary_that_decides_with_a_byte_is_a_tagger_that_reads_the_word_to_its_end(bpe, chunking):
  """Two words that a tokenizer cuts differently where they are the same: of any p that the part they share decides, the
  mean loss there is at least ln 2. One byte more does not help, two do not in general.
  """
  both, by = [b' 40.', b' 400'], f'pieces(file={bpe})'
  assert list(map(pieces.parse(bpe), both)) == [(1, 1, 1, 1), (4,)]
  model = tiny.build(['t1', ['t1'], 't1'], chunking=f'{chunking}(by={by})')
  batch = marks.mark(Batch.of([b'\xfe' + word for word in both]), model.labels)
  one, other = np.asarray(jax.jit(lambda model: model(batch).boundary_probabilities[0])(model))[
    :, 2
  ]  # of a start behind the space
  assert batch.marks['pieces'][:, 1].tolist() == [True, False]
  assert one == other and -(math.log(one) + math.log1p(-other)) / 2 >= math.log(2)
