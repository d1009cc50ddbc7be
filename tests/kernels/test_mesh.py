"""Rows and heads over the devices of a mesh."""

from tests import devices

PROGRAM = """
import functools
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType
from kernels.mesh import over_rows
from kernels.chunk import chunk
from kernels.dechunk import dechunk
from kernels.route.pallas_tpu import cosines

run = functools.partial(cosines, interpret=True)
scaled = lambda q, k, scale: run(q, k) * scale

def loss(q, k, scale, mapped):
  y = over_rows('pallas_tpu', scaled, (q, k), (scale,)) if mapped else scaled(q, k, scale)
  return jnp.sum(y[:, 1:] * jnp.arange(1, y.shape[1])[None]), y

mesh_of = lambda *names: jax.make_mesh((2, 2), names, axis_types=(AxisType.Auto,) * 2)
for names, own in ((('data', 'fsdp'), 1), (('data', 'tensor'), 2)):
  q, k = jax.random.normal(jax.random.key(0), (2, 4, 5, 8))
  gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), static_argnums=3)
  want = gradient(q, k, 2.0, False)
  with jax.set_mesh(mesh_of(*names)):
    got = gradient(q, k, 2.0, True)
    text = jax.jit(lambda q, k: over_rows('pallas_tpu', run, (q, k))).lower(q, k).as_text()
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, want)
  assert f'tensor<{own}x5x8xf32>' in text, names

  # Prefix sums and scatters are inside, so that no device sees rows of another.
  p = jnp.abs(q[..., 0])
  compiled = lambda: jax.jit(lambda q, p: dechunk(chunk(q, p > 0.5, 3).values_BxMxD, p, p > 0.5, 1 + (p > -1)))
  want = compiled()(q, p)
  with jax.set_mesh(mesh_of(*names)):
    np.testing.assert_allclose(compiled()(q, p), want, rtol=1e-5, atol=1e-6)

# Rows that the devices do not divide are all computed by each.
with jax.set_mesh(mesh_of('data', 'fsdp')):
  assert 'tensor<3x5x8xf32>' in jax.jit(lambda q: over_rows('pallas_tpu', jnp.sin, (q,))).lower(q[:3]).as_text()
"""


def test_every_device_computes_its_own_rows_and_gradients_agree():
  devices.run(PROGRAM, 4)
