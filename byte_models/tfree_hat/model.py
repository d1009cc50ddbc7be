"""T-Free-HAT: causal bytes, words pooled by a latent query, a causal backbone over words, and guided bytes again."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from byte_models.tfree_hat import decoding
from byte_models.tfree_hat.config import TFreeHATConfig
from byte_models.tfree_hat.decoder import Decoder
from byte_models.tfree_hat.words import Words, locate
from layers import contract, segments, stack
from layers.contract import EVAL, ByteModel, Context, ModelOutput, next_byte_nll
from layers.cross import LatentPool, guide_flops, guided, inject, pool_flops
from layers.linear import Linear, RMSNorm, normal
from layers.stack import Stack, height
from text import BOS, EOS, marks
from text.batch import Batch


class TFreeHAT(ByteModel):
  """T-Free-HAT (arXiv 2603.15953). D: width of bytes or of words, S: slots of a row's words."""

  def __init__(self, config: TFreeHATConfig, *, rngs: nnx.Rngs):
    self.config = config
    self.stored_dtypes: tuple[tuple[str, str], ...] = ()  # of an official file, for writing it back
    deviation = lambda part: 0.02 * height(part.layout) ** -0.5
    width = config.encoder.width
    self.embeddings = nnx.Param(normal(1.0)(rngs.params(), (256, width)))
    self.encoder = Stack(config.encoder, output_deviation=deviation(config.encoder), rngs=rngs)
    self.connector = LatentPool(config.pool, output_deviation=deviation(config.encoder), rngs=rngs)
    self.main = Stack(config.main, output_deviation=deviation(config.main), rngs=rngs)
    self.first_1x1xD = nnx.Param(normal(0.02)(rngs.params(), (1, 1, config.main.width)))
    self.decoder = Decoder(config, rngs=rngs)
    self.norm = RMSNorm(width, config.decoder.norm_epsilon)
    self.lm_head = Linear(width, 256, kernel_init=normal(0.02), rngs=rngs)

  def __call__(self, batch: Batch, *, context: Context = EVAL, capacities: Sequence[int] | None = None) -> ModelOutput:
    """Bits, logits and words of a batch; see `layers.contract.ModelOutput`."""
    del context
    words = self.locate(batch, *contract.checked_capacities(capacities, 1, batch.bytes.shape[1]))
    a_BxLxD = self.encode(batch)
    z_BxSxD = self.backbone(self.pool(a_BxLxD, words), words)
    y_BxLxD = self.decode(a_BxLxD, self.predictive(z_BxSxD, words), words, batch)
    logits = self.by_byte(self.head(y_BxLxD))
    count_B = words.inner.count_B
    return ModelOutput(
      nll=next_byte_nll(logits, batch),
      logits=logits,
      segmentations=(words.starts_BxC,),
      boundary_probabilities=(words.starts_BxC.astype(jnp.float32),),
      needed=(words.needed,),
      stage_metrics=(
        {
          'bytes_per_chunk': (jnp.sum(words.outer.count_B) / jnp.maximum(jnp.sum(count_B), 1)).astype(jnp.float32),
          'fill': (jnp.mean(count_B) / words.slot_BxM.shape[1]).astype(jnp.float32),
        },
      ),
    )

  @property
  def marks(self) -> dict[str, str]:
    """See `layers.contract.Model`."""
    return {'words': self.config.words}

  @property
  def alphabet(self) -> dict[str, int]:
    """The ids that stand for BOS and EOS."""
    return {'BOS': self.config.bos, 'EOS': self.config.eos}

  def locate(self, batch: Batch, capacity: int | None = None) -> Words:
    """Where the words of a batch are; eagerly the model splits a batch that does not say it."""
    starts = jnp.asarray(marks.mark(batch, self.marks).marks['words'])
    return locate(jnp.asarray(batch.bytes), jnp.asarray(batch.segment_ids), starts, self.config.delivery, capacity)

  def encode(self, batch: Batch) -> Array:
    """The encoder's residual stream at every byte: [B, L, D]."""
    return self.encoder(self.embed(batch.bytes), jnp.asarray(batch.segment_ids))

  def embed(self, bytes_: Array) -> Array:
    """Bytes (BOS and EOS by the ids that the model has for them) -> vectors [..., D]."""
    ids = jnp.asarray(bytes_).astype(jnp.int32)
    ids = jnp.where(ids == BOS, self.config.bos, jnp.where(ids == EOS, self.config.eos, ids))
    return self.embeddings[ids].astype(self.config.dtype)

  def pool(self, a_BxLxD: Array, words: Words) -> Array:
    """The vector of every word: [B, S, D], 0 in slots that are empty."""
    own_BxL = jnp.where(words.index_BxC < 0, words.slot_BxM.shape[1], words.index_BxC)
    return self.connector.pool(a_BxLxD, own_BxL, words)

  def backbone(self, g_BxSxD: Array, words: Words) -> Array:
    """Words -> what follows them, causally: [B, S, D]."""
    return self.main(g_BxSxD, words.inner.segment_ids_BxC)

  def predictive(self, z_BxSxD: Array, words: Words) -> Array:
    """What each word is predicted from: the output at the word before it, a learned vector for the first: [B, S, D]."""
    before = jnp.pad(z_BxSxD[:, :-1], ((0, 0), (1, 0), (0, 0)))
    first_BxSx1 = segments.starts(words.inner.segment_ids_BxC)[..., None]
    return jnp.where(first_BxSx1, self.first_1x1xD[...].astype(before.dtype), before)

  def decode(self, a_BxLxD: Array, p_BxSxD: Array, words: Words, batch: Batch) -> Array:
    """Bytes with what their words are predicted from -> the decoder's residual stream: [B, L, D]."""
    added = inject(guided(self.decoder.guides, p_BxSxD), words.delivered_BxL)
    return self.decoder.stack(a_BxLxD, jnp.asarray(batch.segment_ids), added)

  def head(self, y: Array) -> Array:
    """The decoder's residual stream -> logits over the published ids, float32: [..., 256]."""
    return self.lm_head(self.norm(y, y.dtype)).astype(jnp.float32)

  def by_byte(self, logits: Array) -> Array:
    """Logits over ids -> over bytes: the ids that begin and end a text change places with BOS and EOS."""
    order = list(range(256))
    for byte, id_ in ((BOS, self.config.bos), (EOS, self.config.eos)):
      where = order.index(id_)
      order[byte], order[where] = order[where], order[byte]
    return logits if order == list(range(256)) else logits[..., jnp.array(order)]

  def init_cache(self, batch_size: int, max_bytes: int) -> decoding.Cache:
    """Decoding caches for `batch_size` rows of at most `max_bytes` bytes, prompt and BOS included."""
    return decoding.init_cache(self, batch_size, max_bytes)

  def prefill(self, batch: Batch, length_B: Array, cache: decoding.Cache) -> tuple[Array, decoding.Cache]:
    """Reads right-padded prompts into a fresh cache; logits [B, 256] are for the byte after each row's last."""
    return decoding.prefill(self, batch.up_to(length_B), jnp.asarray(length_B), cache)

  def step(self, byte_B: Array, cache: decoding.Cache) -> tuple[Array, decoding.Cache]:
    """Reads one byte a row; logits [B, 256] are for the next. Words end as the splitter finds, row by row."""
    return decoding.step(self, jnp.asarray(byte_B), cache)

  def level_sizes(self, fresh: bool = False) -> tuple[float, ...]:
    """Bytes of a word, as stated."""
    del fresh
    return (self.config.bytes_per_word,)

  @property
  def num_stages(self) -> int:
    """Bytes and words."""
    return 2

  def stage_of(self, path: str) -> int:
    """1 for the backbone, 0 for everything at the level of bytes, connectors included."""
    return int(path.startswith('main.'))

  def paper_lr_multipliers(self) -> tuple[float, ...]:
    """A tenth for the backbone of another model."""
    return (1.0, 0.1)

  def decays(self, path: str, exempt: str = 'default') -> bool:
    """Whether weight decay applies: not to norms, nor to what is kept unused and would only fade."""
    del exempt
    return not (path.endswith('.scale') or '.unused.' in path)

  def flops_per_byte(self, length: int, bytes_per_chunk: Sequence[float] | None = None) -> dict[str, float]:
    """Component -> forward FLOPs a byte, documents of `length` bytes.

    bytes_per_chunk: one number, bytes of a word (None: those that the configuration states).
    """
    config = self.config
    sizes = (config.bytes_per_word,) if bytes_per_chunk is None else tuple(bytes_per_chunk)
    if len(sizes) != 1 or sizes[0] < 1:
      raise ValueError(f'bytes_per_chunk {sizes}: one number, at least 1: the bytes of a word.')
    rate = 1.0 / sizes[0]
    return {
      'encoder': stack.flops(config.encoder, 1.0, length),
      'pool': pool_flops(config.pool, 1.0, rate),
      'main': stack.flops(config.main, rate, length * rate),
      'guides': config.guided_layers * guide_flops(config.guide, rate),
      'decoder': stack.flops(config.decoder, 1.0, length),
      'lm_head': 2.0 * 256 * config.decoder.width,
    }
