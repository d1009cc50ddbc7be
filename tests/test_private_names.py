"""What is used of other libraries that they do not promise to keep: each name, what for, and what to do without it."""

import ast
import functools
import importlib
import inspect
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
USES = {  # {(file, module, what of it, its parameters): what to do when it is gone}
  (
    'training/processes.py',
    'jax._src.clusters',
    'ClusterEnv.auto_detect_unset_distributed_params',
    'coordinator_address num_processes process_id local_device_ids cluster_detection_method initialization_timeout',
  ): (
    'processes._parts asks it for the address, the number and the id that jax.distributed.initialize would find on a '
    'TPU pod, under Slurm, Open MPI or Kubernetes, so that a wrong start is told in one sentence before JAX aborts: '
    'see what jax.distributed.initialize calls now, or read the variables of these clusters in _parts'
  ),
  ('kernels/gpu_compiler.py', 'jaxlib._jax', 'hlo_module_cost_analysis', None): (
    'gpu_compiler.bytes_accessed counts with it the bytes of a program for an absent GPU: see whether cost_analysis() '
    'of a program compiled for a topology tells them now, or leave the bytes out of the report'
  ),
}


def private_imports(path: pathlib.Path) -> set[str]:
  """Modules with a part that begins with one underscore, by what is imported in a file."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {name.name for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{name.name}' for name in node.names}
  is_private = lambda part: part.startswith('_') and not part.startswith('__')
  return {name for name in found if any(map(is_private, name.split('.')))}


def test_every_private_import_is_listed_here():
  files = [path for path in (*ROOT.glob('*.py'), *ROOT.glob('[a-z]*/**/*.py')) if 'tests' not in path.parts]
  found = {(str(path.relative_to(ROOT)), name) for path in files for name in private_imports(path)}
  assert found == {(path, module) for path, module, _, _ in USES}, 'use a public name, or list it with what to do'


@pytest.mark.parametrize('use', USES, ids=lambda use: use[2])
def test_what_is_private_is_still_there(use):
  _, module, name, parameters = use
  try:
    found = functools.reduce(getattr, name.split('.'), importlib.import_module(module))
    assert parameters is None or list(inspect.signature(found).parameters) == parameters.split()
  except (ImportError, AttributeError, AssertionError) as error:
    pytest.fail(f'{module} has no {name} as it is used in {use[0]} ({error}). {USES[use]}')
