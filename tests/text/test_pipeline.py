"""The stream of batches: one order for any number of hosts and workers, resumed from one integer."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import text
from text.corpus import MemoryCorpus
from text.packing import RowStream, materialise

SEQ_LEN = 16
CORPUS = MemoryCorpus([bytes([index] * (index % 23 + 1)) for index in range(40)])  # 33 rows or so: borders come soon
BATCHES = 20


def take(number, **kwargs):
  arguments = {'batch_size': 4, 'seq_len': SEQ_LEN, 'seed': 1} | kwargs
  stream = text.pipeline(CORPUS, **arguments)
  batches = list(itertools.islice(stream, number))
  stream.close()
  return batches


def rows_of(batches):
  return np.concatenate([np.stack([batch.bytes, batch.segment_ids, batch.specials], -1) for batch in batches])


@pytest.fixture(scope='module')
def expected():
  stream = RowStream(CORPUS.lengths, SEQ_LEN, 1)
  return rows_of([materialise(CORPUS, stream.pieces(np.array([row])), 1, SEQ_LEN) for row in range(4 * BATCHES)])


def test_batches_are_the_row_stream_over_the_borders_of_epochs(expected):
  batches = take(BATCHES)
  assert RowStream(CORPUS.lengths, SEQ_LEN, 1).locate(4 * BATCHES - 1)[0] >= 2
  assert all(isinstance(batch, text.Batch) and type(batch.bytes) is np.ndarray for batch in batches)
  assert batches[0].bytes.shape == (4, SEQ_LEN) and batches[0].bytes.dtype == np.uint8
  np.testing.assert_array_equal(rows_of(batches), expected)


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_together_have_the_batches_of_one(hosts, expected):
  shares = [take(BATCHES, host=host, hosts=hosts) for host in range(hosts)]
  assert all(batch.bytes.shape == (4 // hosts, SEQ_LEN) for batch in shares[0])
  np.testing.assert_array_equal(rows_of(itertools.chain(*zip(*shares, strict=True))), expected)


@pytest.mark.parametrize('start_row', [4, 7, 32, 33, 34, 60])
def test_the_stream_continues_from_any_row(start_row, expected):
  np.testing.assert_array_equal(rows_of(take(4, start_row=start_row)), expected[start_row : start_row + 16])


def test_a_run_may_continue_with_other_hosts_and_another_batch_size(expected):
  shares = [take(5, start_row=12, batch_size=6, host=host, hosts=2) for host in range(2)]
  np.testing.assert_array_equal(rows_of(itertools.chain(*zip(*shares, strict=True))), expected[12:42])


def test_worker_processes_give_the_same_batches(expected):
  batches = take(BATCHES - 2, workers=2, start_row=8)
  assert all(type(batch.bytes) is np.ndarray for batch in batches)
  np.testing.assert_array_equal(rows_of(batches), expected[8:])


def test_one_tiny_document_and_a_batch_of_many_epochs_work():
  stream = text.pipeline(MemoryCorpus([b'a']), batch_size=8, seq_len=64, seed=0)
  batch = next(itertools.islice(stream, 3, None))
  np.testing.assert_array_equal(batch.bytes[:, :3], [[text.BOS, 97, text.EOS]] * 8)
  assert batch.scored.sum() == 16


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'batch_size': 0}, 'batch_size=0 must be at least 1'),
    ({'batch_size': 4, 'hosts': 3}, 'batch_size=4 must be a multiple of hosts=3'),
    ({'host': 2, 'hosts': 2}, r'host=2 must be from 0 to hosts - 1 = 1'),
    ({'seq_len': 1}, 'seq_len=1 must be at least 2'),
    ({'seed': -1}, 'seed=-1 must be at least 0'),
    ({'start_row': -4}, 'start_row=-4 must be at least 0'),
    ({'workers': -1}, 'workers=-1 must be at least 0'),
    ({'prefetch': 0}, 'prefetch=0 must be at least 1'),
  ],
)
def test_numbers_out_of_range_are_refused_at_the_call(arguments, message):
  with pytest.raises(ValueError, match=message):
    text.pipeline(CORPUS, **({'batch_size': 4, 'seq_len': SEQ_LEN, 'seed': 1} | arguments))


def test_importing_text_does_not_import_grain():
  code = 'import sys, text, text.packing; assert callable(text.pipeline); assert "grain" not in sys.modules'
  subprocess.run([sys.executable, '-c', code], check=True, env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)})


KILLED = """
import multiprocessing, time, text
from text.corpus import MemoryCorpus
if __name__ == '__main__':
  batches = text.pipeline(MemoryCorpus([b'abc' * 100]), batch_size=2, seq_len=16, seed=0, workers=1)
  next(batches)
  print(*(child.pid for child in multiprocessing.active_children()), flush=True)
  time.sleep(60)
"""


def test_worker_processes_end_when_the_run_is_killed(tmp_path):
  (tmp_path / 'run.py').write_text(KILLED)
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
  with subprocess.Popen([sys.executable, tmp_path / 'run.py'], stdout=subprocess.PIPE, env=environment) as run:
    workers = [int(pid) for pid in run.stdout.readline().split()]
    run.send_signal(signal.SIGKILL)
  assert workers
  deadline = time.monotonic() + 20
  while any(is_running(pid) for pid in workers):
    assert time.monotonic() < deadline
    time.sleep(0.05)


def is_running(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  with open(f'/proc/{pid}/stat') as stat:  # a dead child that nobody has collected yet
    return stat.read().rpartition(')')[2].split()[0] != 'Z'
