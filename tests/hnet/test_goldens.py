"""Tiny models against the official code: logits, boundaries, gradients, greedy generation (tests/goldens/hnet).

Logits, boundaries and gradients with XLA's operations and with the kernels for TPU and GPU, interpreted.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import hnet
from hnet import official
from kernels import choice
from kernels.interpreted import KERNELS, interpret
from layers import weights
from layers.paths import flatten
from tests.goldens import GOLDENS
from text.batch import Batch

NAMES = ('iso_T2_swa', 'iso_m3', 'stage1_basic', 'stage2_brief')
TARGETS = {'stage1_basic': (3.0,), 'stage2_brief': (3.0, 2.5)}


@functools.cache
def load(name: str, scan_layers: bool = False):
  """(model, what the official code computes)."""
  directory = GOLDENS / 'hnet' / name
  changes = {'ratio_targets': TARGETS.get(name)}
  model = hnet.from_pretrained(directory, scan_layers=scan_layers, remat=scan_layers, **changes)
  return model, load_file(directory / 'io.safetensors')


@pytest.fixture
def implementation(request, monkeypatch):
  """Every operation in this form, of which it gives the name; kernels are interpreted."""
  if request.param != 'xla':
    platform = choice.PLATFORM[request.param]
    monkeypatch.setattr(choice, 'platform', lambda: platform)
    monkeypatch.setitem(choice.DEFAULTS, platform, tuple(KERNELS))
    interpret(request.param, monkeypatch.setattr)
  return request.param


WITHOUT_WINDOWS = ('iso_m3', 'stage1_basic')  # which the kernel for attention on a GPU does not have
FORMS = [
  (name, form) for name in NAMES for form in choice.IMPLEMENTATIONS if form != 'pallas_gpu' or name in WITHOUT_WINDOWS
]


forward = jax.jit(lambda model, batch: model(batch))


def whole(ids: np.ndarray) -> Batch:
  return Batch(ids.astype(np.uint8), np.ones(ids.shape, np.int32))


@pytest.mark.parametrize(('name', 'implementation'), FORMS, indirect=['implementation'])
def test_logits_and_boundaries_equal_the_official_code(name, implementation):
  model, io = load(name)
  # What is traced depends on the implementation, of which jit knows nothing: only one form is kept for other tests.
  call = forward if implementation == 'xla' else jax.jit(lambda model, batch: model(batch))
  output = call(model, whole(io['input_ids']))
  np.testing.assert_allclose(output.logits, io['logits'], atol=2e-4, rtol=0)
  np.testing.assert_allclose(output.logits, io['logits_packed'], atol=2e-4, rtol=0)
  starts = np.ones(io['input_ids'].shape, bool)
  for stage, (b, p) in enumerate(zip(output.segmentations, output.boundary_probabilities, strict=True)):
    b, p = np.asarray(b), np.asarray(p)
    for row in range(len(b)):  # the official inner stages are indexed by chunk: read ours where the outer stage cuts
      count = int(starts[row].sum())
      np.testing.assert_array_equal(b[row][starts[row]], io[f'stage{stage}.boundary_mask'][row, :count])
      np.testing.assert_allclose(p[row][starts[row]], io[f'stage{stage}.boundary_prob'][row, :count], atol=1e-5)
    assert not (b & ~starts).any()
    starts = b


@pytest.mark.parametrize('name', NAMES)
def test_packed_documents_equal_the_official_rows(name):
  """Both rows in one row, as two documents: nothing flows between them."""
  model, io = load(name)
  ids = io['input_ids']
  segment_ids = np.repeat([[1, 2]], ids.shape[1], axis=1).reshape(1, -1)
  output = forward(model, Batch(ids.reshape(1, -1).astype(np.uint8), np.sort(segment_ids).astype(np.int32)))
  np.testing.assert_allclose(output.logits.reshape(io['logits'].shape), io['logits_packed'], atol=2e-4, rtol=0)


@pytest.mark.parametrize('name', NAMES)
def test_rows_of_different_length_equal_the_official_code(name):
  model, io = load(name)
  ids, lengths = io['varlen.input_ids'], io['varlen.lengths']
  segment_ids = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int32)
  output = forward(model, Batch(ids.astype(np.uint8), segment_ids))
  for row, length in enumerate(lengths):
    np.testing.assert_allclose(output.logits[row, :length], io['varlen.logits'][row, :length], atol=2e-4, rtol=0)


# A scan stays inside its stack: two stages, which take longest, tell no more of it than one; nor of kernels.
@pytest.mark.parametrize(
  ('name', 'scan_layers', 'implementation'),
  [(name, False, form) for name, form in FORMS if name != NAMES[-1] or form == 'xla']
  + [(name, True, 'xla') for name in NAMES[:-1]],
  indirect=['implementation'],
)
def test_gradients_equal_the_official_code(name, scan_layers, implementation):
  model, io = load(name, scan_layers)
  expected = load_file(GOLDENS / 'hnet' / name / 'grads.safetensors')
  batch = whole(io['input_ids'])

  def loss(model):
    output = model(batch)
    cross_entropy = jnp.sum(output.nll) / batch.scored.sum()
    return cross_entropy + 0.03 * output.aux_losses.get('ratio', 0.0), (cross_entropy, output.stage_metrics)

  (total, (cross_entropy, stage_metrics)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(model)
  np.testing.assert_allclose(total, expected.pop('__loss'), rtol=1e-5)
  np.testing.assert_allclose(cross_entropy, expected.pop('__ce'), rtol=1e-5)
  for stage in range(len(TARGETS.get(name, ()))):
    theirs = expected.pop(f'__ratio_loss.{stage}')
    np.testing.assert_allclose(stage_metrics[stage]['ratio_loss'], theirs, rtol=1e-5)
  flat = {path: np.asarray(value) for path, value in flatten(gradient).items()}
  ours = weights.scatter(official.parts(model.config), flat)
  assert ours.keys() == expected.keys()
  for tensor, theirs in expected.items():
    np.testing.assert_allclose(ours[tensor], theirs, atol=1e-3 * np.abs(theirs).max() + 1e-12, rtol=0, err_msg=tensor)


@pytest.mark.parametrize('name', NAMES)
def test_greedy_generation_equals_the_official_step(name):
  model, _ = load(name)
  directory = GOLDENS / 'hnet' / name
  expected = json.loads((directory / 'generation.json').read_text())
  step_logits = load_file(directory / 'generation_logits.safetensors')['step_logits']
  prompt, wanted = expected['prompt_ids'], expected['generated_ids']
  cache = model.init_cache(1, len(prompt) + len(wanted))
  logits, cache = jax.jit(model.prefill)(Batch.of([bytes(prompt)]), jnp.array([len(prompt)]), cache)
  step = jax.jit(model.step, donate_argnums=1)
  for index, byte in enumerate(wanted):
    np.testing.assert_allclose(logits[0], step_logits[index], atol=2e-4, rtol=0)
    assert int(jnp.argmax(logits[0])) == byte
    logits, cache = step(jnp.array([byte], jnp.uint8), cache)
