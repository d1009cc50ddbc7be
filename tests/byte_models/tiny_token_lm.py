"""A tiny token model over a byte-level BPE of several scripts, which cuts at spaces and merges within."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

from tests.text import tiny_subwords

SIZES = {'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4}


def write(directory, vocabulary=300, text=tiny_subwords.TEXT, pattern=r' ?[^\s]+|\s+'):
  """Trains a BPE on the text, in pieces of the pattern (None: uncut), and writes its tokenizer.json; the directory."""
  from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

  tokenizer = Tokenizer(models.BPE())
  whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  cut = [pre_tokenizers.Split(Regex(pattern), 'isolated')] if pattern else []
  tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence([*cut, whole]), decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
  tokenizer.train_from_iterator([text.decode()], trainer)
  Path(directory).mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(Path(directory) / 'tokenizer.json'))
  return Path(directory)


@functools.cache
def tokenizer():
  """The directory of one that lasts as long as the process."""
  directory = tempfile.mkdtemp(prefix='tiny_token_lm-')
  atexit.register(shutil.rmtree, directory, True)
  return write(directory)


def branch(**changes):
  """A `model` branch."""
  units = f'tokens(file={tokenizer()})'
  return {'family': 'token_lm', 'units': units, **SIZES, 'num_key_value_heads': 2, 'bytes_per_chunk': (2.0,), **changes}


logits = jax.jit(lambda llama, tokens_L: llama(tokens_L[None], jnp.ones((1, len(tokens_L)), jnp.int32))[0])


def naive_nats(model, batch):
  """Document by document: the nats of every token, given those before it, at its last byte."""
  nats, size = np.zeros(batch.bytes.shape), model.config.llama.vocab_size
  for row, ids in enumerate(np.asarray(batch.segment_ids)):
    for number in range(1, ids.max() + 1):
      first = np.flatnonzero(ids == number)[0]
      at = np.flatnonzero((ids == number) & (batch.marks['units'][row] >= 0))
      tokens = batch.marks['units'][row, at]
      padded = np.zeros(len(ids), np.int32)  # one program for all
      padded[: len(tokens)] = tokens
      log_p = log_softmax(np.asarray(logits(model.llama, padded), np.float64)[: len(tokens) - 1], -1)
      nats[row, at] = np.append(np.log(size), -log_p[np.arange(len(tokens) - 1), tokens[1:]])
      nats[row, first] = 0.0
  return nats
