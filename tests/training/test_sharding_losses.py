"""Training on meshes of eight simulated devices gives the losses of one; `python -m studies.equal_losses` has the rest.

Also: what a program's text says of its collectives, where it is known in closed form.
"""

import os
import pathlib
import subprocess
import sys

EQUAL = """
import sys
from studies import equal_losses
from tests.layers import common

for name, meshes in (('hnet', [(2, 2, 2)]), ('tfree_hat', [(8, 1, 1)])):
  model = equal_losses.MODELS[name] | {'ladder': {'fractions': (0.5, 1.0), 'row_groups': 2}}
  found = equal_losses.study(model, 20, meshes, common._options)
  reference = found['losses'][1, 1, 1]
  assert reference[-1] < reference[0] and found['closest'] >= equal_losses.MARGIN, name
  assert name != 'hnet' or found['disagreements'] > 0
  for mesh in meshes:
    assert equal_losses.difference(found['losses'][mesh], reference) < 1e-5, (name, mesh)
"""

COLLECTIVES = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from training import hlo

mesh = jax.make_mesh((8,), ('fsdp',), (AxisType.Auto,))
place = lambda *spec: NamedSharding(mesh, P(*spec))
whole = lambda w: jax.lax.with_sharding_constraint(w, place())

def step(x, kernels, small):
  x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ whole(w)), None), x, kernels)
  twice = lambda x: jnp.tanh(x @ whole(small))
  return jnp.sum(jax.lax.switch((x[0, 0] > 0).astype(int), [jnp.cos, twice, lambda x: twice(twice(x))], x))

shapes = (16, 32), (5, 32, 32), (32, 32)
arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
jitted = jax.jit(step, in_shardings=(place('fsdp'), place(None, 'fsdp'), place('fsdp')))
text = jitted.lower(*arguments).compile().as_text()
one = 32 * 32 * 4
for branch, gathered in ((0, 5 * one), (1, 6 * one), (-1, 7 * one)):
  found = hlo.work(text, branch)
  assert abs(found.collective_bytes['all-gather'] - gathered) <= (branch == -1) * one, found
  assert 4 <= found.collective_bytes['all-reduce'] <= 64 and found.unknown_loops == 0
"""


def run(program):
  environment = os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'JAX_PLATFORMS': 'cpu'}
  root = pathlib.Path(__file__).parents[2]
  done = subprocess.run([sys.executable, '-c', program], env=environment, cwd=root, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]


def test_every_mesh_gives_the_losses_of_one_device():
  run(EQUAL)


def test_collectives_count_as_often_as_their_loop_runs_and_in_the_branch_taken():
  run(COLLECTIVES)
