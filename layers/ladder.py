"""The capacity ladder: exact dynamic lengths under static shapes.

How many chunks a batch has is known only when it runs; XLA wants lengths when it compiles. A function is compiled for
a few lengths, the rungs, and a switch runs the smallest that holds the fullest row. No chunk is ever dropped, and the
cost follows the chunks and not the padding.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from layers.checks import boolean, known, number

# (rung, parameters, rows, indices) -> outputs whose shapes do not depend on the rung
RungFunction = Callable[[int, Any, Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class LadderConfig:
  """fractions: rungs as parts of the full length, the last 1 unless chunks may be dropped.

  keep_residuals: the backward pass reads what the forward pass saved (padded to the largest rung) instead of running
  the rung again. row_budget: rungs above this fraction run groups of rows one after the other, which bounds memory.
  """

  fractions: tuple[float, ...] = (0.125, 0.1875, 0.25, 0.375, 0.5, 1.0)
  keep_residuals: bool = False
  row_budget: float = 1.0

  def __post_init__(self):
    increasing = all(a < b for a, b in zip(self.fractions, self.fractions[1:], strict=False))
    if not self.fractions or not increasing or self.fractions[0] <= 0 or self.fractions[-1] > 1:
      raise ValueError(f'ladder.fractions {self.fractions} must increase within (0, 1], such as (0.25, 0.5, 1.0).')
    if not 0 < self.row_budget <= 1:
      raise ValueError(f'ladder.row_budget {self.row_budget} must lie in (0, 1]; 1 runs all rows at once.')

  @staticmethod
  def from_dict(values: Any, may_drop: bool = True) -> 'LadderConfig':
    """Reads a `ladder` branch; ValueError with one sentence. may_drop: whether the fractions may end below 1."""
    values = known(values, [field.name for field in dataclasses.fields(LadderConfig)], 'model.ladder')
    if 'fractions' in values:
      if not isinstance(values['fractions'], (list, tuple)):
        raise ValueError(f'ladder.fractions {values["fractions"]!r} must be a list, such as [0.25, 0.5, 1.0].')
      values['fractions'] = tuple(number(fraction, 'ladder.fractions') for fraction in values['fractions'])
    if 'keep_residuals' in values:
      boolean(values['keep_residuals'], 'ladder.keep_residuals')
    if 'row_budget' in values:
      number(values['row_budget'], 'ladder.row_budget')
    config = LadderConfig(**values)
    if not may_drop and config.fractions[-1] != 1:
      raise ValueError(f'ladder.fractions {config.fractions} must end in 1: this model never drops words.')
    return config

  def rungs(self, length: int) -> tuple[int, ...]:
    """Static lengths for buffers of `length`, rounded up to multiples of 8."""
    rounded = {min(length, math.ceil(fraction * length / 8) * 8) for fraction in self.fractions}
    return tuple(sorted(rounded))


def rung_index(rungs: tuple[int, ...], count_B: Array) -> Array:
  """Index of the smallest rung that holds the fullest row (the last, if none does)."""
  return jnp.minimum(jnp.searchsorted(jnp.array(rungs), count_B.max()), len(rungs) - 1)


def on_ladder(
  fn: RungFunction, config: LadderConfig, rungs: tuple[int, ...], rung: Array, parameters: Any, rows: Any, indices: Any
) -> Any:
  """Runs fn(rungs[rung], parameters, rows, indices); differentiable in `parameters` and `rows`.

  Leaves of `rows` (float) and `indices` (integer or bool) have the batch axis first; fn slices what it needs of them
  and pads what it returns, so that every rung gives the same shapes. fn closes over no traced value.
  """
  if len(rungs) == 1:
    return fn(rungs[0], parameters, rows, indices)
  batch_size = jax.tree.leaves(rows)[0].shape[0]
  groups = [_groups(length / rungs[-1], config.row_budget, batch_size) for length in rungs]
  branches = tuple(_in_groups(fn, length, count) for length, count in zip(rungs, groups, strict=True))
  return _switch(branches, config.keep_residuals, rung, (parameters, rows), indices)


def pad_to(x: Array, length: int) -> Array:
  """Pads axis 1 with zeros to `length`."""
  return jnp.pad(x, ((0, 0), (0, length - x.shape[1])) + ((0, 0),) * (x.ndim - 2))


def _groups(fraction: float, budget: float, batch_size: int) -> int:
  """The smallest number of equal groups of rows that keeps `fraction` of the positions within the budget."""
  return next(
    g for g in range(1, batch_size + 1) if batch_size % g == 0 and (fraction / g <= budget or g == batch_size)
  )


def _in_groups(fn: RungFunction, rung: int, groups: int) -> Callable[[Any, Any], Any]:
  """fn at one rung, on all rows at once or on `groups` groups in turn, each recomputed in the backward pass."""
  if groups == 1:
    return lambda inputs, indices: fn(rung, *inputs, indices)

  def run(inputs, indices):
    parameters, rows = inputs
    # Every groups-th row goes together: a device's block of consecutive rows is shared by all groups.
    split = lambda x: jnp.moveaxis(x.reshape(x.shape[0] // groups, groups, *x.shape[1:]), 1, 0)
    join = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    one = jax.checkpoint(lambda part: fn(rung, parameters, *part))
    return jax.tree.map(join, jax.lax.map(one, jax.tree.map(split, (rows, indices))))

  return run


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _switch(branches, keep_residuals, rung, inputs, indices):
  del keep_residuals
  return jax.lax.switch(rung, branches, inputs, indices)


# Left to itself, the derivative of a switch saves the residuals of every branch. Here it saves the inputs and runs the
# taken branch again, or saves the residuals of the taken branch in one buffer as large as the largest rung needs.


def _switch_forward(branches, keep_residuals, rung, inputs, indices):
  if not keep_residuals:
    return jax.lax.switch(rung, branches, inputs, indices), (rung, inputs, indices, None)
  recipes = [_Recipe() for _ in branches]
  saving = [functools.partial(_run_and_save, branch, recipe) for branch, recipe in zip(branches, recipes, strict=True)]
  sizes: dict[jnp.dtype, int] = {}
  for save in saving:
    for dtype, buffer in jax.eval_shape(save, inputs, indices)[1].items():
      sizes[dtype] = max(sizes.get(dtype, 0), buffer.shape[0])

  def padded(save, inputs, indices):
    outputs, buffers = save(inputs, indices)
    fill = lambda dtype, size: jnp.zeros((size,), dtype).at[: buffers[dtype].shape[0]].set(buffers[dtype])
    empty = lambda dtype, size: jnp.zeros((size,), dtype)
    return outputs, {d: (fill if d in buffers else empty)(d, size) for d, size in sizes.items()}

  outputs, buffers = jax.lax.switch(rung, [functools.partial(padded, save) for save in saving], inputs, indices)
  return outputs, (rung, inputs, indices, (buffers, _Static(tuple(recipes))))


def _switch_backward(branches, keep_residuals, saved, cotangents):
  rung, inputs, indices, residuals = saved
  if not keep_residuals:
    recompute = lambda branch: lambda i, k, ct: jax.vjp(lambda j: branch(j, k), i)[1](ct)[0]
    gradients = jax.lax.switch(rung, [recompute(branch) for branch in branches], inputs, indices, cotangents)
  else:
    buffers, recipes = residuals
    replay = lambda recipe: lambda buffers, inputs, ct: recipe.pullback(buffers, inputs)(ct)[0]
    gradients = jax.lax.switch(rung, [replay(recipe) for recipe in recipes.value], buffers, inputs, cotangents)
  return None, gradients, None


_switch.defvjp(_switch_forward, _switch_backward)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class _Static:
  value: Any


class _Recipe:
  """How one rung's pullback is put together again from flat buffers and the inputs; filled while tracing."""

  def record(self, structure, leaves: list) -> None:
    self.structure, self.leaves = structure, leaves

  def pullback(self, buffers: dict, inputs: Any) -> Callable:
    flat_inputs = jax.tree.leaves(inputs)
    read = lambda dtype, offset, shape: jax.lax.slice(buffers[dtype], (offset,), (offset + _size(shape),)).reshape(
      shape
    )
    leaves = [flat_inputs[leaf] if isinstance(leaf, int) else read(*leaf) for leaf in self.leaves]
    return jax.tree.unflatten(self.structure, leaves)


def _size(shape: tuple[int, ...]) -> int:
  return functools.reduce(lambda a, b: a * b, shape, 1)


def _run_and_save(branch, recipe: _Recipe, inputs, indices):
  outputs, pullback = jax.vjp(lambda i: branch(i, indices), inputs)
  leaves, structure = jax.tree.flatten(pullback)
  position = {id(leaf): index for index, leaf in enumerate(jax.tree.leaves(inputs))}
  notes, parts, used = [], {}, {}
  for leaf in leaves:
    if id(leaf) in position:  # parameters and activations that came in are at hand in the backward pass
      notes.append(position[id(leaf)])
      continue
    dtype = jnp.dtype(leaf.dtype)
    notes.append((dtype, used.get(dtype, 0), leaf.shape))
    used[dtype] = used.get(dtype, 0) + _size(leaf.shape)
    parts.setdefault(dtype, []).append(jnp.ravel(leaf))
  recipe.record(structure, notes)
  return outputs, {dtype: jnp.concatenate(arrays) for dtype, arrays in parts.items()}
