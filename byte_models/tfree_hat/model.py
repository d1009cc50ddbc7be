"""T-Free-HAT: causal bytes, words pooled by a latent query, a causal backbone over words, and guided bytes again."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from byte_models.tfree_hat.config import TFreeHATConfig
from byte_models.tfree_hat.decoder import Decoder
from byte_models.tfree_hat.decoding import RECENT, UNDO, Cache
from byte_models.tfree_hat.words import WordSegments, locate, unfinished
from layers import contract, objectives, segments, stack
from layers.contract import EVAL, ByteModel, Context, ModelOutput, next_byte_nll
from layers.cross import LatentPool, guide_flops, guided, inject, pool_flops
from layers.linear import Linear, RMSNorm, normal
from layers.stack import Stack, height
from text import BOS, EOS, marks
from text.batch import Batch
from text.marks import Read


class TFreeHAT(ByteModel):
  """T-Free-HAT (arXiv 2603.15953). D: width of bytes or of words, S: slots of a row's words."""

  emits = ('starts',)  # a word's vector comes with the first byte of the next

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
    self.objectives = objectives.build(config.objectives, width, 256, rngs=rngs)

  def __call__(self, batch: Batch, *, context: Context = EVAL, capacities: Sequence[int] | None = None) -> ModelOutput:
    """Bits, logits and words of a batch; see `layers.contract.ModelOutput`."""
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
      aux_losses=objectives.losses(self.objectives, self.norm(y_BxLxD, y_BxLxD.dtype), batch, self.embed, context),
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
  def labels(self) -> dict[str, str]:
    """Those of the objectives."""
    return objectives.labels(self.config.objectives)

  @property
  def alphabet(self) -> dict[str, int]:
    """The ids that stand for BOS and EOS."""
    return {'BOS': self.config.bos, 'EOS': self.config.eos}

  def locate(self, batch: Batch, capacity: int | None = None) -> WordSegments:
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

  def pool(self, a_BxLxD: Array, words: WordSegments) -> Array:
    """The vector of every word: [B, S, D], 0 in slots that are empty."""
    own_BxL = jnp.where(words.index_BxC < 0, words.slot_BxM.shape[1], words.index_BxC)
    return self.connector.pool(a_BxLxD, own_BxL, words)

  def backbone(self, g_BxSxD: Array, words: WordSegments) -> Array:
    """Words -> what follows them, causally: [B, S, D]."""
    return self.main(g_BxSxD, words.inner.segment_ids_BxC)

  def predictive(self, z_BxSxD: Array, words: WordSegments) -> Array:
    """What each word is predicted from: the output at the word before it, a learned vector for the first: [B, S, D]."""
    before = jnp.pad(z_BxSxD[:, :-1], ((0, 0), (1, 0), (0, 0)))
    first_BxSx1 = segments.starts(words.inner.segment_ids_BxC)[..., None]
    return jnp.where(first_BxSx1, self.first_1x1xD[...].astype(before.dtype), before)

  def decode(self, a_BxLxD: Array, p_BxSxD: Array, words: WordSegments, batch: Batch) -> Array:
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

  def init_cache(self, batch_size: int, max_bytes: int) -> Cache:
    """Decoding caches for `batch_size` rows of at most `max_bytes` bytes, prompt and BOS included."""
    config, zeros = self.config, lambda: jnp.zeros(batch_size, jnp.int32)  # each its own, to be donated
    dtype = jnp.dtype(config.dtype)
    first_BxD = jnp.broadcast_to(self.first_1x1xD[0].astype(dtype), (batch_size, config.main.width))
    return Cache(
      encoder=self.encoder.init_cache(batch_size, max_bytes),
      decoder=self.decoder.stack.init_cache(batch_size, max_bytes, undo=UNDO),
      main=self.main.init_cache(batch_size, max_bytes),
      text=Read.nothing(self.marks, batch_size, max_bytes),
      decided_B=zeros(),
      recent_BxRxD=jnp.zeros((batch_size, RECENT, config.encoder.width), dtype),
      word_B=zeros() - 1,
      pooled=self.connector.begin(batch_size),
      guide_BxGxD=guided(self.decoder.guides, first_BxD),
    )

  def prefill(self, batch: Batch, length_B: Array, cache: Cache) -> tuple[Array, Cache]:
    """Reads right-padded prompts into a fresh cache; logits [B, 256] are for the byte after each row's last.

    The parallel form up to each row's last word, which stays open; a prompt may be one word.
    """
    batch, length_B = batch.up_to(length_B), jnp.asarray(length_B)
    starts_BxP = jnp.asarray(marks.mark(batch, self.marks).marks['words'])
    segment_ids_BxP, index_1xP = batch.segment_ids, jnp.arange(batch.bytes.shape[1], dtype=jnp.int32)[None]
    bytes_BxP = jnp.where(segment_ids_BxP > 0, jnp.asarray(batch.bytes), 0).astype(jnp.uint8)
    last_B = length_B[:, None] - 1
    decided_B = length_B - jnp.take_along_axis(unfinished(bytes_BxP, segment_ids_BxP), last_B, 1)[:, 0]
    words = locate(bytes_BxP, segment_ids_BxP, starts_BxP & (index_1xP < decided_B[:, None]), self.config.delivery)
    a_BxPxD, encoder = self.encoder.prefill(self.embed(bytes_BxP), length_B, cache.encoder)
    word_B = words.inner.count_B - 1
    z_BxSxD, main = self.main.prefill(self.pool(a_BxPxD, words), word_B, cache.main)
    table_BxSxGxD = guided(self.decoder.guides, self.predictive(z_BxSxD, words))
    added = inject(table_BxSxGxD, words.delivered_BxL)
    y_BxPxD, decoder = self.decoder.stack.prefill(a_BxPxD, length_B, cache.decoder, added)
    recent_BxR = jnp.maximum(length_B[:, None] - RECENT + jnp.arange(RECENT)[None], 0)
    is_decided = decided_B > 0  # a row that begins with an unfinished character has no word yet
    cache = Cache(
      encoder=encoder,
      decoder=decoder,
      main=main,
      text=cache.text.prompts(bytes_BxP, length_B),
      decided_B=decided_B.astype(jnp.int32),
      recent_BxRxD=jnp.take_along_axis(a_BxPxD, recent_BxR[..., None], 1),
      word_B=jnp.where(is_decided, word_B, -1).astype(jnp.int32),
      pooled=self.connector.read_all(
        a_BxPxD, (words.index_BxC == word_B[:, None]) & (index_1xP < decided_B[:, None]), word_B
      ),
      guide_BxGxD=jnp.take_along_axis(table_BxSxGxD, word_B[:, None, None, None], 1)[:, 0],
    )
    return self._decoded(jnp.take_along_axis(y_BxPxD, last_B[..., None], 1)[:, 0], cache), cache

  def step(self, byte_B: Array, cache: Cache) -> tuple[Array, Cache]:
    """Reads one byte a row; logits [B, 256] are for the next. Words end as the splitter finds, row by row."""
    byte_B = jnp.asarray(byte_B)
    every_B = jnp.ones(byte_B.shape, bool)
    a_BxD, encoder = self.encoder.step(self.embed(byte_B), every_B, cache.encoder)
    marked, text = cache.text.then(self.marks, byte_B, RECENT)
    length_B = text.length_B
    position_BxR = length_B[:, None] - RECENT + jnp.arange(RECENT)[None]
    recent_bytes = jnp.take_along_axis(text.bytes_BxN, jnp.maximum(position_BxR, 0), 1)
    decided_B = length_B - unfinished(recent_bytes, (position_BxR >= 0).astype(jnp.int32))[:, -1]
    decides_BxR = (position_BxR >= cache.decided_B[:, None]) & (position_BxR < decided_B[:, None])
    starts_BxR = marked['words'] & decides_BxR
    cache = dataclasses.replace(
      cache,
      encoder=encoder,
      text=text,
      decided_B=decided_B,
      recent_BxRxD=jnp.concatenate([cache.recent_BxRxD[:, 1:], a_BxD[:, None]], 1),
    )
    again_BxR = jnp.zeros_like(starts_BxR)
    if self.config.delivery == 'published':
      again_BxR = (jnp.cumsum(starts_BxR, 1) > 0).at[:, -1].set(False)
      taken_back = lambda block: dataclasses.replace(block, length_B=block.length_B - jnp.sum(again_BxR, 1))
      cache = dataclasses.replace(cache, decoder=tuple(taken_back(block) for block in cache.decoder))
    decide = functools.partial(self._decide, position_BxR, decides_BxR, starts_BxR, again_BxR)
    is_last_1xR = jnp.arange(RECENT)[None] == RECENT - 1
    first = jnp.min(jnp.argmax(decides_BxR | is_last_1xR, 1))  # mostly the last: one round
    cache = jax.lax.fori_loop(first, RECENT, decide, cache)
    y_BxD, decoder = self.decoder.stack.step(a_BxD, every_B, cache.decoder, inject(cache.guide_BxGxD))
    cache = dataclasses.replace(cache, decoder=decoder)
    return self._decoded(y_BxD, cache), cache

  def _decide(
    self,
    position_BxR: Array,
    decides_BxR: Array,
    starts_BxR: Array,
    again_BxR: Array,
    r: Array,
    cache: Cache,
  ) -> Cache:
    """The r-th recent position: it may end the open word, it joins the open word, the decoder may read it again."""
    at = lambda x_BxR: jax.lax.dynamic_index_in_dim(x_BxR, r, 1, keepdims=False)
    a_BxD, starts_B, decides_B, again_B = at(cache.recent_BxRxD), at(starts_BxR), at(decides_BxR), at(again_BxR)

    def end_words(state):
      main, guide_BxGxD = state
      ends_B = starts_B & (cache.word_B >= 0)
      z_BxD, main = self.main.step(self.connector.finish(cache.pooled, a_BxD.dtype), ends_B, main)
      p_BxD = jnp.where(ends_B[:, None], z_BxD, self.first_1x1xD[0].astype(z_BxD.dtype))
      return main, jnp.where(starts_B[:, None, None], guided(self.decoder.guides, p_BxD), guide_BxGxD)

    main, guide_BxGxD = jax.lax.cond(jnp.any(starts_B), end_words, lambda state: state, (cache.main, cache.guide_BxGxD))
    word_B = cache.word_B + starts_B
    pooled = self.connector.begin_where(starts_B, cache.pooled)
    pooled = self.connector.read(a_BxD, at(position_BxR), word_B, decides_B, pooled)
    cache = dataclasses.replace(cache, main=main, guide_BxGxD=guide_BxGxD, word_B=word_B, pooled=pooled)
    if self.config.delivery != 'published':
      return cache
    read = lambda decoder: self.decoder.stack.step(a_BxD, again_B, decoder, inject(cache.guide_BxGxD))[1]
    decoder = jax.lax.cond(jnp.any(again_B), read, lambda decoder: decoder, cache.decoder)
    return dataclasses.replace(cache, decoder=decoder)

  def _decoded(self, y_BxD: Array, cache: Cache) -> Array:
    """Over bytes; nan for a row that is longer than its cache, whose words nobody knows."""
    fits_B = cache.text.length_B <= cache.text.bytes_BxN.shape[1]
    return jnp.where(fits_B[:, None], self.by_byte(self.head(y_BxD)), jnp.nan)

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
    """Whether weight decay applies: not to norms."""
    del exempt
    return not path.endswith('.scale')

  def trains(self, path: str) -> bool:
    """Not what is kept for the published file and never used."""
    return '.unused.' not in path

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
