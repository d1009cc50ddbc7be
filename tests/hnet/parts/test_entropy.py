"""BLT's boundary: the published numbers, a loop over documents, and what it takes of an entropy model."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hnet
from hnet import parts
from hnet.parts import patchers
from hnet.parts.entropy import Entropy
from hnet.parts.entropy_lm import CALIBRATION
from layers.contract import EVAL
from layers.paths import rebuild
from tests.goldens import GOLDENS
from tests.goldens.chunkers import compare
from tests.hnet.parts.common import IDS, LENGTH, ROWS, SIZES, build, level_of
from text.batch import Batch

TINY = 'layout=T1,width=16,mlp_width=128,heads=2,rotary=8,window=3'
LM = {
  'family': 'hnet',
  'arch_layout': ['T1'],
  'd_model': [16],
  'd_intermediate': [128],
  'attn_cfg': {'num_heads': 2, 'rotary_emb_dim': 8, 'window_size': 3},
}
ENTROPIES = np.random.default_rng(0).uniform(0, 5, IDS.shape).astype(np.float32)


@pytest.mark.parametrize('name', ['blt_entropy', 'blt_patchers'])
def test_the_published_entropy_model_and_its_patchers(name):
  found = compare(GOLDENS / 'chunkers' / name)
  assert len(found) > 10
  assert {tensor: difference for tensor, difference in found.items() if not difference.is_small} == {}


def naive_ends(entropy, mode, threshold, add, most):
  """Of one document: where patches end, from the starts that the published code collects."""
  count, first = len(entropy), {'threshold': 1, 'jump': 2, 'both': 3}[mode]
  starts = {0, 1} if mode == 'threshold' else {0, 1, 2}
  for t in range(first, count):
    high, jump = entropy[t] > threshold, t and entropy[t] - entropy[t - 1] > (add if mode == 'both' else threshold)
    if {'threshold': high, 'jump': jump, 'both': high and jump}[mode]:
      starts.add(t + 1)
  ordered = sorted(starts | {count + 1})
  if most:
    starts |= {start + n for start, end in itertools.pairwise(ordered) for n in range(0, end - start, most)}
  return [t + 1 in starts for t in range(count)]


@pytest.mark.parametrize('mode, threshold, add', [('threshold', 3.0, None), ('jump', 0.5, None), ('both', 2.0, 0.4)])
@pytest.mark.parametrize('most', [0, 1, 3])
def test_patches_of_packed_documents_are_those_of_each_alone(monkeypatch, mode, threshold, add, most):
  more = '' if add is None else f',add={add}'
  boundary = build('boundary', f'entropy(mode={mode},threshold={threshold},most={most}{more},{TINY})')
  monkeypatch.setattr(patchers, 'entropy', lambda logits: jnp.asarray(ENTROPIES))
  emit = np.asarray(boundary(None, level_of(IDS), EVAL).emit)
  for row in range(ROWS):
    for document in range(1, IDS[row].max() + 1):
      at = IDS[row] == document
      assert emit[row, at].tolist() == naive_ends(ENTROPIES[row, at].tolist(), mode, threshold, add, most)
  assert not emit[IDS == 0].any()


def test_entropies_are_those_of_a_flat_model_and_rows_and_documents_do_not_see_each_other():
  model = hnet.build(hnet.parse(LM), rngs=nnx.Rngs(1))
  part = parts.parse('boundary', f'entropy(threshold=1,{TINY})')
  taken = part.take(model, 1, 'somewhere')
  boundary = rebuild(part.build(SIZES, rngs=nnx.Rngs(0)), taken)
  documents = [(row, IDS[row] == n) for row in range(ROWS) for n in range(1, IDS[row].max() + 1)]
  text = np.random.default_rng(1).integers(0, 256, IDS.shape).astype(np.uint8)
  ours = patchers.entropy(boundary.frozen.lm(jnp.asarray(text), jnp.asarray(IDS)))
  alone = Batch.of([text[row, at].tobytes() for row, at in documents])
  log_p = np.asarray(jax.nn.log_softmax(model(alone).logits))
  expected = -np.sum(np.exp(log_p) * log_p, -1)
  for index, (row, at) in enumerate(documents):
    np.testing.assert_allclose(ours[row, at], expected[index, : at.sum()], atol=1e-5)


def test_an_entropy_that_is_the_threshold_ends_no_patch():
  ends = patchers.by_entropy(jnp.float32([1, 2, 1.5, 2]), jnp.zeros(4), jnp.arange(4), 1.5)
  assert ends.tolist() == [True, True, False, True]
  assert patchers.entropy(jnp.zeros((3, 256))).tolist() == pytest.approx([np.log(256)] * 3)


@pytest.mark.parametrize(
  'spec, sentence',
  [
    ('mode=jumps', "boundary entropy: mode 'jumps' is not one of threshold, jump, both"),
    ('mode=both', "add=None, with mode 'both': give add with mode=both only"),
    ('add=0.1', "add=0.1, with mode 'threshold': give add"),
    ('most=-1', 'boundary entropy: most -1 must be an integer of at least 0'),
    ('size=0.5', 'boundary entropy: size=0.5, slots a patch, must be from 1'),
    ('window=-1', 'window=-1: an entropy model with attention has a window'),
    ('heads=3', 'boundary entropy: num_heads 3 does not divide d_model 128'),
    ('layout=X', "boundary entropy: arch_layout 'X': a stack is written|arch_layout 'X': a stack is written"),
  ],
)
def test_bad_options_are_one_sentence_before_anything_is_built(spec, sentence):
  branch = {**LM, 'arch_layout': ['t1', ['t1'], 't1'], 'd_model': [16, 16], 'd_intermediate': [0, 0]}
  chunking = {'boundary': f'entropy({spec})', 'pool': 'first', 'unpool': 'repeat'}
  with pytest.raises(ValueError, match=sentence) as error:
    hnet.parse({**branch, 'chunking': chunking})
  assert '\n' not in str(error.value)


def options(**changes):
  return dict(parts.parse('boundary', f'entropy(runs/lm,{TINY})').options) | changes


@dataclasses.dataclass
class Words:
  """A model of another alphabet."""

  alphabet: dict


@pytest.mark.parametrize(
  'branch, changes, sentence',
  [
    ({}, {'width': 8, 'heads': 1}, r'write entropy\(lm=DIR,width=16,heads=2\)'),
    ({'post_norm': False}, {}, 'must have post_norm'),
    ({'arch_layout': ['m1'], 'd_model': [32], 'ssm_cfg': {'expand': 4}}, {}, 'd_conv 4 and expand 2 in ssm_cfg'),
    (
      {'arch_layout': ['t1', ['t1'], 't1'], 'd_model': [16, 16], 'd_intermediate': [0, 0]},
      {},
      'DIR holds no flat byte model',
    ),
  ],
)
def test_other_models_are_refused_with_what_to_write(branch, changes, sentence):
  model = jax.eval_shape(lambda: hnet.build(hnet.parse(LM | branch), rngs=nnx.Rngs(0)))
  with pytest.raises(ValueError, match=sentence):
    Entropy.take(model, 1, 'DIR', **options(threshold=1.0, **changes))


def test_another_alphabet_is_refused():
  with pytest.raises(ValueError, match=r'the entropy model in DIR has another alphabet \(units\)'):
    Entropy.take(Words({'units': 'char'}), 1, 'DIR', **options(threshold=1.0))


def test_a_threshold_that_was_never_calibrated_is_one_sentence(tmp_path):
  model = hnet.build(hnet.parse(LM), rngs=nnx.Rngs(1))
  command = rf'run `python -m studies.calibrate --workdir={tmp_path} --size=6.0`'
  with pytest.raises(ValueError, match=rf'no threshold for 6 slots a patch in .*{CALIBRATION}: {command}'):
    Entropy.take(model, 5, tmp_path, **options(size=6.0))
  entry = {'size': 6.0, 'mode': 'threshold', 'add': None, 'most': 0, 'threshold': 1.25, 'step': 4}
  (tmp_path / CALIBRATION).write_text(json.dumps({'thresholds': [entry]}))
  with pytest.raises(ValueError, match='has the threshold of step 4 of the entropy model, whose newest is 5: run'):
    Entropy.take(model, 5, tmp_path, **options(size=6.0))
  assert Entropy.take(model, 4, tmp_path, **options(size=6.0))['frozen.threshold'] == 1.25
  with pytest.raises(ValueError, match='no threshold for 6 slots a patch .* --size=6.0 --most=9'):
    Entropy.take(model, 4, tmp_path, **options(size=6.0, most=9))


def test_tied_embeddings_are_the_head():
  model = hnet.build(hnet.parse(LM | {'tie_embeddings': True}), rngs=nnx.Rngs(1))
  taken = Entropy.take(model, 1, 'DIR', **options(threshold=1.0))
  np.testing.assert_array_equal(taken['frozen.lm.lm_head.kernel'], taken['frozen.lm.embeddings'].T)


def test_its_cost_is_a_forward_pass_of_the_entropy_model_within_its_window():
  model = hnet.build(hnet.parse(LM), rngs=nnx.Rngs(0))
  found = parts.parse('boundary', f'entropy({TINY})').flops(SIZES, 1.0, 0.2)
  assert found == pytest.approx(sum(model.flops_per_byte(LENGTH).values()))
