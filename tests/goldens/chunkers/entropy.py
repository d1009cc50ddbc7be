"""BLT's entropy model (logits, entropies, loss and gradients) and its patchers (every case of a folder)."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hnet.parts import patchers
from hnet.parts.boundaries import space_like
from hnet.parts.entropy import ByteLM
from layers.paths import flatten, rebuild
from layers.stack import StackConfig
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
  heads, layers = args['n_heads'], args['n_layers']
  kv_heads, head = args.get('n_kv_heads') or heads, args.get('head_dim') or args['dim'] // heads
  hidden = len(weights['layers.0.feed_forward.w1.weight'])
  sizes = {'num_kv_heads': kv_heads, 'head_size': head, 'rotary_base': args['rope_theta']}
  bias = args.get('attn_bias_type', 'local_block_causal')
  window = (args.get('sliding_window') or 0) - 1 if 'local' in bias else -1  # of theirs the own slot is one; -1: all
  epsilon = args.get('norm_eps', 1e-5)
  stack = StackConfig(f'T{layers}', args['dim'], hidden, heads, head, window, norm_epsilon=epsilon, **sizes)
  abstract = jax.eval_shape(lambda: ByteLM(stack, vocabulary=args['vocab_size'], rngs=nnx.Rngs(0)))
  ours = lambda tensors: {path: jnp.asarray(leaf) for path, leaf in _as_ours(tensors, layers, heads, kv_heads).items()}
  tokens, targets = io['tokens'], io['targets']
  ends = (tokens == found['eos_id']) & ('block' in bias)  # of segments
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


def _as_ours(theirs: dict[str, np.ndarray], layers: int, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
  """Parameters of an LMTransformer as those of `ByteLM`: channels 2i and 2i + 1 of a head turn there, i and i + half
  here.
  """

  def halves(weight, count):
    head = len(weight) // count
    return weight.reshape(count, head // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)

  def layer(number):
    of = lambda name: theirs[f'layers.{number}.{name}.weight']
    q, k, v = (of(f'attention.w{name}') for name in 'qkv')
    return {
      'norm1.scale': of('attention_norm'),
      'norm2.scale': of('ffn_norm'),
      'mixer.qkv.kernel': np.concatenate([halves(q, heads), halves(k, kv_heads), v]).T,
      'mixer.out.kernel': of('attention.wo').T,
      'mlp.fc1.kernel': np.concatenate([of('feed_forward.w3'), of('feed_forward.w1')]).T,
      'mlp.fc2.kernel': of('feed_forward.w2').T,
    }

  stacked = [layer(number) for number in range(layers)]
  return {
    'embeddings': theirs['tok_embeddings.weight'],
    'lm_head.kernel': theirs['output.weight'].T,
    'main.norm.scale': theirs['norm.weight'],
    **{f'main.runs.0.{path}': np.stack([of_layer[path] for of_layer in stacked]) for path in stacked[0]},
  }


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
