"""A byte-level BPE for `subword` units: `python -m text.subwords --source=... --out=FILE`.

It is trained on the words of a source's training split, no unit reaching over the end of a word, and written as the
tokenizer.json of the `tokenizers` library. The same text, splitter and size give the same file. Bytes come first in its
numbering, then units in the order in which they were found.
"""

import os
from collections.abc import Iterable
from typing import Any

from text import command_line, paths, sources, units, words


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m text.subwords', description=__doc__)
  parser.add_argument('--source', help='as data.source in a config: python_docs, files:GLOB#field, prepared:DIR, ...')
  parser.add_argument('--words', default='hat(max_bytes=64)', help='the splitter of the model, see text/words.py')
  parser.add_argument('--vocabulary', type=int, default=4096, help='units in all, the 256 bytes among them')
  parser.add_argument('--out', help='the file, which must not be there')
  flags = parser.parse_args(arguments)
  if not flags.source or flags.out is None:
    raise ValueError('--source and --out are needed: `python -m text.subwords --help` lists the flags')
  out = paths.of(flags.out, '--out')
  if out.exists():
    raise FileExistsError(f"--out '{out}' is there already and stays as it is: name another file, or remove it")
  if not out.parent.is_dir():
    raise FileNotFoundError(f"--out '{out}': there is no directory '{out.parent}': make it first")
  splitter = words.parse(flags.words)
  corpus = sources.open_corpus(flags.source, 'train')
  tokenizer = train(corpus, splitter, flags.vocabulary)
  partial = out.with_name(f'{out.name}.part{os.getpid()}')
  partial.write_text(tokenizer.to_str(pretty=True), encoding='utf-8')  # its own `save` takes no name that is not UTF-8
  os.replace(partial, out)
  print(f'trained on {corpus.title()}')
  print(f"{out}: {flags.vocabulary:,} units; model.units = '{units.parse(f'subword(file={out})').name}'")


def train(documents: Iterable[bytes], splitter: words.Splitter, vocabulary: int) -> Any:
  """A `tokenizers.Tokenizer` of `vocabulary` units, 256 of them the bytes, for the words of documents.

  Raises ValueError for fewer than 257 units, and if the words do not have as many that occur twice.
  """
  if vocabulary < 257:
    raise ValueError(f'vocabulary={vocabulary} must be at least 257: the 256 bytes, and one unit more')
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

  def spelled():
    for document in documents:  # the alphabet of bytes has no space, so that one can stand between words
      ends = splitter(document).tolist()
      parts = (part for start, end in zip([0, *ends], ends, strict=False) for part in units.parts(document[start:end]))
      yield ' '.join(map(units.written, parts))

  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Split(' ', 'removed')
  trainer = trainers.BpeTrainer(
    vocab_size=vocabulary, min_frequency=2, initial_alphabet=units.alphabet(), show_progress=False
  )
  tokenizer.train_from_iterator(spelled(), trainer)
  if (found := tokenizer.get_vocab_size()) < vocabulary:
    raise ValueError(f'vocabulary={vocabulary}: the words have only {found} units that occur twice: ask for fewer')
  # Read by other programs it cuts no words, since their splitter is ours.
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  tokenizer.decoder = decoders.ByteLevel()
  return tokenizer


if __name__ == '__main__':
  command_line.run(main)
