"""Which implementation runs where."""

import sys
import warnings

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType

from kernels import choice
from kernels.choice import DEFAULTS, IMPLEMENTATIONS, choose, platform
from kernels.interpreted import KERNELS
from kernels.route import route

TRITON, ATTENTION = 'jax.experimental.pallas.triton', 'jax.experimental.pallas.ops.gpu.attention'


def mesh_of(name):
  device = jax.sharding.AbstractDevice(device_kind='a device', num_cores=1, platform=name)
  return jax.sharding.use_abstract_mesh(AbstractMesh((1,), ('data',), (AxisType.Auto,), abstract_device=device))


@pytest.mark.parametrize(
  ('name', 'implementation'), [('tpu', 'pallas_tpu'), ('gpu', 'pallas_gpu'), ('cuda', 'pallas_gpu')]
)
def test_the_mesh_decides_and_not_the_default_backend(name, implementation):
  assert jax.default_backend() == 'cpu'
  here = 'tpu' if name == 'tpu' else 'gpu'
  with mesh_of(name):
    assert platform() == here
    assert choose('dechunk', None) == (implementation if 'dechunk' in DEFAULTS[here] else 'xla')
    assert choose('dechunk', implementation) == implementation
    assert choose('dechunk', 'xla') == 'xla'
    assert choose('no kernel of ours', None) == 'xla'


def test_without_an_accelerator_it_is_xla():
  assert platform() is None and choose('chunk', None) == 'xla'
  with mesh_of('cpu'):
    assert choose('chunk', None) == 'xla'


def test_what_the_devices_cannot_run_is_refused_with_the_remedy():
  with (
    mesh_of('cpu'),
    pytest.raises(ValueError, match="'pallas_gpu' runs on gpu devices and the mesh in force is of cpu"),
  ):
    choose('chunk', 'pallas_gpu')
  with (
    mesh_of('tpu'),
    pytest.raises(ValueError, match="mesh in force is of tpu devices; write implementation='xla' or"),
  ):
    choose('chunk', 'pallas_gpu')
  with pytest.raises(ValueError, match="implementation 'triton' is none of xla, pallas_tpu, pallas_gpu"):
    choose('chunk', 'triton')


def test_what_only_xla_has_is_its_form_everywhere_and_no_other_is_taken():
  with mesh_of('tpu'):
    assert choose('attention', None) == 'pallas_tpu' and choose('attention', None, 'choice of keys') == 'xla'
    assert choose('attention', 'xla', 'choice of keys') == 'xla'
    with pytest.raises(ValueError, match="'pallas_tpu' has no choice of keys; write implementation='xla' or None"):
      choose('attention', 'pallas_tpu', 'choice of keys')


@pytest.fixture
def without(monkeypatch):
  """Makes modules of jax be gone, as in a later release, in a process that has not imported our kernels yet."""

  def gone(*names):
    for name in [*sys.modules]:
      if name == 'kernels.gpu' or name.endswith('.pallas_gpu') or name == ATTENTION:
        package, _, module = name.rpartition('.')
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(sys.modules[package], module)
    for name in names:
      monkeypatch.setitem(sys.modules, name, None)
    choice._warn.cache_clear()

  return gone


def test_this_jax_has_every_kernel():
  assert [choice.missing(operation, name) for operation in KERNELS for name in IMPLEMENTATIONS] == [''] * 15


@pytest.mark.parametrize('operation', KERNELS)
def test_where_the_lowering_of_gpu_kernels_is_gone_xla_runs_and_one_warning_says_so(operation, without):
  without(TRITON, ATTENTION)
  with mesh_of('cuda'):
    with pytest.warns(UserWarning, match=rf"{operation}: XLA's form runs instead of 'pallas_gpu', since jax .* has no"):
      assert choose(operation, 'pallas_gpu') == 'xla'
    with warnings.catch_warnings():
      warnings.simplefilter('error')  # it was said, and what nobody asked for needs no word
      assert choose(operation, 'pallas_gpu') == choose(operation, 'xla') == choose(operation, None) == 'xla'


def test_a_default_that_is_gone_is_said_too(without, monkeypatch):
  without(TRITON)
  monkeypatch.setitem(DEFAULTS, 'gpu', ('route',))
  with mesh_of('gpu'), pytest.warns(UserWarning, match=r"route: XLA's form runs instead of 'pallas_gpu', since"):
    assert choose('route', None) == 'xla'


def test_attention_alone_may_be_gone(without):
  without(ATTENTION)
  with mesh_of('gpu'):
    assert choose('route', 'pallas_gpu') == 'pallas_gpu'
    with pytest.warns(UserWarning, match=r'since jax .* has no GPU attention in Pallas; those from 0.10 to 0.12 have'):
      assert choose('attention', 'pallas_gpu') == 'xla'


def test_a_call_that_asks_for_a_kernel_that_is_gone_computes_the_same(without):
  without(TRITON)
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 7, 8))
  run = lambda name: jax.jit(lambda q, k: route(q, k, jnp.ones((1, 7), jnp.int32), implementation=name))
  with mesh_of('gpu'), pytest.warns(UserWarning, match='since jax') as said:
    texts = [run(name).trace(q, k).lower(lowering_platforms=('cuda',)).as_text() for name in ('pallas_gpu', 'xla')]
  assert texts[0] == texts[1] and said[0].filename == __file__
