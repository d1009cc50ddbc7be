"""Checkpoints: state and data position of a step, written by Orbax while training goes on.

  DIR/STEP/params, optimizer, ema   {path: array}; ema only where the run keeps an average
  DIR/STEP/record                   JSON: counters, position in the data, a checksum of each array and of itself

A step directory appears under its name only when it is complete. It counts when it also reads back as it was saved:
only then are older ones removed. A checkpoint is whole if it can be read and all checksums agree.

`python -m training.checkpoint verify DIR` reads every checkpoint of a work directory and says which are whole.
"""

from training.checkpoint.reading import (
  METRIC,
  DamagedCheckpoint,
  RemovedCheckpoint,
  all_steps,
  best_step,
  damage,
  half_written,
  load_params,
  of_first,
  read_record,
  restore,
  sums_of,
)
from training.checkpoint.writing import Checkpoints, roll_back

__all__ = [
  'METRIC',
  'Checkpoints',
  'DamagedCheckpoint',
  'RemovedCheckpoint',
  'all_steps',
  'best_step',
  'damage',
  'half_written',
  'load_params',
  'of_first',
  'read_record',
  'restore',
  'roll_back',
  'sums_of',
]
