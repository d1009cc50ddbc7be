"""Scores a trained model on held-out text: python eval.py --workdir=DIR

Bits per byte, bytes per chunk, and for scale the same bytes under gzip, xz and byte Markov models counted on the
training text; a table per source on the terminal, DIR/eval.json ("sources": one entry per source, "gold": one per gold
corpus), and a few documents with the chunk boundaries that the model draws. How many documents also stand in the
training text is counted ("overlap") and, where some do, said. DIR is a work directory of train.py, or a directory with
official weights of an H-Net or a T-Free-HAT (config.json, model.safetensors; --source names the text then). Bits of
official weights are a code length, of a T-Free-HAT by delivery 'causal'; "delivery": "published" in its config.json
scores what the published code computes, which is none.

Of a model with chunks, where its boundaries lie is a table of its own (docs/metrics.md): whether the text is harder
there, how even the chunks are, agreement with white space and words, cuts inside characters, and how many boundaries
change where a row begins one byte later.

Where the source is known (synthetic:...), its entropy stands beside the scores, and where its words are known, how well
the chunks agree with them; --gold=NAME compares the chunks with the units of a fetched gold corpus. --words=SPLITTER
adds word accuracy, apart for words that the training text has often, rarely and never.

Several models at once: python eval.py 'runs/*' weights/hnet --steps=all --source=... --noise='drop(rate=0.1)'

scores every model and step on every text, as it is and with each --noise, into one long table, a row a number:
DIR/results.parquet and DIR/results.csv of --out=DIR. The same command goes on where it was stopped and scores nothing
twice; several of them may run on one machine at once (docs/sweeps.md).
"""

import itertools
import sys

from absl import flags

from training import command_line

_BOUNDARY_WORDS = 'hat(max_bytes=64)'

_WORKDIR = flags.DEFINE_string('workdir', None, 'Work directory of a run, or a directory with official weights.')
_STEP = flags.DEFINE_string(
  'step', None, "Checkpoint to score: a number or 'best' (lowest validation score); default: the newest."
)
_SOURCE = flags.DEFINE_multi_string(
  'source', [], 'Text, as in data.source of a config; may be given several times. Default: what the run validates on.'
)
_SPLIT = flags.DEFINE_enum(
  'split',
  'validation',
  ['train', 'validation', 'test'],
  'Which part of the text; files that the run does not train on in part have none and are scored whole.',
)
_GOLD = flags.DEFINE_multi_string(
  'gold', [], 'Gold corpus, e.g. chinese_words, whose units the chunks are compared with; may be given several times.'
)
_WORDS = flags.DEFINE_string(
  'words',
  None,
  "Word accuracy too, on the words of this splitter, e.g. 'hat(max_bytes=64)' (see text/words.py), with which the "
  f'boundaries are compared then; else with those of {_BOUNDARY_WORDS}.',
)
_MAX_BYTES = flags.DEFINE_integer('max_bytes', 0, 'Score only the first bytes of each text; 0: all of it.')
_SEQ_LEN = flags.DEFINE_integer('seq_len', None, 'Symbols per row; default: as the run validates.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', None, 'Rows per batch; default: as the run validates.')
_COMPRESS_MB = flags.DEFINE_float(
  'compress_mb', 20, 'gzip, xz and the Markov models get at most the first so many MB of the scored text (10⁶ bytes).'
)
_MARKOV_MB = flags.DEFINE_float(
  'markov_mb',
  50,
  'Markov models count at most the first so many MB of training text, of all training sources together.',
)
_FLIPS_MB = flags.DEFINE_float(
  'flips_mb', 0.2, 'Boundaries that change with the row are counted on the first so many MB of each text; 0: not.'
)
_SHOW = flags.DEFINE_integer('show_documents', 3, 'How many documents to print with their chunk boundaries.')
_STEPS = flags.DEFINE_string('steps', 'newest', "Several models: their steps, 'all', 'newest', 'best' or 100,200.")
_NOISE = flags.DEFINE_multi_string(
  'noise', [], 'Several models: a perturbation of the text; may be given several times.'
)
_SUITE = flags.DEFINE_multi_string('suite', [], 'Several models: what is measured (evaluation/suites/__init__.py).')
_OUT = flags.DEFINE_string('out', 'results', 'Several models: directory of the table.')
_OUTPUT = flags.DEFINE_string('output', None, 'Where the scores go as JSON; default: eval.json in the work directory.')

_SHOWN_BYTES = 400  # of each document
_OFFICIAL_SHAPE = {'seq_len': 8192, 'batch_size': 1}  # the released models were trained on rows of 8192 bytes


_OF_SEVERAL = (_STEPS, _NOISE, _SUITE, _OUT)
_OF_ONE = (_WORKDIR, _STEP, _GOLD, _WORDS, _COMPRESS_MB, _MARKOV_MB, _FLIPS_MB, _SHOW, _OUTPUT)


def main(argv: list[str]) -> int | None:
  """Scores the model that the flags name, prints the tables and writes the scores; several that words name likewise."""
  runs = argv[1:]
  if given := [flag.name for flag in (_OF_ONE if runs else _OF_SEVERAL) if flag.present]:
    which = 'one model, named with --workdir' if runs else "several models, named without a flag: eval.py 'runs/*'"
    raise ValueError(f'--{given[0]} is for {which}: leave it out, or name the models so')
  if runs:
    return _score_several(runs)
  from rich.console import Console

  import text
  import training
  from evaluation import report
  from text import overlap, paths, words
  from text.command_line import sentence

  if _WORKDIR.value is None:
    raise ValueError('--workdir is missing: name the work directory of a run or a directory with official weights')
  for flag in (_COMPRESS_MB, _MARKOV_MB):
    if not 1e-6 <= flag.value < 1e9:
      raise ValueError(f'--{flag.name}={flag.value} must be a positive number of megabytes')
  if not 0 <= _FLIPS_MB.value < 1e9:
    raise ValueError(f'--flips_mb={_FLIPS_MB.value} must be a number of megabytes, or 0 for none')
  workdir = paths.of(_WORKDIR.value, '--workdir')
  output = workdir / 'eval.json' if _OUTPUT.value is None else paths.of(_OUTPUT.value, '--output')
  loaded = training.load(workdir, _STEP.value)
  model, config, step = loaded.model, loaded.config, loaded.step
  report.check_writable(output)
  data, settings = config.get('data', {}), config.get('eval', {})
  texts = text.Texts.of(data.get('source'), data.get('validation'))
  if not _SOURCE.value:
    texts.check()
  sources = _SOURCE.value or texts.validation
  if not sources:
    raise ValueError('--source is missing: official weights name no text to score, try --source=python_docs')
  shape = {
    name: settings.get(name) or config.get(name) or default if given is None else given
    for (name, default), given in zip(_OFFICIAL_SHAPE.items(), (_SEQ_LEN.value, _BATCH_SIZE.value), strict=True)
  }
  if _WORDS.value is not None:
    words.parse(_WORDS.value)
  corpora = [texts.open(source, _SPLIT.value) for source in sources]
  golds = [text.open_gold(name) for name in _GOLD.value]
  trained_on = _trained_on(texts)
  counted, counted_on = _counted(trained_on)

  console = Console(markup=False, emoji=False, highlight=False)
  name = 'official weights' if step is None else f'step {step}'
  scores = {'workdir': _WORKDIR.value, 'step': step, 'split': _SPLIT.value, 'sources': [], 'gold': []}
  for source, corpus in zip(sources, corpora, strict=True):
    title = corpus.title(_MAX_BYTES.value)
    common = overlap.overlap(corpus, trained_on) if trained_on else None
    notes = (*corpus.notes, *common.sentences()) if common else corpus.notes
    for line in (f'{_WORKDIR.value} ({name}) on {title}', *notes):
      print(sentence(line))
    known = {'source': source, 'text': title, 'overlap': report.values(common) if common else None}
    scores['sources'].append(known | _score(model, corpus, shape, counted, counted_on, console))
    print()
  for gold_name, gold in zip(_GOLD.value, golds, strict=True):
    scores['gold'].append({'gold': gold_name, **_score_gold(model, gold, shape, console)})
  report.write_json(output, report.as_json(scores))
  print(f'scores: {output}')


def _score_several(runs: list[str]) -> int:
  """Scores what is not scored yet; returns 1 if something could not be."""
  from studies import scoring
  from text import paths
  from text.command_line import tell

  more = {'split': _SPLIT.value, 'seq_len': _SEQ_LEN.value, 'batch_size': _BATCH_SIZE.value}
  wanted = scoring.Wanted.of(_SOURCE.value, _NOISE.value, _SUITE.value, **more, max_bytes=_MAX_BYTES.value)
  try:
    return int(not scoring.run(runs, _STEPS.value, wanted, paths.of(_OUT.value, '--out'), tell))
  except KeyboardInterrupt:
    tell('interrupted: the same command goes on where it stopped')
    return 130


def _trained_on(texts) -> tuple:
  """The corpora of the training text; none where there is none or it cannot be read."""
  if not texts.training:
    return ()
  try:
    return texts.open_training().corpora
  except (OSError, ValueError) as error:
    print(f'no Markov models, and no comparison with the training text: {error}', file=sys.stderr)
    return ()


def _counted(corpora) -> tuple[list[bytes], str]:
  """What the Markov models count, the same share of each training source, and how a table says it."""
  import evaluation

  if not corpora:
    return [], ''
  share = max(1, int(_MARKOV_MB.value * 1e6 / len(corpora)))
  heads = [evaluation.first_bytes(corpus, share)[0] for corpus in corpora]
  is_cut = any(head is not corpus for head, corpus in zip(heads, corpora, strict=True))
  of_each = f' of each of {len(corpora)} training sources' if len(corpora) > 1 else ''
  note = f' (counted on the first {share / 1e6:g} MB{of_each})' if is_cut else ''
  return [document for head in heads for document in head], note


def _score(model, corpus, shape, counted: list[bytes], counted_on: str, console) -> dict:
  """Prints what is known of a model on one corpus; returns it as JSON data."""
  import evaluation
  from evaluation import bits_per_byte, report

  splitter = _BOUNDARY_WORDS if _WORDS.value is None else _WORDS.value
  with report.progress_bar() as progress:
    result = evaluation.evaluate(
      model, corpus, **shape, max_bytes=_MAX_BYTES.value, progress=progress, splitter=splitter
    )
  scored, _ = evaluation.first_bytes(corpus, _MAX_BYTES.value)
  limit = max(1, int(_COMPRESS_MB.value * 1e6))
  head, _ = evaluation.first_bytes(scored, limit)
  documents, on_head = list(head), '' if head is scored else f', on the first {limit / 1e6:g} MB'
  baselines = {f'{name}{on_head}': bits for name, bits in evaluation.compressed_bits_per_byte(documents).items()}
  if counted:
    for order, bits in evaluation.markov_bits_per_byte(counted, documents).items():
      baselines[f'Markov model of order {order}{counted_on}{on_head}'] = bits
  if hasattr(corpus, 'entropy_rate'):
    baselines['entropy rate of the source'] = corpus.entropy_rate
    baselines['the source itself on these bytes'] = sum(map(corpus.source_bits, scored)) / result.text_bytes
    baselines['unigram entropy of the source'] = corpus.unigram_entropy
  console.print(report.table('this model', result, baselines))
  flips = ()
  if result.boundary_metrics:
    if _FLIPS_MB.value:
      first, _ = evaluation.first_bytes(scored, max(1, int(_FLIPS_MB.value * 1e6)))
      flips = evaluation.boundary_flips(model, first, **shape)
    console.print(report.metrics_table(splitter, result.boundary_metrics, flips))
  accuracies = []
  if _WORDS.value is not None:
    seen = evaluation.word_counts(counted, _WORDS.value)
    accuracies = evaluation.word_accuracy(model, scored, splitter=_WORDS.value, seen=seen, **shape)
    console.print(report.accuracy_table(f'{_WORDS.value}{counted_on}', accuracies))
  boundaries = []
  if result.bytes_per_chunk and hasattr(corpus, 'word_starts'):
    whole = list(scored)
    starts = [corpus.word_starts(document) for document in whole]
    boundaries = evaluation.boundary_scores(model, whole, starts, **shape)
    console.print(report.boundary_table('words', boundaries))
  if result.bytes_per_chunk and _SHOW.value > 0:
    _show(model, corpus, scored)
  return {
    **report.values(result),
    'scoring': bits_per_byte.SCORING,
    'baselines': baselines,
    'boundaries': list(map(report.values, boundaries)),
    'boundary_words': splitter,
    'flips': list(map(report.values, flips)),
    'words': {'splitter': _WORDS.value, 'accuracy': list(map(report.values, accuracies))},
  }


def _show(model, corpus, scored) -> None:
  """Prints the beginnings of some documents with their chunk boundaries."""
  import evaluation

  count = min(_SHOW.value, len(scored))
  chosen = [index * len(scored) // count for index in range(count)]
  texts = [scored[index][:_SHOWN_BYTES] for index in chosen]
  for index, shown, stages in zip(chosen, texts, evaluation.segment(model, texts), strict=True):
    print(f'\n--- document {index}, bytes 0 to {len(shown)} of {corpus.lengths[index]}')
    print(evaluation.show_chunks(shown, stages))


def _score_gold(model, gold, shape, console) -> dict:
  """Prints how a model's chunks agree with the units of a gold corpus; returns it as JSON data."""
  import evaluation
  from evaluation import report
  from text.gold import units

  segmented = [units(document) for document in gold]
  documents = [b''.join(of_document) for of_document in segmented]
  if _MAX_BYTES.value:  # whole documents, as many as fit, but one at least
    ends = itertools.accumulate(map(len, documents))
    kept = max(1, sum(1 for _ in itertools.takewhile(lambda end: end <= _MAX_BYTES.value, ends)))
    documents, segmented = documents[:kept], segmented[:kept]
  print(f'{gold.name}: {len(documents):,} of {len(gold):,} documents, {sum(map(len, documents)):,} bytes')
  boundaries = evaluation.boundary_scores(model, documents, list(map(evaluation.unit_starts, segmented)), **shape)
  console.print(report.boundary_table('units', boundaries))
  return {
    'fingerprint': gold.fingerprint,
    'documents': len(documents),
    'text_bytes': sum(map(len, documents)),
    'boundaries': list(map(report.values, boundaries)),
  }


if __name__ == '__main__':
  command_line.run(main, words=True)
