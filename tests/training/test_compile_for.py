"""The step compiled for absent devices: what is reported, and what is refused."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from kernels import gpu_compiler, tpu_compiler
from tests.training import tiny
from training import compile_for, hlo

ROOT = pathlib.Path(__file__).parents[2]
no_libtpu = tpu_compiler.problem() is not None


@pytest.fixture
def this_machine(monkeypatch):
  """The devices of this process in the place of a topology's."""
  monkeypatch.setattr(os, 'environ', dict(os.environ))
  monkeypatch.setattr(tpu_compiler, 'prepare', lambda: None)
  monkeypatch.setattr(tpu_compiler, 'devices', lambda topology: jax.devices()[:1])
  yield
  jax.config.update('jax_enable_compilation_cache', True)


def test_a_report_has_the_memory_of_state_and_batch_and_says_whether_they_fit(make_config, this_machine, monkeypatch):
  config = make_config(**{'optimizer.ema': 0.9})
  report = compile_for.compile_step(config, 'v5e:1x1', lambda line: None)
  parameters = 256 * 8 + 2 * 8 * 8 + 8 + 8 * 256 + 256
  state, batch = 4 * 4 * parameters, 8 * 32 * 5  # parameters, two moments, average; bytes and segment ids
  assert state + batch <= report.memory.arguments <= state + batch + 1000  # and a few counters, aligned
  assert state <= report.memory.aliased <= report.memory.outputs <= state + 2000  # and the metrics
  assert report.memory.total >= report.memory.arguments + report.memory.temporaries
  assert report.fits and report.room == 16 * 2**30 and report.devices == 1
  assert report.flops == 3 * (4 * 8**2 + 512 * 8) * 8 * 32
  text, data = compile_for.as_text(report), json.loads(json.dumps(compile_for.as_data(report)))
  assert 'fits of 16 GiB (0%)' in text and data['fits'] and data['memory']['total'] == report.memory.total

  monkeypatch.setitem(compile_for.TPU_MEMORY, 'v5e', report.memory.total / 2 / 2**30)
  report = compile_for.compile_step(config, 'v5e:1x1', lambda line: None)
  assert not report.fits and 'does not fit' in compile_for.as_text(report)


def test_what_the_compiler_refuses_for_its_size_is_reported_and_does_not_fit(make_config, this_machine, monkeypatch):
  def refuse(lowered):
    raise jax.errors.JaxRuntimeError(
      'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.1G of 15.75G hbm. Exceeded by 4.3G.\n\nTotal'
    )

  monkeypatch.setattr(jax.stages.Lowered, 'compile', refuse)
  report = compile_for.compile_step(make_config(), 'v5e:1x1', lambda line: None)
  assert not report.fits and 'does not fit of 16 GiB: the compiler says: Used 20.1G of 15.75G hbm' in (
    compile_for.as_text(report)
  )
  assert compile_for.as_data(report)['memory'] is None


@pytest.mark.parametrize(
  ('target', 'sentence'),
  [
    pytest.param(
      'v5e:2x2',
      'libtpu, the TPU compiler, is not installed: pip install',
      marks=pytest.mark.skipif(not no_libtpu, reason='is'),
    ),
    pytest.param(
      'v9:2x2', "topology 'v9:2x2': libtpu says", marks=pytest.mark.skipif(no_libtpu, reason='libtpu knows topologies')
    ),
    pytest.param(
      'h100:8',
      'jax-cuda12-plugin, which holds the GPU compiler, is not installed: install',
      marks=pytest.mark.skipif(gpu_compiler.problem() is None, reason='is'),
    ),
    ('h100:many', "target 'h100:many': write the number of GPUs behind the colon, such as h100:8"),
  ],
)
def test_a_target_that_cannot_be_compiled_for_is_one_sentence(target, sentence):
  command = [sys.executable, f'{ROOT}/train.py', f'--config={ROOT}/tests/training/tiny.py', f'--compile_for={target}']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 1 and f'error: {sentence}' in done.stderr and 'Traceback' not in done.stderr


def test_a_mesh_or_batch_that_does_not_fit_is_refused_before_anything_compiles(make_config, this_machine, monkeypatch):
  monkeypatch.setattr(compile_for.Trainer, 'lower', lambda *_: pytest.fail('it compiled'))
  for changes, sentence in (({'mesh.shape': (3,)}, 'needs 3 devices'), ({'eval.batch_size': -1}, 'eval.batch_size')):
    with pytest.raises(ValueError, match=sentence):
      compile_for.compile_step(make_config(**changes), 'v5e:1x1', lambda line: None)


TEXT = """HloModule jit_step
%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[]{:T(128)}, f32[8,4]{1,0:T(8,128)}) parameter(0)
  %x = f32[8,4]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %s = f32[2,4]{1,0} slice(%x), slice={[0:2], [0:4]}, backend_config={"window_config":{"estimated_cycles":"100"}}
  %g = (f32[2,4]{1,0}, f32[8,4]{1,0:T(8,128)S(1)}) all-gather-start(%s), channel_id=7, dimensions={0}
  %h = f32[8,4]{1,0} fusion(%s), calls=%async_collective_fusion.1
  ROOT %t = (s32[], f32[8,4]{1,0}) tuple(%x, %x)
}

%async_collective_fusion.1 (m: f32[2,4]) -> f32[8,4] {
  %m = f32[2,4]{1,0} parameter(0)
  ROOT %again = f32[8,4]{1,0} all-gather(%m), channel_id=7, dimensions={0}
}

%first (q: bf16[8]) -> bf16[8] {
  ROOT %q = bf16[8]{0} parameter(0)
}

%second (r: bf16[8]) -> bf16[8] {
  %r = bf16[8]{0} parameter(0)
  ROOT %c = bf16[8]{0} collective-permute(%r), source_target_pairs={{0,1}}
}

%all-reduce-scatter.1 (a: f32[16]) -> f32[4] {
  %a = f32[16]{0} parameter(0)
  %all-reduce.3 = f32[16]{0} all-reduce(%a), replica_groups={}, to_apply=%add
  ROOT %d = f32[4]{0} dynamic-slice(%all-reduce.3, %o), dynamic_slice_sizes={4}
}

ENTRY %main (a0: f32[8,4]) -> f32[8,4] {
  %a0 = f32[8,4]{1,0} parameter(0)
  %w = (s32[], f32[8,4]{1,0}) while(%i), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %k = bf16[8]{0} conditional(%n, %u, %v), branch_computations={%first, %second}
  %f = f32[4]{0} fusion(%y), calls=%all-reduce-scatter.1, backend_config={"window_config":{"estimated_cycles":"7"}}
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%w), index=1
}
"""


CONDITION = """%cond (c: (s32[], f32[8,4])) -> pred[] {
  %five = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i0, %five), direction=LT
}

%first ("""


def test_loops_switches_and_fused_collectives_are_counted_once_a_run():
  least = hlo.work(TEXT)
  assert least.collective_bytes == {'all-gather': 5 * 128, 'reduce-scatter': 64, 'collective-permute': 16}
  assert least.cycles == 5 * 100 + 7 and least.unknown_loops == 0
  assert [(cycles, times, found.name) for cycles, found, times in least.slowest] == [(500, 5, 's'), (7, 1, 'f')]
  unknown = hlo.work(TEXT.replace('"known_trip_count":{"n":"5"}', ''))
  assert unknown.unknown_loops == 1 and unknown.collective_bytes['all-gather'] == 128
  bounded = TEXT.replace('"known_trip_count":{"n":"5"}', '').replace('%first (', CONDITION, 1)
  assert hlo.work(bounded) == least


@pytest.mark.skipif(no_libtpu, reason=f'{tpu_compiler.problem()}')
def test_the_command_compiles_for_a_tpu():
  command = [sys.executable, f'{ROOT}/train.py', f'--config={ROOT}/tests/training/tiny.py', '--json']
  done = subprocess.run([*command, '--compile_for=v5e:2x2'], capture_output=True, text=True)
  found = json.loads(done.stdout)
  assert done.returncode == 0 and found['fits'] and found['device_kind'] == 'TPU v5 lite'
  assert np.isclose(found['work']['collective_bytes']['all-reduce'], 4 * 4500, rtol=0.2)
  assert tiny.get_config().batch_size % 4 == 0 and found['work']['estimated_cycles'] > 0
