"""What stands in the columns of the page: models of runs at their steps, rules for words, subword tokenizers."""

import collections
import dataclasses
import functools
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import training
from evaluation import finite, generation
from layers import weights
from text import Batch, globbing, marks, paths, words
from training import checkpoint, workdir

LIKELIEST = 5  # next bytes that are told
SHORTEST = 128  # padded lengths are this times a power of two
MODELS_KEPT = 4  # loaded at a time


@dataclasses.dataclass(frozen=True)
class Run:
  """A work directory, or a directory with official weights, which has no steps. name: unique, for people."""

  name: str
  directory: pathlib.Path
  kind = 'model'

  def steps(self) -> list[int]:
    """Checkpoints that there are now."""
    return checkpoint.all_steps(self.directory / workdir.CHECKPOINTS)


@dataclasses.dataclass(frozen=True)
class Cutter:
  """kind: 'words' or 'tokenizer'. ends: document -> where its parts end, in bytes."""

  name: str
  kind: str
  ends: Callable[[bytes], np.ndarray]

  def steps(self) -> list[int]:
    """None."""
    return []


def find_runs(patterns: Sequence[str], report: Callable[[str], None]) -> list[Run]:
  """The runs that paths and globs name, each once; what a glob finds beside them is left out, with a sentence to
  `report` where it is a run without checkpoints.

  Raises ValueError or OSError for a path that is no run, a run without checkpoints, and a glob that finds none.
  """
  found: dict[pathlib.Path, pathlib.Path] = {}
  for pattern in patterns:
    pattern = paths.expanded(pattern, 'RUNS')
    is_named, good = os.path.lexists(pattern), []
    for directory in map(pathlib.Path, [pattern] if is_named else globbing.matches(pattern)):
      if not is_named and not (directory / weights.CONFIG).is_file():
        continue
      try:
        _check(directory)
        good.append(directory)
      except (ValueError, OSError) as error:
        if is_named:
          raise
        report(f'{error}; it is left out')
    if not good:
      raise FileNotFoundError(
        f"RUNS '{pattern}' names no run (directories with a config.json and checkpoints): name a work directory of "
        'train.py or a glob that finds some'
      )
    for directory in good:
      found.setdefault(directory.resolve(), directory)
  return [Run(name, directory) for name, directory in zip(_names(list(found)), found.values(), strict=True)]


def _check(directory: pathlib.Path) -> None:
  """Raises where `training.load` would, as far as that can be seen without loading."""
  file = directory / weights.CONFIG
  if not file.is_file() or 'model' in weights.read_json(file):
    workdir.read_config(directory)
    if not checkpoint.all_steps(directory / workdir.CHECKPOINTS):
      raise FileNotFoundError(f'there is no checkpoint in {directory / workdir.CHECKPOINTS}: the run has not saved one')


def _names(directories: Sequence[pathlib.Path]) -> list[str]:
  """The last parts of paths that differ, as few as tell all apart."""
  for depth in itertools.count(1):
    names = ['/'.join(directory.parts[-depth:]) for directory in directories]
    if len(set(names)) == len(names):
      return names


def find_cutters(splitters: Iterable[str], tokenizers: Iterable[str]) -> list[Cutter]:
  """Rules of `text.words` by their specifications, and tokenizers by their path; raises as these do."""
  found = [Cutter(splitter.name, 'words', splitter) for splitter in map(words.parse, splitters)]
  for path in tokenizers:
    from text import tokenizers as library  # which needs the tokenizers package

    tokenizer = library.load(paths.of(path, '--tokenizer'))
    ends = lambda document, cutter=tokenizer: np.cumsum(cutter.sizes[cutter.encode(document)])
    found.append(Cutter(f'{tokenizer.name} {path}', 'tokenizer', ends))
  return list({cutter.name: cutter for cutter in found}.values())


class Shelf:
  """The columns that there are, and the models that were used last. One caller at a time."""

  def __init__(self, columns: Iterable[Run | Cutter]):
    self.columns = {column.name: column for column in columns}
    self._models: collections.OrderedDict[tuple[str, int | None], Any] = collections.OrderedDict()

  def describe(self) -> list[dict[str, Any]]:
    """Name, kind and steps of every column, as JSON data."""
    return [{'name': c.name, 'kind': c.kind, 'steps': c.steps()} for c in self.columns.values()]

  def column(self, name: str) -> Run | Cutter:
    """ValueError where there is none of that name."""
    if name not in self.columns:
      raise ValueError(f'there is no column {name!r:.200}: the command that started the viewer names others')
    return self.columns[name]

  def cut(self, name: str, step: int | None, document: bytes) -> dict[str, Any]:
    """What a column makes of a document, as JSON data.

    stages: outermost first, of each 'starts', the bytes where a chunk begins, and 'p', of a boundary before each byte
    (None where there is none). bits: surprisal of each byte (None for rules). likeliest: of each byte and of what
    follows the last one, [[bytes, p], …], bytes as code points 0 to 255, '' for the end of a word, p None where a model
    tells only what greedy decoding would write. alphabet: of the model. Raises as `training.load`, and NotFiniteError.
    """
    column = self.column(name)
    if isinstance(column, Cutter):
      ends = column.ends(document)
      starts = [0, *ends[:-1].tolist()] if len(document) else []
      return {'stages': [{'starts': starts, 'p': None}], 'bits': None, 'likeliest': None, 'alphabet': None}
    return look(self._model(column, step), document)

  def stream(self, name: str, step: int | None, prompt: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """The continuation of a prompt as it is made; options and errors of `evaluation.generation.stream`."""
    generation.check([prompt], **options)
    column = self.column(name)
    if isinstance(column, Cutter):
      raise ValueError(f'{name} is a rule that cuts text and writes none: continue it with a model')
    for (piece,) in generation.stream(self._model(column, step), [prompt], **options):
      yield piece

  def _model(self, run: Run, step: int | None) -> Any:
    if step is None and (steps := run.steps()):
      step = steps[-1]
    if (run.name, step) not in self._models:
      self._models[run.name, step] = training.load(run.directory, step, report=print).model
      if len(self._models) > MODELS_KEPT:
        self._models.popitem(last=False)
    self._models.move_to_end((run.name, step))
    return self._models[run.name, step]


def look(model: Any, document: bytes) -> dict[str, Any]:
  """What a model makes of a document behind a BOS; see `Shelf.cut`. One program for each padded length."""
  length = max(SHORTEST, 1 << len(document).bit_length())
  batch = marks.mark(Batch.begun([document], length), model.marks)
  found, is_finite_L = jax.device_get(_look(model, batch))
  stop = len(document) + 1
  if not (is_finite := np.broadcast_to(is_finite_L, length)[:stop]).all():
    byte = max(int(is_finite.argmin()) - 1, 0)
    raise finite.NotFiniteError(f"the model's output is not finite at byte {byte} of the text: {finite.REMEDY}")
  stages = []
  for starts_L, p_L in itertools.zip_longest(found['starts'], found['p']):
    p = None if p_L is None else _rounded(np.broadcast_to(p_L, length)[1:stop])
    stages.append({'starts': np.flatnonzero(starts_L[1:stop]).tolist(), 'p': p})
  spell = lambda index: '' if index == model.word_end else model.symbols[index].decode('latin-1')
  spelled_LxK = [[spell(index) for index in row] for row in found['symbols'].tolist()]
  p_LxK = [[None]] * length if found['likely'] is None else map(_rounded, found['likely'])
  likeliest = [list(zip(*pair, strict=True)) for pair in zip(spelled_LxK, p_LxK, strict=True)]
  return {
    'stages': stages,
    'bits': _rounded(found['nll'][1:stop] / math.log(2)),
    # Symbols at a position are for the byte behind it, but for what greedy decoding writes there.
    'likeliest': likeliest[:stop] if found['likely'] is not None else likeliest[1:stop],
    'alphabet': model.alphabet,
  }


@functools.partial(jax.jit, static_argnames='most')
def _look(model: Any, batch: Batch, most: int = LIKELIEST) -> tuple[dict[str, Any], jax.Array]:
  output = model(batch)
  is_finite_1xL = finite.everywhere((*output.boundary_probabilities, output.nll))
  if output.logits is None:
    _, written_1xL, _, _ = model.likeliest(batch)
    likely, symbols_LxK = None, written_1xL[0, :, None]
  else:
    p_LxV = jax.nn.softmax(output.logits[0].astype(jnp.float32), -1)
    likely, symbols_LxK = jax.lax.top_k(p_LxV, min(most, p_LxV.shape[-1]))
    is_finite_1xL &= jnp.isfinite(likely[None, :, 0])
  found = {
    'starts': [jnp.broadcast_to(stage, output.nll.shape)[0] for stage in output.segmentations],
    'p': [jnp.broadcast_to(p, output.nll.shape)[0] for p in output.boundary_probabilities],
    'nll': output.nll[0],
    'symbols': symbols_LxK,
    'likely': likely,
  }
  return found, jnp.broadcast_to(is_finite_1xL, output.nll.shape)[0]


def _rounded(values: np.ndarray) -> list[float]:
  return [float(f'{value:.4g}') for value in values.tolist()]
