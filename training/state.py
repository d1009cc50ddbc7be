"""What a training run carries from step to step; models and optimizer states as flat dicts `path -> array`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from layers.paths import flatten, rebuild

__all__ = ['Flat', 'TrainState', 'create', 'flatten', 'rebuild']

Flat = dict[str, jax.Array]

# The scalars of a state beside its optimizer's; a checkpoint has them in its record.
COUNTERS = ('step', 'skipped', 'skipped_in_a_row', 'log_norm')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """params: flat parameters; opt_state: the optimizer's tree over them; ema: averaged parameters or None.

  step: batches trained on (int32), whether or not their update was applied: it places the run in its schedule and its
  data. skipped, skipped_in_a_row: updates left out because loss or gradient was not finite or the gradient exploded, in
  all and since the last good one. log_norm: running mean of the logarithm of the gradient norm over the good ones,
  which begins at 0 (float32).
  """

  step: jax.Array
  params: Flat
  opt_state: Any
  ema: Flat | None
  skipped: jax.Array
  skipped_in_a_row: jax.Array
  log_norm: jax.Array


def create(params: Flat, init_optimizer: Callable[[Flat], Any], *, ema: bool) -> TrainState:
  """The state before the first step; call it under `jax.jit` with `out_shardings` so that arrays are born where they
  live.
  """
  zero = jnp.zeros((), jnp.int32)
  # The average begins at the parameters; a copy, because the step donates both.
  averaged = jax.tree.map(jnp.copy, params) if ema else None
  return TrainState(zero, params, init_optimizer(params), averaged, zero, zero, jnp.zeros(()))
