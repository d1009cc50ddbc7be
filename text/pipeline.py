"""Training batches without end, in an order that depends on (corpus, seq_len, seed) alone."""

import copy
import dataclasses
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping

import numpy as np

from text import marks as marks_lib
from text.batch import Batch
from text.corpus import Corpus
from text.mixture import MixedRows, Mixture


def pipeline(
  source: Corpus | Mixture,
  *,
  batch_size: int,
  seq_len: int,
  seed: int,
  start_row: int = 0,
  host: int = 0,
  hosts: int = 1,
  workers: int = 0,
  prefetch: int = 4,
  marks: Mapping[str, str] | None = None,
) -> Iterator[Batch]:
  """This host's share of each global batch: numpy Batches of [batch_size // hosts, seq_len], for ever.

  Batch k holds rows [start_row + k * batch_size, start_row + (k + 1) * batch_size) of one stream of rows, all epochs
  one after the other; host h has the h-th block of them. To resume after k batches is start_row + k * batch_size, with
  any number of hosts, workers and batch size. workers: 0 packs in a thread, more in that many processes (scripts then
  need a __main__ guard); the batches are the same. prefetch: batches made ahead, per worker. marks: name ->
  specification, as models state them, such as {'words': 'hat(max_bytes=64)'} (text.marks).
  Raises ValueError where a number is out of its range, and for marks that are not known or do not fit.
  The iterator raises OSError or ValueError, naming source and document, for one that cannot be read and for a worker
  process that ends before its time.
  """
  for name, value, least in (
    ('batch_size', batch_size, 1),
    ('seed', seed, 0),
    ('start_row', start_row, 0),
    ('hosts', hosts, 1),
    ('workers', workers, 0),
    ('prefetch', prefetch, 1),
  ):
    if value < least:
      raise ValueError(f'{name}={value} must be at least {least}')
  if not 0 <= host < hosts:
    raise ValueError(f'host={host} must be from 0 to hosts - 1 = {hosts - 1}')
  if batch_size % hosts:
    raise ValueError(f'batch_size={batch_size} must be a multiple of hosts={hosts}: every host has an equal share')
  marks = dict(marks or {})
  for kind in marks_lib.parse(marks).values():  # what is wrong with them is an error here, not in a worker
    kind.check_rows(seq_len)
  mixture = source if isinstance(source, Mixture) else Mixture([source])
  # What each worker reads; deleted with the iterator.
  notes = tempfile.NamedTemporaryFile(prefix='reading-') if workers else None  # noqa: SIM115
  mixture = copy.copy(mixture)
  mixture.corpora = tuple(_Noted(corpus, index, notes and notes.name) for index, corpus in enumerate(mixture.corpora))
  rows, share = MixedRows(mixture, seq_len, seed), batch_size // hosts  # what cannot be packed is an error here
  batches = _HostBatches(rows, start_row + host * share, share, batch_size, marks)

  import grain  # here, so that models and evaluation can import text without it

  dataset = grain.MapDataset.source(batches).to_iter_dataset(
    grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch)  # one thread: rows are asked for in rising order
  )
  if workers:
    notes.truncate(workers * 3 * np.dtype(np.int64).itemsize)
    from absl import flags

    if not flags.FLAGS.is_parsed():  # outside absl.app, as in a notebook, grain's processes read flags all the same
      flags.FLAGS.mark_as_parsed()
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1), worker_init_fn=_begin_worker
    )
    # batches are small: copied, they are plain arrays, and a killed run leaves nothing in shared memory
    options = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
    dataset = grain.experimental.WithOptionsIterDataset(dataset, options)
  return _without_dead_workers(iter(dataset), mixture, notes) if workers else iter(dataset)


def _without_dead_workers(batches: Iterator[Batch], mixture: Mixture, notes) -> Iterator[Batch]:
  """The batches; OSError where the process that makes them has ended."""
  try:
    yield from batches
  except (OSError, ValueError) as error:
    raise type(error)(str(error)) from None  # the traceback is the worker's
  except RuntimeError as error:
    if 'Worker process was terminated' not in str(error):
      raise
    read = [note for note in np.fromfile(notes.name, np.int64).reshape(-1, 3) if note[0] and not _is_alive(note[0])]
    named = (f"document {document} of '{mixture.corpora[index].name}'" for _, index, document in read)
    documents = ' or '.join(dict.fromkeys(named))  # two workers may have died of the same one
    raise OSError(
      f'a data worker ended before its time, when it had come to {documents or "no document yet"} '
      f'({str(error).partition(". ")[0]}): it was killed, perhaps for want of memory, or its reader crashed; the same '
      'command goes on from the last checkpoint, with data.workers=0 it shows a crash'
    ) from None


def _is_alive(process: int) -> bool:
  try:
    os.kill(int(process), 0)
  except OSError:
    return False
  return True


class _Noted(Corpus):
  """A corpus whose errors name the document, and whose reader in a worker process notes which one it reads."""

  def __init__(self, corpus: Corpus, index: int, notes: str | None):
    self.name, self.lengths, self.fingerprint = corpus.name, corpus.lengths, corpus.fingerprint
    self._corpus, self._index, self._notes, self._note = corpus, index, notes, None

  def __getstate__(self):
    return (self._corpus, self._index, self._notes)  # a corpus on disk pickles as its path

  def __setstate__(self, state):
    self.__init__(*state)

  def read(self, document: int, start: int, stop: int) -> bytes:
    if _worker is not None:
      if self._note is None:
        size = 3 * np.dtype(np.int64).itemsize
        self._note = np.memmap(self._notes, np.int64, 'r+', _worker * size, 3)
      self._note[:] = os.getpid(), self._index, document
    try:
      return self._corpus.read(document, start, stop)
    except (OSError, ValueError) as error:
      kind = OSError if isinstance(error, OSError) else ValueError
      raise kind(f"document {document} of '{self.name}' cannot be read: {error}") from None


_worker: int | None = None  # the number of this process among those that make batches


def _begin_worker(worker: int, workers: int) -> None:
  """Takes the number of a worker process, and ends it when the training process was killed: it would wait for ever.

  Ctrl-C and a terminal that closes come to all processes; the training process needs its batches until it has saved.
  """
  global _worker
  _worker = worker
  for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def watch():
    parent.join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


@dataclasses.dataclass(frozen=True)
class _HostBatches:
  """Random access to one host's share of the k-th global batch: `share` rows from first_row + k * batch_size on."""

  rows: MixedRows
  first_row: int
  share: int
  batch_size: int
  marks: Mapping[str, str]

  def __len__(self) -> int:
    return sys.maxsize  # the stream has no end

  def __getitem__(self, index: int) -> Batch:
    return self.rows.batch(self.first_row + index * self.batch_size, self.share, self.marks)
