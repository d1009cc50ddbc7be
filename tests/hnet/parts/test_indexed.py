"""AU-Net's unpool against its definition, one slot at a time."""

import jax
import numpy as np
import pytest
from flax import nnx

from hnet import parts
from hnet.parts import Sizes
from hnet.parts.indexed import OFFSETS
from layers.paths import flatten, rebuild
from tests.hnet.parts.common import chunks_of, cut_of, level_of
from tests.layers.common import random, segment_ids

SIZES = Sizes(4, 8)
SIZE = 2  # slots of a bin
IDS = segment_ids([40], [25, 14])
EMIT = np.zeros(IDS.shape, bool)
EMIT[0, [0, 3, 4]] = EMIT[1, [0, 9, 25, 30]] = True  # distances beyond the sixteen that are told apart


@pytest.mark.parametrize('narrow', ['linear', 'mean'])
@pytest.mark.parametrize('by', ['matrix', 'embedding', 'start', 'bin'])
@pytest.mark.parametrize('limit', [None, 3])  # behind which the last document has no chunk
def test_slots_get_what_the_definition_says(by, narrow, limit):
  part = parts.parse('unpool', f'indexed({by},{narrow},{SIZE if by == "bin" else 1})').build(SIZES, rngs=nnx.Rngs(0))
  part = rebuild(part, {path: leaf + 0.3 * random(*leaf.shape) for path, leaf in flatten(part).items()})
  z, residual = random(2, 6, SIZES.inner), random(*IDS.shape, SIZES.width, seed=1)
  run = jax.jit(lambda z: part(z, cut_of(EMIT), level_of(IDS).cut(EMIT, 6, limit), None, residual))
  expected = np.float64(residual)
  weights = {path: np.float64(leaf) for path, leaf in flatten(part).items()}

  def normed(x, name):
    return x / np.sqrt(np.mean(x * x) + 1e-5) * weights[f'{name}.scale']

  def narrowed(x):
    return x @ weights['map.kernel'] if narrow == 'linear' else x.reshape(SIZES.width, -1).mean(-1)

  for row, (starts, own) in enumerate(chunks_of(EMIT, IDS, limit)):
    for t, chunk in enumerate(own):
      if chunk < 0 or (by == 'start' and t not in starts):
        continue
      x, offset = np.float64(z[row, chunk]), t - starts[chunk]
      offset = min(offset // SIZE, OFFSETS - 1) if by == 'bin' else offset % OFFSETS
      n = normed(x, 'norm') if narrow == 'linear' else x
      if by in ('matrix', 'bin'):
        of_maps = n if narrow == 'linear' else normed(x, 'maps_norm')
        rest = 0 if by == 'bin' and narrow == 'linear' else narrowed(n)
        expected[row, t] += rest + of_maps @ weights['maps_OxExD'][offset]
      else:
        expected[row, t] += narrowed(n + weights['places_OxE'][offset] if by == 'embedding' else n)
  np.testing.assert_allclose(run(z), expected, atol=1e-5)


def test_a_size_without_bins_is_named():
  with pytest.raises(ValueError, match='unpool indexed: size=2 is of by=bin, and by is matrix: leave it out'):
    parts.parse('unpool', 'indexed(size=2)').build(SIZES, rngs=nnx.Rngs(0))


def test_channels_that_do_not_divide_are_named():
  with pytest.raises(ValueError, match='unpool indexed: narrow=mean needs 9 channels to be a multiple of 4'):
    parts.parse('unpool', 'indexed(narrow=mean)').build(Sizes(4, 9), rngs=nnx.Rngs(0))
