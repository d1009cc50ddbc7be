"""The kernels through the real TPU compiler: a small set; `make test-tpu` compiles all released sizes."""

import importlib.metadata

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from kernels import aot, tpu_compiler
from kernels.cases import OPERATIONS, Case, program
from kernels.in_subprocess import compile_case

TPU = jax.sharding.AbstractDevice(device_kind='TPU v5 lite', num_cores=1, platform='tpu')
problem = tpu_compiler.problem()
needs_compiler = pytest.mark.skipif(problem is not None, reason=str(problem))


@pytest.mark.parametrize('operation', OPERATIONS)
def test_an_operation_and_its_gradient_lower_for_a_tpu_without_its_compiler(operation):
  with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ('data',), (AxisType.Auto,), abstract_device=TPU)):
    made = program(Case(operation, 256, 'bfloat16', True, batch=2, length=600, chunks=200), None)
    text = jax.jit(made.fn).trace(*made.arguments).lower(lowering_platforms=('tpu',)).as_text()
  assert text.count('tpu_custom_call') == (3 if operation.endswith('attention') else 2)  # its gradient: two


@needs_compiler
@pytest.mark.parametrize('operation', OPERATIONS)
def test_an_operation_and_its_gradient_compile(operation):
  ok, text = compile_case('v5e:2x2', Case(operation, 256, 'bfloat16', True, batch=2, length=600, chunks=200))
  assert ok, text


@needs_compiler
def test_rows_stay_on_their_chips():
  ok, text = compile_case('v5e:2x2', Case('dechunk', 256, 'float32', True, batch=4, length=600, chunks=200), devices=4)
  assert ok, text


@needs_compiler
def test_an_unknown_topology_is_one_sentence():
  ok, text = compile_case('v9:2x2', Case('route', 256, 'float32', False))
  assert not ok and "topology 'v9:2x2': libtpu says" in text and 'write one such as v4:2x2x1' in text


def version(number):
  def of(name):
    if name != 'libtpu' or number is None:
      raise importlib.metadata.PackageNotFoundError(name)
    return number

  return of


def test_a_missing_or_wrong_libtpu_is_one_sentence(monkeypatch):
  monkeypatch.setattr(importlib.metadata, 'version', version(None))
  assert 'libtpu, the TPU compiler, is not installed: pip install "libtpu==' in tpu_compiler.problem()
  with pytest.raises(ValueError, match='make test-tpu'):
    aot.mesh('v5e:2x2')
  monkeypatch.setattr(importlib.metadata, 'version', version('0.0.7'))
  assert 'libtpu 0.0.7 is installed and jax ' in tpu_compiler.problem()
