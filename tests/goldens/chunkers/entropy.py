"""BLT's entropy model (logits, entropies, loss and gradients) and its patchers (every case of a folder)."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from byte_models.blt import entropy as blt_entropy
from hnet.parts import patchers
from hnet.parts.boundaries import space_like
from hnet.parts.entropy_lm import ByteLM
from layers import weights as layer_weights
from layers.paths import flatten, rebuild
from tests.goldens.chunkers.difference import Difference, absolute, config, relative, tensors

SPECIALS = 4  # BOE, BOS, EOS, BPE: byte b has the id b + 4
BPE = 3


def knows(found: dict[str, Any]) -> bool:
  """The model by its class, the patchers by their cases."""
  return found.get('class', '').endswith('.LMTransformer') or isinstance(found.get('cases'), dict)


def check(folder: pathlib.Path) -> dict[str, Difference]:
  """See the module."""
  return _patchers(folder) if 'cases' in config(folder) else _model(folder)


def _model(folder: pathlib.Path) -> dict[str, Difference]:
  found = config(folder)
  args, (weights, io, gradients) = found['args'], tensors(folder, 'model', 'io', 'grads')
  parsed = blt_entropy.parse(found)
  abstract = jax.eval_shape(lambda: ByteLM(parsed.stages[0].main, vocabulary=args['vocab_size'], rngs=nnx.Rngs(0)))
  parts = list(blt_entropy.parts(parsed))
  ours = lambda of: {path.removeprefix('backbone.'): leaf for path, leaf in layer_weights.gather(parts, of).items()}
  tokens, targets = io['tokens'], io['targets']
  ends = (tokens == found['eos_id']) & ('block' in args.get('attn_bias_type', 'block'))  # of segments
  ids = np.pad(np.cumsum(ends, 1)[:, :-1], ((0, 0), (1, 0))) + 1

  @jax.jit
  def run(model):
    def loss(model):
      logits = model(tokens, ids)
      log_p = jax.nn.log_softmax(logits, -1)
      return -jnp.mean(jnp.take_along_axis(log_p, targets[..., None], -1)), logits

    (loss, logits), gradient = jax.value_and_grad(loss, has_aux=True)(model)
    return loss, logits, patchers.entropy(logits), gradient

  loss, logits, entropies, gradient = jax.device_get(run(rebuild(abstract, ours(weights))))
  result = {
    'logits': absolute(logits, io.get('logits_f64', io['logits'])),
    'entropies': absolute(entropies, io.get('entropies_f64', io['entropies'])),
    'loss': absolute(loss, io['loss']),
  }
  gradient, theirs = flatten(gradient), ours(gradients)
  assert gradient.keys() == theirs.keys()
  return result | {f'gradient of {path}': relative(gradient[path], theirs[path]) for path in sorted(theirs)}


def _patchers(folder: pathlib.Path) -> dict[str, Difference]:
  cases, (io,) = config(folder)['cases'], tensors(folder, 'io')
  return {
    f'lengths of {name}': absolute(
      lengths_of(ends_of(case, io), case['include_next_token']), io[f'lengths.{name}'], tolerance=0
    )
    for name, case in cases.items()
  }


def ends_of(case: dict[str, Any], io: dict[str, np.ndarray]) -> np.ndarray:
  """[rows, N] bool of a case: where patches end, of rows that are a document each."""
  options, tokens = case['args'], io[case['tokens']]
  entropies = None if case['entropies'] is None else io[case['entropies']]
  position = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
  ends = jnp.asarray(_by_rule(options, tokens, entropies, position))
  first = ends.at[:, 0].set(True)  # where one is short of it, `length` has nothing to count from
  is_static = options['patching_mode'] == 'static'
  length = position % int(options['patch_size']) + 1 if is_static else patchers.length(first)
  return np.asarray(patchers.capped(ends, length, options.get('max_patch_length') or 0))


def _by_rule(options: dict[str, Any], tokens: np.ndarray, entropies: np.ndarray | None, position: np.ndarray):
  before = lambda values: np.pad(values[:, :-1], ((0, 0), (1, 0)))
  match options['patching_mode']:
    case 'entropy':
      add, threshold = options.get('threshold_add'), np.float32(options['threshold'])
      mode = 'jump' if options.get('monotonicity') else 'threshold' if add is None else 'both'
      return patchers.by_entropy(entropies, before(entropies), position, threshold, mode, add)
    case 'space':
      special = tokens < SPECIALS
      space = np.asarray(space_like(np.maximum(tokens - SPECIALS, 0))) | special
      return patchers.by_space(space, before(space), special, position)
    case 'static':
      return patchers.by_stride(position, int(options['patch_size']))
    case 'byte':
      return np.ones(tokens.shape, bool)
    case 'bpe':  # their delimiters do not occur in rows of bytes
      return (position == 0) | (tokens == BPE)
  raise ValueError(f'patching_mode {options["patching_mode"]!r} is none of these')


def lengths_of(ends: np.ndarray, with_next: bool) -> np.ndarray:
  """[rows, most] as the published code gives them, 0 behind a row's last patch: of N symbols, or with the next one."""
  total = ends.shape[1] + with_next
  starts = [[0, *(1 + np.flatnonzero(row)).tolist()] for row in ends]
  lengths = [np.diff([start for start in row if start < total] + [total]) for row in starts]
  most = max(map(len, lengths))
  return np.stack([np.pad(row, (0, most - len(row))) for row in lengths])
