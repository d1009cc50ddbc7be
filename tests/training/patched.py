"""train.py with a fault in it: python -m tests.training.patched FAULT --config=…, FAULT a function of this file."""

import dataclasses
import runpy
import sys

import jax
import numpy as np

from training.checkpoint import array_store
from training.trainer import Trainer

ROWS = range(56, 136)  # the batches of steps 8 to 17, in a run without rollbacks


def bad_data(replace=setattr) -> None:
  """ROWS of the stream are of a byte that makes the loss nan where model.poison_byte is 1."""
  batches = Trainer.batches

  def poisoned(self, corpora, start_row=0):
    for batch in batches(self, corpora, start_row):
      yield dataclasses.replace(batch, bytes=np.where(start_row in ROWS, np.uint8(1), batch.bytes))
      start_row += self.settings.batch_size

  replace(Trainer, 'batches', poisoned)


def bad_reader() -> None:
  """Process 1 cannot read the checkpoint of step 20, and reads other numbers in that of step 15."""
  place = array_store.place

  def misread(item, *arguments):
    placed = place(item, *arguments)
    if jax.process_index() == 1 and item.parent.name == '20':
      raise array_store.Unreadable('Input/output error')
    if jax.process_index() == 1 and item.parent.name == '15':
      local = lambda x: [jax.device_put(np.asarray(part.data) + 1, part.device) for part in x.addressable_shards]
      placed = {
        path: jax.make_array_from_single_device_arrays(x.shape, x.sharding, local(x)) for path, x in placed.items()
      }
    return placed

  array_store.place = misread


if __name__ == '__main__':
  globals()[sys.argv.pop(1)]()
  sys.argv[0] = 'train.py'
  runpy.run_path('train.py', run_name='__main__')
