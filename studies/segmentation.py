"""What runs, tokenizers and rules make of one text: how long pieces are, how evenly used, and whose words they cut.

  python -m studies.segmentation runs/chunkers/hnet tokenizers/bpe 'hat(max_bytes=64)' --source=corpus:english_wiki
  python -m studies.segmentation runs/chunkers/* --source=python_docs --parity=corpus:udhr --out=runs/segmentation

Each is a work directory (the chunks of its outermost stage), a directory or tokenizer.json of `text.tokenizers`, or a
splitter of text/words.py. The held-out text of --source is cut (--max_bytes of it), and its words one by one; what the
numbers are: docs/metrics.md. --gold=english_morphemes and the like compare boundaries with units that people marked.
--parity is a corpus whose parts are the same documents in several languages (udhr, multilingual_aligned).
"""

import collections
import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import text
import training
from evaluation import bits_per_byte, pieces, report
from evaluation.boundaries import chunk_starts, compared, unit_starts
from studies import kept
from text import command_line, gold, paths, tokenizers, words
from text.corpora import registry

WORDS = 'hat(max_bytes=64)'
FIRST = 'eng', 'en'  # the language that others are compared with, by the name of the part


@dataclasses.dataclass(frozen=True)
class Cutter:
  """starts(documents) says where pieces begin, bool [bytes] a document. vocabulary: types that there are, if known."""

  name: str
  starts: Callable[[Sequence[bytes]], list[np.ndarray]]
  vocabulary: int | None = None


def cutter(spec: str) -> Cutter:
  """Of a work directory, a tokenizer or a splitter; ValueError or OSError, in a sentence, for what is none."""
  if spec.partition('(')[0] in words.DEFAULTS:
    splitter = words.parse(spec)
    return Cutter(spec, lambda documents: [_begin(splitter(document), len(document)) for document in documents])
  path = paths.of(spec, 'what cuts')
  if (path / 'checkpoints').is_dir() or (path / 'config.json').is_file():
    return _of_run(path)
  tokenizer = tokenizers.load(path)
  sizes = np.array(list(map(len, tokenizer.vocabulary)))

  def starts(documents: Sequence[bytes]) -> list[np.ndarray]:
    return [_begin(np.cumsum(sizes[tokenizer.encode(document)]), len(document)) for document in documents]

  return Cutter(path.stem if path.suffix else path.name, starts, len(tokenizer.vocabulary))


def _of_run(path: pathlib.Path) -> Cutter:
  loaded = training.load(path)
  if not loaded.model.level_sizes():
    raise ValueError(f'{path} holds a model without chunks: there is nothing to compare')
  rows = training.config.parse(loaded.config).eval_rows if loaded.config else {'seq_len': 1024, 'batch_size': 8}

  def starts(documents: Sequence[bytes]) -> list[np.ndarray]:
    first_T = chunk_starts(loaded.model, documents, **rows)[0]
    return np.split(first_T, np.cumsum(list(map(len, documents)))[:-1])

  return Cutter(path.name, starts)


def _begin(ends: np.ndarray, length: int) -> np.ndarray:
  starts = np.zeros(length, bool)
  starts[np.concatenate([[0], np.asarray(ends, np.int64)[:-1]])[: max(length, 0)]] = True
  return starts


def of_text(cutters: Sequence[Cutter], documents: Sequence[bytes], splitter: str) -> list[dict[str, Any]]:
  """A row each: sizes, use of types, entropies at equally many pieces, words cut by themselves and in the text."""
  documents = [document for document in documents if document]
  split = words.parse(splitter)
  found = [[pieces.cut(d, s) for d, s in zip(documents, c.starts(documents), strict=True)] for c in cutters]
  least = min(sum(map(len, of_one)) for of_one in found)
  of_words = [pieces.cut(document, _begin(split(document), len(document))) for document in documents]
  counted = collections.Counter(word for document in of_words for word in document if any(map(_is_letter, word)))
  size, rows = sum(map(len, documents)), []
  for one, of_one in zip(cutters, found, strict=True):
    types = collections.Counter(piece for document in of_one for piece in document)
    alone = dict(zip(counted, (int(starts[1:].sum()) + 1 for starts in one.starts(list(counted))), strict=True))
    fertility, continued = pieces.fertility(counted, alone)
    entropies = pieces.conditional_entropies(of_one, least)
    rows.append(
      {
        'cut by': one.name,
        'bytes a piece': size / types.total(),
        'types': len(types),
        'of': '–' if one.vocabulary is None else f'{one.vocabulary:,}',
        'Rényi efficiency': pieces.efficiency(types.values()),
        'capacity used': pieces.efficiency(types.values(), 1),
        **{f'H{order}': '–' if h is None else f'{h:.2f}' for order, h in enumerate(entropies, 1)},
        'pieces a word': fertility,
        'words of several': continued,
        **_agreement(of_one, of_words),
      }
    )
  return rows


def _is_letter(byte: int) -> bool:
  return byte >= 0x80 or chr(byte).isalnum()


def _agreement(found: Sequence[Sequence[bytes]], true: Sequence[Sequence[bytes]]) -> dict[str, str]:
  """F1 of boundaries with those of units, and one byte behind, beside random ones; beginnings of documents left out."""
  lengths = [sum(map(len, document)) for document in true]
  chunk_T, unit_T = (np.concatenate([unit_starts(document) for document in of_all]) for of_all in (found, true))
  both = compared('', lengths, chunk_T, unit_T)
  show = lambda *values: ' / '.join('–' if value is None else f'{value:.2f}' for value in values)
  return {
    'F1 with units / at random': show(*(score.f1 for score in both)),
    'one byte on / at random': show(*(score.f1_1 for score in both)),
  }


def of_gold(cutters: Sequence[Cutter], documents: Sequence[bytes]) -> list[dict[str, Any]]:
  """A row each: agreement with the units of a gold corpus."""
  true = [gold.units(document) for document in documents if document]
  whole = [b''.join(units) for units in true]
  rows = []
  for one in cutters:
    found = [pieces.cut(document, starts) for document, starts in zip(whole, one.starts(whole), strict=True)]
    rows.append({'cut by': one.name, **_agreement(found, true)})
  return rows


def of_languages(cutters: Sequence[Cutter], parts: Mapping[str, Sequence[bytes]]) -> list[dict[str, Any]]:
  """A row each, that of UTF-8 first: how many pieces the same documents need in other languages than in the first."""
  reference = next(name for name in FIRST if name in parts)
  utf8 = Cutter('bytes', lambda documents: [np.ones(len(document), bool) for document in documents])
  rows = []
  for one in (utf8, *cutters):
    sizes = {name: [int(s[1:].sum()) + 1 for s in one.starts(list(part))] for name, part in parts.items()}
    both = {name: pieces.parity(counts, sizes[reference]) for name, counts in sizes.items() if name != reference}
    premiums = {name: premium for name, (_, premium) in both.items()}
    most, least = max(premiums, key=premiums.get), min(premiums, key=premiums.get)
    rows.append(
      {
        'cut by': one.name,
        'parity': sum(mean for mean, _ in both.values()) / len(both),
        'premium': sum(premiums.values()) / len(both),
        'most': f'{most} {premiums[most]:.2f}',
        'least': f'{least} {premiums[least]:.2f}',
        'Gini': pieces.gini([sum(counts) for counts in sizes.values()]),
      }
    )
  return rows


def _parts(name: str) -> dict[str, list[bytes]]:
  """The documents of every part of a corpus, which must be as many and have English among them."""
  spec = name.removeprefix('corpus:')
  _, parts = registry.find(spec)
  found = {part.name: list(text.open_corpus(f'corpus:{spec}/{part.name}', 'test')) for part in parts}
  if not set(FIRST) & set(found) or len({len(documents) for documents in found.values()}) != 1:
    raise ValueError(f'--parity={name} has no parts that are the same documents in English and others: use udhr')
  return found


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m studies.segmentation', description=__doc__)
  parser.add_argument('cutters', nargs='+', help='work directories, tokenizers, splitters')
  parser.add_argument('--source', default='python_docs', help='whose held-out text is cut (%(default)s)')
  parser.add_argument('--max_bytes', type=int, default=200_000, help='of it; 0: all (%(default)s)')
  parser.add_argument('--words', default=WORDS, help='the splitter whose words are counted (%(default)s)')
  parser.add_argument('--gold', action='append', default=[], help='a gold corpus; may be given several times')
  parser.add_argument('--parity', help='a corpus of the same documents in several languages, such as udhr')
  parser.add_argument('--out', help='a directory for segmentation.md and segmentation.json')
  flags = parser.parse_args(arguments)
  words.parse(flags.words)
  out = None if flags.out is None else paths.of(flags.out, '--out', text=True)
  corpus = bits_per_byte.first_bytes(text.open_corpus(flags.source, 'validation'), flags.max_bytes)[0]
  golds = {name: bits_per_byte.first_bytes(text.open_gold(name), flags.max_bytes)[0] for name in flags.gold}
  parts = _parts(flags.parity) if flags.parity else {}
  cutters = []
  for spec in flags.cutters:
    cutters.append(cutter(spec))
    print(f'cutting with {cutters[-1].name}', file=sys.stderr, flush=True)
  tables = {corpus.title(): of_text(cutters, list(corpus), flags.words)}
  tables |= {found.title(): of_gold(cutters, list(found)) for found in golds.values()}
  if parts:
    tables[f'{flags.parity}, {len(parts)} languages'] = of_languages(cutters, parts)
  command = shlex.join(['python', '-m', 'studies.segmentation', *arguments])
  page = '\n\n'.join([f'`{command}`', *(f'{title}\n\n{report.markdown(rows)}' for title, rows in tables.items())])
  print(page)
  if out is not None:
    out.mkdir(parents=True, exist_ok=True)
    report.write_json(out / 'segmentation.json', report.as_json({'command': command, 'tables': tables}))
    kept.write_page(out / 'segmentation.md', page)


if __name__ == '__main__':
  command_line.run(main)
