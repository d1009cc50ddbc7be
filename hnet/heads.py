"""Several heads of a stage, each with boundaries of its own: multi-head chunking (lucidrains/h-net-dynamic-chunking).

Behind the encoder every row of slots is H rows, one a head, which are cut apart, go through the same pool, stage inside
and unpool, and are one row again as the mean of what `combine` gives. Row b·H + h is head h of row b, so that rows stay
where a mesh has them. All that is inside costs H times as much.
"""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts import Cut, Part, Sizes
from layers.chunks import Level
from layers.contract import Context
from layers.paths import flatten, rebuild

Tree = TypeVar('Tree')


def fold(tree: Tree, heads: int) -> Tree:
  """Every row once for each head, side by side: [B, ...] -> [B·H, ...]."""
  return tree if heads == 1 else jax.tree.map(lambda x: jnp.repeat(x, heads, 0), tree)


def unfold(x: Array, heads: int) -> Array:
  """The mean over the heads of each row: [B·H, ...] -> [B, ...]."""
  return x if heads == 1 else jnp.mean(x.reshape(-1, heads, *x.shape[1:]), 1)


def build(part: Part, sizes: Sizes, heads: int, *, rngs: nnx.Rngs) -> Any:
  """The boundary of a stage, which cuts the rows of all heads."""
  return part.build(sizes, rngs=rngs) if heads == 1 else Several(part, sizes, heads, rngs=rngs)


class Several(nnx.Module):
  """One boundary a head, as one for B·H rows."""

  def __init__(self, part: Part, sizes: Sizes, heads: int, *, rngs: nnx.Rngs):
    made = [part.build(sizes, rngs=rngs) for _ in range(heads)]
    self.heads = nnx.List([made[0], *(_moved(boundary, rngs) for boundary in made[1:])])

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """Each head draws for itself."""
    cuts = []
    for head, boundary in enumerate(self.heads):
      rng = None if context.rng is None else jax.random.fold_in(context.rng, head)
      of_head = dataclasses.replace(context, rng=rng)
      cuts.append(boundary(self._of(e_BxCxD, head), self._of(level, head), of_head))
    return _together(cuts)

  def init_cache(self, batch_size: int) -> tuple:
    """One a head."""
    return tuple(boundary.init_cache(batch_size // len(self.heads)) for boundary in self.heads)

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> tuple:
    """The caches behind prompts."""
    of = lambda head: (self._of(tree, head) for tree in (e_BxCxD, cut, level))
    return tuple(boundary.after(*of(head)) for head, boundary in enumerate(self.heads))

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: tuple) -> tuple[Cut, tuple]:
    """One slot of the rows of all heads."""
    of = lambda head: (self._of(tree, head) for tree in (e_BxD, marks, active_B))
    cuts, caches = zip(*(b.step(*of(h), cache[h]) for h, b in enumerate(self.heads)), strict=True)
    return _together(cuts), caches

  def _of(self, tree: Tree, head: int) -> Tree:
    return jax.tree.map(lambda x: x[head :: len(self.heads)] if x.ndim else x, tree)


def _together(cuts: Any) -> Cut:
  """Rows of heads side by side; of a scalar, which is a metric, the mean."""
  join = lambda *xs: jnp.stack(xs, 1).reshape(-1, *xs[0].shape[1:]) if xs[0].ndim else jnp.mean(jnp.stack(xs))
  return jax.tree.map(join, *cuts)


def _moved(boundary: Any, rngs: nnx.Rngs) -> Any:
  """Away from where all heads would begin: at one place they had one gradient, and stayed the same for ever."""
  flat = flatten(boundary)
  noise = lambda x: x + jax.random.normal(rngs.params(), x.shape, x.dtype) * x.shape[0] ** -0.5
  return rebuild(boundary, {path: noise(x) if x.ndim > 1 else x for path, x in flat.items()})
