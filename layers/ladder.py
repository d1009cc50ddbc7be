"""The capacity ladder: exact dynamic lengths under static shapes.

How many chunks a batch has is known only when it runs; XLA wants lengths when it compiles. A function is compiled for
a few lengths, the rungs, and a switch runs the smallest that holds the fullest row, of the batch or of each of several
groups of rows with like counts. No chunk is ever dropped, and the cost follows the chunks and not the padding.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from layers import partition
from layers.checks import boolean, integer, known, number

# (rung, parameters, rows, indices) -> outputs whose shapes do not depend on the rung
RungFunction = Callable[[int, Any, Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class LadderConfig:
  """fractions: rungs as parts of the full length, the last 1 unless chunks may be dropped.

  keep_residuals: the backward pass reads what the forward pass saved (padded to the largest rung) instead of running
  the rung again. row_groups: rows are sorted by need and run in so many groups, one after the other, each at its own
  rung and in its own part of the memory; where a device's rows do not divide by it, in as many as divide both.
  """

  fractions: tuple[float, ...] = (0.125, 0.1875, 0.25, 0.375, 0.5, 1.0)
  keep_residuals: bool = False
  row_groups: int = 1

  def __post_init__(self):
    increasing = all(a < b for a, b in zip(self.fractions, self.fractions[1:], strict=False))
    if not self.fractions or not increasing or self.fractions[0] <= 0 or self.fractions[-1] > 1:
      raise ValueError(f'ladder.fractions {self.fractions} must increase within (0, 1], such as (0.25, 0.5, 1.0).')

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
    if 'row_groups' in values:
      integer(values['row_groups'], 'ladder.row_groups', 1)
    config = LadderConfig(**values)
    if not may_drop and config.fractions[-1] != 1:
      raise ValueError(f'ladder.fractions {config.fractions} must end in 1: this model never drops words.')
    return config

  def rungs(self, length: int) -> tuple[int, ...]:
    """Static lengths for buffers of `length`, rounded up to multiples of 8."""
    rounded = {min(length, math.ceil(fraction * length / 8) * 8) for fraction in self.fractions}
    return tuple(sorted(rounded))


def rungs_of(rungs: tuple[int, ...], count_B: Array) -> Array:
  """[B]: index of the smallest rung that holds each row (the last, if none does)."""
  return jnp.minimum(jnp.searchsorted(jnp.array(rungs), count_B), len(rungs) - 1)


def on_ladder(
  fn: RungFunction,
  config: LadderConfig,
  rungs: tuple[int, ...],
  rung_B: Array,
  parameters: Any,
  rows: Any,
  indices: Any,
) -> Any:
  """Runs fn(rungs[i], parameters, rows, indices), i the largest of rung_B; differentiable in `parameters` and `rows`.

  With config.row_groups, i is the largest in a group of rows. Leaves of `rows` (float), `indices` (integer or bool) and
  outputs have the batch axis first; fn slices what it needs and pads what it returns, so that every rung gives the same
  shapes. fn closes over no traced value, and no row's output depends on another row.
  """
  if len(rungs) == 1:
    return fn(rungs[0], parameters, rows, indices)
  branches = tuple(functools.partial(_at_rung, fn, length) for length in rungs)
  deck = _Deck(config.row_groups, rung_B)
  if deck.groups == 1:
    return _switch(branches, config.keep_residuals, jnp.max(rung_B), (parameters, rows), indices)

  def one(group):
    rung_G, rows, indices = group
    return _switch(branches, config.keep_residuals, jnp.max(rung_G), (parameters, rows), indices)

  return jax.tree.map(deck.gather, jax.lax.map(one, jax.tree.map(deck.deal, (rung_B, rows, indices))))


def fill(config: LadderConfig, rungs: tuple[int, ...], rung_B: Array, count_B: Array) -> Array:
  """Chunks, as a share of the positions that the ladder runs for them."""
  deck = _Deck(config.row_groups, rung_B)
  ran = jnp.array(rungs)[jnp.max(deck.deal(rung_B), 1)] if deck.groups > 1 else jnp.array(rungs)[jnp.max(rung_B)]
  return jnp.mean(count_B) / jnp.mean(ran)


def pad_to(x: Array, length: int) -> Array:
  """Pads axis 1 with zeros to `length`."""
  return jnp.pad(x, ((0, 0), (0, length - x.shape[1])) + ((0, 0),) * (x.ndim - 2))


def _at_rung(fn: RungFunction, rung: int, inputs: Any, indices: Any) -> Any:
  return fn(rung, *inputs, indices)


class _Deck:
  """Rows sorted by need and dealt to groups. Every device sorts its own rows and deals them to all groups."""

  def __init__(self, most: int, rung_B: Array):
    self.devices = partition.row_shards(rung_B.shape[0])
    self.groups = math.gcd(most, rung_B.shape[0] // self.devices)
    self.order = jnp.argsort(rung_B.reshape(self.devices, -1), axis=1)
    self.inverse = jnp.argsort(self.order, axis=1)

  def deal(self, x: Array) -> Array:
    """[B, ...] -> [groups, B / groups, ...]."""
    x = _rearranged(x.reshape(self.devices, -1, *x.shape[1:]), self.order, self.inverse)
    x = jnp.moveaxis(x.reshape(self.devices, self.groups, -1, *x.shape[2:]), 1, 0)
    return x.reshape(self.groups, -1, *x.shape[3:])

  def gather(self, x: Array) -> Array:
    """The inverse of deal."""
    x = jnp.moveaxis(x.reshape(self.groups, self.devices, -1, *x.shape[2:]), 0, 1)
    x = _rearranged(x.reshape(self.devices, -1, *x.shape[3:]), self.inverse, self.order)
    return x.reshape(-1, *x.shape[2:])


@jax.custom_vjp
def _rearranged(x: Array, order: Array, inverse: Array) -> Array:
  """x[device, order[device]]. Its gradient gathers too: derived, it would be a scatter."""
  del inverse
  return jax.vmap(lambda x, order: x.at[order].get(mode='promise_in_bounds', unique_indices=True))(x, order)


_rearranged.defvjp(
  lambda x, order, inverse: (_rearranged(x, order, inverse), (order, inverse)),
  lambda saved, cotangent: (_rearranged(cotangent, saved[1], saved[0]), None, None),
)


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
