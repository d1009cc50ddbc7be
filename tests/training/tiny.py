"""A byte model of a few hundred parameters that obeys the model contract, and a config for it; also a --config file."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx

import byte_models
from layers import checks
from layers.contract import EVAL, ByteModel, ModelOutput, next_byte_nll
from text import units


@dataclasses.dataclass(frozen=True)
class TinyConfig:
  family: str = 'tiny'
  width: int = 8
  dropout: float = 0.1
  poison: tuple[float, ...] = ()  # the loss is nan while the progress lies between these two
  poison_byte: int = -1  # the loss of a batch with this byte is nan
  words: str | None = None  # a splitter, whose words are then the chunks
  units: str | None = None  # of these words; they fill the batch, and change nothing


class Tiny(ByteModel):
  num_stages = 2
  emits = ('starts',)

  def __init__(self, config: TinyConfig, *, rngs: nnx.Rngs):
    self.config = config
    self.embeddings = nnx.Embed(256, config.width, rngs=rngs)
    self.inner = nnx.List([nnx.Linear(2 * config.width, config.width, rngs=rngs)])
    self.head = nnx.Linear(config.width, 256, rngs=rngs)

  def level_sizes(self, fresh=False):
    return ()

  def __call__(self, batch, *, context=EVAL, capacities=None):
    x = self.embeddings(jnp.asarray(batch.bytes, jnp.int32))
    before = jnp.where(batch.scored[..., None], jnp.roll(x, 1, axis=1), 0.0)
    x = jnp.tanh(self.inner[0](jnp.concatenate([x, before], -1)))
    if context.rng is not None:
      x = jnp.where(jax.random.bernoulli(context.rng, self.config.dropout, x.shape), 0.0, x)
    logits = self.head(x)
    nll = next_byte_nll(logits, batch)
    if self.config.poison:
      first, last = self.config.poison
      nll = jnp.where((context.progress >= first) & (context.progress < last), jnp.nan, nll)
    if self.config.poison_byte >= 0:
      nll = jnp.where(jnp.any(batch.bytes == self.config.poison_byte), jnp.nan, nll)
    starts = batch.marks['words'] if 'words' in self.marks else batch.bytes == ord(' ')
    aux = jnp.mean(jnp.square(x))
    metrics, of_stage = {'activity': aux}, {'bytes_per_chunk': jnp.float32(4.0)}
    return ModelOutput(nll, logits, (starts,), (starts * 1.0,), (), {'ratio': aux}, metrics, (of_stage,))

  @property
  def marks(self):
    given = {'words': self.config.words, 'units': self.config.units}
    return {name: spec for name, spec in given.items() if spec is not None}

  @property
  def alphabet(self):
    file = units.file_of(self.config.units) if self.config.units else None
    return {'units': f'subword(digest={file[1]})'} if file else {}

  def stage_of(self, path):
    return int(path.startswith('inner.'))

  def lr_multipliers(self, spec):
    return (1.0, 1.0) if spec is None else (2.0, 0.5) if spec == 'paper' else tuple(spec)

  def decays(self, path, exempt):
    return not path.endswith('.bias') or exempt == 'official'

  def flops_per_byte(self, length, bytes_per_chunk):
    return {'embeddings': 0.0, 'inner': 4.0 * self.config.width**2, 'head': 512.0 * self.config.width}


class Family:
  @staticmethod
  def complete(branch):
    return checks.filled(branch, dataclasses.asdict(TinyConfig()))

  @staticmethod
  def parse(branch):
    checks.known(branch, dataclasses.asdict(TinyConfig()), 'model')
    if branch.get('units'):
      units.parse(branch['units'])  # as the families do that are spelled with them
    return TinyConfig(**{key: tuple(value) if isinstance(value, list) else value for key, value in branch.items()})

  @staticmethod
  def build(config, *, rngs):
    return Tiny(config, rngs=rngs)

  @staticmethod
  def backbone(config):
    del config  # there is none


byte_models.families['tiny'] = Family


def get_config(source: str = 'python_docs') -> ml_collections.ConfigDict:
  """20 steps over the files of `source` (a glob) or Python's own documentation."""
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'num_steps': 20,
      'batch_size': 8,
      'seq_len': 32,
      'init_from': '',
      'loss_weights': {'ratio': 0.03},
      'data': {'source': source, 'validation': '', 'workers': 0, 'prefetch': 2},
      'model': {'family': 'tiny', 'width': 8, 'poison_byte': -1},
      'optimizer': {
        'name': 'adamw',
        'learning_rate': 1e-2,
        'schedule': {'name': 'wsd', 'warmup': 0.1, 'decay': 0.2, 'final': 0.0},
        'weight_decay': 0.1,
        'decay_exempt': 'default',
        'betas': (0.9, 0.95),
        'eps': 1e-8,
        'clip_norm': 1.0,
        'lr_multipliers': None,
        'accumulate': 1,
        'ema': 0.0,
      },
      'mesh': {'shape': (-1,)},
      'checkpoint': {'every_steps': 5, 'keep_latest': 2, 'keep_best': 1, 'rollbacks': 0},
      'eval': {'every_steps': 10, 'max_bytes': 2000},
      'log': {'every_steps': 1},
    }
  )
