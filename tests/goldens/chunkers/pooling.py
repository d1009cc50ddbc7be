"""dynamic-pooling, MAGNET and FLEXITOKENS: boundary predictor, pool, repeat and losses, with their gradients.

Our rows have a slot in front, whose chunk is the published null group. What reaches the pooled rows and the upsampled
bytes from the published backbone is taken from its gradients; all other gradients are ours.
"""

import dataclasses
import functools
import pathlib
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hnet import parts
from hnet.parts import Cut, Sizes
from hnet.parts.base import Predicted
from hnet.parts.predictors import Gumbel, Supervised
from hnet.parts.priors import entropies, spikes
from layers.chunks import Level
from layers.contract import EVAL
from layers.paths import flatten, rebuild
from tests.goldens.chunkers.difference import Difference, absolute, config, relative, tensors
from text.marks import SCRIPTS


def knows(found: dict[str, Any]) -> bool:
  """By the kind of the boundaries, or the cases of pooling alone."""
  return 'boundaries_type' in found.get('model', {}) or isinstance(found.get('cases'), list)


def check(folder: pathlib.Path) -> dict[str, Difference]:
  """Tensor -> difference. Losses, and gradients that they are part of, of language models only: how the published
  classifiers take means over padded rows is not repeated.
  """
  return _edges(folder) if 'cases' in config(folder) else _Model(folder).check()


def _front(values: Any, value: float = 0.0) -> Any:
  """A slot before the others: [B, T, ...] -> [B, 1 + T, ...]."""
  return jnp.pad(jnp.asarray(values), ((0, 0), (1, 0)) + ((0, 0),) * (values.ndim - 2), constant_values=value)


def _level(rows: int, length: int, **marks: Any) -> Level:
  """Rows of one document each, with the slot in front."""
  ids = jnp.ones((rows, 1 + length), jnp.int32)
  return Level.of_bytes(ids, {'bytes': jnp.zeros(ids.shape, jnp.uint8), **marks})


def _build(kind: str, spec: str, width: int, **leaves: Any) -> Any:
  """A part with these parameters, by path; widths inside and outside are equal."""
  return rebuild(
    parts.parse(kind, spec).build(Sizes(width, width), rngs=nnx.Rngs(0)), jax.tree.map(jnp.asarray, leaves)
  )


def _edges(folder: pathlib.Path) -> dict[str, Difference]:
  """The pool and the repeat around a function, with gradients to all that goes in."""
  io, grads = tensors(folder, 'io', 'grads')
  found = {}

  @jax.jit
  def run(h, hard, null, cotangent):
    level, capacity, width = _level(*hard.shape), 1 + hard.shape[1], h.shape[-1]

    def forward(h, b, null, tap):
      cut = Cut(_front(hard, 1.0) > 0.5, _front(b, 1.0), _front(b, 1.0))
      segments = level.cut(cut.emit)
      raw = _build('pool', 'mean(norm=none)', width, null=null)(_front(h), cut, segments) + tap
      up = _build('unpool', 'repeat', width)(1.3 * jnp.tanh(raw), cut, segments, None, None)[:, 1:]
      return jnp.sum(up * cotangent), (raw, up, segments.inner.valid)

    inputs = h, hard, null, jnp.zeros((len(h), capacity, width))
    return jax.grad(forward, (0, 1, 2, 3), has_aux=True)(*inputs)

  for case in config(folder)['cases']:
    hard, h, cotangent = (np.float32(io[f'{case}.{name}']) for name in ('boundaries', 'hidden', 'cotangent'))
    gradient, (raw, up, valid) = run(h, hard, np.float32(io[f'{case}.null_group'])[0, 0], cotangent)
    pooled, count = io[f'{case}.pooled'], io[f'{case}.pooled'].shape[1]
    there = np.asarray(valid)[:, :count, None]
    found[f'{case}.pooled'] = absolute(raw[:, :count] * there, pooled * there)
    found[f'{case}.upsampled'] = absolute(up, io[f'{case}.upsampled'])
    gradient = (*gradient[:3], gradient[3][:, :count])
    for name, ours in zip(('hidden', 'boundaries', 'null_group', 'pooled'), gradient, strict=True):
      found[f'{case}.d_{name}'] = relative(ours, grads[f'{case}.d_{name}'].reshape(ours.shape))
  return found


class _Model:
  """One folder with a model: rows of all sub-batches one after the other, in the published order."""

  def __init__(self, folder: pathlib.Path):
    self.config = config(folder)
    self.options = self.config['model']
    self.weights, self.io, self.grads = tensors(folder, 'model', 'io', 'grads')
    self.kind = self.options['boundaries_type']
    ids = {script: int(number) for number, script in self.options.get('script_to_id', {}).items()}
    self.prefixes = sorted(
      (name.removesuffix('h_pre') for name in self.io if name.endswith('h_pre')),
      key=lambda prefix: ids.get(prefix[:-1], 0),
    )
    self.sizes = [len(self.io[f'{prefix}h_pre']) for prefix in self.prefixes]
    self.h = self.rows('h_pre')
    self.width = self.h.shape[-1]
    self.is_trained = self.config.get('task', 'LM') == 'LM'
    self.scripts, self.of_row = self._scripts()
    mark = np.array([1 + place for place in self.of_row], np.int8)[:, None]
    marks = {'script': jnp.asarray(np.broadcast_to(mark, (len(self.h), 1 + self.h.shape[1])))}
    if 'boundaries_gt' in self.io:
      marks['pieces'] = _front(self.io['boundaries_gt'])
    self.level = _level(*self.h.shape[:2], **marks)

  def rows(self, name: str, of: dict | None = None, before: str = '') -> np.ndarray | None:
    """The rows of all sub-batches, chunks padded with zeros; None where the tensor is not there."""
    of = self.io if of is None else of
    found = [of.get(f'{before}{prefix}{name}') for prefix in self.prefixes]
    if any(part is None for part in found):
      return None
    longest = max(part.shape[1] for part in found) if found[0].ndim > 1 else 0
    pad = lambda part: np.pad(part, ((0, 0), (0, longest - part.shape[1])) + ((0, 0),) * (part.ndim - 2))
    return np.concatenate([pad(part) if part.ndim > 1 else part for part in found])

  def _scripts(self) -> tuple[list[str], list[int]]:
    """(the published scripts, which of them each row has); ours of the same place stand for them."""
    scripts = list(self.options.get('all_script_ids_dict', {}))
    if 'id_to_script' in self.options:
      return scripts, [scripts.index(self.options['id_to_script'][str(i)]) for i in self.io['input_ids'][:, 0]]
    order = [prefix[:-1] for prefix in self.prefixes]
    places = [scripts.index(script) if script in scripts else 0 for script in order]
    return scripts, np.repeat(places, self.sizes).tolist()

  @property
  def _ours(self) -> str:
    return '+'.join(script.lower() for script in SCRIPTS[: len(self.scripts)])

  def _predictors(self) -> dict[str, str]:
    """Our path of each parameter of the predictors -> the published name."""
    bases = ['boundary_predictor'] if 'boundary_predictor.boundary_predictor.0.bias' in self.weights else []
    bases = bases or [f'script_to_bp_layers.{script}' for script in self.scripts]
    bases = [base for base in bases if f'{base}.boundary_predictor.0.bias' in self.weights]
    return {
      f'predictors.{place}.{layer}.{leaf}': f'{base}.boundary_predictor.{number}.{name}'
      for place, base in enumerate(bases)
      for layer, number in (('hidden', 0), ('out', 2))
      for leaf, name in (('kernel', 'weight'), ('bias', 'bias'))
    }

  def boundary(self) -> Any:
    """None for those by a rule."""
    names = self._predictors()
    if not names:
      return None
    several = f',scripts={self._ours},others=latin' if len(names) > 4 else ''
    spec = (
      f'inner={len(self.weights[names["predictors.0.hidden.bias"]])},activation={self.options["activation_function"]}'
    )
    temperature = f',temperature={self.options["temp"]}' if self.kind == 'gumbel' else ''
    name = 'gumbel' if self.kind == 'gumbel' else 'supervised'
    leaves = {path: self.weights[theirs].T for path, theirs in names.items()}
    return _build('boundary', f'{name}({spec}{several}{temperature})', self.width, **leaves)

  def loss(self) -> Any:
    """The published one."""
    per_script = f'scripts={self._ours},others=latin'
    table = self.options.get('all_script_ids_dict', {})
    if self.kind != 'gumbel':
      labels = ',labels=pieces,by=fixed' if self.kind == 'unigram' else f',spikes_left={self.options["spikes_left"]}'
      return parts.parse('loss', f'bce(of=probability{labels})').loss()
    if not table:
      return parts.parse('loss', f'binomial({1 / self.options["prior"]!r})').loss()
    joined = lambda numbers: '+'.join(map(repr, numbers))
    if 'id_to_script' not in self.options:
      return parts.parse('loss', f'binomial({joined(1 / prior for prior in table.values())},{per_script})').loss()
    rates, sigmas = zip(*table.values(), strict=True)
    if self.options['use_binomial']:
      return parts.parse('loss', f'binomial({joined(1 / rate for rate in rates)},{per_script},over=groups)').loss()
    width = f'deviations={self.options["s_lower_bound"]}'
    return parts.parse('loss', f'hinge({joined(rates)},{joined(sigmas)},{width},{per_script})').loss()

  def run(self, parameters: dict[str, Any], taps: dict[str, Any]) -> dict[str, Any]:
    """All values, from the parts and the states, with something added to what is tapped."""
    boundary, pool, h = parameters['boundary'], parameters['pool'], parameters['h_pre']
    e = _front(h)
    if boundary is None:
      hard = self.rows('hard')
      hard = _front(np.float32(self.io['boundaries_gt'] if hard is None else hard), 1.0)
      cut = Cut(hard > 0.5, hard, hard)
    else:
      uniform, logit_of = self.rows('uniform'), Supervised._logit
      uniform = None if uniform is None or (uniform == 0.5).all() else _front(uniform, 0.5)
      tapped = lambda part, e, script: logit_of(part, e, script) + _front(taps['boundary_logits'])
      with (
        mock.patch.object(Supervised, '_logit', tapped),
        mock.patch.object(Gumbel, '_uniform', lambda *given: uniform),
      ):
        cut = boundary(e, self.level, EVAL)
    cut = dataclasses.replace(cut, soft=cut.soft + _front(taps['soft']))
    segments = self.level.cut(cut.emit, self.rows('pooled_raw').shape[1])
    raw = _build('pool', 'mean(norm=none)', self.width, null=pool.null[...])(e, cut, segments)
    normed = pool(e, cut, segments) if taps.get('pooled_raw') is None else pool.norm(raw + taps['pooled_raw'])
    up = _build('unpool', 'repeat', self.width)(parameters['short_out'], cut, segments, None, None)[:, 1:]
    predicted = Predicted(_front(self.rows('logits')), None, None) if self.kind == 'entropy' else None
    loss = 0.0
    if self.kind in ('gumbel', 'unigram', 'entropy') and self.is_trained:
      loss = self.loss()(cut, self.level, predicted, EVAL)
    return {'cut': cut, 'raw': raw, 'normed': normed, 'up': up, 'loss': loss, 'valid': segments.inner.valid, 'h': h}

  def check(self) -> dict[str, Difference]:
    """Tensor -> difference."""
    model, found = self.weights, {}
    pool = _build(
      'pool', 'mean', self.width,
      **{'null': model['null_group'][0, 0], 'norm.scale': model['down_ln.weight'], 'norm.bias': model['down_ln.bias']},
    )  # fmt: skip
    parameters = {'boundary': self.boundary(), 'pool': pool, 'h_pre': self.h, 'short_out': self.rows('short_out')}
    zeros = np.zeros(self.h.shape[:2], np.float32)
    taps = {'boundary_logits': zeros, 'soft': zeros, 'pooled_raw': None}
    ours = jax.jit(self.run)(parameters, taps)
    cut, there = ours['cut'], np.asarray(ours['valid'])[..., None]
    compare = lambda name, values, how=absolute: self._put(found, name, values, self.rows(name), how)
    if 'logit' in cut.more:
      compare('boundary_logits', cut.more['logit'][:, 1:])
      compare('boundary_probs', cut.p[:, 1:])
      compare('soft', (cut.soft if self.kind == 'gumbel' else cut.p)[:, 1:])
    compare('hard', np.float32(cut.emit[:, 1:]), functools.partial(absolute, tolerance=0.0))
    for name, values in (('pooled_raw', ours['raw']), ('pooled_ln', ours['normed'])):
      self._put(found, name, np.where(there, values, 0), np.where(there, self.rows(name), 0), absolute)
    compare('upsampled', ours['up'])
    if self.kind == 'entropy':
      labels = spikes(
        entropies(_front(self.rows('logits')), self.level), self.level.segment_ids_BxC, self.options['spikes_left']
      )
      self._put(
        found, 'labels', labels[:, 1:], self.io.get('boundaries_gt'), functools.partial(absolute, tolerance=0.0)
      )
    if self.is_trained:
      self._losses(found, ours['loss'])
      self._gradients(found, parameters, taps)
    return found

  def _losses(self, found: dict, loss: Any) -> None:
    theirs = [self.io.get(f'{prefix}loss_boundary') for prefix in self.prefixes]
    if any(loss is None for loss in theirs):
      theirs = [self.io['loss_boundary']]
    found['loss_boundary'] = absolute(loss, np.mean(theirs))
    found['loss_total'] = absolute(self.io['loss_lm'][0] + loss, self.io['loss_total'][0])

  def _gradients(self, found: dict, parameters: dict, taps: dict) -> None:
    """Of the published total, by what it sends to the pooled rows and to the upsampled bytes."""
    of_rows = functools.partial(self.rows, of=self.grads, before='act.')
    to_pooled, to_bytes = of_rows('pooled_ln'), of_rows('upsampled')

    def objective(parameters, taps):
      ours = self.run(parameters, taps)
      through = jnp.sum(ours['normed'] * to_pooled) + jnp.sum((ours['up'] + ours['h']) * to_bytes)
      return through + ours['loss']

    of_parameters, of_taps = jax.jit(jax.grad(objective, (0, 1)))(parameters, taps)
    raw = {**taps, 'pooled_raw': np.zeros_like(to_pooled)}
    of_raw = jax.jit(jax.grad(lambda tap: objective(parameters, {**raw, 'pooled_raw': tap})))(raw['pooled_raw'])
    put = lambda name, values: self._put(found, f'act.{name}', values, of_rows(name), relative)
    if parameters['boundary'] is not None:
      put('boundary_logits', of_taps['boundary_logits'])
    if self.kind == 'gumbel':
      put('soft', of_taps['soft'])
      put('hard', of_taps['soft'])
    for name in ('h_pre', 'short_out'):
      put(name, of_parameters[name])
    put('pooled_raw', of_raw)
    theirs = {path: (name, self.grads[name].T) for path, name in self._predictors().items() if name in self.grads}
    self._put_leaves(found, of_parameters['boundary'], theirs)
    names = {'null': 'null_group', 'norm.scale': 'down_ln.weight', 'norm.bias': 'down_ln.bias'}
    self._put_leaves(
      found, of_parameters['pool'], {path: (name, self.grads[name].reshape(-1)) for path, name in names.items()}
    )

  @staticmethod
  def _put(found: dict, name: str, ours: Any, theirs: Any, how: Any) -> None:
    if theirs is not None:
      found[name] = how(ours, theirs)

  @staticmethod
  def _put_leaves(found: dict, ours: Any, theirs: dict[str, tuple[str, np.ndarray]]) -> None:
    leaves = {} if ours is None else flatten(ours)
    for path, (name, values) in theirs.items():
      found[name] = relative(leaves[path], values)
