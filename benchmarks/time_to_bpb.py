"""How long a model takes, from a cold start, to beat gzip and then xz on held-out text.

  python -m text.corpora fetch english_wiki code_python --out=data/corpora
  python -m benchmarks.time_to_bpb
  python -m benchmarks.time_to_bpb --corpora english_wiki --models hnet -- --config.optimizer.learning_rate=0.004

Each run is `train.py --config=configs/compare.py:MODEL` with a short warm-up (RECIPE) on the corpus, timed from the
start of the process (so imports, compilation and the evaluations themselves are in it) until validation falls below
the compressor's bits per byte on the same bytes; what stands behind `--` goes to each. A run ends there, at
--max_minutes or when it is trained.
"""

import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

import evaluation
import text
from evaluation import report
from text import command_line

TRAIN = pathlib.Path(__file__).parent.parent / 'train.py'
NOTHING_COMPILED = {'JAX_COMPILATION_CACHE_DIR': ''}
LIMITS = ('gzip -9', 'xz -9')
RECIPE = ('--config.optimizer.schedule.warmup=0.01',)  # what gets there with the fewest bytes: docs/performance.md


def main(arguments: list[str]) -> None:
  """The command."""
  own, _, forwarded = '\0'.join(arguments).partition('\0--\0')
  parser = command_line.Parser(prog='python -m benchmarks.time_to_bpb', description=__doc__)
  parser.add_argument('--corpora', nargs='+', default=['english_wiki', 'code_python'], help='(%(default)s)')
  parser.add_argument('--models', nargs='+', default=['hnet', 'transformer'], help='of configs/compare.py')
  parser.add_argument('--eval_bytes', type=int, default=100_000, help='of held-out text (%(default)s)')
  parser.add_argument('--every_steps', type=int, default=50, help='steps between two evaluations (%(default)s)')
  parser.add_argument('--max_minutes', type=float, default=30, help='of one run (%(default)s)')
  flags = parser.parse_args(own.split('\0') if own else [])
  rows = []
  for corpus in flags.corpora:
    documents = list(evaluation.first_bytes(text.open_corpus(f'corpus:{corpus}', 'validation'), flags.eval_bytes)[0])
    limits = {name: bits for name, bits in evaluation.compressed_bits_per_byte(documents).items() if name in LIMITS}
    for model in flags.models:
      command = [
        *(
          sys.executable,
          str(TRAIN),
          f'--config={TRAIN.parent}/configs/compare.py:{model}',
          '--config.log.every_steps=10',
        ),
        f'--config.data.source=corpus:{corpus}',
        f'--config.eval.every_steps={flags.every_steps}',
        f'--config.eval.max_bytes={flags.eval_bytes}',
        *RECIPE,
        *(forwarded.split('\0') if forwarded else []),
      ]
      print(shlex.join(['python', *command[1:]]), file=sys.stderr, flush=True)
      reached, last = race(command, limits, 60 * flags.max_minutes)
      for name, bits in limits.items():
        print(f'{corpus}, {model}, {name}: {reached.get(name, "not reached")}', file=sys.stderr, flush=True)
        elapsed, size = reached.get(name, (None, None))
        rows.append(
          {
            'text': corpus,
            'model': model,
            'below': f'{name} ({bits:.3f})',
            'seconds': '–' if elapsed is None else f'{elapsed:.0f}',
            'MB read': '–' if size is None else f'{size / 1e6:.2f}',
            'last validation': '–' if last is None else f'{last:.3f}',
          }
        )
  print(report.markdown(rows))


def race(
  command: list[str], limits: dict[str, float], seconds: float
) -> tuple[dict[str, tuple[float, int]], float | None]:
  """({limit: (seconds, bytes read) when it was passed}, last validation or None) of a training command."""
  from training.workdir import read_config

  reached, last, began = {}, None, time.monotonic()
  with tempfile.TemporaryDirectory() as directory:
    workdir = pathlib.Path(directory, 'run')
    command = [*command, f'--workdir={workdir}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | NOTHING_COMPILED) as process:
      for line in process.stdout:
        elapsed = time.monotonic() - began
        if 'validation bpb' in line:
          config = read_config(workdir)
          size = int(line.split()[1].partition('/')[0]) * config['batch_size'] * config['seq_len']
          last = float(line.partition('validation bpb')[2].split()[0])
          reached |= {name: (elapsed, size) for name, bits in limits.items() if last < bits and name not in reached}
        if len(reached) == len(limits) or elapsed > seconds:
          process.kill()
          return reached, last
    if process.returncode:
      raise ValueError(f'the training ended with code {process.returncode}, see above')
  return reached, last


if __name__ == '__main__':
  command_line.run(main)
