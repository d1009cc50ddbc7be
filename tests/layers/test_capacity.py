"""Capacities predicted from what batches needed: which there are, when a prediction moves, runs that did not fit."""

import itertools
import json
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers import capacity
from layers.capacity import CHANGE, COMPILATION, FEW, MARGIN, RARE, WINDOW, Predictor, fits, run_all, rung, rungs

LENGTH = 512
SOON = mock.patch.multiple(capacity, WINDOW=12, COMPILATION=6, CHANGE=1)  # so that short sequences fall, too


class Model:
  """As much as a predictor knows of one; its cost is one a byte and two a chunk of any level."""

  def __init__(self, sizes, fresh=None):
    self.sizes, self.fresh = sizes, fresh

  def level_sizes(self, fresh=False):
    return self.fresh if fresh else self.sizes

  def flops_per_byte(self, length, bytes_per_chunk):
    return {'bytes': 1.0, 'chunks': sum(2.0 / size for size in bytes_per_chunk)}


def cost(capacities):
  return 1 + sum(2 * capacity / LENGTH for capacity in capacities)


def of(*sizes):
  return Predictor.of(Model(sizes), LENGTH)


@st.composite
def needs(draw, most=120):
  """(levels, chunks of the fullest row of each level for so many batches); a level has no more than the one outside."""
  levels = draw(st.integers(1, 3))
  around = st.sampled_from([8, 40, 41, 100, 230, LENGTH])
  batches = []
  for centre, count in draw(st.lists(st.tuples(around, st.integers(1, 40)), min_size=1, max_size=6)):
    counts = draw(st.lists(st.integers(1, centre), min_size=levels, max_size=levels))
    batches += [tuple(sorted(counts, reverse=True))] * count
  return levels, batches[:most]


# Rungs


@settings(deadline=None, derandomize=True)
@given(st.one_of(st.integers(1, 70), st.integers(1, 20_000), st.sampled_from([2047, 2048, 8192, 2**20])))
def test_rungs_rise_by_a_seventh_in_multiples_and_end_in_the_length(length):
  found, step = rungs(length), 128 if length >= 2048 else 8
  assert found[-1] == length and all(n % step == 0 for n in found[:-1])
  assert all(a < b for a, b in itertools.pairwise(found))
  for below, above in itertools.pairwise(found[:-1]):
    assert above - below == step or below * 8 / 7 <= above < below * 8 / 7 + step
  assert len(found) < 8 + 7 * np.log2(1 + length / step)


def test_rungs_of_a_row():
  assert rungs(64) == (8, 16, 24, 32, 40, 48, 56, 64)
  assert rungs(100) == (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 100)
  assert rungs(5) == (5,) and rungs(8) == (8,) and rungs(9) == (8, 9)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 5000), st.floats(0, 6000))
def test_the_rung_is_the_smallest_that_holds_the_chunks(length, count):
  found = rung(length, count)
  assert found in rungs(length) and (found >= count or found == length)
  assert all(smaller < count for smaller in rungs(length) if smaller < found)


# Predictions


def test_it_begins_with_half_as_much_again_as_the_model_states_or_has_when_fresh():
  assert of(6.0).capacities == (rung(LENGTH, 128),) and of(6.0, 18.0).capacities == (128, rung(LENGTH, 1.5 * 512 / 18))
  assert of(1.2, 1.1).capacities == (LENGTH, LENGTH) and of().capacities == ()
  fresh = Predictor.of(Model((6.0, 18.0), fresh=(2.2, 4.4)), LENGTH, fresh=True)
  assert fresh.capacities == (rung(LENGTH, 1.5 * LENGTH / 2.2), rung(LENGTH, 1.5 * LENGTH / 4.4))
  assert of(6.0, 18.0).cost((128, 48)) == pytest.approx(cost((128, 48)))


def test_a_model_without_levels_has_nothing_to_predict():
  predictor = of()
  predictor.observe(())
  assert (predictor.capacities, predictor.coming(), fits((), ())) == ((), None, True)


@SOON
@settings(deadline=None, derandomize=True, max_examples=60)
@given(needs())
def test_predictions_have_a_margin_over_all_but_rare_ones_of_the_last_batches_and_fall_when_that_has_paid(case):
  levels, batches = case
  predictor, seen, used = of(*[4.0, 8.0, 16.0][:levels]), [], set()
  wanted_since, changed, compiled = (
    [],
    0,
    0,
  )  # (wanted, used then) of each batch; where the last change was, of which kind
  for number, needed in enumerate(batches):
    old = predictor.capacities
    used.add(old)
    seen.append(needed)
    predictor.observe(np.array(needed, np.int32))
    new = predictor.capacities
    recent = [sorted(level) for level in zip(*seen[-capacity.WINDOW :], strict=True)]
    least = [level[-1 - min(RARE, (len(level) - 1) // FEW)] for level in recent]
    assert all(n >= min(MARGIN * count, LENGTH) for n, count in zip(new, least, strict=True))  # it rises at once
    assert all(n in rungs(LENGTH) for n in new) and all(a >= b for a, b in itertools.pairwise((LENGTH, *new)))
    wanted = tuple(rung(LENGTH, MARGIN * count) for count in least)
    full = len(seen) >= capacity.WINDOW and fits(wanted, old)
    wanted_since.append((wanted, old) if full else None)
    cheapest = lambda wanted: min(cost(other) for other in used if fits(wanted, other))
    if fits(new, old) and new != old:
      if new in used:
        saved = sum(1 - cheapest(wanted) / cost(then) for wanted, then in filter(None, wanted_since[changed:]))
        assert saved > capacity.CHANGE - 1e-9
      else:  # what it alone would have saved, since it was first wanted
        assert new in {wanted for wanted, _ in filter(None, wanted_since[compiled:])}
        at = filter(None, wanted_since[compiled:])
        saved = sum(max(0, cheapest(w) - cost(new)) / cost(then) for w, then in at if fits(w, new))
        assert saved > capacity.COMPILATION - 1e-9
    if new != old:
      changed, compiled = number + 1, compiled if new in used else number + 1


def until_it_changes(predictor, count):
  """How many batches that need `count` it takes until the prediction is another."""
  before = predictor.capacities
  for batches in range(1, 1000):
    predictor.observe((count,))
    if predictor.capacities != before:
      return batches
  return None


def test_what_is_wasted_adds_up_to_a_compilation_before_it_falls_and_to_a_change_where_the_program_is_there():
  predictor = of(2.0)
  assert predictor.capacities == (424,)
  saving = 1 - cost((112,)) / cost((424,))
  assert until_it_changes(predictor, 100) == WINDOW + int(COMPILATION / saving) and predictor.capacities == (112,)
  assert until_it_changes(predictor, 380) == 1 + RARE and predictor.capacities == (424,)  # odd rows change nothing
  assert until_it_changes(predictor, 100) == WINDOW - RARE + int(CHANGE / saving) and predictor.capacities == (112,)
  assert until_it_changes(predictor, 100) is None


def test_a_program_that_would_not_pay_in_the_batches_that_are_left_is_not_compiled():
  saving = 1 - cost((112,)) / cost((424,))
  for left, pays in ((1.2 * capacity.PAYS / saving, True), (0.8 * capacity.PAYS / saving, False)):
    predictor = of(2.0)
    for _ in range(200):
      predictor.observe((100,), left)
      assert predictor.coming(left) in ((None, (112,)) if pays else (None,))
    assert predictor.capacities == ((112,) if pays else (424,))


def test_a_program_between_two_is_compiled_when_the_larger_has_cost_as_much():
  predictor = of(2.0)
  until_it_changes(predictor, 100)
  assert predictor.used == {(424,), (112,)}
  for _ in range(1000):  # batches that need a little more than the lower one has, for a while each time
    for count in [100] * 40 + [120] * 10:
      predictor.observe((count,))
    if len(predictor.used) > 2:
      break
  assert predictor.capacities == (128,) and predictor.used == {(424,), (128,), (112,)}


def test_needs_that_scatter_do_not_have_a_program_each():
  predictor, rng = of(2.0), np.random.default_rng(0)
  for count in np.exp(rng.normal(np.log(150), 0.2, 3000)):
    needed = (min(LENGTH, int(count)),)
    if not fits(needed, predictor.capacities):
      predictor.enough(needed, predictor.capacities)
    predictor.observe(needed)
  assert len(predictor.used) <= 4 and predictor.capacities[0] < 300


def test_one_batch_beside_all_others_changes_nothing():
  predictor = of(4.0)
  for _ in range(9):
    predictor.observe((150,))
  before = predictor.capacities
  predictor.observe((400,))
  assert predictor.capacities == before
  predictor.observe((300,))
  assert predictor.capacities == (rung(LENGTH, 300 * MARGIN),)


def test_a_change_that_comes_near_is_told_before():
  predictor = of(4.0)
  assert predictor.capacities == (208,) and predictor.coming() is None
  predictor.observe((150,))
  assert predictor.coming() is None
  predictor.observe((203,))  # with its margin it just fits
  assert predictor.capacities == (208,) and predictor.coming() == (240,)
  wasteful = of(1.5)
  while wasteful.capacities == (LENGTH,):
    coming = wasteful.coming()
    wasteful.observe((60,))
  assert coming == wasteful.capacities == (64,)


# Runs that did not fit


def outcome(needed, capacities, rng):
  """What a run says: exact up to the first level that overflows, anything inside it."""
  over = next((level for level, (n, c) in enumerate(zip(needed, capacities, strict=True)) if n > c), len(needed))
  return (*needed[: over + 1], *rng.integers(0, LENGTH + 1, len(needed[over + 1 :])))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(needs(20), st.integers(0, 2**32 - 1))
def test_a_run_fits_after_as_many_tries_as_there_are_levels_and_one(case, seed):
  levels, batches = case
  rng, predictor = np.random.default_rng(seed), of(*[9.0, 30.0, 80.0][:levels])
  for needed in batches:
    used, tries = predictor.capacities, 1
    while not fits(found := outcome(needed, used, rng), used):
      more = predictor.enough(np.array(found), used)
      assert all(a >= b for a, b in zip(more, predictor.capacities, strict=True)) and more in predictor.used
      assert all(n in rungs(LENGTH) for n in more) and all(a >= b for a, b in itertools.pairwise((LENGTH, *more)))
      used, tries = more, tries + 1
    assert tries <= levels + 1 and fits(needed, used) and found == needed
    predictor.observe(found)


def test_levels_inside_the_one_that_overflows_keep_their_share():
  predictor = of(9.0, 30.0)
  assert predictor.capacities == (96, 32)
  assert predictor.enough((170, 3), (96, 32)) == (176, 64)  # 176 / 96 of 32 are 58.7
  assert of(9.0, 30.0).enough((80, 60), (96, 32)) == (96, 64)
  assert predictor.enough((80, 60), (96, 32)) == (176, 64)  # a program that is there already
  assert predictor.capacities == (96, 32)  # it is the batch that is odd


@SOON
@settings(deadline=None, derandomize=True, max_examples=40)
@given(needs(), st.integers(0, 119), st.integers(0, 2**32 - 1))
def test_a_predictor_that_is_restored_goes_on_in_the_same_way(case, place, seed):
  levels, batches = case
  sizes = [9.0, 30.0, 80.0][:levels]

  def run(predictor, batches, rng):
    taken = []
    for needed in batches:
      used = predictor.capacities
      while not fits(found := outcome(needed, used, rng), used):
        used = predictor.enough(np.array(found, np.int32), used)
      predictor.observe(np.array(found, np.int32))
      taken.append((used, predictor.coming(), predictor.capacities))
    return taken

  rng, predictor, other = np.random.default_rng(seed), of(*sizes), of(*sizes)
  run(predictor, batches[:place], rng)
  other.restore(json.loads(json.dumps(predictor.state())))
  assert other.state() == predictor.state()
  state = rng.bit_generator.state
  expected = run(predictor, batches[place:], rng)
  rng.bit_generator.state = state
  assert run(other, batches[place:], rng) == expected and other.state() == predictor.state()


@settings(deadline=None, derandomize=True, max_examples=30)
@given(needs(40))
def test_all_items_come_in_order_with_what_fitted_and_the_next_is_on_its_way(case):
  levels, batches = case
  predictor, rng, called = of(*[9.0, 30.0, 80.0][:levels]), np.random.default_rng(0), []

  def call(item, capacities):
    called.append(item)
    needed = outcome(batches[item], capacities, rng)
    return (item, needed == batches[item] and fits(needed, capacities)), needed

  for place, (item, (same, is_whole)) in enumerate(run_all(call, predictor, iter(range(len(batches))))):
    assert item == same == place and is_whole
    assert min(place + 1, len(batches) - 1) in called
  assert sorted(set(called)) == list(range(len(batches))) and len(called) <= (levels + 1) * len(batches)
  assert [tuple(n) for n in predictor.recent] == batches[-WINDOW:]
  assert list(run_all(call, predictor, [])) == []


def test_what_fits_fits_at_every_level():
  assert fits((8, 4), (8, 4)) and not fits((9, 4), (8, 4)) and not fits((8, 5), (8, 4))


# Several models of a kind, one after the other


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, LENGTH), min_size=1, max_size=12))
def test_models_that_share_programs_compile_none_while_one_has_the_room(fullest):
  """fullest: chunks of the fullest row of each model's text; a few batches each, so that no prediction falls."""
  used = set()
  for count in fullest:
    before = set(used)
    predictor = Predictor.of(Model((5.0,)), LENGTH, used=used)
    for _ in range(3):
      tried = predictor.capacities
      while not fits((count,), tried):
        tried = predictor.enough((count,), tried)
      predictor.observe((count,))
    room = max(before, default=(0,))[0]
    assert used == before or not room or count * MARGIN > room
    assert max(used)[0] >= count
