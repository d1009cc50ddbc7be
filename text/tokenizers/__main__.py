"""Tokenizers: `python -m text.tokenizers train NAME --source=... --vocab_size=... --out=DIR`.

  python -m text.tokenizers train bpe --source=python_docs --vocab_size=8192 --out=tokenizers/bpe
  python -m text.tokenizers train 'picky(threshold=0.8)' --source=python_docs --vocab_size=8192 --out=tokenizers/picky
  python -m text.tokenizers show tokenizers/picky --source=python_docs

`train` takes a kind of tokenizer with its arguments, the training split of a source, and writes DIR with a
tokenizer.json, or rules.json for a kind that none can express, and card.json: what it was trained on, and its bytes per
token on the held-out text. `show` prints those of any tokenizer.json, and the tokens of its first bytes.
"""

from text import command_line, paths, sources
from text.corpus import Corpus
from text.tokenizers import loading, training


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m text.tokenizers', description=__doc__)
  commands = parser.add_subparsers(dest='command', required=True, parser_class=command_line.Parser)
  train = commands.add_parser('train', description=__doc__)
  train.add_argument('kind', help=', '.join(training.KINDS))
  train.add_argument('--vocab_size', type=int, required=True, help='ids in all: 256 bytes, tokens, special tokens')
  train.add_argument('--out', required=True, help='the directory, which must not be there')
  train.add_argument('--special_tokens', default='', help='names with commas between them; the last ids')
  show = commands.add_parser('show', description=__doc__)
  show.add_argument('tokenizer', help='a directory, or a tokenizer.json')
  for command in (train, show):
    command.add_argument('--source', required=True, help='as data.source in a config: corpus:NAME, files:GLOB, ...')
    command.add_argument('--held_out', default='', help='another source to count bytes per token on')
    command.add_argument('--max_bytes', type=int, default=0, help='of the source, 0 = all; for kinds that take long')
  flags = parser.parse_args(arguments)
  (_train if flags.command == 'train' else _show)(flags)


def _train(flags) -> None:
  out = paths.of(flags.out, '--out')
  if out.exists():
    raise FileExistsError(f"--out '{out}' is there already and stays as it is: name another directory, or remove it")
  if not out.parent.is_dir():
    raise FileNotFoundError(f"--out '{out}': there is no directory '{out.parent}': make it first")
  corpus = first(sources.open_corpus(flags.source, 'train'), flags.max_bytes)
  special = [name for name in flags.special_tokens.split(',') if name]
  file, content = training.train(flags.kind, corpus, flags.vocab_size, special)
  card = training.write(out, flags.kind, file, content, corpus, _held_out(flags))
  print(f'trained on {corpus.title()}')
  print(f'{out / file}: {card["specification"]}, {card["vocab_size"]:,} ids, {_sentence(card["held_out"])}')
  print(f'opens with {card["opens_with"]}')


def _show(flags) -> None:
  tokenizer = loading.load(flags.tokenizer)
  documents = _held_out(flags)
  print(f'{tokenizer}: {_sentence(training.measured(tokenizer, documents))}')
  if len(documents):
    ids = tokenizer.encode(documents[0][:400]).tolist()
    print(' '.join(repr(tokenizer.decode([index]))[1:] for index in ids))


def first(corpus: Corpus, max_bytes: int) -> Corpus:
  """The first documents of a corpus, up to so many bytes, but one at least; 0 = all."""
  from text.corpus import MemoryCorpus

  if not max_bytes or corpus.lengths.sum() <= max_bytes:
    return corpus
  count = max(1, int((corpus.lengths.cumsum() <= max_bytes).sum()))
  return MemoryCorpus([corpus[index] for index in range(count)], f'{corpus.name} (the first {max_bytes:,} bytes)')


def _held_out(flags) -> Corpus:
  return first(sources.open_corpus(flags.held_out or flags.source, 'validation'), flags.max_bytes)


def _sentence(counts: dict) -> str:
  return f'{counts["bytes_per_token"]} bytes per token on {counts["bytes"]:,} held-out bytes'


if __name__ == '__main__':
  command_line.run(main)
