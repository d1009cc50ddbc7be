"""How forward and backward of an H-Net grow with length, batch, width and depth, on one machine.

  pip install -r requirements-plot.txt
  python -m benchmarks.growth --plot=docs/growth.svg
  python -m benchmarks.growth --axes length width

The model is that of benchmarks/train_step.py with one thing changed at a time, its parameters fresh, the text held-out
documents one behind the other. Each point runs in a process of its own and prints bytes a second (median over steps),
the chunks' bytes and how far they fill the smallest capacity that holds them, forward FLOPs a byte by the model's own
count, the share of the matmul peak that these make, memory, and the seconds to compile. Memory is what XLA plans for
the step (arguments, results and temporaries), and the process's own peak beside it. What cannot be run for want of
memory is a row that says so.
"""

import copy
import importlib.util
import json
import os
import pathlib
import resource
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks import subject, turns
from evaluation import report
from text import command_line, paths

BASE = {'batch_size': 8, 'seq_len': 512, 'width': 128, 'depth': 4}
# Bytes of a step stay the same along `length`, so that what is seen is the length and not the size of the step.
AXES = {
  'length': [{'seq_len': 2**n, 'batch_size': 2 ** (15 - n)} for n in range(9, 16)],
  'batch': [{'batch_size': 2**n} for n in range(0, 7)],
  'width': [{'width': width} for width in (64, 128, 256, 512)],
  'depth': [{'depth': depth} for depth in (2, 4, 8, 16)],
}
VARIED = {'length': 'seq_len', 'batch': 'batch_size', 'width': 'width', 'depth': 'depth'}


def model_branch(width: int, depth: int) -> dict[str, Any]:
  """The benchmarks' H-Net with another width outside (the inner one is twice as wide) and depth inside."""
  branch = copy.deepcopy(subject.MODEL) | {'family': 'hnet'}
  branch['arch_layout'][1] = [f'T{depth}']
  branch['d_model'], branch['d_intermediate'] = [width, 2 * width], [0, 6 * width]
  heads = max(1, width // 32)  # of 32 and 64 features, as in the base
  branch['attn_cfg']['num_heads'] = [heads, heads]
  return branch


def measure(point: dict[str, int], steps: int, source: str) -> dict[str, float]:
  """One point, in this process."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  from flax import nnx

  import byte_models
  import text

  batch_size, seq_len = point['batch_size'], point['seq_len']
  config = byte_models.parse(model_branch(point['width'], point['depth']))
  model = jax.jit(lambda: byte_models.build(config, rngs=nnx.Rngs(0)))()
  corpus = text.open_corpus(source, 'validation')
  held_out = b''.join(corpus.read(index, 0, size) for index, size in enumerate(corpus.lengths))
  if len(held_out) < batch_size * seq_len:
    raise ValueError(f'--source={source} has {len(held_out):,} bytes: {batch_size} rows of {seq_len:,} do not fit')
  rows = np.frombuffer(held_out[: batch_size * seq_len], np.uint8).reshape(batch_size, seq_len)
  batch = subject.documents(rows)
  step, flat, seconds = subject.compiled_step(model, batch)
  (_, output), _ = step(flat, batch)
  sizes = [float(rows.size / jnp.sum(starts)) for starts in output.segmentations]
  taken = []
  for _ in range(steps):
    began = time.perf_counter()
    jax.block_until_ready(step(flat, batch))
    taken.append(time.perf_counter() - began)
  speed, flops = rows.size / statistics.median(taken), sum(model.flops_per_byte(seq_len, sizes).values())
  planned = step.memory_analysis()
  return {
    'bytes_per_second': speed,
    'bytes_per_chunk': sizes[0],
    'fill': float(output.stage_metrics[0]['fill']),
    'flops_per_byte': flops,
    'of_peak': 3 * flops * speed / subject.xla_peak(),
    'planned': planned.argument_size_in_bytes + planned.output_size_in_bytes + planned.temp_size_in_bytes,
    'resident': 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    'compile_seconds': seconds,
  }


def row(axis: str, point: dict[str, int], found: dict[str, float] | None) -> dict[str, Any]:
  """A row of the printed table."""
  result = {axis: f'{point[VARIED[axis]]:,}', 'rows': point['batch_size']}
  if found is None:
    return result | {'bytes/s': 'out of memory'}
  return result | {
    'bytes/s': f'{found["bytes_per_second"]:,.0f}',
    'bytes/chunk': f'{found["bytes_per_chunk"]:.2f}',
    'fill': f'{found["fill"]:.2f}',
    'MFLOP/byte': f'{found["flops_per_byte"] / 1e6:.2f}',
    'of peak': f'{found["of_peak"]:.0%}',
    'planned, MiB': f'{found["planned"] / 2**20:,.0f}',
    'process, MiB': f'{found["resident"] / 2**20:,.0f}',
    'compilation, s': f'{found["compile_seconds"]:.0f}',
  }


def plot(found: dict[str, list[tuple[dict[str, int], dict[str, float]]]], path: pathlib.Path) -> None:
  """A column for each axis: bytes a second above, memory below, on logarithmic scales."""
  import matplotlib

  matplotlib.use('svg')
  matplotlib.rcParams |= {'svg.hashsalt': 'growth', 'font.size': 8}
  from matplotlib import pyplot

  figure, panels = pyplot.subplots(2, len(found), figsize=(2.6 * len(found), 4), squeeze=False, sharey='row')
  for column, (axis, points) in enumerate(found.items()):
    at = [point[VARIED[axis]] for point, _ in points]
    (above, below), values = panels[:, column], [value for _, value in points]
    rate = max(value['of_peak'] for value in values)
    above.plot(at, [value['bytes_per_second'] for value in values], 'o-', label='measured')
    above.plot(
      at,
      [value['bytes_per_second'] * rate / value['of_peak'] for value in values],
      ':',
      color='gray',
      label="at the axis' best FLOP/s",
    )
    below.plot(at, [value['planned'] / 2**20 for value in values], 'o-', label='planned by XLA')
    below.plot(at, [value['resident'] / 2**20 for value in values], ':', color='gray', label='the process')
    for panel in (above, below):
      panel.set_xscale('log', base=2)
      panel.set_yscale('log')
      panel.grid(alpha=0.3)
    below.set_xlabel(axis)
  panels[0, 0].set_ylabel('bytes/s')
  panels[1, 0].set_ylabel('MiB')
  for panel in panels[:, 0]:
    panel.legend(frameon=False, fontsize=7)
  figure.tight_layout()
  figure.savefig(path, metadata={'Date': None})


def main(arguments: list[str]) -> None:
  """The command, or one point of it."""
  parser = command_line.Parser(prog='python -m benchmarks.growth', description=__doc__)
  parser.add_argument('--axes', nargs='+', default=list(AXES), choices=list(AXES), help='(all)')
  parser.add_argument('--steps', type=int, default=7, help='timed, of which the median is taken (%(default)s)')
  parser.add_argument('--source', default='python_docs', help='whose held-out text is read (%(default)s)')
  parser.add_argument('--plot', help='an .svg file')
  parser.add_argument('--point', help='used by the benchmark itself')
  flags = parser.parse_args(arguments)
  if flags.point:
    print(json.dumps(_measure_or_none(json.loads(flags.point), flags.steps, flags.source)))
    return
  if flags.steps < 1:
    raise ValueError(f'--steps={flags.steps} must be at least 1')
  chart = None if flags.plot is None else paths.of(flags.plot, '--plot')
  if chart is not None:
    if chart.suffix != '.svg':
      raise ValueError(f'--plot={chart} must be an .svg file')
    if importlib.util.find_spec('matplotlib') is None:
      raise ValueError('--plot needs matplotlib: pip install -r requirements-plot.txt')
    report.check_writable(chart)
  drawn, known = {axis: [] for axis in flags.axes}, {}
  for axis in flags.axes:
    rows = []
    for change in AXES[axis]:
      point = BASE | change
      key = json.dumps(point)
      if key not in known:
        known[key] = _in_a_process(point, flags.steps, flags.source)
      rows.append(row(axis, point, known[key]))
      if known[key] is not None:
        drawn[axis].append((point, known[key]))
    print(report.markdown(rows) + '\n', flush=True)
  if chart is not None:
    plot(drawn, chart)


def _measure_or_none(point: dict[str, int], steps: int, source: str) -> dict[str, float] | None:
  """A point's figures; None if XLA does not get the memory that the step needs."""
  import jax

  try:
    return measure(point, steps, source)
  except jax.errors.JaxRuntimeError as error:
    if 'Out of memory' not in str(error):
      raise
    return None


def _in_a_process(point: dict[str, int], steps: int, source: str) -> dict[str, float] | None:
  """A point's figures; None for want of memory: XLA said so, or the system ended the process."""
  print(point, file=sys.stderr, flush=True)
  command = [sys.executable, '-m', 'benchmarks.growth', f'--point={json.dumps(point)}', f'--steps={steps}']
  process = subprocess.run(
    [*command, f'--source={source}'], stdout=subprocess.PIPE, text=True, env=os.environ | turns.ENVIRONMENT
  )
  if process.returncode == -signal.SIGKILL:
    return None
  if process.returncode:
    raise ValueError(f'the measurement of {point} ended with code {process.returncode}, see above')
  return json.loads(process.stdout.splitlines()[-1])


if __name__ == '__main__':
  command_line.run(main)
