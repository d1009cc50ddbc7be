"""Training at predicted capacities: what does not fit is run again, and a resumed run takes the same capacities."""

import itertools
import json
import random
import shutil
import threading
from unittest import mock

import jax
import pytest

import training
from layers import capacity
from tests.hnet.tiny import branch
from tests.training import comparison, tiny
from training.capacity import Programs
from training.trainer import Trainer

STEPS = 24
SOON = mock.patch.multiple(
  capacity, WINDOW=4, COMPILATION=0.5, CHANGE=0.1, PAYS=0
)  # so that capacities fall within few steps


@pytest.fixture(scope='module')
def uneven(tmp_path_factory):
  """Text whose rows need very different numbers of chunks: the words of a document have all the same length."""
  directory, chance = tmp_path_factory.mktemp('uneven'), random.Random(1)
  for number in range(80):
    word = 'x' * chance.choice([1, 3, 20, 20, 20])
    (directory / f'{number}.txt').write_text(' '.join([word] * (chance.randrange(150, 400) // len(word))))
  return f'files:{directory}/*.txt'


def config_of(source, **changes):
  config = tiny.get_config(source).to_dict()
  config |= {'num_steps': STEPS, 'batch_size': 1, 'seq_len': 64, 'loss_weights': {}}
  config['checkpoint'] |= {'every_steps': 1, 'keep_latest': STEPS}
  config['eval'] |= {'every_steps': 0, 'max_bytes': 300}
  config['model'] = branch(['t1', ['T1'], 't1'], chunking='hnet_space', bytes_per_chunk=[12.0]) | changes
  return config


def lines(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module')
def whole(uneven, tmp_path_factory):
  """The work directory of a run that nothing happened to."""
  workdir = tmp_path_factory.mktemp('whole')
  with SOON:
    training.train(config_of(uneven), workdir)
  return workdir


def test_capacities_follow_the_text_up_by_a_step_run_again_and_down(whole):
  found = lines(whole)
  assert [line['step'] for line in found] == list(range(1, STEPS + 1))  # a step that did not fit is no step
  capacities = [line['capacity_0'] for line in found]
  assert any(a < b for a, b in itertools.pairwise(capacities))
  assert any(a > b for a, b in itertools.pairwise(capacities))
  assert found[0]['refits'] == 1 and found[-1]['refits'] > 1
  assert all(0 < line['fill_0'] <= 1 for line in found)


def test_losses_are_those_of_a_run_with_room_for_everything(whole, uneven, tmp_path, monkeypatch):
  monkeypatch.setattr(capacity, 'stated', lambda model, length, fresh=False: capacity.full(model, length))
  training.train(config_of(uneven), tmp_path)  # with the window as it is, nothing falls in so few steps
  found = lines(tmp_path)
  assert {line['capacity_0'] for line in found} == {64} and found[-1]['refits'] == 0
  for ours, theirs in zip(lines(whole), found, strict=True):
    for name in ('loss', 'bpb', 'boundary_rate_0', 'learning_rate'):
      assert ours[name] == pytest.approx(theirs[name], rel=1e-4), (name, ours['step'])


def test_a_run_killed_at_any_step_around_a_change_or_a_refit_goes_on_bit_exactly(whole, uneven, tmp_path):
  found = lines(whole)
  apart = lambda name: {step for step in range(1, STEPS) if found[step - 1][name] != found[step][name]}
  around = {step + more for step in apart('capacity_0') | apart('refits') for more in (-1, 0, 1)}
  places = sorted(around & set(range(1, STEPS)))
  assert apart('capacity_0') and apart('refits')
  for step in random.Random(0).sample(places, min(5, len(places))):
    copy = tmp_path / f'killed_after_{step}'
    shutil.copytree(whole, copy)
    for later in range(step + 1, STEPS + 1):
      shutil.rmtree(copy / 'checkpoints' / str(later), ignore_errors=True)
    with SOON:
      training.train(config_of(uneven), copy)
    assert comparison.differences(whole, copy, STEPS) == [], step


def test_what_does_not_fit_the_memory_is_one_sentence_with_the_remedy(uneven, tmp_path, monkeypatch):
  said = 'RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes.'
  compiled, asked = Trainer.compile, []

  def full(self, state, batch, capacities, *more):
    asked.append(capacities)
    if len(asked) > 1:
      raise jax.errors.JaxRuntimeError(said)
    return compiled(self, state, batch, capacities, *more)

  monkeypatch.setattr(Trainer, 'compile', full)
  sentence = r'^a step with room for \d+ chunks a row does not fit the memory of a cpu'
  with pytest.raises(ValueError, match=sentence) as error:
    training.train(config_of(uneven), tmp_path)
  assert said in str(error.value) and 'batch_size' in str(error.value) and '\n' not in str(error.value)
  assert asked[1] > asked[0]


def test_programs_are_compiled_once_and_what_fails_in_a_thread_is_said_where_it_is_needed():
  state = jax.ShapeDtypeStruct((), 'float32')
  asked, leave = [], threading.Event()

  class Compiler:
    mesh = jax.make_mesh((1,), ('data',))

    def compile(self, state, batch, capacities, report, options):
      asked.append(capacities)
      report('said of every program')
      if capacities == (8,):
        leave.wait(10)
      if capacities == (16,):
        raise ValueError('broken')
      return capacities

  said = []
  programs = Programs(Compiler(), state, state, said.append)
  assert programs((24,)) == programs((24,)) == (24,)
  programs.prepare((8,))
  programs.prepare((32,))  # one at a time
  leave.set()
  assert programs((8,)) == (8,) and asked == [(24,), (8,)] and said == ['said of every program']
  programs.prepare((16,))
  with pytest.raises(ValueError, match='broken'):
    programs((16,))
  assert asked[2:] == [(16,), (16,)]
