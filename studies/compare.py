"""Trains the models of one config file one after the other and puts what they reached in one table.

  python -m text.corpora fetch english_wiki --out=data/corpora
  python -m studies.compare --workdir=runs/compare
  python -m studies.compare --workdir=runs/compare --models hnet hat -- --config.num_steps=100

Each model is `train.py --config=CONFIG:ARGUMENT --workdir=WORKDIR/NAME`, in a process of its own; what stands behind
`--` goes to each. The same command goes on where it was stopped: finished runs, scores and timings are kept. The end is
WORKDIR/compare.md: bits per byte on all held-out text, word accuracy (evaluation/accuracy.py), bytes a second of
training and decoding (studies/speed.py, measured when all are trained and nothing else runs), bits per byte on the
way there, and of each model with chunks and each text its boundary metrics (docs/metrics.md). Of a mixture each text is
scored apart, and the mean by bytes is the score.
"""

import json
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import evaluation
import text
import training
from evaluation import bits_per_byte, report
from layers import checks
from studies import curves as curves_lib
from studies import kept, trainings
from text import command_line, paths
from text.corpus import Corpus, Joined
from training import config as config_lib
from training import description
from training.workdir import read_config

MODELS = ('hnet', 'hnet_space', 'transformer', 'hat', 'word_pooled', 'megabyte', 'tfree_hat')
WORDS = 'hat(max_bytes=64)'


def score(workdir: pathlib.Path, words: str, max_bytes: int = 0) -> dict[str, Any]:
  """What a trained model reaches on the held-out text of its run, as JSON data, kept in scores.json for the next time.

  words: a splitter, or '' for no word accuracy. max_bytes: of each text, from its beginning; 0 = all. 'sources' has
  what `evaluate` found on each text.
  Raises FileNotFoundError or ValueError for what is no work directory of a run with a checkpoint.
  """
  path, config = workdir / 'scores.json', read_config(workdir)
  settings = config_lib.parse(config)
  shape = settings.eval_rows
  held_out, seen = _texts(settings.data)
  held_out = {source: bits_per_byte.first_bytes(corpus, max_bytes)[0] for source, corpus in held_out.items()}
  joined = _joined(held_out.values())
  measured = {
    **kept.trained(workdir),
    **shape,
    'words': words,
    'text': joined.fingerprint,
    'seen': seen.fingerprint,
    'scoring': bits_per_byte.SCORING,
    'code': kept.code(*kept.MODELS, 'evaluation', 'text'),
  }
  if known := kept.read(path, measured):
    return known
  print(f'scoring {workdir}', flush=True)
  loaded = training.load(workdir)
  shared = {**shape, 'used': set()}  # one program for all texts
  results = {source: evaluation.evaluate(loaded.model, corpus, **shared) for source, corpus in held_out.items()}
  of_texts = {source: report.values(result) for source, result in results.items()}
  for found in of_texts.values():
    del found['seconds']  # those of all texts are kept
  accuracies = []
  if words:
    counts = evaluation.word_counts(seen, words)
    accuracies = evaluation.word_accuracy(loaded.model, joined, splitter=words, seen=counts, **shape)
  found = _together(list(results.values()))
  sizes = [size for size in found['bytes_per_chunk'] if size is not None]
  flops = loaded.model.flops_per_byte(settings.seq_len, sizes or None)
  found |= {
    'step': loaded.step,
    'fingerprint': joined.fingerprint,
    'sources': of_texts,
    'parameters': description.describe(config)['parameters'],
    'flops_per_byte': sum(flops.values()),
    'trained_bytes': loaded.step * config['batch_size'] * config['seq_len'],
    'text': joined.title(),
    'accuracy': {accuracy.kind: report.values(accuracy) for accuracy in accuracies},
  }
  return kept.write(path, measured | {'step': loaded.step}, found)


def _together(results: Sequence[bits_per_byte.Result]) -> dict[str, Any]:
  """Of several texts: bits and sizes over all of their bytes."""
  size = sum(result.text_bytes for result in results)
  mean = lambda values: sum(value * result.text_bytes for value, result in zip(values, results, strict=True)) / size
  stages = zip(*(result.bytes_per_chunk for result in results), strict=True)
  chunks = [mean([1 / (of_one or float('inf')) for of_one in of_stage]) for of_stage in stages]
  return {
    'bits_per_byte': mean([result.bits_per_byte for result in results]),
    'text_bytes': size,
    'bytes_per_chunk': [1 / rate if rate else None for rate in chunks],
    'seq_len': results[0].seq_len,
    'context': results[0].context,
    'seconds': sum(result.seconds for result in results),
  }


def speeds(workdirs: Mapping[str, pathlib.Path], scores: Mapping[str, Mapping[str, Any]], path: pathlib.Path) -> dict:
  """{name: {'train', 'decode'}} in bytes a second, measured together and kept until a model, the code or the machine
  changes.
  """
  measured = {
    'models': {name: scores[name]['measured']['weights'] for name in workdirs},
    'machine': kept.machine(),
    'code': kept.code(*kept.MODELS, 'evaluation', 'text', 'training', 'studies'),
  }
  known = kept.read(path, measured)
  if known is None:
    raw = path.with_suffix('.raw.json')
    command = [sys.executable, '-m', 'studies.speed', f'--output={raw.absolute()}']
    subprocess.run(
      [*command, *(str(workdir.absolute()) for workdir in workdirs.values())], cwd=pathlib.Path.cwd(), check=True
    )
    found = json.loads(raw.read_bytes())
    raw.unlink()
    found = {name: found[str(directory.absolute())] for name, directory in workdirs.items()}
    known = kept.write(path, measured, {'speeds': found})
  return known['speeds']


# What the bits of a model hang on besides the model: said once where it is the same for all, else in a column.
CONDITIONS = {'trained_bytes': 'bytes of training', 'seq_len': 'rows scored', 'context': 'repeated as context'}


def conditions(scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, tuple[str, ...]]:
  """(what is the same for all scores as a sentence, the CONDITIONS in which they differ).

  Raises ValueError for scores of different text, which no table can compare.
  """
  first, *others = scores
  for name in others:
    for key in ('fingerprint', 'text_bytes'):
      if scores[name][key] != scores[first][key]:
        raise ValueError(
          f'{first} was scored on {scores[first]["text_bytes"]:,} bytes of {scores[first]["text"]} and {name} on '
          f'{scores[name]["text_bytes"]:,} bytes of {scores[name]["text"]}: models are compared on the same text, give '
          'them the same data.validation'
        )
  differing = tuple(key for key in CONDITIONS if len({found[key] for found in scores.values()}) > 1)
  same = [f'{CONDITIONS[key]} {scores[first][key]:,}' for key in CONDITIONS if key not in differing]
  on = f'scored on {scores[first]["text_bytes"]:,} bytes ({scores[first]["text"]})'
  return f'{", ".join([on, *same])}.', differing


def table(
  scores: Mapping[str, Mapping[str, Any]], timings: Mapping[str, Mapping[str, float]], differing: Sequence[str] = ()
) -> str:
  """The scores as Markdown, a row per model; differing: the CONDITIONS that get a column."""
  share = lambda found, kind: f'{found["accuracy"][kind]["greedy"]:.1%}' if found['accuracy'][kind]['words'] else '–'
  rows = [
    {
      'model': name,
      **{CONDITIONS[key]: found[key] for key in differing},
      'parameters': found['parameters'],
      'MFLOP per byte': f'{found["flops_per_byte"] / 1e6:.2f}',
      'bytes per chunk': ', '.join(f'{size:.2f}' if size else '∞' for size in found['bytes_per_chunk']) or '–',
      'bits per byte': found['bits_per_byte'],
      **{f'words right: {kind}': share(found, kind) for kind in found['accuracy']},
      'training, B/s': round(timings[name]['train']) if name in timings else '–',
      'decoding, B/s': round(timings[name]['decode']) if name in timings else '–',
    }
    for name, found in scores.items()
  ]
  return report.markdown(rows)


def curves(workdirs: Mapping[str, pathlib.Path]) -> str:
  """Validation bits per byte while training as Markdown, a row per evaluation."""
  found, validated = {}, set()
  for name, workdir in workdirs.items():
    batch = read_config(workdir)
    size = batch['batch_size'] * batch['seq_len']
    for values in curves_lib.read(workdir):
      if values.get('validation_bpb') is not None:
        found.setdefault(values['step'] * size, {})[name] = values['validation_bpb']
        validated.add(values.get('validation_bytes'))
  rows = [
    {'bytes': size, **{name: f'{scores[name]:.3f}' if name in scores else '–' for name in workdirs}}
    for size, scores in sorted(found.items())
  ]
  amounts = ' or '.join('an unknown number of' if size is None else f'{size:,.0f}' for size in validated)
  warning = '; they cannot be compared where these differ' if len(validated) > 1 else ''
  return f'Validation while training, on {amounts} bytes{warning}:\n\n{report.markdown(rows)}'


def boundaries(scores: Mapping[str, Mapping[str, Any]]) -> str:
  """Boundary metrics as Markdown, a row per model, stage and text; nothing where no model has chunks."""
  rows = [
    {
      'model': name,
      'stage': str(stage),
      'text': source,
      'bits per byte': of_text['bits_per_byte'],
      **_of_stage(metrics),
    }
    for name, found in scores.items()
    for source, of_text in found['sources'].items()
    for stage, metrics in enumerate(of_text['boundary_metrics'])
  ]
  return report.markdown(rows) if rows else ''


def _of_stage(metrics: Mapping[str, Any]) -> dict[str, str]:
  show = lambda *values: ' / '.join('–' if value is None else f'{value:.2f}' for value in values)
  on, behind = (metrics[name] or {} for name in ('whitespace_0', 'whitespace_1'))
  return {
    'bytes per chunk': show(metrics['bytes_per_chunk']),
    'CV / at random': show(metrics['size_cv'], metrics['random_cv']),
    'B / z': show(metrics['enrichment'], metrics['enrichment_z']),
    'at the emission / z': show(metrics['enrichment_prev'], metrics['enrichment_prev_z']),
    'F1 on white space / at random': show(on.get('f1'), on.get('random_f1')),
    'behind it / at random': show(behind.get('f1'), behind.get('random_f1')),
  }


def _texts(data: config_lib.Data) -> tuple[dict[str, Corpus], Corpus]:
  """(held out, by source; trained on)."""
  texts = text.Texts.of(data.source, data.validation)
  return texts.open_validation(), _joined(texts.open_training().corpora)


def _joined(corpora: Iterable[Corpus]) -> Corpus:
  corpora = tuple(corpora)
  return corpora[0] if len(corpora) == 1 else Joined(corpora, ', '.join(corpus.name for corpus in corpora))


def baselines(workdir: pathlib.Path, max_bytes: int = 0) -> dict[str, float]:
  """Bits per byte of compressors and Markov models on the same held-out text."""
  held_out, seen = _texts(config_lib.parse(read_config(workdir)).data)
  scored = list(_joined(bits_per_byte.first_bytes(corpus, max_bytes)[0] for corpus in held_out.values()))
  markov = evaluation.markov_bits_per_byte(seen, scored, tuple(range(1, 8)))
  best = min(markov, key=markov.get)
  return evaluation.compressed_bits_per_byte(scored) | {f'Markov model of order {best}': markov[best]}


def main(arguments: list[str]) -> None:
  """The command."""
  own, forwarded = trainings.divided(arguments)
  parser = command_line.Parser(prog='python -m studies.compare', description=__doc__)
  parser.add_argument('--workdir', required=True, help='one directory for all runs')
  parser.add_argument('--config', default='configs/compare.py', help='whose argument chooses the model (%(default)s)')
  parser.add_argument(
    '--models', nargs='+', default=MODELS, metavar='NAME[=ARGUMENT]', help='NAME is the argument unless given'
  )
  parser.add_argument('--words', default=WORDS, help="words of the word accuracy (%(default)s); '': leave it out")
  parser.add_argument('--max_bytes', type=int, default=0, help='of each held-out text that are scored; 0: all')
  parser.add_argument('--no_speed', action='store_true', help='leave out the timings')
  flags = parser.parse_args(own)
  if flags.words:
    text.words.parse(flags.words)
  checks.integer(flags.max_bytes, '--max_bytes', 0)
  study, config = paths.of(flags.workdir, '--workdir', text=True), trainings.config_file(flags.config)
  models = {name: argument or name for name, _, argument in (model.partition('=') for model in flags.models)}
  if len(models) < len(flags.models) or any(not name or '/' in name for name in models):
    raise ValueError(f'--models {" ".join(flags.models)}: names must differ and be names of directories')
  workdirs = {name: study / name for name in models}

  trainings.run_all(trainings.Training(workdirs[name], f'{config}:{models[name]}', forwarded) for name in models)
  scores = {name: score(workdir, flags.words, flags.max_bytes) for name, workdir in workdirs.items()}
  timings = {} if flags.no_speed else speeds(workdirs, scores, study / 'speed.json')
  same, differing = conditions(scores)
  scale = ', '.join(
    f'{name} {bits:.3f}' for name, bits in baselines(next(iter(workdirs.values())), flags.max_bytes).items()
  )
  parts = [
    f'`{shlex.join(["python", "-m", "studies.compare", *arguments])}`',
    f'{same[:1].upper()}{same[1:]} For scale, bits per byte: {scale}.',
    table(scores, timings, differing),
    boundaries(scores),
    curves(workdirs),
  ]
  page = '\n\n'.join(part for part in parts if part)
  path = study / 'compare.md'
  kept.write_page(path, page)
  print(f'\n{page}\n\nwritten to {path}')


if __name__ == '__main__':
  command_line.run(main)
