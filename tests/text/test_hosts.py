"""Reading as a cluster does: real processes, killed in the middle, gone on with by another number of them."""

import collections
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import text
from text.prepare import ByHash, prepare

ROOT = pathlib.Path(__file__).parents[2]
BATCH_SIZE, SEQ_LEN, SEED = 8, 64, 3

# One host: writes each of its batches as it comes, and says so; `stop` batches, or until it is killed.
HOST = """
import os
import sys
import numpy as np
import text

directory, target, start_row, host, hosts, stop = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
mixture = text.open_mixture(((f'prepared:{directory}', 3.0), ('files:' + directory + '/*.json@all', 1.0)))
batches = text.pipeline(mixture, batch_size=8, seq_len=64, seed=3, start_row=start_row, host=host, hosts=hosts)
for number, batch in zip(range(stop), batches):
  path = f'{target}/{start_row + 8 * number:05}-{host}.npy'
  np.save(f'{path}.partial.npy', np.stack([batch.bytes, batch.segment_ids]))
  os.replace(f'{path}.partial.npy', path)  # a kill leaves no half file under this name
  print(number, flush=True)
"""


class Documents:
  key = 'documents'

  def __iter__(self):
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, length, np.uint8).tobytes() for length in [100_000, *rng.integers(1, 900, 60)])


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  out = tmp_path_factory.mktemp('prepared') / 'small'
  prepare([Documents()], out, source='drawn', splits=ByHash(0.1, 0.1), processes=1, report=lambda line: None)
  return out


def start(directory, target, start_row, hosts, stop):
  return [
    subprocess.Popen(
      [sys.executable, '-c', HOST, *map(str, (directory, target, start_row, host, hosts, stop))],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      text=True,
    )
    for host in range(hosts)
  ]


def global_batches(target, hosts):
  """{first row: rows of all hosts} of the batches that every host has written."""
  firsts = sorted({int(path.stem.split('-')[0]) for path in target.glob('?????-0.npy')})
  paths = {first: [target / f'{first:05}-{host}.npy' for host in range(hosts)] for first in firsts}
  return {
    first: np.concatenate([np.load(path) for path in of_hosts], axis=1)
    for first, of_hosts in paths.items()
    if all(path.exists() for path in of_hosts)
  }


def test_two_killed_processes_are_gone_on_with_by_one_and_by_four(directory, tmp_path):
  killed = tmp_path / 'killed'
  killed.mkdir()
  processes = start(directory, killed, 0, 2, 10**6)
  for process in processes:
    for _ in range(5):
      process.stdout.readline()
  for process in processes:
    process.kill()
    process.wait()
  read = global_batches(killed, 2)
  complete = sorted(read)[:4]  # whatever came after may be cut by the kill
  assert complete == [0, 8, 16, 24]
  position = complete[-1] + BATCH_SIZE
  sequences = []
  for hosts in (1, 4):
    target = tmp_path / str(hosts)
    target.mkdir()
    for process in start(directory, target, position, hosts, 6):
      process.communicate()
      assert process.returncode == 0
    sequences.append([read[first] for first in complete] + list(global_batches(target, hosts).values()))
  mixture = text.open_mixture(((f'prepared:{directory}', 3.0), (f'files:{directory}/*.json@all', 1.0)))
  batches = text.pipeline(mixture, batch_size=BATCH_SIZE, seq_len=SEQ_LEN, seed=SEED)
  expected = [np.stack([batch.bytes, batch.segment_ids]) for batch in (next(batches) for _ in range(10))]
  for sequence in sequences:
    np.testing.assert_array_equal(np.stack(sequence), np.stack(expected))


def test_the_rows_of_an_epoch_give_back_every_document(directory):
  corpus = text.open_corpus(f'prepared:{directory}', 'train')
  stream = text.packing.RowStream(corpus.lengths, SEQ_LEN, SEED)
  plan = stream.plan(0)
  pieces = plan.pieces(np.arange(len(plan)))
  batch = text.packing.materialise(corpus, pieces, len(plan), SEQ_LEN)
  found = [{} for _ in range(len(corpus))]
  segments = collections.Counter()
  for row, document, start, _, first_scored in zip(*(array.tolist() for array in pieces), strict=True):
    segments[row] += 1
    segment = segments[row]
    symbols = batch.bytes[row][batch.segment_ids[row] == segment].tobytes()
    found[document][start] = symbols if start == 0 else symbols[first_scored - start :]
  for document, parts in enumerate(found):
    assert b''.join(parts[start] for start in sorted(parts)) == b'\xfe' + corpus[document] + b'\xff'
