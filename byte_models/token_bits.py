"""Bits per byte that a token-level Llama needs for text files.

  python -m byte_models.token_bits --weights=SmolLM2-135M-Instruct.Q4_1.gguf lead.txt

--weights is a .gguf file, or a Hugging Face directory with tokenizer.json beside its weights. Each file is a document
of its own behind the token that begins texts (--begin=ID, by default the one that the weights name), so that every byte
counts. What the tokens spell must be the text, byte for byte (text/tokenizers/spelling.py). A document that is longer
than the longest context of the model (max_position_embeddings, or --seq_len) is scored in rows of that many tokens:
each row but the first repeats half a row (--context) of what came before, and every token is scored once. Needs the
libraries of requirements-gguf.txt.

--exact adds what the text costs as bytes, the sum over all tokens that could have begun it (byte_models/covers.py): no
more than its own tokens, which are one way to write it. The two differ at the end of a text, where a token might go on.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from byte_models import covers, gguf_file, llama
from text import paths, regular_file
from text.tokenizers import Stock, spelling

if TYPE_CHECKING:
  from tokenizers import Tokenizer


def nats(
  model: llama.Llama,
  tokens: Sequence[int],
  seq_len: int | None = None,
  context: int | None = None,
  name: str = 'the text',
) -> np.ndarray:
  """Of every token but the first, given those before it in its row: [N - 1] float32.

  Rows of seq_len tokens (None: the longest context of the model); those behind the first begin with `context` tokens
  (None: seq_len // 2) that were scored before. Fewer tokens are one row, computed as 2^k. Raises ValueError for rows
  longer than the model's context or shorter than 2, a context outside 1..seq_len - 1, and, naming the text, for a model
  that gives nan or inf.
  """
  seq_len, context = _rows(model.config, seq_len, context)
  if len(tokens) <= seq_len:
    return _row_nats(model, tokens, 1 << (len(tokens) - 1).bit_length(), name)
  found, done = [_row_nats(model, tokens[:seq_len], seq_len, name)], seq_len
  while done < len(tokens):
    row = tokens[done - context :][:seq_len]
    found.append(_row_nats(model, row, seq_len, name)[context - 1 :])
    done += len(row) - context
  return np.concatenate(found)


def _row_nats(model: llama.Llama, tokens: Sequence[int], length: int, name: str) -> np.ndarray:
  row = np.zeros((1, length), np.int32)
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


def _rows(config: llama.LlamaConfig, seq_len: int | None, context: int | None) -> tuple[int, int]:
  """Length and context of rows; see `nats`."""
  longest = config.max_position_embeddings
  seq_len = longest if seq_len is None else seq_len
  if not 2 <= seq_len <= longest:
    raise ValueError(f'--seq_len={seq_len}: rows have 2 to {longest} tokens, the longest context of the model.')
  context = seq_len // 2 if context is None else context
  if not 1 <= context < seq_len:
    raise ValueError(f'--context={context}: a row of {seq_len} tokens repeats 1 to {seq_len - 1}.')
  return seq_len, context


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
    tokenizer = spelling.read(file.read_bytes())
  except ImportError:
    raise ValueError('tokenizing needs the tokenizers library: pip install -r requirements-gguf.txt') from None
  except ValueError as error:
    raise ValueError(f'{file} {error}: copy it again.') from None
  return llama.from_pretrained(weights, scan=True), tokenizer


def source(model: llama.Llama, tokenizer: 'Tokenizer', begin: int | None = None) -> covers.TokenModel:
  """The model of `load` as a model of bytes. begin: None for the token that its weights name; they name its ends.

  Raises ValueError where there is no such token, and for a tokenizer that is not that of the weights.
  """
  begin, end = model.config.bos_token_id if begin is None else begin, model.config.eos_token_id
  end = () if end is None else (end,) if isinstance(end, int) else tuple(end)
  return covers.TokenModel(model, Stock(tokenizer.to_str().encode(), '--weights'), begin, end)


def main(arguments: Sequence[str]) -> None:
  """The command; ValueError or OSError with one sentence for a file that cannot be used."""
  parser = argparse.ArgumentParser(prog='python -m byte_models.token_bits', description=__doc__.splitlines()[0])
  parser.add_argument('--weights', required=True, help='a .gguf file or a Hugging Face directory')
  parser.add_argument('--begin', type=int, help='id of the token before every document')
  parser.add_argument('--seq_len', type=int, help='tokens of a row; default: the longest context of the model')
  parser.add_argument('--context', type=int, help='tokens that a row repeats where it goes on; default: half of it')
  parser.add_argument('--exact', action='store_true', help='also the bits of the bytes, whatever tokens write them')
  parser.add_argument('files', nargs='+')
  flags = parser.parse_args(arguments)
  documents = _texts(flags.files)
  model, tokenizer = load(flags.weights)
  begin = model.config.bos_token_id if flags.begin is None else flags.begin
  if begin is None or not 0 <= begin < model.config.vocab_size:
    raise ValueError(f'--begin={begin}: give the id of a token, from 0 to {model.config.vocab_size - 1}.')
  seq_len, context = _rows(model.config, flags.seq_len, flags.context)
  tokens = _tokens(documents, spelling.Speller(tokenizer), tokenizer, model.config.vocab_size, flags.weights)
  exactly = source(model, tokenizer, begin) if flags.exact else None
  all_bits = all_exact = all_bytes = 0
  for file, document in documents.items():
    size, count = len(document.encode()), len(tokens[file])
    if not size:
      print(f'{file}: 0 bytes')
      continue
    bits = float(nats(model, [begin, *tokens[file]], seq_len, context, file).sum(dtype=np.float64)) / math.log(2)
    rows = f' (in rows of {seq_len} tokens, {context} of them context)' if count + 1 > seq_len else ''
    exact = bits
    if exactly:
      if exactly.rules.encode(document.encode()) != tuple(tokens[file]):
        raise ValueError(f'{file}: --exact: its tokens begin with a space that is no byte of it: leave --exact out.')
      kept = None if count + 1 <= seq_len else context
      exact -= covers.Covers(exactly, document.encode(), tokens=kept).gain() / math.log(2)
    also = lambda n, b, e: f', exactly {e / n:.4f} ({b - e:.4f} bits less in all)' if exactly else ''
    print(f'{file}: {size} bytes, {count} tokens, {bits / size:.4f} bits per byte{also(size, bits, exact)}{rows}')
    all_bits, all_exact, all_bytes = all_bits + bits, all_exact + exact, all_bytes + size
  print(f'all: {all_bytes} bytes, {all_bits / all_bytes:.4f} bits per byte{also(all_bytes, all_bits, all_exact)}')


def _tokens(
  documents: dict[str, str], spell: spelling.Speller, tokenizer: 'Tokenizer', vocabulary: int, weights: str
) -> dict[str, list[int]]:
  """The tokens of every file. Raises ValueError where they are not its text, or not tokens of the model."""
  tokens = {}
  for file, document in documents.items():
    try:
      tokens[file] = spell(document) if document else []
    except ValueError as error:
      raise ValueError(
        f'{file}: the tokens are not the text byte for byte, since the tokenizer of {weights} {error}: score a text '
        'that it leaves as it is.'
      ) from None
    if (largest := max(tokens[file], default=0)) >= vocabulary:
      raise ValueError(
        f'{file}: the tokenizer of {weights} gives token {largest} ({tokenizer.id_to_token(largest)!r}), but the model '
        f'has {vocabulary} tokens: bring the tokenizer.json of these weights, or a text without that token.'
      )
  return tokens


def _texts(files: Sequence[str]) -> dict[str, str]:
  """The text of every file; one that is named twice, by whatever path, is there once, and is said to be."""
  found, names = {}, {}
  for file in files:
    text = _text(file)
    status = os.stat(file)
    identity = status.st_dev, status.st_ino
    if identity in names:
      print(f'{file} is {names[identity]}: it counts once', file=sys.stderr)
    else:
      names[identity], found[file] = file, text
  if not any(found.values()):
    raise ValueError(f'{", ".join(found)} {"is" if len(found) == 1 else "are"} empty: there are no bits per byte.')
  return found


def _text(file: str) -> str:
  regular_file.check(file, 'text file')
  try:
    return paths.of(file, 'the text file').read_bytes().decode()
  except UnicodeDecodeError as error:
    raise ValueError(f'{file} is not UTF-8 (byte {error.start}): a token model reads characters.') from None


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')
