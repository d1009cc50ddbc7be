import math
import shutil
import subprocess
from collections import Counter, defaultdict

import numpy as np
import pytest

from evaluation.baselines import compressed_bits_per_byte, markov_bits_per_byte

BOS = 254


def naive_markov(training, held_out, order):
  counts = [defaultdict(Counter) for _ in range(order + 1)]
  for document in training:
    padded = bytes([BOS]) * order + document
    for i in range(order, len(padded)):
      for k in range(order + 1):
        counts[k][padded[i - k : i]][padded[i]] += 1
  nats = total = 0
  for document in held_out:
    padded = bytes([BOS]) * order + document
    for i in range(order, len(padded)):
      p = 1 / 256
      for k in range(order + 1):
        seen = counts[k].get(padded[i - k : i])
        if seen:
          p = (seen[padded[i]] + len(seen) * p) / (sum(seen.values()) + len(seen))
      nats, total = nats - math.log(p), total + 1
  return nats / math.log(2) / total


@pytest.mark.parametrize('alphabet', [2, 5, 256])
def test_markov_models_equal_a_naive_dictionary(alphabet):
  random = np.random.default_rng(alphabet)
  texts = [random.integers(256 - alphabet, 256, length, np.uint8).tobytes() for length in (0, 1, 2, 300, 90, 40, 3, 0)]
  got = markov_bits_per_byte(texts[:4], texts[4:], (1, 2, 3, 5))
  assert list(got) == [1, 2, 3, 5]
  for order, bits in got.items():
    assert bits == pytest.approx(naive_markov(texts[:4], texts[4:], order), rel=1e-12)


def test_witten_bell_by_hand():
  # Training 'ab' twice: after BOS a×2; after a b×2; order 0 has a×2, b×2.
  order0 = (2 + 2 / 256) / (4 + 2)
  expected = -math.log2((2 + 1 * order0) / (2 + 1))
  assert markov_bits_per_byte([b'ab', b'ab'], [b'a'], (1,))[1] == pytest.approx(expected)
  assert markov_bits_per_byte([b'ab', b'ab'], [b'ab'], (1,))[1] == pytest.approx(expected)


def test_markov_models_do_not_see_across_documents():
  whole = markov_bits_per_byte([b'xyxyxyxy'], [b'x', b'y'], (1,))
  assert whole != markov_bits_per_byte([b'xyxyxyxy'], [b'xy'], (1,))
  assert whole == markov_bits_per_byte([b'xyxyxyxy'], [b'y', b'', b'x'], (1,))


@pytest.mark.parametrize(
  ('training', 'held_out', 'orders', 'word'),
  [
    ([b'a'], [b'a'], (0,), 'orders'),
    ([b'a'], [b'a'], (8,), 'orders'),
    ([b'a'], [b'a'], (), 'orders'),
    ([b''], [b'a'], (1,), 'at least one byte'),
    ([b'a'], [], (1,), 'at least one byte'),
  ],
)
def test_markov_models_refuse_what_they_cannot_count(training, held_out, orders, word):
  with pytest.raises(ValueError, match=word):
    markov_bits_per_byte(training, held_out, orders)


@pytest.mark.parametrize('program', ['gzip', 'xz'])
def test_compressors_are_the_programs_on_the_concatenation(program):
  if not shutil.which(program):
    pytest.skip(f'{program} is not installed')
  documents = [b'one two three ' * 50, b'', bytes(range(256)), 'é🙂'.encode() * 9]
  data = b''.join(documents)
  size = len(subprocess.run([program, '-9'], input=data, capture_output=True, check=True).stdout)
  assert compressed_bits_per_byte(documents)[f'{program} -9'] == 8 * size / len(data)


def test_compressing_nothing_is_refused():
  with pytest.raises(ValueError, match='no byte'):
    compressed_bits_per_byte([b''])
