"""What a token model teaches a byte model about each byte of a text (Marathe et al., arXiv 2609.12303).

Inside a token of the text, behind its first j bytes, the model's distribution over tokens gives one over what comes
next: of the tokens that begin with these j bytes, each goes on with one byte or ends there. Forms:

end_of_token  the end is a symbol, END, and every token of the text is followed by it: the probabilities of tokens, cut
              into factors; before a token END is the end of the text
marginal      tokens that end there are left out: exact before a token, not inside it
exact         byte_models/covers.py, which do not depend on where the tokens of this text end
"""

import jax
import numpy as np

from byte_models.covers import Covers, TokenModel
from text.prefixes import END, Prefixes, bins

FORMS = ('end_of_token', 'exact', 'marginal')


def targets(source: TokenModel, document: bytes, form: str = 'marginal') -> tuple[np.ndarray, np.ndarray]:
  """(symbols [R] int16, p [R, 257] float32): what stands in the student's text, and what the teacher expected there.

  Symbols are bytes and, in 'end_of_token', END behind the bytes of every token. A document is read whole, behind the
  token that begins texts. Raises ValueError for another form, and a document that is longer than the model's context.
  """
  if form not in FORMS:
    raise ValueError(f'form {form!r}: give one of {", ".join(FORMS)}')
  if form == 'exact':
    covers, rows = Covers(source, b'', len(document)), []
    for at, byte in enumerate(document):
      rows.append(covers.next_bytes())
      if at + 1 < len(document):
        covers.advance(byte)
    return np.frombuffer(document, np.uint8).astype(np.int16), np.array(rows, np.float32).reshape(-1, 257)
  tokens, most = source.rules.encode(document), source.model.config.max_position_embeddings
  if len(tokens) > most:
    raise ValueError(f'a document of {len(tokens)} tokens is longer than the context of the teacher ({most}): cut it')
  row = np.zeros((1, 1 << len(tokens).bit_length()), np.int32)
  row[0, : 1 + len(tokens)] = source.begin, *tokens
  logits = np.asarray(_logits(source.model, row)[: len(tokens)])
  return of_tokens(source.table, source.tokenizer.vocabulary, logits, tokens, form == 'end_of_token')


def of_tokens(
  table: Prefixes, vocabulary: tuple[bytes, ...], logits_TxV: np.ndarray, tokens: tuple[int, ...], ends: bool
) -> tuple[np.ndarray, np.ndarray]:
  """`targets` from the logits in whose place the tokens of a text stand; ends: 'end_of_token', else 'marginal'."""
  symbols, rows = [], []
  for logits, token in zip(logits_TxV, tokens, strict=True):
    spelled, ordered = vocabulary[token], np.asarray(logits, np.float64)[table.ids]
    for at, symbol in enumerate([*spelled, END] if ends else spelled):
      node = table.at(spelled[:at])
      sums = bins(ordered[node.lo : node.hi], node)[1]
      sums[END] *= ends
      symbols.append(symbol)
      rows.append(sums / sums.sum())
  return np.array(symbols, np.int16), np.array(rows, np.float32).reshape(-1, 257)


_logits = jax.jit(lambda model, tokens_1xL: model(tokens_1xL, jax.numpy.ones_like(tokens_1xL))[0])
