"""Each operation on the device against its reference, and its kernel's time against that of XLA's form."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.device import timing
from benchmarks.device.context import Context, Row
from kernels import cases, choice, drawing
from kernels.attention import reference as attention_reference
from kernels.chunk import reference as chunk_reference
from kernels.dechunk import reference as dechunk_reference
from kernels.route import reference as route_reference
from kernels.ssd import reference as ssd_reference

PATTERNS = ('several documents', 'padding', 'empty row', 'every byte')
# The largest difference, as a part of the largest number wanted. Rows that are only moved are equal.
TOLERANCES = {'float32': 1e-4, 'bfloat16': 2e-2}
EXACT = ('chunk',)
NAMES = {  # of results and of gradients
  'route': ('p', 'q k'),
  'chunk': ('values', 'x'),
  'dechunk': ('y', 'z p selected'),
  'ssd': ('y', 'x dt a b c'),
  'attention': ('y', 'q k v'),
  'local_attention': ('y', 'q k v'),
}
FASTER = 0.95  # of the other's time, or two forms count as equally fast


def agreement(operation: str, context: Context, *, odd: bool = False) -> Iterator[Row]:
  """Values and gradients of every implementation, in rows of several documents, for lengths that no tile divides."""
  rows, length, chunks, width = (2, 37, 12, 96) if context.tiny or odd else (3, 333, 100, 1024)
  width = 384 if operation.endswith('attention') and width == 96 else width  # heads of 24
  for dtype in ('float32',) if context.tiny else cases.DTYPES:
    case = cases.Case(operation, width, dtype, True, rows, length, chunks, length // 3)
    programs = {name: _program(case, name, context) for name in context.implementations(operation)}
    largest = {(name, part): (0.0, '') for name in programs for part in ('values', 'gradients')}
    for seed, pattern in enumerate(PATTERNS[:2] if context.tiny else PATTERNS):
      arguments, wanted = _reference(case, pattern, seed)
      for name, program in programs.items():
        found = [np.asarray(value, np.float64) for value in jax.tree.leaves(program(*arguments))]
        for label, got, want in zip(_labels(operation), found, wanted, strict=True):
          part = 'gradients' if label.startswith('d ') else 'values'
          difference = np.max(np.abs(got - want)) / max(np.max(np.abs(want)), 1e-3)
          # Written so that nan is the largest.
          if not difference <= largest[name, part][0]:
            largest[name, part] = float(difference), f'{label}, {pattern}'
    for (name, part), (difference, where) in largest.items():
      tolerance = 0.0 if operation in EXACT else TOLERANCES[dtype]
      yield {
        'what': f'{part}, {dtype}, {name}',
        'agrees': bool(difference <= tolerance),
        'difference': difference,
        'tolerance': tolerance,
        'where': where,
        'shape': f'{rows} x {length} x {width}',
      }


def _program(case: cases.Case, implementation: str, context: Context) -> Callable:
  # Float32 as float32: by default a product of them is one of TF32 or bfloat16 on a device.
  precision = 'highest' if case.dtype == 'float32' else 'default'
  with context.on_device(), jax.default_matmul_precision(precision):
    made = cases.program(case, implementation)
    return jax.jit(made.fn).lower(*made.arguments).compile()


def _labels(operation: str) -> list[str]:
  values, gradients = NAMES[operation]
  return [*values.split(), *(f'd {name}' for name in gradients.split())]


def _reference(case: cases.Case, pattern: str, seed: int) -> tuple[tuple, list[np.ndarray]]:
  """(arguments with the gradients of the results first, results and gradients), as numpy.

  Results are those of the specification in loops; gradients those of XLA's form in float32 on the CPU, which the tests
  hold to the specification's.
  """
  with jax.default_device(jax.devices('cpu')[0]):
    arguments = jax.tree.map(np.asarray, drawing.arguments(case, pattern, seed))
    wide = jax.tree.map(lambda v: v.astype(np.float32) if v.dtype == jnp.bfloat16 else v, arguments)
    values = _specified(case, wide)
    shapes = jax.tree.leaves(cases.program(case, 'xla').arguments[0])
    draw = np.random.default_rng(seed).standard_normal
    pulled = [draw(shape.shape, np.float32).astype(shape.dtype) for shape in shapes]
    structure = jax.tree.structure(cases.program(case, 'xla').arguments[0])
    exact = _exact(dataclasses.replace(case, dtype='float32'))
    _, gradients = exact(jax.tree.unflatten(structure, [v.astype(np.float32) for v in pulled]), *wide)
  wanted = [np.asarray(value, np.float64) for value in (*values, *gradients)]
  return (jax.tree.unflatten(structure, pulled), *arguments), wanted


@functools.cache
def _exact(case: cases.Case) -> Callable:
  return jax.jit(cases.program(case, 'xla').fn)


def _specified(case: cases.Case, arguments: tuple) -> tuple:
  if case.operation == 'route':
    return (route_reference.route(*arguments),)
  if case.operation == 'chunk':
    return (chunk_reference.chunk(*arguments, case.capacity)[0],)
  if case.operation == 'dechunk':
    z, p, _, residual, mask, ids = arguments
    return (dechunk_reference.dechunk(z.astype(np.float64), p, mask, ids, residual.astype(np.float64)),)
  if case.operation == 'ssd':
    x, dt, *others = arguments
    y, _ = jax.jit(ssd_reference.ssd)(x.reshape(*dt.shape, -1), dt, *others)
    return (y.reshape(x.shape),)
  window = case.window if case.operation == 'local_attention' else -1
  return (jax.jit(attention_reference.attention, static_argnums=4)(*arguments, window),)


def speed(operation: str, dtype: str, context: Context) -> Iterator[Row]:
  """Forward and with gradient: the time of every implementation, and whether the one that would run is the fastest.

  share_of_bandwidth: inputs and results once, over the measured speed of a copy; attention, whose products decide, has
  share_of_peak instead.
  """
  rows, length, width = (2, 64, 64) if context.tiny else (_rows(context), cases.LENGTH, 1536)
  width = 256 if context.tiny and operation.endswith('attention') else width
  for gradient in (True,) if context.tiny else (False, True):
    case = cases.Case(operation, width, dtype, gradient, rows, length)
    least, calls = cases.program(case, 'xla').least, {}
    for name in context.implementations(operation):
      with context.on_device():
        made = cases.program(case, name)
        arguments = jax.jit(functools.partial(_drawn, case))()
        calls[name] = functools.partial(jax.jit(made.fn).lower(*arguments).compile(), *arguments)
    seconds = timing.medians(calls, 2 if context.tiny else timing.TURNS)
    for name, taken in seconds.items():
      row = {'what': f'{_pass(gradient)}, {dtype}, {name}', 'milliseconds': 1e3 * taken, 'least_megabytes': least / 1e6}
      if context.peaks and operation.endswith('attention'):
        row['share_of_peak'] = _attention_flops(case) / taken / context.peaks['flops']
      elif context.peaks:
        row['share_of_bandwidth'] = least / taken / context.peaks['bandwidth']
      if context.peaks and taken < 2 * context.peaks['dispatch']:
        row['remark'] = 'as fast as calls follow each other: the device may take less'
      yield row
    with context.on_device():
      chosen = choice.choose('attention' if operation == 'local_attention' else operation, None)
    yield chosen_is_fastest(_pass(gradient), dtype, chosen, seconds)


def chosen_is_fastest(what: str, dtype: str, chosen: str, seconds: dict[str, float]) -> Row:
  """A row of what kernels/choice.py takes here and of what was fastest."""
  fastest = min(seconds, key=seconds.__getitem__)
  return {
    'what': f'{what}, {dtype}, the choice',
    'chosen': chosen,
    'fastest': fastest,
    'chosen_is_fastest': chosen not in seconds or FASTER * seconds[chosen] <= seconds[fastest],
    'times_as_fast': seconds.get(chosen, seconds[fastest]) / seconds[fastest],
  }


def _pass(gradient: bool) -> str:
  return 'with gradient' if gradient else 'forward'


def _rows(context: Context) -> int:
  """Of 8,192 positions: as many as fill the device, so that operands do not stay in its caches."""
  return next((rows for rows in (8, 4, 2) if context.memory and context.memory > rows * 6 * 2**30), 1)


def _drawn(case: cases.Case) -> tuple[Any, ...]:
  arguments = drawing.arguments(case, 'several documents')
  if not case.gradient:
    return arguments
  pulled = cases.program(case, 'xla').arguments[0]
  draw = lambda shape: jax.random.normal(jax.random.key(1), shape.shape).astype(shape.dtype)
  return jax.tree.map(draw, pulled), *arguments


def _attention_flops(case: cases.Case) -> float:
  """Of the products that causality leaves: two forward, and five more with the gradient."""
  seen = case.length**2 / 2
  if case.operation == 'local_attention':
    seen = case.length * min(case.window + 1, case.length / 2)
  return (7 if case.gradient else 2) * 2 * case.batch * seen * case.width
