"""BLT's boundary: the entropy of a small byte model that is not trained any more (arXiv 2412.09871)."""

import os
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts import patchers
from hnet.parts.base import Cut, Sizes, no_flops
from hnet.parts.boundaries import at_last, by_rule
from hnet.parts.entropy_lm import IDS, RULE, Frozen, calibrated, lm_config, taken
from layers import checks, segments, stack
from layers.chunks import Level
from layers.contract import Context
from text.specification import canonical


class _ByEntropy(nnx.Module):
  """What both sources of entropies share."""

  OPTIONS = {'size': RULE['size'], 'threshold': None, **{name: RULE[name] for name in ('mode', 'add', 'most')}}
  lookahead, differentiable, learned, emits = 0, False, False, 'ends'
  is_calibrated = True

  def _set(self, name: str, threshold: float | None, mode: str, add: float | None, most: int) -> None:
    self.threshold, self.add = threshold, add
    self.mode = checks.one_of(mode, patchers.MODES, f'boundary {name}: mode')
    self.most = checks.integer(most, f'boundary {name}: most', 0)
    if (add is not None) != (mode == 'both'):
      raise ValueError(f"boundary {name}: add={add}, with mode '{mode}': give add with mode=both only.")

  def _ends(self, entropy_BxC: Array, level: Level, threshold: Array | float) -> Array:
    """All but those for the longest patch."""
    before_BxC = jnp.pad(entropy_BxC[:, :-1], ((0, 0), (1, 0)))
    position_BxC = segments.positions(level.segment_ids_BxC)
    return patchers.by_entropy(entropy_BxC, before_BxC, position_BxC, threshold, self.mode, self.add)

  def _cut(self, ends_BxC: Array, level: Level) -> Cut:
    return by_rule(patchers.capped(ends_BxC, patchers.length(ends_BxC), self.most) & level.valid)

  @staticmethod
  def chunk_size(size: float, **options: Any) -> float:
    """As stated; ValueError for one that there cannot be."""
    del options
    if not 1 <= size < 1e6:
      raise ValueError(f'boundary entropy: size={size}, slots a patch, must be from 1 to 1e6.')
    return size


class StoredEntropy(_ByEntropy):
  """`Entropy` of a model that has read the text before: directory, of `python -m studies.entropies`, has its entropies.

  size, threshold, mode, add, most: as there; the threshold must be given. model: the digest of the entropy model that
  the directory must be of (its config.json has it), '' for any. Documents are read whole and not by rows, at any depth;
  a text that is being written has no entropies, so that such a model is trained and scored and does not write.
  """

  OPTIONS = {'directory': '', **_ByEntropy.OPTIONS, 'model': ''}
  flops = no_flops

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, directory: str, size: float, model: str, **options: Any):
    del sizes, rngs, directory, size, model
    self._set('stored_entropy', **options)
    if self.threshold is None:
      raise ValueError(
        'boundary stored_entropy: threshold is missing; `python -m studies.calibrate` prints that of a size.'
      )

  @staticmethod
  def marks(directory: str, model: str, **options: Any) -> dict[str, str]:
    """The entropies."""
    del options
    return {'entropy': canonical('entropy', {'directory': directory, 'model': model})}

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """By the entropies at the bytes where slots start."""
    del e_BxCxD, context
    return self._cut(self._ends(level.marks['entropy'], level, self.threshold), level)

  def init_cache(self, batch_size: int) -> Any:
    """ValueError: see the class."""
    raise ValueError(
      'boundary stored_entropy knows no entropies of a text that is being written: to decode, train with '
      "boundary 'entropy(lm=DIRECTORY)', which has the entropy model with it."
    )

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> Any:
    """See `init_cache`."""
    return self.init_cache(len(cut.emit))

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: Any) -> tuple[Cut, Any]:
    """See `init_cache`."""
    return self.init_cache(len(active_B))


class Entropy(_ByEntropy):
  """A patch ends where the entropy of the next byte is high: `patchers.by_entropy`.

  lm: work directory of the entropy model, a flat byte model that train.py has trained on rows of bytes
  (configs/quickstart_entropy_lm.py); its parameters are read once, when a training begins, and then are part of the
  checkpoints. size: slots a patch; FLOPs are counted at it, training says where it is not met. threshold: in nats; not
  given, it is what `python -m studies.calibrate` found for this size, mode, add and most, and is read with the
  parameters. mode: 'threshold', 'jump' or 'both', which needs add, in nats. most: the longest patch, 0 for none.
  layout, width, mlp_width, heads, rotary, window, d_state, kv_heads, rotary_base: of the entropy model, the keys
  arch_layout, d_model, d_intermediate, num_heads, rotary_emb_dim, window_size, ssm_cfg.d_state, num_kv_heads and
  rotary_base of its config. ids: what its embeddings and head have rows of, 'bytes', or 'blt', the 260 of the published
  entropy model, which lm may be a directory of (byte_models/blt/entropy.py); all of them count in the entropy.

  The model reads the bytes at which the slots of its level start, each document and row for itself: meant for the
  outermost stage.
  """

  OPTIONS = {
    'lm': '', **_ByEntropy.OPTIONS, 'layout': 'T3', 'width': 128, 'mlp_width': 256, 'heads': 4, 'rotary': 32,
    'window': 127, 'd_state': 128, 'kv_heads': 0, 'rotary_base': 10000.0, 'ids': 'bytes',
  }  # fmt: skip

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **options: Any):
    del sizes
    self._set('entropy', **{name: options[name] for name in ('threshold', 'mode', 'add', 'most')})
    config = lm_config(**options)
    self.frozen = Frozen(config, options['ids'], self.threshold is None, rngs=rngs)

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """By the entropies of all slots at once."""
    del e_BxCxD, context
    return self._cut(self._read(level)[1], level)

  def _read(self, level: Level) -> tuple[Array, Array]:
    """(entropies, where patches end but for the longest)."""
    entropy_BxC = patchers.entropy(self.frozen.lm(level.marks['bytes'], level.segment_ids_BxC))
    return entropy_BxC, self._ends(entropy_BxC, level, self._limit)

  @property
  def _limit(self) -> Array | float:
    return self.frozen.threshold[...] if self.threshold is None else self.threshold

  def init_cache(self, batch_size: int) -> dict[str, Any]:
    """Nothing read; slot: how many were; length: of the open patch; last: the entropy before."""
    main = self.frozen.lm.main
    return {
      'lm': main.init_cache(batch_size, main.config.window + 1),
      'slot': jnp.zeros(batch_size, jnp.int32),
      'length': jnp.zeros(batch_size, jnp.int32),
      'last': jnp.zeros(batch_size, jnp.float32),
    }

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> dict[str, Any]:
    """The entropy model reads the prompts once more, for its cache."""
    del e_BxCxD, cut
    entropy_BxC, ends_BxC = self._read(level)
    length_BxC = jnp.where(ends_BxC, 0, patchers.length(ends_BxC))
    lm = self.frozen.lm
    empty = lm.main.init_cache(len(level.count_B), lm.main.config.window + 1)
    with jax.default_matmul_precision('highest'):
      _, cache = lm.main.prefill(lm.embed(level.marks['bytes']), level.count_B, empty)
    seen_B = level.count_B > 0
    return {
      'lm': cache,
      'slot': level.count_B.astype(jnp.int32),
      'length': jnp.where(seen_B, at_last(length_BxC, level), 0),
      'last': jnp.where(seen_B, at_last(entropy_BxC, level), 0.0),
    }

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: dict) -> tuple[Cut, dict]:
    """One slot of the entropy model."""
    del e_BxD
    lm = self.frozen.lm
    with jax.default_matmul_precision('highest'):
      x_BxD, lm_cache = lm.main.step(lm.embed(marks['bytes']), active_B, cache['lm'])
      entropy_B = patchers.entropy(lm.lm_head(x_BxD))
    of_slot = entropy_B, cache['last'], cache['slot'], self._limit
    ends_B, length_B = patchers.by_entropy(*of_slot, self.mode, self.add), cache['length'] + 1
    new = {
      'lm': lm_cache,
      'slot': cache['slot'] + active_B,
      'length': jnp.where(active_B, jnp.where(ends_B, 0, length_B), cache['length']),
      'last': jnp.where(active_B, entropy_B, cache['last']),
    }
    return by_rule(patchers.capped(ends_B, length_B, self.most) & active_B), new

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, **options: Any) -> float:
    """A forward pass of the entropy model, which has no other."""
    del sizes, chunks
    config = lm_config(**options)
    return stack.flops(config, slots, float(config.window + 1)) + 4.0 * IDS[options['ids']][0] * slots * config.width

  @staticmethod
  def borrows(lm: str, **options: Any) -> str:
    """The work directory whose parameters stand under `frozen`."""
    del options
    return lm

  @classmethod
  def take(cls, found: Any, step: int | None, directory: str | os.PathLike, **options: Any) -> dict[str, Array]:
    """Path under the part -> array, of a model that was loaded from a work directory at a step, and of the calibration
    beside it. Raises ValueError, in a sentence, for another model than the options say, and without a calibration.
    """
    wanted = lm_config(**options)
    return taken(found, wanted, directory, options['ids']) | (
      {} if options['threshold'] is not None else {'frozen.threshold': calibrated(directory, step, options)}
    )
