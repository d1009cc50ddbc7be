"""Finds the threshold at which BLT's patches have a wanted size, for an entropy model and a text.

  python -m studies.calibrate --workdir=runs/quickstart_entropy_lm --size=4.5 --size=6
  python -m studies.calibrate --workdir=runs/quickstart_entropy_lm --mode=both --add=0.2 --source=files:data/*.txt

The entropies of the first rows that a run would train on (--seq_len and --source: by default those of the entropy
model's own run) are computed once. The threshold of each size is the one whose patches, with the first symbols that
open one whatever their entropy and the longest patch (--most), come nearest to it; it is printed with the size that it
gives, and written to calibration.json in the work directory, which the boundary `entropy(lm=DIR,size=…)` reads.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import text
import training
from hnet.parts import patchers
from hnet.parts.entropy import Entropy
from hnet.parts.entropy_lm import CALIBRATION, RULE
from layers import checks, segments, weights
from text import command_line, paths

STEPS = 50  # of the search, each of which halves the range that the threshold may lie in


@dataclasses.dataclass(frozen=True)
class Rows:
  """entropy_NxL float32; segment_ids_NxL int32."""

  entropy_NxL: np.ndarray
  segment_ids_NxL: np.ndarray


def entropies(model: Any, corpora: Any, *, seq_len: int, batch_size: int, seed: int, symbols: int) -> Rows:
  """Of the first rows of a training, about so many symbols."""

  @jax.jit
  def one(model, batch):
    with jax.default_matmul_precision('highest'):  # as in the boundary
      return patchers.entropy(model(batch).logits)

  rows = text.pipeline(corpora, batch_size=batch_size, seq_len=seq_len, seed=seed)
  batches = list(itertools.islice(rows, max(1, symbols // (batch_size * seq_len))))
  found = [np.asarray(one(model, batch)) for batch in batches]
  return Rows(np.concatenate(found), np.concatenate([batch.segment_ids for batch in batches]))


def calibrate(rows: Rows, size: float, mode: str, add: float | None, most: int) -> tuple[float, float]:
  """(threshold in nats, symbols a patch that it gives); ValueError, in a sentence, where none comes within 5 %."""
  count = functools.partial(_patches, jnp.asarray(rows.entropy_NxL), jnp.asarray(rows.segment_ids_NxL), mode, add, most)
  symbols = int(np.sum(rows.segment_ids_NxL > 0))
  low, high = -10.0, 10.0  # an entropy of bytes is at most ln 256 = 5.5
  for _ in range(STEPS):
    middle = (low + high) / 2
    low, high = (low, middle) if count(middle) * size < symbols else (middle, high)
  found, threshold = min((abs(symbols / int(count(x)) - size), float(np.float32(x))) for x in (low, high))
  if found > 0.05 * size:
    realised = symbols / int(count(threshold))
    raise ValueError(
      f'--size={size:g} cannot be had with mode {mode}, add {add} and most {most}: the nearest is {realised:.2f}.'
    )
  return threshold, symbols / int(count(threshold))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _patches(entropy_NxL, segment_ids_NxL, mode, add, most, threshold):
  before_NxL = jnp.pad(entropy_NxL[:, :-1], ((0, 0), (1, 0)))
  position_NxL = segments.positions(segment_ids_NxL)
  ends_NxL = patchers.by_entropy(entropy_NxL, before_NxL, position_NxL, threshold, mode, add)
  ends_NxL = patchers.capped(ends_NxL, patchers.length(ends_NxL), most)
  return jnp.sum(ends_NxL & (segment_ids_NxL > 0))


def write(directory: pathlib.Path, entries: Sequence[dict[str, Any]]) -> pathlib.Path:
  """Puts thresholds in calibration.json, in place of those of the same rule; the others stay."""
  file = directory / CALIBRATION
  known = weights.read_json(file).get('thresholds', []) if file.is_file() else []
  rule = lambda entry: [entry.get(name) for name in RULE]
  kept = [entry for entry in known if rule(entry) not in map(rule, entries)]
  weights.write_json(file, {'thresholds': [*kept, *entries]})
  return file


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m studies.calibrate', description=__doc__)
  parser.add_argument('--workdir', required=True, help='of an entropy model that train.py has trained')
  parser.add_argument('--size', type=float, action='append', help='symbols a patch; may be given several times (4.5)')
  parser.add_argument('--mode', default='threshold', choices=patchers.MODES, help='(%(default)s)')
  parser.add_argument('--add', type=float, help='nats by which entropy must rise, with --mode=both')
  parser.add_argument('--most', type=int, default=0, help='the longest patch; 0: none is (%(default)s)')
  parser.add_argument('--source', help="text, as data.source of a config; default: the run's own")
  parser.add_argument('--seq_len', type=int, help="symbols of a row; default: the run's own")
  parser.add_argument('--symbols', type=int, default=2**20, help='to look at (%(default)s)')
  flags = parser.parse_args(arguments)
  sizes = flags.size or [Entropy.OPTIONS['size']]
  for size in sizes:
    if not 1 < size < 1e6:
      raise ValueError(f'--size={size} must be above 1 and below 1e6')
  if (flags.add is not None) != (flags.mode == 'both'):
    raise ValueError(f'--add={flags.add} with --mode={flags.mode}: give --add with --mode=both only')
  checks.integer(flags.most, '--most', 0)
  directory = paths.of(flags.workdir, '--workdir')
  loaded = training.load(directory)
  if loaded.step is None or loaded.config['model']['family'] != 'hnet' or loaded.model.num_stages != 1:
    raise ValueError(f'--workdir={directory} holds no flat byte model: train configs/quickstart_entropy_lm.py there')
  config = loaded.config
  corpora = text.Texts.of(flags.source or config['data']['source'], config['data']['validation']).open_training()
  rows = entropies(
    loaded.model,
    corpora,
    seq_len=flags.seq_len or config['seq_len'],
    batch_size=config['batch_size'],
    seed=config['seed'],
    symbols=flags.symbols,
  )
  rule = {'mode': flags.mode, 'add': flags.add, 'most': flags.most}
  found = {size: calibrate(rows, size, **rule) for size in sizes}
  about = {'step': loaded.step, 'text': [corpus.fingerprint for corpus in corpora.corpora]}
  entries = [
    {'size': size, **rule, 'threshold': threshold, 'realised': realised, **about}
    for size, (threshold, realised) in found.items()
  ]
  file = write(directory, entries)
  print(f'{"size":>8}  {"threshold":>10}  {"realised":>8}')
  for size, (threshold, realised) in found.items():
    print(f'{size:8g}  {threshold:10.4f}  {realised:8.3f}')
  print(f'on {rows.entropy_NxL.size:,} symbols of rows of {rows.entropy_NxL.shape[1]}, step {loaded.step}: {file}')


if __name__ == '__main__':
  command_line.run(main)
