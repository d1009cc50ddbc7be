"""Computes the entropies of an entropy model for all documents of a text, for the boundary `stored_entropy`.

  python -m studies.entropies --workdir=runs/quickstart_entropy_lm --out=runs/entropies
  python -m studies.entropies --workdir=runs/quickstart_entropy_lm --source=corpus:english_wiki --out=runs/entropies

Without --source, those that the entropy model's own run trains and validates on. Every symbol is predicted from at
least --context symbols of its document before it, where there are as many: by default as many as attention layers with
windows can see, or half a row of --seq_len.
"""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import text
import training
from hnet.parts import patchers
from layers.paths import flatten
from layers.stack import parse_layout
from text import command_line, entropies, paths
from text.rows import evaluation_batches


def digest_of(model: Any) -> str:
  """16 hex digits of its parameters."""
  content = hashlib.sha256()
  for path, leaf in sorted(flatten(model).items()):
    content.update(path.encode() + np.asarray(leaf).tobytes())
  return content.hexdigest()[:16]


def seen(model: Any) -> int | None:
  """Symbols before a position that attention layers with windows see of it, 0 or more; None where there is no end."""
  stack = model.config.stages[0].main
  layers = parse_layout(stack.layout)
  is_bounded = stack.window >= 0 and all(kind in 'tT' for kind, _ in layers)
  return stack.window * sum(count for _, count in layers) if is_bounded else None


def of_documents(
  model: Any, corpus: text.Corpus, *, seq_len: int, batch_size: int, context: int
) -> Iterator[tuple[bytes, np.ndarray]]:
  """(document, [bytes + 2] float32 nats) of every document, in order."""

  @jax.jit
  def one(model, batch):
    with jax.default_matmul_precision('highest'):  # as in the boundary
      return patchers.entropy(model(batch).logits)

  number, values = 0, np.zeros(int(corpus.lengths[0]) + 2, np.float32)
  for rows in evaluation_batches(corpus, seq_len=seq_len, batch_size=batch_size, context=context):
    entropy_BxL = np.asarray(one(model, rows.batch))
    place, row_before = 0, -1
    for row, document, start, stop, first in zip(*rows.pieces, strict=True):
      place, row_before = (place if row == row_before else 0), row
      while document != number:
        yield corpus[number], values
        number += 1
        values = np.zeros(int(corpus.lengths[number]) + 2, np.float32)
      fresh = first if start else 0  # BOS is context, and known only here
      values[fresh:stop] = entropy_BxL[row % batch_size, place + fresh - start : place + stop - start]
      place += stop - start
  yield corpus[number], values


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m studies.entropies', description=__doc__)
  parser.add_argument('--workdir', required=True, help='of an entropy model that train.py has trained')
  parser.add_argument('--out', required=True, help='a new directory')
  parser.add_argument('--source', action='append', help='text, as data.source of a config; may be given several times')
  parser.add_argument('--seq_len', type=int, default=2048, help='symbols of a row (%(default)s)')
  parser.add_argument('--batch_size', type=int, default=4, help='(%(default)s)')
  parser.add_argument('--context', type=int, help='symbols that a row repeats of the one before')
  flags = parser.parse_args(arguments)
  directory, out = paths.of(flags.workdir, '--workdir'), paths.of(flags.out, '--out')
  if out.exists():
    raise ValueError(f'--out={out} is there already: name a new directory')
  loaded = training.load(directory)
  if loaded.step is None or loaded.config['model']['family'] != 'hnet' or loaded.model.num_stages != 1:
    raise ValueError(f'--workdir={directory} holds no flat byte model: train configs/quickstart_entropy_lm.py there')
  data = loaded.config['data']
  texts = text.Texts.of(data['source'], data['validation'])
  if flags.source:
    corpora = [corpus for source in flags.source for corpus in text.Texts.of(source).open_training().corpora]
  else:
    corpora = [*texts.open_training().corpora, *texts.open_validation().values()]
  context = min(flags.seq_len - 1, seen(loaded.model) or flags.seq_len // 2) if flags.context is None else flags.context
  shape = {'seq_len': flags.seq_len, 'batch_size': flags.batch_size, 'context': max(context, 1)}
  found = (pair for corpus in corpora for pair in of_documents(loaded.model, corpus, **shape))
  about = {'workdir': str(directory), 'step': loaded.step, 'model': digest_of(loaded.model), **shape}
  partial = pathlib.Path(f'{out}.partial')
  documents, values = entropies.write(partial, found, about)
  partial.rename(out)
  print(f'{values:,} entropies of {documents:,} documents, model {about["model"]}: {out}')


if __name__ == '__main__':
  command_line.run(main)
