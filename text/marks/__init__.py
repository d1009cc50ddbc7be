"""Marks: what the host knows of every byte of a batch beside its value, by name and by a rule.

A model states the marks that it reads in its attribute `marks`, name -> specification, such as
{'words': 'hat(max_bytes=64)', 'units': 'char(limit=0x3000)'}; {} where bytes are all that it reads. The specification
names a kind of KINDS: a new kind is a class and a line there, and nothing else in this code knows of it.

kind                              what stands at a byte
hat, whitespace, uax29, fixed     bool: a word begins here, by a splitter of `text.words`
byte, char, subword               int32: the unit of `text.units` whose last byte this is, -1 at the others of it; the
                                  units are parts of the words that the mark 'words' of the same model shows
tokens                            int32: the token of a tokenizer whose last byte this is, -1 at the others of it, see
                                  `Tokens`
script, only_scripts              int8: the script of the character here, see `Script`
ended                             bool: with this byte it is known that a word has ended before it, see `Ended`
levels                            int8: the level of what ends here by AU-Net's rules, see `Levels`
regex                             bool: a match of a regular expression ends or begins here, see `Regex`
pieces                            bool: a piece of a subword tokenizer ends here, see `Pieces`
entropy                           float32: nats of what follows here, by a model that has read the document before, from
                                  a directory of `text.entropies`

BOS and EOS are words and units of their own, and so are the first symbols of rows that continue a document.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping

import jax
import numpy as np

from text import units as units_lib
from text import words as words_lib
from text.batch import Batch
from text.marks.entropy import Entropy
from text.marks.kind import KINDS, Document, Kind, Specs, check_kinds, parse
from text.marks.reading import Read
from text.marks.rules import Ended, Levels, Regex
from text.marks.script import SCRIPTS, OnlyScripts, Script, characters, scripts
from text.marks.tokens import PAID, Tokens
from text.marks.words import Pieces, Units, Words

__all__ = [
  'KINDS', 'PAID', 'SCRIPTS', 'Document', 'Ended', 'Entropy', 'Kind', 'Levels', 'OnlyScripts', 'Pieces', 'Read',
  'Regex', 'Script', 'Specs', 'Tokens', 'Units', 'Words', 'characters', 'check_kinds', 'mark', 'of_pieces', 'parse',
  'scripts',
]  # fmt: skip

KINDS |= {
  **dict.fromkeys(words_lib.DEFAULTS, Words),
  **dict.fromkeys(units_lib.ARGUMENTS, Units),
  'ended': Ended,
  'levels': Levels,
  'regex': Regex,
  'entropy': Entropy,
  'only_scripts': OnlyScripts,
  'pieces': Pieces,
  'script': Script,
  'tokens': Tokens,
}


def mark(batch: Batch, specs: Specs) -> Batch:
  """The batch with these marks, numpy where they are made here; those that it has stay.

  Every segment is a document of its own, or a piece that has no BOS or EOS. Raises ValueError for a batch that lacks
  some while it is being traced.
  """
  missing = {name: spec for name, spec in specs.items() if name not in batch.marks}
  if not missing:
    return batch
  if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(batch)):
    name, spec = next(iter(missing.items()))
    raise ValueError(
      f"the batch lacks the mark '{name}' ({spec}) under jax.jit: fill it before, with text.marks.mark(batch, "
      'model.marks)'
    )
  ids_BxL, bytes_BxL, bos_BxL, eos_BxL = map(np.asarray, (batch.segment_ids, batch.bytes, batch.bos, batch.eos))
  ids, symbols, bos, eos = (np.ascontiguousarray(x).reshape(-1) for x in (ids_BxL, bytes_BxL, bos_BxL, eos_BxL))
  change_BxL = np.ones(ids_BxL.shape, bool)
  change_BxL[:, 1:] = ids_BxL[:, 1:] != ids_BxL[:, :-1]
  pieces = []
  for begin, end in itertools.pairwise([*np.flatnonzero(change_BxL).tolist(), len(ids)]):
    if ids[begin]:
      document = Document(symbols[begin + int(bos[begin]) : end - int(eos[end - 1])].tobytes())
      start = int(not bos[begin])
      pieces.append((begin, document, start, start + end - begin, start))
  kinds = {name: kind for name, kind in parse(specs).items() if name in missing}
  return dataclasses.replace(batch, marks={**batch.marks, **of_pieces(kinds, pieces, ids_BxL.shape)})


def of_pieces(
  kinds: Mapping[str, Kind], pieces: Iterable[tuple[int, Document, int, int, int]], shape: tuple[int, int]
) -> dict[str, np.ndarray]:
  """Name -> [B, L], the marks of pieces (place of the first symbol in the rows laid end to end, document, start, stop,
  first_scored); EMPTY elsewhere.
  """
  found = {name: np.full(math.prod(shape), kind.EMPTY, kind.DTYPE) for name, kind in kinds.items()}
  for place, document, start, stop, first_scored in pieces:
    for name, kind in kinds.items():
      found[name][place : place + stop - start] = kind.of_piece(document, start, stop, first_scored)
  return {name: values.reshape(shape) for name, values in found.items()}
