"""Modules as flat dictionaries, there and back; positions of packed documents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers.linear import Linear, RMSNorm, normal
from layers.paths import flatten, rebuild
from layers.segments import positions, starts


class Tree(nnx.Module):
  def __init__(self, deviation=1.0):
    rngs = nnx.Rngs(0)
    make = lambda: Linear(2, 3, kernel_init=normal(deviation), bias_init=lambda key, shape: jnp.ones(shape), rngs=rngs)
    self.layers = nnx.List([make(), make()])
    self.norm = RMSNorm(3)


def test_paths_name_attributes_and_places_in_lists():
  assert {path: leaf.shape for path, leaf in flatten(Tree()).items()} == {
    'layers.0.kernel': (2, 3),
    'layers.0.bias': (3,),
    'layers.1.kernel': (2, 3),
    'layers.1.bias': (3,),
    'norm.scale': (3,),
  }
  assert list(flatten({'a': (1, {'b': 2})})) == ['a.0', 'a.1.b']


@pytest.mark.parametrize('abstract', [True, False])
def test_a_flat_module_is_rebuilt_in_any_order(abstract):
  tree = Tree()
  like = jax.eval_shape(Tree) if abstract else Tree(2.0)
  flat = dict(reversed(flatten(tree).items()))
  again = rebuild(like, flat)
  assert isinstance(again, Tree) and jax.tree.structure(again) == jax.tree.structure(tree)
  jax.tree.map(np.testing.assert_array_equal, again, tree)


def test_paths_that_do_not_fit_are_named():
  flat = flatten(Tree())
  flat['layers.2.bias'] = flat.pop('layers.1.bias')
  with pytest.raises(ValueError, match=r"missing \['layers.1.bias'\], surplus \['layers.2.bias'\]"):
    rebuild(Tree(), flat)


def test_positions_restart_with_every_document_and_with_the_padding():
  ids = jnp.array([[1, 1, 1, 2, 3, 3, 0, 0], [1] * 8])
  np.testing.assert_array_equal(positions(ids), [[0, 1, 2, 0, 0, 1, 0, 1], np.arange(8)])
  np.testing.assert_array_equal(starts(ids), [[1, 0, 0, 1, 1, 0, 1, 0], [1] + [0] * 7])


def test_norms_divide_by_the_root_mean_square_in_float32():
  norm = RMSNorm(3)
  norm.scale = nnx.Param(jnp.array([1.0, 2.0, -1.0]))
  x = np.array([[3.0, 4.0, 0.0]])
  expected = x / np.sqrt(25 / 3 + 1e-5) * [1, 2, -1]
  np.testing.assert_allclose(norm(x, jnp.float32), expected, rtol=1e-6)
  large = norm(jnp.asarray(1e3 * x, jnp.bfloat16), jnp.bfloat16)
  assert large.dtype == jnp.bfloat16
  np.testing.assert_allclose(large.astype(np.float32), expected, rtol=0.01)
