"""Sources that are made up, for the tests of preparing; importable by processes that a test starts."""

import time

import numpy as np

from text.prepare import ByHash, prepare

SHARD_BYTES = 20_000


class Group:
  """Random documents; the same text is drawn again by a group with the same seed."""

  def __init__(self, seed, count=12, pause=0.0):
    self.key, self.seed, self.count, self.pause = f'group {seed}', seed, count, pause

  def __iter__(self):
    generator = np.random.default_rng(self.seed)
    for _ in range(self.count):
      time.sleep(self.pause)
      yield generator.bytes(int(generator.integers(1, 3000)))


class Listed:
  """Documents in memory."""

  def __init__(self, *documents, key='listed'):
    self.key, self.documents = key, documents

  def __iter__(self):
    return iter(self.documents)


GROUPS = [Group(seed) for seed in range(12)]
DOCUMENTS = [document for group in GROUPS for document in group]
ALL_TRAIN = ByHash(0, 0)


def run(groups, out, **settings):
  settings = {'source': 'test', 'name': 'data', 'shard_bytes': SHARD_BYTES} | settings
  return prepare(groups, out, **settings)


def contents(directory):
  return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}
