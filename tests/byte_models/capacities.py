"""What holds for models of words: capacities that just fit change nothing, smaller ones say so and do no harm."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from layers.paths import flatten


@functools.partial(jax.jit, static_argnames='capacities')
def _run(model, batch, capacities=None):
  def loss(model):
    output = model(batch, capacities=capacities)
    return jnp.sum(output.nll), output

  (_, output), gradient = jax.value_and_grad(loss, has_aux=True)(model)
  return output, gradient


def assert_same_where_chunks_fit(model, batch, other=None):
  """Values and gradients at capacities that just hold the chunks of a batch are those with room for every byte.

  other: runs at these capacities in the model's place. Rows of as many chunks as there can be do not fit, which is
  said, and values and gradients stay numbers. Returns the output at the capacities.
  """
  expected, gradients = jax.device_get(_run(model, batch))
  capacities = tuple(map(int, expected.needed))
  run = functools.partial(_run, model if other is None else other, capacities=capacities)
  output, found = jax.device_get(run(batch))
  assert output.needed == expected.needed
  np.testing.assert_allclose(output.nll, expected.nll, atol=1e-4)
  np.testing.assert_array_equal(output.segmentations[0], expected.segmentations[0])
  gradients = flatten(gradients)
  for path, leaf in flatten(found).items():
    np.testing.assert_allclose(leaf, gradients[path], atol=5e-4, rtol=5e-4, err_msg=path)
    assert np.any(leaf), path

  full = dataclasses.replace(batch, segment_ids=np.ones_like(batch.segment_ids))
  each_byte = {'words': np.ones_like(batch.bytes), 'units': batch.bytes}
  full = dataclasses.replace(full, marks={name: each_byte[name].astype(x.dtype) for name, x in batch.marks.items()})
  over, found = jax.device_get(run(full))
  assert all(needed > capacity for needed, capacity in zip(over.needed, capacities, strict=True))
  assert np.isfinite(over.nll).all() and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
  return output
