"""Every operation on a mesh of eight devices, kernels interpreted, against XLA's form on one: values and gradients."""

from tests import devices

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType
from kernels import choice
from kernels.attention import attention
from kernels.chunk import chunk
from kernels.dechunk import dechunk
from kernels.route import route
from kernels.ssd import ssd
from kernels.interpreted import interpret
from tests.kernels.common import boundaries

interpret('pallas_tpu')
rng = np.random.default_rng(0)
normal = lambda *shape: rng.standard_normal(shape, np.float32)
mask, ids, p = boundaries('drawn', rows=4, length=16)
z, x, wide = normal(4, 6, 8), normal(4, 16, 8), normal(4, 16, 8)
heads = lambda count, size: normal(4, 16, count, size)
dt = np.abs(normal(4, 16, 2)) * 0.1
route_of = lambda q, k: route(q, k, ids)
dechunk_of = lambda z, p, selected, residual: dechunk(z, p, mask, ids, selected, residual)
ssd_of = lambda x, dt, a, b, c: ssd(x, dt, a, b, c, ids, 16)
attention_of = lambda q, k, v: attention(q, k, v, ids, 7)
cases = {  # name: (function, arguments, shape of what one device computes with)
  'route': (route_of, (x, wide), '1x16x8'),
  'chunk': (lambda x: chunk(x, mask, 6).values_BxMxD, (x,), '1x16x8'),
  'dechunk': (dechunk_of, (z, p, np.maximum(p, 1 - p), wide), '1x6x8'),
  'ssd': (ssd_of, (heads(2, 8), dt, -np.abs(normal(2)), normal(4, 16, 8), normal(4, 16, 8)), '1x16x1x8'),
  'ssd, odd heads': (ssd_of, (heads(3, 8), np.abs(normal(4, 16, 3)), -np.abs(normal(3)), x, wide), '1x16x3x8'),
  'attention': (attention_of, (heads(4, 8), heads(2, 8), heads(2, 8)), '1x16x2x8'),
  'attention, one key head': (attention_of, (heads(4, 8), heads(1, 8), heads(1, 8)), '1x16x4x8'),
}
mesh = jax.make_mesh((2, 2, 2), ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)
for name, (fn, arguments, own) in cases.items():
  shapes = jax.eval_shape(fn, *arguments)
  weights = jax.tree.map(lambda y: normal(*y.shape), shapes)
  def scalar(arguments):
    y = fn(*arguments)
    return sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(y), jax.tree.leaves(weights))), y
  gradient = jax.value_and_grad(scalar, has_aux=True)
  want = jax.jit(lambda arguments: gradient(arguments))(arguments)
  choice.platform = lambda: 'tpu'
  with jax.set_mesh(mesh):
    program = jax.jit(lambda arguments: gradient(arguments)).lower(arguments)
    assert f'tensor<{own}xf32>' in program.as_text(), name
    got = program.compile()(arguments)
  choice.platform = lambda: 'cpu'
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1, np.abs(b).max()), err_msg=name)
"""


def test_devices_share_out_rows_and_heads_and_nothing_changes():
  devices.run(PROGRAM, 8)
