"""AdamW over flat parameters, with learning-rate multipliers by path and the schedules of the config."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from training import config as config_lib
from training.state import Flat


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """transform: gradients to descent directions, everything but the learning rate; schedule: step -> learning rate.

  The rate is a function of the step, not a count inside the optimizer's state, so that a skipped update does not
  shift it. trained: paths of the parameters that have gradients and moments; the others never move. frozen: path ->
  number of steps that the parameter stands still. Its moments are kept all the same, so that its first updates are of
  the usual size.
  """

  transform: optax.GradientTransformation
  schedule: Callable[[Any], jax.Array]
  trained: frozenset[str]
  frozen: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def init(self, params: Flat) -> Any:
    return self.transform.init(self.moving(params))

  def moving(self, params: Flat) -> Flat:
    """The parameters that are trained."""
    return {path: value for path, value in params.items() if path in self.trained}

  def update(self, gradients: Flat, opt_state: Any, params: Flat, step: jax.Array) -> tuple[Flat, Any]:
    """(parameters after update number `step`, counted from 0; optimizer state). gradients: of what is trained."""
    moving = self.moving(params)
    directions, opt_state = self.transform.update(gradients, opt_state, moving)
    rate = self.schedule(step)
    rates = {path: jnp.where(step < steps, 0.0, rate) for path, steps in self.frozen.items()}
    moved = {path: p - rates.get(path, rate) * directions[path] for path, p in moving.items()}
    return params | moved, opt_state


def make_optimizer(
  settings: config_lib.Optimizer,
  num_steps: int,
  decays: Mapping[str, bool],
  multipliers: Mapping[str, float],
  frozen: Mapping[str, int],
) -> Optimizer:
  """Clip by global norm, Adam moments, decoupled decay, multiplier; then the schedule.

  decays, multipliers, frozen: by parameter path, see `parameter_groups`. A multiplier scales a parameter's whole
  update, its decay included, as a torch parameter group with its own lr does.
  """
  transform = optax.chain(
    optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity(),
    optax.scale_by_adam(*settings.betas, eps=settings.eps),
    optax.add_decayed_weights(settings.weight_decay, mask=dict(decays)),
    optax.stateless(lambda updates, params: {path: u * multipliers[path] for path, u in updates.items()}),
  )
  schedule = make_schedule(settings.learning_rate, settings.schedule, num_steps)
  return Optimizer(transform, schedule, frozenset(multipliers), frozen)


def parameter_groups(
  model: Any, paths: Sequence[str], settings: config_lib.Optimizer
) -> tuple[dict[str, bool], dict[str, float], dict[str, int]]:
  """(whether weight decay applies, learning-rate multiplier, frozen steps where there are any) by the path of each
  parameter that is trained.

  Decay and the multiplier of a stage are the model's; a group multiplies it further. Raises ValueError if the
  multipliers are not one per stage of the model, a group has no parameter, or a parameter two groups.
  """
  multipliers = tuple(model.lr_multipliers(settings.lr_multipliers))
  if len(multipliers) != model.num_stages:
    raise ValueError(
      f'optimizer.lr_multipliers {settings.lr_multipliers!r} gives {len(multipliers)} numbers, the model has '
      f'{model.num_stages} stages: give one per stage, outermost first'
    )
  paths = [path for path in paths if model.trains(path)]
  decays = {path: bool(model.decays(path, settings.decay_exempt)) for path in paths}
  rates = {path: float(multipliers[model.stage_of(path)]) for path in paths}
  frozen, owners = {}, {}
  for name, group in settings.groups.items():
    members = [path for path in paths if re.search(group.pattern, path)]
    if not members:
      raise ValueError(
        f'optimizer.groups.{name}.pattern {group.pattern!r} matches no parameter of the model; they are named like '
        f'{paths[0]!r}'
      )
    for path in members:
      if path in owners:
        raise ValueError(f'parameter {path} is in two groups: optimizer.groups.{owners[path]} and {name}')
      owners[path] = name
      rates[path] *= group.multiplier
      if group.frozen_steps:
        frozen[path] = group.frozen_steps
  return decays, rates, frozen


def make_schedule(peak: float, settings: config_lib.Schedule, num_steps: int) -> Callable[[Any], jax.Array]:
  """Learning rate of update t = 0 … num_steps - 1 (float32).

  Warm-up of W = round(warmup * num_steps) updates: peak * (t + 1) / W, so that no update is wasted on a rate of 0.
  Then
    constant  peak
    cosine    from peak to final * peak over the rest, half a cosine
    wsd       peak until t0 = num_steps - round(decay * num_steps), then with x = (t - t0) / (num_steps - t0)
              peak * (final + (1 - final) * (1 - sqrt(x))).
  H-Net (arXiv 2507.07955) calls its decay "inverse square root". In the warm-up-stable-decay literature that is this
  1 - sqrt (Hägele et al., arXiv 2405.18392), which ends at 0; the 1 / sqrt(t) of the first Transformer would barely
  decay over a run's last fifth.
  """
  warmup, decay = round(settings.warmup * num_steps), round(settings.decay * num_steps)

  def schedule(step):
    t = jnp.asarray(step, jnp.float32)
    if settings.name == 'cosine':
      x = jnp.clip((t - warmup) / max(num_steps - warmup, 1), 0.0, 1.0)
      left = 0.5 * (1.0 + jnp.cos(jnp.pi * x))
    elif settings.name == 'wsd':
      left = 1.0 - jnp.sqrt(jnp.clip((t - (num_steps - decay)) / max(decay, 1), 0.0, 1.0))
    else:
      return peak * jnp.minimum((t + 1.0) / max(warmup, 1), 1.0)
    return peak * jnp.minimum((t + 1.0) / max(warmup, 1), 1.0) * (settings.final + (1.0 - settings.final) * left)

  return schedule
