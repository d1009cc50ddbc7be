"""Every part one slot at a time, against all slots at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hnet import systems
from hnet.parts.base import ENDS
from hnet.parts.unpools import spread
from layers.chunks import Level
from layers.contract import EVAL
from tests.hnet.parts.common import SIZES, build
from tests.layers.common import random

SMALL = {'tfree_hat': 'tfree_hat(pool_heads=2,heads=2)'}  # systems whose default sizes are larger than SIZES
# What no system has by default, or no two parts of it together
MIXED = {
  'gumbel_sampled': {
    'boundary': 'gumbel(0.7,sample,inner=5,activation=relu,scripts=latin+cyrillic,others=cyrillic)',
    'pool': 'mean(none,first,linear)',
    'unpool': 'repeat',
  },
  'stride_end_zeros': {
    'boundary': 'stride_end(3)',
    'pool': 'mean(widen=zeros)',
    'unpool': 'repeat(last)',
    'combine': 'sum',
  },
  'attend_windows': {
    'boundary': 'mark_end(words)',
    'pool': 'attend(queries=3,heads=2,init=learned,window=2,longest=4)',
    'unpool': 'attend(heads=2,layers=1,window=3,doubled=false)',
  },
  'entropy_jumps': {
    'boundary': 'entropy(mode=jump,threshold=0.2,most=3,layout=T1,width=8,mlp_width=8,heads=2,rotary=4,window=3)',
    'unpool': 'repeat',
  },
  'entropy_mamba': {
    'boundary': 'entropy(threshold=5.4,layout=m1,width=32,d_state=8)',
    'unpool': 'repeat',
  },
  'cosine_before': {'boundary': 'cosine', 'pool': 'latent(heads=3,kv_heads=1,qk_norm=head)', 'unpool': 'ema'},
  'reduce_all': {
    'boundary': 'stride_end(3)',
    'pool': 'reduce(max+mean+min)',
    'unpool': 'ema(linear)',
    'combine': 'sum',
  },
  'policy_router_drawn': 'policy_router(2,draw=true)',
  'scratch_entropy': {
    'boundary': 'bernoulli(3)',
    'scratch': 'entropy(5.3)',
    'unpool': 'difference',
    'combine': 'sum',
    'losses': [],
  },
  'scratch_smoothed': {'boundary': 'sigmoid', 'scratch': 'every(1)', 'pool': 'smoothed_first', 'unpool': 'cross(1)'},
  'sombrero_behind': 'sombrero(pool=first,unpool=smoothed_repeat)',
  'stride_cross': {'boundary': 'stride(3)', 'pool': 'latent(heads=2,qk_norm=full)', 'unpool': 'cross(heads=1)'},
  'concat_long': {'boundary': 'space', 'pool': 'concat(2)', 'unpool': 'cross(heads=2)'},
  'concat_stride': {'boundary': 'stride(4)', 'pool': 'concat(4)', 'unpool': 'repeat'},
  'indexed_bin': 'byteflow_threshold(2,unpool=indexed(bin,size=2),combine=sum)',
  'indexed_embedding': {'boundary': 'ended(hat)', 'unpool': 'indexed(embedding)', 'combine': 'sum'},
  'indexed_start': {'boundary': 'regex(a)', 'pool': 'first(zeros)', 'unpool': 'indexed(start)'},
  'space_cross': {'boundary': 'space', 'unpool': 'cross(heads=4,kv_heads=2,layers=1)'},
}


def added_everywhere(y, inject):
  """What a combination gives the decoder, as one array."""
  return (
    y
    if inject is None
    else jnp.concatenate([y, *(inject(layer, y) for layer in range(SIZES.blocks) if inject(layer, y) is not None)], -1)
  )


@pytest.mark.parametrize('system', [*systems.SYSTEMS, *MIXED])
def test_steps_equal_all_slots_at_once_and_rows_wait_for_their_turn(system):
  """Every part of a published system, around a stage inside that looks at one chunk alone."""
  chosen = systems.parse(MIXED.get(system, SMALL.get(system, system)))
  boundary, pool, unpool, combine = (
    build(kind, chosen[kind].name) for kind in ('boundary', 'pool', 'unpool', 'combine')
  )
  scratch = chosen['scratch'] and build('scratch', chosen['scratch'].name)
  rows, length = 4, 10
  rng = np.random.default_rng(0)
  e, data = random(rows, length, SIZES.width), rng.choice(np.frombuffer(b'ab ,\xc3\xa9', np.uint8), (rows, length))
  drawn = {'script': rng.choice([0, 1, 3, 7], (rows, length))}
  read = [*chosen['boundary'].marks, *([ENDS] if boundary.lookahead else [])]
  marks = {name: drawn.get(name, rng.random((rows, length)) < 0.4) for name in read}

  @jax.jit
  def at_once(count_B):
    """(what comes out, the caches behind so many slots)."""
    index_1xC = jnp.arange(length)[None]
    ids = (index_1xC < count_B[:, None]).astype(jnp.int32)
    level = Level.of_bytes(ids, {'bytes': jnp.asarray(data), **jax.tree.map(jnp.asarray, marks)})
    cut = boundary(e, level, EVAL)
    cut = dataclasses.replace(cut, emit=cut.emit & ~((pool.reads == 'before') & (index_1xC == 0)))
    rows_BxC = cut.emit | scratch(cut, level) if scratch else cut.emit
    segments = level.cut(rows_BxC)
    z = jnp.tanh(pool(e, cut, segments))
    y = combine(e, cut, functools.partial(unpool, z, cut, segments))
    caches = boundary.after(e, cut, level), pool.after(e, cut, segments), unpool.after(z, cut, segments)
    caches = (*caches, scratch.after(cut, level) if scratch else None)
    return (rows_BxC, cut.p, added_everywhere(*y)), caches

  @jax.jit
  def step(e_BxD, marks_of_slot, active_B, caches):
    cut, of_boundary = boundary.step(e_BxD, marks_of_slot, active_B, caches[0])
    g, starts_B, of_pool = pool.step(e_BxD, cut, active_B, caches[1])
    cut = dataclasses.replace(cut, emit=starts_B, more={**cut.more, 'active': active_B})
    scratch_B, of_scratch = scratch.step(cut, active_B, caches[3]) if scratch else (False, None)
    rows_B = starts_B | scratch_B
    u, of_unpool = unpool.step(jnp.tanh(g), dataclasses.replace(cut, emit=rows_B), caches[2])
    y = added_everywhere(*combine(e_BxD, cut, functools.partial(spread, u)))
    return (rows_B, cut.p, y), (of_boundary, of_pool, of_unpool, of_scratch)

  expected = jax.device_get(at_once(np.full(rows, length))[0])
  count = np.array([0, 1, 3, 6])
  caches = at_once(count)[1]
  fresh = (*(part.init_cache(rows) for part in (boundary, pool, unpool)), scratch and scratch.init_cache(rows))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), caches) == jax.tree.map(lambda x: (x.shape, x.dtype), fresh)
  while (count < length).any():
    here, active = np.minimum(count, length - 1), (count < length) & (rng.random(rows) < 0.6)
    at = range(rows), here
    of_slot = {'bytes': data[at], **{name: values[at] for name, values in marks.items()}}
    (emit, p, y), caches = step(e[at], of_slot, active, caches)
    assert not emit[~active].any()
    for found, wanted in zip((emit, p, y), expected, strict=True):
      np.testing.assert_allclose(found[active], wanted[at][active], atol=1e-5)
    count = count + active
