"""Whole models on the device: the three oracles, training steps and decoding, and memory against its plan."""

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

import byte_models
from benchmarks.device.context import Context, Row
from benchmarks.device.operations import chosen_is_fastest
from evaluation import generation, oracles
from kernels import choice
from layers import capacity
from text import BOS
from text.batch import Batch
from training import flops, memory
from training.trainer import Trainer

# Two stages, both kinds of block outside and inside, so that every operation is in it.
SMALL = {
  'family': 'hnet',
  'arch_layout': ['t1', ['m1', ['T1'], 't1'], 'm1'],
  'd_model': [64, 64, 128],
  'd_intermediate': [128, 128, 256],
  'ssm_cfg': {'d_state': 16},
  'attn_cfg': {'num_heads': 2, 'rotary_emb_dim': 16, 'window_size': -1},
}
# Of float32 sums in another order, as tests/test_contract.py has them on a CPU; a device's exp and rsqrt are coarser.
LOGITS, PROBABILITIES = 1e-3, 1e-4
CLOSE = 1e-4  # to 1/2: rounding may draw such a boundary on one side alone; other bytes are drawn instead
DRAWS = 4

HNET = {  # 100M parameters
  'family': 'hnet',
  'arch_layout': ['m4', ['T12'], 'm4'],
  'd_model': [512, 768],
  'd_intermediate': [0, 2048],
  'ssm_cfg': {'d_state': 128},
  'attn_cfg': {'num_heads': [8, 12], 'rotary_emb_dim': [32, 32], 'window_size': [-1, -1]},
  'ratio_targets': [5.0],
  'dtype': 'bfloat16',
  'scan_layers': True,
}
FLAT = {
  'family': 'hnet',
  'arch_layout': ['T4'],
  'd_model': [768],
  'd_intermediate': [2048],
  'attn_cfg': {'num_heads': [12], 'rotary_emb_dim': [32], 'window_size': [-1]},
  'dtype': 'bfloat16',
  'scan_layers': True,
}
TINY = {  # what --tiny changes
  'small': {
    'arch_layout': ['m1', ['T1'], 'm1'],
    'd_model': [32, 64],
    'd_intermediate': [64, 128],
  },
  'hnet': {
    'arch_layout': ['m1', ['T1'], 'm1'],
    'd_model': [32, 64],
    'd_intermediate': [0, 128],
    'attn_cfg': {'num_heads': 2, 'rotary_emb_dim': 16, 'window_size': -1},
    'scan_layers': False,
  },
  'flat': {
    'arch_layout': ['T1'],
    'd_model': [64],
    'd_intermediate': [128],
    'attn_cfg': {'num_heads': 2, 'rotary_emb_dim': 16, 'window_size': -1},
    'scan_layers': False,
  },
}
TRAINING = {
  'seed': 0,
  'num_steps': 1000,
  'batch_size': 32,
  'seq_len': 1024,
  'init_from': '',
  'loss_weights': {'ratio': 0.03},
  'data': {'source': 'python_docs', 'validation': '', 'workers': 0, 'prefetch': 1},  # not read
  'optimizer': {
    'name': 'adamw',
    'learning_rate': 1e-6,  # so that boundaries stay as they are
    'schedule': {'name': 'constant', 'warmup': 0.0, 'decay': 0.0, 'final': 0.0},
    'weight_decay': 0.1,
    'decay_exempt': 'default',
    'betas': [0.9, 0.95],
    'eps': 1e-8,
    'clip_norm': 1.0,
    'lr_multipliers': None,
    'accumulate': 1,
    'ema': 0.0,
  },
  'mesh': {'shape': [1]},
  'checkpoint': {'every_steps': 0, 'keep_latest': 1, 'keep_best': 0},
  'eval': {'every_steps': 0, 'max_bytes': 0},
  'log': {'every_steps': 1},
}
STEPS, STEPS_SECONDS = 4, 3.0  # that are dispatched together; of all
PROMPT, DECODED = 128, 256
PLAN = 1.1  # times the plan: what stands in memory beside the program, such as a copy of the batch


def three_oracles(context: Context) -> Iterator[Row]:
  """Causality, streaming and isolation of a small model with XLA's forms and with the kernels."""
  length, prompt = (48, 24) if context.tiny else (160, 80)
  for forms, operations in (('xla', ()), (context.kernel, context.kernels())):
    if forms == 'xla' or (operations and not context.tiny):
      with context.preferring(operations):
        yield from _oracles(forms, context, length, prompt)


def _oracles(forms: str, context: Context, length: int, prompt: int) -> Iterator[Row]:
  with context.on_device(), jax.default_matmul_precision('highest'):
    model = oracles.informative(_built(_sized(SMALL, 'small', context)))
    subject = _Subject(model, length, prompt)
    for name, measure in (('causality', _causality), ('streaming', _streaming), ('isolation', _isolation)):
      found, used, seed = oracles.Apart(), 0, 0
      while used < (1 if context.tiny else DRAWS) and seed < 5 * DRAWS:
        subject.close, seed = False, seed + 1
        apart = measure(subject, np.random.default_rng(seed))
        if not subject.close:
          found, used = found | apart, used + 1
      row = {'what': f'{name}, float32, {forms}', **vars(found), 'draws': used}
      together = max(found.logits, found.nats) <= LOGITS and found.probabilities <= PROBABILITIES
      yield row | {'agrees': bool(used and together and found.boundaries == 0), 'tolerance': LOGITS}


def _built(model: dict[str, Any]) -> Any:
  return jax.jit(lambda: byte_models.build(byte_models.parse(model), rngs=nnx.Rngs(0)))()


class _Subject(oracles.Subject):
  """close: whether a probability came near 1/2 since it was set."""

  close = False

  def __call__(self, batch):
    output = super().__call__(batch)
    self.close |= any(np.any(np.abs(p - 0.5) < CLOSE) for p in output.boundary_probabilities)
    return output


def _rows(subject: oracles.Subject, rng: np.random.Generator, rows: int = 4) -> np.ndarray:
  return rng.integers(0, 256, (rows, subject.length)).astype(np.uint8)


def _packed(subject: oracles.Subject, rng: np.random.Generator) -> Batch:
  size, third = subject.length, subject.length // 3
  ids = oracles.segment_ids([[size], [third, 1, third], [], [third, third - 2]], size)
  return Batch(_rows(subject, rng), ids)


def _causality(subject: oracles.Subject, rng: np.random.Generator) -> oracles.Apart:
  last = int(rng.integers(0, subject.length - 1))
  return oracles.causality(subject, _packed(subject, rng), _rows(subject, rng), last)


def _streaming(subject: oracles.Subject, rng: np.random.Generator) -> oracles.Apart:
  prompts = [1, subject.prompt // 3, subject.prompt - 1, subject.prompt]
  return oracles.streaming(subject, _rows(subject, rng), prompts, int(rng.integers(4)), copies=4)


def _isolation(subject: oracles.Subject, rng: np.random.Generator) -> oracles.Apart:
  third = subject.length // 3
  sizes = (int(rng.integers(1, third)), int(rng.integers(1, third)), third)
  documents = [row[:size] for row, size in zip(_rows(subject, rng), sizes, strict=False)]
  return oracles.isolation(subject, documents, rng.permutation(3), _packed(subject, rng))


def experiment(name: str, context: Context) -> dict[str, Any]:
  """The config tree: 'hnet', or 'flat', made to cost as many FLOPs a byte."""
  sizes = {'batch_size': 2, 'seq_len': 64} if context.tiny else {'batch_size': _batch_size(context)}
  tree = {**TRAINING, **sizes, 'model': _sized(HNET, 'hnet', context)}
  return tree if name == 'hnet' else flops.match(tree | {'model': _sized(FLAT, 'flat', context)}, tree)


def _sized(model: dict[str, Any], name: str, context: Context) -> dict[str, Any]:
  return model | (TINY[name] if context.tiny else {})


def _batch_size(context: Context) -> int:
  return next((rows for rows in (32, 16, 8) if (context.memory or 0) > rows * 2**30), 4)


def training(name: str, context: Context, other: bool = False) -> Iterator[Row]:
  """A training step: bytes a second, the share of the peak, and memory against the plan of --compile_for.

  share_of_peak: forward FLOPs by the model's formulas at the chunks that were drawn, three times (docs/scale.md). The
  peak of memory is of the process, so this check has one of its own. other: the forms that kernels/choice.py does not
  take here, kernels for XLA's and the other way round. read_between: how much longer a step takes where the host reads
  what each needed before it sends the next, as a training run does, than where several are sent together.
  """
  forms, operations = (context.kernel, context.kernels())
  if choice.DEFAULTS[choice.PLATFORM[context.kernel]]:
    forms, operations = 'xla', ()
  with context.preferring(operations) if other else contextlib.nullcontext(), context.on_device():
    tree = experiment(name, context)
    trainer = Trainer.of(tree, [context.device])
    state, batch = trainer.state(), trainer.put(_text(tree))
    room = capacity.rung(tree['seq_len'], tree['seq_len'] / 4)  # holds every row of `_text`
    capacities = tuple(room for _ in trainer.model.level_sizes())
    began = time.perf_counter()
    compiled = trainer.compile(state, batch, capacities, lambda _: None)
    compilation, planned = time.perf_counter() - began, memory.planned(compiled).total

    losses = []
    for _ in range(2):
      state, metrics, needed = compiled(state, batch)
      losses.append(float(metrics['loss']))
    fits = capacity.fits(jax.device_get(needed), capacities)
    seconds, end = {False: [], True: []}, time.perf_counter() + (0 if context.tiny else STEPS_SECONDS)
    while len(seconds[True]) < 3 or time.perf_counter() < end:
      for waits, measured in seconds.items():
        began = time.perf_counter()
        for _ in range(STEPS):
          state, metrics, needed = compiled(state, batch)
          if waits:
            jax.device_get(needed)
        jax.block_until_ready(metrics)
        measured.append((time.perf_counter() - began) / STEPS)
  taken, size = statistics.median(seconds[False]), tree['batch_size'] * tree['seq_len']
  chunks = [float(stage['bytes_per_chunk']) for stage in metrics['stages']]
  work = sum(trainer.model.flops_per_byte(tree['seq_len'], chunks or None).values())
  row = {
    'what': f'{name}, a step, {forms if other else "as chosen"}',
    'agrees': bool(np.isfinite([*losses, float(metrics['loss'])]).all() and fits),
    'parameters': sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(trainer.model)),
    'rows': tree['batch_size'],
    'bytes_a_row': tree['seq_len'],
    'milliseconds': 1e3 * taken,
    'read_between': statistics.median(seconds[True]) / taken,
    'bytes_a_second': size / taken,
    'megaflops_a_byte': work / 1e6,
    'loss': losses[0],
    'loss_after': float(metrics['loss']),
    'compile_seconds': compilation,
  }
  row |= {f'bytes_a_chunk_{index}': value for index, value in enumerate(chunks)}
  if context.peaks:
    row['share_of_peak'] = flops.utilization(work, size / taken, context.peaks['flops'])
  yield row
  before = context.known.get('hnet training', {}).get('milliseconds')
  if other and before:
    yield chosen_is_fastest('a step', 'bfloat16', 'as chosen', {'as chosen': before, forms: 1e3 * taken})
  peak = (context.device.memory_stats() or {}).get('peak_bytes_in_use')
  row = {'what': f'{name}, memory of a step', 'planned_mebibytes': planned / 2**20}
  if peak is not None:
    row |= {'agrees': bool(peak <= PLAN * planned), 'peak_mebibytes': peak / 2**20, 'peak_of_plan': peak / planned}
  yield row


def _text(tree: dict[str, Any]) -> Batch:
  """A document a row. A fresh router sees a boundary at every second change of the byte, so bytes come in runs of a
  length that makes chunks of five bytes.
  """
  rng, size = np.random.default_rng(0), tree['batch_size'] * tree['seq_len']
  runs = rng.integers(1, 5, size)
  bytes_ = np.repeat(rng.integers(0, 254, size).astype(np.uint8), runs)[:size].reshape(tree['batch_size'], -1)
  bytes_[:, 0] = BOS
  return Batch(bytes_, np.ones(bytes_.shape, np.int32))


def decoding(name: str, context: Context) -> Iterator[Row]:
  """Greedy bytes behind a prompt, one row and sixteen, without the first dispatch, which reads the prompt."""
  tree = experiment(name, context)
  prompt, decoded = (8, 32) if context.tiny else (PROMPT, DECODED)
  for rows in (1,) if context.tiny else (1, 16):
    with context.on_device():
      model = _built(tree['model'])
      prompts = [row.tobytes() for row in _text(tree | {'batch_size': rows, 'seq_len': prompt}).bytes]

      def write(model, prompts):
        pieces = generation.stream(model, prompts, decoded + generation.STEPS, temperature=0.0, stop_at_eos=False)
        next(pieces)
        began = time.perf_counter()
        count = sum(len(piece) for row in pieces for piece in row)
        return count / (time.perf_counter() - began)

      first = write(model, prompts)  # compiles
      speed = first if context.tiny else statistics.median(write(model, prompts) for _ in range(3))
    work = sum(model.flops_per_byte(prompt + decoded).values())
    row = {'what': f'{name}, {rows} row{"s" * (rows > 1)}', 'bytes_a_second': speed, 'megaflops_a_byte': work / 1e6}
    yield row | ({'share_of_peak': work * speed / context.peaks['flops']} if context.peaks else {})
