"""Bits per byte that a token-level Llama needs for text files.

  python -m byte_models.token_bits --weights=SmolLM2-135M-Instruct.Q4_1.gguf lead.txt

--weights is a .gguf file, or a Hugging Face directory with tokenizer.json beside its weights. Each file is a document
of its own behind the token that begins texts (--begin=ID, by default the one that the weights name), so that every byte
counts. Needs the libraries of requirements-gguf.txt.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from byte_models import gguf_file, llama
from text import paths, regular_file

if TYPE_CHECKING:
  from tokenizers import Tokenizer


def nats(model: llama.Llama, tokens: Sequence[int], name: str = 'the text') -> np.ndarray:
  """Of every token but the first, given those before it: [N - 1] float32; computed in rows of 2^k tokens.

  Raises ValueError, which names the text, for a model that gives nan or inf.
  """
  row = np.zeros((1, 1 << (len(tokens) - 1).bit_length()), np.int32)
  row[0, : len(tokens)] = tokens
  found = np.asarray(_nats(model, row))[: len(tokens) - 1]
  if len(bad := np.flatnonzero(~np.isfinite(found))):
    raise ValueError(
      f'{name}: token {bad[0]} has {found[bad[0]]} nats, so weights or activations hold nan or inf: use other weights'
    )
  return found


@jax.jit
def _nats(model: llama.Llama, tokens_1xL: jax.Array) -> jax.Array:
  logits = model(tokens_1xL, jnp.ones_like(tokens_1xL))[0, :-1]
  return jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, tokens_1xL[0, 1:, None], -1)[:, 0]


def load(weights: str) -> tuple[llama.Llama, 'Tokenizer']:
  """The model and tokenizer of --weights; ValueError or FileNotFoundError if one is not there."""
  weights = paths.expanded(weights, '--weights')
  if weights.endswith('.gguf'):
    return llama.from_gguf(weights, scan=True), gguf_file.tokenizer(weights)
  file = Path(weights) / 'tokenizer.json'
  regular_file.check(file, 'tokenizer file')
  if not file.is_file():
    raise FileNotFoundError(f'{file} is missing: --weights is a .gguf file or a directory with its tokenizer.json.')
  try:
    from tokenizers import Tokenizer
  except ImportError:
    raise ValueError('tokenizing needs the tokenizers library: pip install -r requirements-gguf.txt') from None
  return llama.from_pretrained(weights, scan=True), Tokenizer.from_file(str(file))


def main(arguments: Sequence[str]) -> None:
  """The command; ValueError or OSError with one sentence for a file that cannot be used."""
  parser = argparse.ArgumentParser(prog='python -m byte_models.token_bits', description=__doc__.splitlines()[0])
  parser.add_argument('--weights', required=True, help='a .gguf file or a Hugging Face directory')
  parser.add_argument('--begin', type=int, help='id of the token before every document')
  parser.add_argument('files', nargs='+')
  flags = parser.parse_args(arguments)
  documents = {file: _text(file) for file in flags.files}
  model, tokenizer = load(flags.weights)
  begin = model.config.bos_token_id if flags.begin is None else flags.begin
  if begin is None or not 0 <= begin < model.config.vocab_size:
    raise ValueError(f'--begin={begin}: give the id of a token, from 0 to {model.config.vocab_size - 1}.')
  all_bits = all_bytes = 0
  for file, document in documents.items():
    tokens = tokenizer.encode(document, add_special_tokens=False).ids
    bits = float(nats(model, [begin, *tokens], file).sum()) / math.log(2)
    size = len(document.encode())
    print(f'{file}: {size} bytes, {len(tokens)} tokens, {bits / size:.4f} bits per byte')
    all_bits, all_bytes = all_bits + bits, all_bytes + size
  print(f'all: {all_bytes} bytes, {all_bits / all_bytes:.4f} bits per byte')


def _text(file: str) -> str:
  regular_file.check(file, 'text file')
  try:
    text = paths.of(file, 'the text file').read_bytes().decode()
  except UnicodeDecodeError as error:
    raise ValueError(f'{file} is not UTF-8 (byte {error.start}): a token model reads characters.') from None
  if not text:
    raise ValueError(f'{file} is empty: it has no bits per byte.')
  return text


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')
