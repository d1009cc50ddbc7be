"""How tests run: property tests draw the same examples every time, and programs compile fast.

So only a change of the code makes a test fail; `HYPOTHESIS=random pytest …` looks further, with new examples.
"""

import gc
import os
import subprocess
import sys

from hypothesis import HealthCheck, settings

# No test is timed: on a busy machine an example that takes milliseconds took half a second, and failed for it.
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile('fixed', untimed, derandomize=True)
settings.register_profile('random', untimed)
settings.load_profile(os.environ.get('HYPOTHESIS', 'fixed'))

# Arrays of unlike rank meet only where an axis of 1 says how, here and in the processes that tests start.
os.environ.setdefault('JAX_NUMPY_RANK_PROMOTION', 'raise')

# Tests run a program a few times, so what counts is how fast it compiles, here and in the processes that they start:
# without optimisation, fused by XLA's older emitters, which take half the time, and in one part.
FLAGS = (
  '--xla_backend_optimization_level=0',
  '--xla_cpu_use_fusion_emitters=false',
  '--xla_cpu_parallel_codegen_split_count=1',
)
if 'XLA_FLAGS' not in os.environ:
  os.environ['XLA_FLAGS'] = ' '.join(FLAGS)
  start = [sys.executable, '-c', 'import jax; jax.devices()']
  tried = subprocess.run(start, env=os.environ | {'JAX_PLATFORMS': 'cpu'}, capture_output=True, text=True)
  if tried.returncode != 0:  # a newer XLA has left one behind, and names it
    os.environ['XLA_FLAGS'] = ' '.join(flag for flag in FLAGS if flag not in tried.stderr)


def pytest_collection_finish() -> None:
  """Tracing makes millions of objects, few of them garbage: to look for it as often as usual takes 6 % of the time."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(50_000, 20, 20)


MOST_MAPS = 25_000  # of memory; Linux gives a process 65,530 (vm.max_map_count)


def pytest_runtest_teardown(item, nextitem) -> None:
  """Forgets compiled programs between two files once they are many: every one takes several mappings of memory, with
  newer JAX more than before, and the compiler crashes where there are no more to be had.
  """
  if nextitem is None or nextitem.path == item.path or not os.path.exists('/proc/self/maps'):
    return
  with open('/proc/self/maps', 'rb') as maps:
    if sum(1 for _ in maps) > MOST_MAPS:
      import jax

      jax.clear_caches()
      gc.collect()
