"""Scores a trained model on held-out text: python eval.py --workdir=DIR

Bits per byte, bytes per chunk, and for scale the same bytes under gzip, xz and byte Markov models counted on the
training text; a table on the terminal, DIR/eval.json, and a few documents with the chunk boundaries that the model
draws. DIR is a work directory of train.py, or a directory with official H-Net weights (config.json, model.safetensors;
--source names the text then).
"""

import pathlib
import sys

from absl import flags

from training import command_line

_WORKDIR = flags.DEFINE_string('workdir', None, 'Work directory of a run, or a directory with official weights.')
_STEP = flags.DEFINE_string(
  'step', None, "Checkpoint to score: a number or 'best' (lowest validation score); default: the newest."
)
_SOURCE = flags.DEFINE_string(
  'source', None, 'Text, as in data.source of a config; default: what the run validates on.'
)
_SPLIT = flags.DEFINE_enum('split', 'validation', ['train', 'validation'], 'Which part of the text.')
_MAX_BYTES = flags.DEFINE_integer('max_bytes', 0, 'Score only the first bytes of the text; 0: all of it.')
_SEQ_LEN = flags.DEFINE_integer('seq_len', None, 'Symbols per row; default: as the run validates.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', None, 'Rows per batch; default: as the run validates.')
_SHOW = flags.DEFINE_integer('show_documents', 3, 'How many documents to print with their chunk boundaries.')
_OUTPUT = flags.DEFINE_string('output', None, 'Where the scores go as JSON; default: eval.json in the work directory.')

_SHOWN_BYTES = 400  # of each document
_OFFICIAL_SHAPE = {'seq_len': 8192, 'batch_size': 1}  # the released models were trained on rows of 8192 bytes


def main(_: list[str]) -> None:
  """Scores the model that the flags name, prints the table and writes the scores."""
  import rich.progress
  from rich.console import Console

  import evaluation
  import text
  import training
  from evaluation import report

  if _WORKDIR.value is None:
    raise ValueError('--workdir is missing: name the work directory of a run or a directory with official weights')
  output = pathlib.Path(_OUTPUT.value or pathlib.Path(_WORKDIR.value, 'eval.json'))
  loaded = training.load(_WORKDIR.value, _STEP.value)
  model, config, step = loaded.model, loaded.config, loaded.step
  report.check_writable(output)
  data, settings = config.get('data', {}), config.get('eval', {})
  source = _SOURCE.value or data.get('validation') or data.get('source')
  if not source:
    raise ValueError('--source is missing: official weights name no text to score, try --source=python_docs')
  shape = {
    name: settings.get(name) or config.get(name) or default if given is None else given
    for (name, default), given in zip(_OFFICIAL_SHAPE.items(), (_SEQ_LEN.value, _BATCH_SIZE.value), strict=True)
  }
  corpus = text.open_corpus(source, _SPLIT.value)

  with rich.progress.Progress(
    *rich.progress.Progress.get_default_columns(),
    console=Console(stderr=True),
    transient=True,
    disable=not sys.stderr.isatty(),
  ) as progress:
    task = progress.add_task('scoring')
    result = evaluation.evaluate(
      model,
      corpus,
      **shape,
      max_bytes=_MAX_BYTES.value,
      progress=lambda done, total: progress.update(task, completed=done, total=total),
    )
  scored, _ = evaluation.first_bytes(corpus, _MAX_BYTES.value)
  documents = [scored[index] for index in range(len(scored))]
  baselines = evaluation.compressed_bits_per_byte(documents)
  if data.get('source'):
    try:
      counted_on = text.open_corpus(data['source'], 'train')
    except (OSError, ValueError) as error:
      print(f'no Markov models: {error}', file=sys.stderr)
    else:
      counted = (counted_on[index] for index in range(len(counted_on)))
      for order, bits in evaluation.markov_bits_per_byte(counted, documents).items():
        baselines[f'Markov model of order {order}'] = bits

  sys.stdout.reconfigure(errors='backslashreplace')
  name = 'official weights' if step is None else f'step {step}'
  print(f'{_WORKDIR.value} ({name}) on {corpus.name}')
  Console(markup=False, emoji=False, highlight=False).print(report.table('this model', result, baselines))
  report.write_json(
    output,
    report.as_json(
      result,
      workdir=_WORKDIR.value,
      step=step,
      source=source,
      split=_SPLIT.value,
      fingerprint=corpus.fingerprint,
      baselines=baselines,
    ),
  )
  if result.bytes_per_chunk and _SHOW.value > 0:
    count = min(_SHOW.value, len(documents))
    chosen = [index * len(documents) // count for index in range(count)]
    texts = [documents[index][:_SHOWN_BYTES] for index in chosen]
    for index, shown, stages in zip(chosen, texts, evaluation.segment(model, texts), strict=True):
      print(f'\n--- document {index}, bytes 0 to {len(shown)} of {corpus.lengths[index]}')
      print(evaluation.show_chunks(shown, stages))
  print(f'\nscores: {output}')


if __name__ == '__main__':
  command_line.run(main)
