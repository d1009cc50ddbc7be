"""Forward and backward of an H-Net against PyTorch: same weights, same bytes, in turns on one machine.

  pip install -r requirements-torch.txt
  python -m benchmarks.train_step
  python -m benchmarks.train_step --weights=DIR --batch_size=8 --seq_len=256
  python -m benchmarks.train_step --contestants=ours,torch,h-net-dynamic-chunking    # after pip install of the last

Prints bytes a second (medians over turns), the ratio to the better of PyTorch with and without torch.compile, and the
share of the machine's matmul peak, as each library reaches it on 4096 x 256 x 768 (float32). --weights is a directory
of official weights (`hnet.save_pretrained`), whose boundaries on real text decide how many chunks there are; without it
the model is fresh. Both sides compute the loss of the same rows; they must agree to 1e-4. The last line says what XLA
counts in our step: how long its products take at the peak, and its traffic at the speed of large copies. Operations run
one after the other, so the two overlap only within a product.
"""

import importlib.util
import statistics
import tempfile
import time

import numpy as np
from absl import app, flags

from benchmarks import subject, turns
from text import paths

CONTESTANTS = ('ours', 'torch', 'torch.compile', 'h-net-dynamic-chunking')
_WEIGHTS = flags.DEFINE_string('weights', None, 'Directory with official weights; none: a fresh model.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 8, 'Rows.')
_SEQ_LEN = flags.DEFINE_integer('seq_len', 512, 'Bytes of a row.')
_SOURCE = flags.DEFINE_string('source', 'python_docs', 'Text of the rows.')
_TURNS = flags.DEFINE_integer('turns', 9, 'How often each contestant runs.')
_STEPS = flags.DEFINE_integer('steps', 4, 'Steps of a turn.')
_NAMES = flags.DEFINE_list('contestants', list(CONTESTANTS[:3]), 'Who takes part.')
_CONTESTANT = flags.DEFINE_string('contestant', None, 'Used by the benchmark itself.')


def main(_: list[str]) -> None:
  """Runs the contest, or one contestant's side of it."""
  if _CONTESTANT.value:
    turns.serve(*_prepare(_CONTESTANT.value))
    return
  for name in _NAMES.value:
    if name not in CONTESTANTS:
      raise app.UsageError(f'--contestants={name} is unknown: use some of {", ".join(CONTESTANTS)}')
    if name == 'h-net-dynamic-chunking' and importlib.util.find_spec('h_net_dynamic_chunking') is None:
      raise app.UsageError(f'--contestants={name} needs its package: pip install {name}')
  with tempfile.TemporaryDirectory() as fresh:
    weights = subject.fresh_model(fresh) if _WEIGHTS.value is None else paths.of(_WEIGHTS.value, '--weights')
    arguments = [
      f'--weights={weights}',
      f'--batch_size={_BATCH_SIZE.value}',
      f'--seq_len={_SEQ_LEN.value}',
      f'--source={_SOURCE.value}',
      f'--steps={_STEPS.value}',
    ]
    facts, seconds = turns.play('benchmarks.train_step', _NAMES.value, arguments, _TURNS.value)
  for name, most in (('loss', 1e-4), ('chunks', 0)):
    values = [fact[name] for fact in facts.values() if name in fact]
    if values and not np.ptp(values) <= most:  # nan is not the same either
      raise RuntimeError(f'the contestants do not compute the same: {name} {values}')
  print(_table(facts, seconds))


def _table(facts, seconds) -> str:
  done = _STEPS.value * _BATCH_SIZE.value * _SEQ_LEN.value
  speed = {name: done / statistics.median(values) for name, values in seconds.items()}
  peer = max((value for name, value in speed.items() if name != 'ours'), default=None)
  lines = [f'loss {loss:.4f}' for loss in [fact['loss'] for fact in facts.values() if 'loss' in fact][:1]] or ['']
  if 'ours' in facts:
    ours = facts['ours']
    lines[0] += f', bytes per chunk {ours["bytes_per_chunk"]}, {ours["flops"] / 1e6:.2f} MFLOP per byte forward'
  lines.append(f'{"":22} {"bytes/s":>9} {"of best torch":>14} {"GFLOP/s peak":>13} {"of peak":>8}')
  for name, value in speed.items():
    peak = facts[name]['peak']
    ratio = f'{value / peer:.2f}' if peer else '–'
    work = f'{3 * facts["ours"]["flops"] * value / peak:.1%}' if 'ours' in facts else '–'
    lines.append(f'{name:22} {value:9,.0f} {ratio:>14} {peak / 1e9:13.0f} {work:>8}')
  if 'ours' in facts:
    products, traffic = ours['counted_flops'] / ours['peak'], ours['counted_bytes'] / ours['copy_speed']
    lines.append(
      f'\nXLA counts {ours["counted_flops"] / 1e9:.1f} GFLOP ({1e3 * products:.0f} ms at the peak) '
      f'and {ours["counted_bytes"] / 1e9:.1f} GB ({1e3 * traffic:.0f} ms at {ours["copy_speed"] / 1e9:.0f} GB/s); '
      f'a step of ours takes {1e3 * done / _STEPS.value / speed["ours"]:.0f} ms'
    )
  return '\n'.join(lines)


def _prepare(name: str):
  """(facts, run) of a contestant."""
  return _prepare_ours() if name == 'ours' else _prepare_torch(name)


def _prepare_ours():
  import jax
  import jax.numpy as jnp

  import hnet

  model, rows = hnet.from_pretrained(_WEIGHTS.value), subject.rows(_SOURCE.value, _BATCH_SIZE.value, _SEQ_LEN.value)
  batch = subject.documents(rows)
  step, flat, compiled = subject.compiled_step(model, batch)
  (value, output), _ = step(flat, batch)
  sizes = [float(rows.size / jnp.sum(starts)) for starts in output.segmentations]
  counted = step.cost_analysis()
  facts = {
    'loss': float(value),
    'chunks': int(max(output.segmentations[0].sum(1))),
    'bytes_per_chunk': ', '.join(f'{size:.2f}' for size in sizes),
    'flops': sum(model.flops_per_byte(_SEQ_LEN.value, sizes or None).values()),
    'peak': subject.xla_peak(),
    'copy_speed': subject.copy_speed(),
    'counted_flops': counted['flops'],
    'counted_bytes': counted['bytes accessed'],
    'compile_seconds': compiled,
  }

  def run() -> float:
    jax.block_until_ready(step(flat, batch))  # what ran before on this machine leaves caches and threads behind
    began = time.perf_counter()
    for _ in range(_STEPS.value):
      jax.block_until_ready(step(flat, batch))  # steps of a training follow each other too
    return time.perf_counter() - began

  return facts, run


def _prepare_torch(name: str):
  import torch

  from benchmarks.peers import hnet_torch

  if name == 'h-net-dynamic-chunking':
    from benchmarks.peers import dynamic_chunking

    model = dynamic_chunking.load(_WEIGHTS.value)
  else:
    model = hnet_torch.load(_WEIGHTS.value)
  symbols = torch.tensor(subject.rows(_SOURCE.value, _BATCH_SIZE.value, _SEQ_LEN.value).astype(np.int64))
  loss = torch.compile(model.loss) if name == 'torch.compile' else model.loss
  left, right, product = torch.ones(4096, 256), torch.ones(256, 768), torch.empty(4096, 768)

  def step() -> None:
    model.zero_grad(set_to_none=True)
    loss(symbols).backward()

  def run() -> float:
    step()
    began = time.perf_counter()
    for _ in range(_STEPS.value):
      step()
    return time.perf_counter() - began

  run()
  value = float(loss(symbols).detach())
  counted = {'chunks': model.backbone.num_chunks} if name == 'h-net-dynamic-chunking' else {'loss': value}
  return {'peak': subject.peak(lambda: torch.mm(left, right, out=product)), **counted}, run


if __name__ == '__main__':
  app.run(main)
