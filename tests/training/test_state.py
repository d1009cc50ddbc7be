import jax
import numpy as np
import pytest
from flax import nnx

import byte_models
from training import description
from training.state import flatten, rebuild

BRANCH = {'family': 'tiny', 'width': 4}


def test_rebuild_inverts_flatten():
  model = byte_models.build(byte_models.parse(BRANCH), rngs=nnx.Rngs(0))
  flat = flatten(model)
  assert list(flat) == ['embeddings.embedding', 'head.bias', 'head.kernel', 'inner.0.bias', 'inner.0.kernel']
  again = rebuild(description.abstract_model(BRANCH), flat)
  assert jax.tree.structure(again) == jax.tree.structure(model)
  assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True))


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    (lambda flat: flat.pop('head.bias'), r"missing \['head.bias'\], surplus \[\]"),
    (lambda flat: flat.update(extra=np.zeros(3)), r"missing \[\], surplus \['extra'\]"),
    (
      lambda flat: flat.update({'head.bias': np.zeros(3, np.float32)}),
      r'head.bias is float32\[3\], the model has float32\[256\]',
    ),
  ],
)
def test_parameters_that_do_not_fit_are_named(change, sentence):
  model = description.abstract_model(BRANCH)
  flat = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in flatten(model).items()}
  change(flat)
  with pytest.raises(ValueError, match=sentence):
    rebuild(model, flat)


def test_a_description_counts_parameters_without_allocating_them():
  branch = {'family': 'tiny', 'width': 2**20}
  parameters = description.parameters_by_component(flatten(description.abstract_model(branch)))
  assert parameters['embeddings'] == 256 * 2**20 and parameters['inner'] == 2 * 2**40 + 2**20
