"""Models × steps × texts × conditions × suites, each scored once: what `eval.py RUNS…` does."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import text
import training
from evaluation import report, suites
from studies import kept, models, results
from text import noise as noise_lib
from text.command_line import sentence
from text.corpus import Corpus
from training.lock import Held, Lock

CLEAN = 'clean'
OFFICIAL_SEQ_LEN, OFFICIAL_BATCH_SIZE = 8192, 1
POLL = 1.0  # seconds between two looks at what other processes score


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What is asked for of every model. sources: () = what a run validates on. conditions: CLEAN and noises, by their
  names. chosen: suites, with their own options. seq_len, batch_size: None = as a run validates; max_bytes: 0 = all.
  """

  sources: tuple[str, ...] = ()
  split: str = 'validation'
  conditions: tuple[str, ...] = (CLEAN,)
  chosen: tuple[tuple[str, Mapping[str, Any]], ...] = ()
  seq_len: int | None = None
  batch_size: int | None = None
  max_bytes: int = 0

  @classmethod
  def of(cls, sources: Sequence[str], noises: Sequence[str], chosen: Sequence[str], **more: Any) -> 'Wanted':
    """From flags; clean text is scored in any case. Raises ValueError or OSError for what is no noise or suite."""
    names = dict.fromkeys([CLEAN, *(noise_lib.parse(noise).name for noise in noises)])
    parsed = [suites.parse(spec) for spec in chosen or ['bits_per_byte']]
    return cls(tuple(dict.fromkeys(sources)), conditions=tuple(names), chosen=tuple(parsed), **more)


@dataclasses.dataclass(frozen=True)
class Pair:
  """One model and one text under one condition, to be scored by one suite. of: the columns of the table that its rows
  share; what of them was measured on is `measured`.
  """

  run: models.Run
  step: int | None
  corpus: Corpus | None
  suite: str
  options: suites.Options
  of: dict[str, Any]

  @property
  def measured(self) -> dict[str, Any]:
    """What, when it is another, is scored again."""
    return {name: self.of[name] for name in ('weights', 'text', 'suite_version')} | {'version': results.VERSION}

  def path(self, directory: pathlib.Path) -> pathlib.Path:
    """Of its file of scores."""
    names = ('run', 'step', 'source', 'split', 'condition', 'suite', 'seq_len', 'max_bytes', 'options')
    return directory / results.SCORES / f'{kept.digest({name: self.of[name] for name in names})}.json'

  def title(self) -> str:
    """For people."""
    which = self.run.name if self.step is None else f'{self.run.name}, step {self.step}'
    on = '' if self.corpus is None else f' on {self.of["source"]}'
    condition = self.of['condition'] or CLEAN
    return f'{which}{on}{"" if condition == CLEAN else f" with {condition}"}'


def pairs(runs: Sequence[models.Run], wanted: Wanted, damaged: list[str]) -> Iterator[Pair]:
  """All that is asked for, run by run; of a step whose record cannot be read, a sentence goes to `damaged` instead.

  Raises ValueError or OSError for a text that cannot be opened.
  """
  opened: dict[str, Corpus] = {}
  code = kept.code(*kept.MODELS, 'evaluation', 'text')
  for run in runs:
    texts = text.Texts.of(*(run.config.get('data', {}).get(name) for name in ('source', 'validation')))
    if not wanted.sources:
      texts.check()
    sources = wanted.sources or texts.validation
    if not sources:
      raise ValueError(f'--source is missing: {run.name} holds official weights, which name no text to score')
    validation = run.config.get('eval', {})
    seq_len = wanted.seq_len or validation.get('seq_len') or run.config.get('seq_len') or OFFICIAL_SEQ_LEN
    rows = wanted.batch_size or validation.get('batch_size') or run.config.get('batch_size') or OFFICIAL_BATCH_SIZE
    for step in run.steps:
      of_model = {'run': run.name, 'step': step, 'seed': run.seed, 'config': run.group, 'code': code}
      try:
        of_model |= {'weights': run.weights(step), 'seq_len': seq_len}
      except (ValueError, OSError) as error:
        damaged.append(sentence(error))
        continue
      for name, own in wanted.chosen:
        suite, options = suites.SUITES[name], suites.Options(seq_len, rows, wanted.max_bytes, own)
        of_suite = of_model | {'suite': name, 'options': results.as_json(own), 'suite_version': suite.version}
        nothing = {'source': None, 'split': None, 'condition': None, 'text': None, 'max_bytes': 0}
        if not suite.reads:
          yield Pair(run, step, None, name, options, of_suite | nothing)
          continue
        for source in sources:
          for condition in wanted.conditions:
            noisy = source if condition == CLEAN else f'noise:{condition}:{source}'
            known = results.as_json([texts.training, texts.validation, noisy, wanted.split])
            if known not in opened:
              opened[known] = texts.open(noisy, wanted.split)
            of_text = {'source': source, 'split': wanted.split, 'condition': condition, 'max_bytes': wanted.max_bytes}
            of_text |= {'text': opened[known].fingerprint}
            yield Pair(run, step, opened[known], name, options, of_suite | of_text)


def score(all_pairs: Sequence[Pair], directory: pathlib.Path, tell: Callable[[str], None]) -> list[str]:
  """Scores what is not scored yet; returns sentences on what could not be.

  What another process is scoring is waited for, and scored here if that process ends without having done it.
  """
  (directory / results.SCORES).mkdir(parents=True, exist_ok=True)
  failures: list[str] = []
  load = _loader(tell)
  waiting = list(all_pairs)
  while waiting:
    held = []
    for pair in waiting:
      path = pair.path(directory)
      if kept.read(path, pair.measured):
        continue
      try:
        with _claim(path):
          if not kept.read(path, pair.measured):  # another process was just done with it
            tell(_scored(pair, load(pair), path))
      except Held:
        held.append(pair)
      except suites.Refused as error:
        tell(f'{pair.title()}: left out of {pair.suite}: {sentence(error)}')
      except (ValueError, OSError) as error:
        failures.append(f'{pair.title()}: {sentence(error)}')
        tell(failures[-1])
    if waiting := held:
      time.sleep(POLL)
  return failures


def _loader(tell: Callable[[str], None]) -> Callable[[Pair], training.Loaded]:
  """Keeps the last model that was loaded."""
  last: dict[tuple, training.Loaded] = {}

  def load(pair: Pair) -> training.Loaded:
    key = pair.run.name, pair.step
    if key not in last:
      last.clear()  # before the next one takes memory, too
      last[key] = training.load(pair.run.directory, pair.step, tell)
    return last[key]

  return load


@contextlib.contextmanager
def _claim(path: pathlib.Path) -> Iterator[None]:
  """Held by one process of all; raises `Held` in the others."""
  name = f'{path.stem}.claim'
  lock = Lock(path.parent, lambda _: None, name)
  lock.take()
  try:
    yield
    path.with_name(name).unlink(missing_ok=True)  # whoever has opened it by now finds the scores
  finally:
    lock.release()


def _scored(pair: Pair, loaded: training.Loaded, path: pathlib.Path) -> str:
  """Scores a pair and keeps that; what a person reads of it."""
  suite = suites.SUITES[pair.suite]
  rows = list(suite.measure(loaded.model, loaded.config, pair.corpus, pair.options))
  found = [dataclasses.asdict(row) | _plain(row) for row in rows]
  kept.write(path, pair.measured, {'version': results.VERSION, 'of': pair.of, 'rows': found})
  first = next((row for row in rows if row.metric == suite.headline and row.stage is None), None)
  return f'{pair.title()}' + ('' if first is None or first.value is None else f': {first.metric} {first.value:.4f}')


def _plain(row: suites.Row) -> dict[str, Any]:
  """Its value and extras as the table has them."""
  value = None if row.value is None else float(row.value)
  return {'value': value, 'extras': results.as_json(row.extras) if row.extras else None}


def table(all_pairs: Sequence[Pair], directory: pathlib.Path) -> str:
  """The headlines of what was scored, a row a model and condition and a column a text and metric, as Markdown."""
  found: dict[tuple, dict[str, Any]] = {}
  for pair in all_pairs:
    scores = kept.read(pair.path(directory), pair.measured)
    row = found.setdefault((pair.run.name, pair.step, pair.of['condition']), {})
    row |= {'run': pair.run.name, 'step': pair.step or '–', 'condition': pair.of['condition'] or '–'}
    headline = suites.SUITES[pair.suite].headline
    column = headline if pair.of['source'] is None else f'{headline}: {pair.of["source"]}'
    values = [line['value'] for line in (scores or {'rows': []})['rows'] if line['metric'] == headline]
    row[column] = f'{values[0]:.4f}' if values and values[0] is not None else '–'
  columns = dict.fromkeys(name for row in found.values() for name in row)
  return report.markdown([{name: row.get(name, '–') for name in columns} for row in found.values()])


def run(patterns: Sequence[str], steps: str, wanted: Wanted, out: pathlib.Path, tell: Callable[[str], None]) -> bool:
  """The command: scores, makes the table, prints what matters of it. Returns whether all could be scored."""
  found = models.find(patterns, steps, tell)
  out.mkdir(parents=True, exist_ok=True)
  results.check(out)
  damaged: list[str] = []
  asked = list(pairs(found, wanted, damaged))
  if len(lengths := {pair.of['seq_len'] for pair in asked}) > 1:
    tell(f'rows of {", ".join(map(str, sorted(lengths)))} symbols are scored: --seq_len=N gives all models the same')
  done = [kept.read(pair.path(out), pair.measured) for pair in asked]
  count = sum(map(bool, done))
  old = sum(scores['of']['code'] != pair.of['code'] for scores, pair in zip(done, asked, strict=True) if scores)
  print(f'{len(asked)} pairs of a model and a text, {count} of them scored before')
  if old:
    tell(f'{old} were scored by other code: to score them again, remove {out / results.SCORES}')
  try:
    failures = damaged + score(asked, out, lambda line: print(line, flush=True))
  finally:
    whole = results.write(out)
  print(f'\n{table(asked, out)}\n\n{whole.num_rows:,} numbers: {out / results.TABLE}, {out / results.CSV}')
  for failure in failures:
    tell(f'error: {failure}')
  return not failures
