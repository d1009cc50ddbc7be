"""How fast trained models train and decode, all of them in one process and in turns, so that they can be compared.

  python -m studies.speed --output=speed.json runs/compare/hnet runs/compare/hat

Training: steps on the run's own batches (same rows, batch size and text), forward, backward and update, with room for
as many chunks as the fullest row of these batches has. Decoding: one row, from a prompt of real text, sampled at
temperature 1. Bytes a second are of text (what a model draws besides, such as ends of words, costs time and counts
nothing); compilation is left out; medians over turns.
"""

import itertools
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import jax

import text
import training
from evaluation import generation, report
from layers import capacity
from text import command_line, paths
from training.state import flatten
from training.trainer import Trainer

STEPS = 10  # of training in a turn
PROMPT, DECODED = 128, 256  # bytes


def measure(workdirs: Sequence[pathlib.Path], turns: int) -> dict[str, dict[str, float]]:
  """{work directory: {'train': bytes a second, 'decode': bytes a second}}.

  Raises FileNotFoundError or ValueError for what is no work directory of a run with a checkpoint.
  """
  runs = {str(path): training.load(path) for path in workdirs}
  for name, run in runs.items():
    if run.step is None:
      raise ValueError(f'{name} holds official weights, which name no text and no batches: give the directory of a run')
  trains = _in_turns({name: _training(run) for name, run in runs.items()}, turns)
  decodes = _in_turns({name: _decoding(run) for name, run in runs.items()}, turns)
  return {name: {'train': trains[name], 'decode': decodes[name]} for name in runs}


def _in_turns(measured: Mapping[str, Callable[[], tuple[float, float]]], turns: int) -> dict[str, float]:
  """Medians of bytes a second of functions that return (bytes, seconds); the first turn compiles and is left out."""
  found = {name: [] for name in measured}
  for turn in range(turns + 1):
    for name, function in measured.items():
      done, seconds = function()
      found[name] += [done / seconds] if turn else []
      print(f'{name}: turn {turn} of {turns}', file=sys.stderr, flush=True)
  return {name: statistics.median(values) for name, values in found.items()}


def _training(loaded: training.Loaded) -> Callable[[], tuple[float, float]]:
  trainer = Trainer.of(loaded.config)
  corpora = _texts(loaded).open_training()
  with jax.set_mesh(trainer.mesh):
    batches = [trainer.put(batch) for batch in itertools.islice(trainer.batches(corpora), STEPS)]
    state = trainer.state(flatten(loaded.model))
    room = capacity.holding(loaded.model, batches)
    step = trainer.compile(state, batches[0], room, lambda line: None)

  def run() -> tuple[float, float]:
    nonlocal state
    began = time.perf_counter()
    with jax.set_mesh(trainer.mesh):
      for batch in batches:
        state, _, needed = step(state, batch)
      jax.block_until_ready(needed)
    return sum(float((batch.segment_ids > 0).sum()) for batch in batches), time.perf_counter() - began

  return run


def _decoding(loaded: training.Loaded) -> Callable[[], tuple[float, float]]:
  texts = _texts(loaded)
  corpus = texts.open(texts.validation[0])
  longest = int(corpus.lengths.argmax())
  prompt = corpus.read(longest, 0, PROMPT)

  def run() -> tuple[float, float]:
    began = time.perf_counter()
    (continuation,) = generation.generate(loaded.model, [prompt], DECODED, stop_at_eos=False)
    return len(continuation), time.perf_counter() - began

  return run


def _texts(loaded: training.Loaded) -> text.Texts:
  return text.Texts.of(loaded.config['data']['source'], loaded.config['data']['validation'])


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m studies.speed', description=__doc__)
  parser.add_argument('workdirs', nargs='+', metavar='WORKDIR', help='of trained models')
  parser.add_argument('--turns', type=int, default=7, help='(%(default)s)')
  parser.add_argument('--output', help='where the figures go as JSON')
  flags = parser.parse_args(arguments)
  if flags.turns < 1:
    raise ValueError(f'--turns={flags.turns} must be at least 1')
  workdirs = [paths.of(workdir, 'WORKDIR', text=True) for workdir in flags.workdirs]
  output = None if flags.output is None else paths.of(flags.output, '--output')
  if output is not None:
    report.check_writable(output)
  found = measure(workdirs, flags.turns)
  print(json.dumps(found, indent=2))
  if output is not None:
    report.write_json(output, found)


if __name__ == '__main__':
  if sys.platform == 'linux' and 'GLIBC_TUNABLES' not in os.environ:
    # Huge pages, as in train.py: what is timed here should run as it does there.
    os.environ['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
  command_line.run(main)
