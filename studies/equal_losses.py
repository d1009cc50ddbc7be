"""Does a mesh change what is learned? The same small trainings on 1 device and on meshes of 8, loss by loss.

  python -m studies.equal_losses
  python -m studies.equal_losses --models hnet hat --steps=50
  python -m studies.equal_losses --models hnet --accumulate=2

Simulated devices on a CPU; float32. A boundary near one half could fall either way for rounding alone, so each training
begins at the first place of the stream where none comes within 1e-4 of it in all steps. Prints a table: the largest
difference of a loss to that of one device, relative; the closest boundary; in how many steps rows of one batch would
have taken different capacities by themselves, where the devices must agree on one; and how often a step was run again.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import text
from configs import common
from layers.capacity import rung
from text import command_line
from training import sharding
from training.capacity import Programs, Runner
from training.state import rebuild
from training.step import read
from training.trainer import Trainer

DEVICES = 8
MESHES = ((1, 1, 1), (2, 2, 2), (8, 1, 1))
MARGIN = 1e-4  # of a boundary probability to one half
TRIES = 200
FAST = {'xla_backend_optimization_level': 0}  # these programs take longer to compile than to run


def _hnet(layout: list, width: Sequence[int], **changes: Any) -> dict[str, Any]:
  return {
    'family': 'hnet',
    'arch_layout': layout,
    'd_model': width,
    'd_intermediate': [2 * d for d in width],
    'ssm_cfg': {'d_state': 8},
    'attn_cfg': {'num_heads': 2, 'rotary_emb_dim': 8, 'window_size': -1},
    'ssd_tile': 16,
    **changes,
  }


def _llama(width: int, heads: int, **more: Any) -> dict[str, Any]:
  sizes = {'hidden_size': width, 'num_attention_heads': heads, 'intermediate_size': 2 * width, 'num_hidden_layers': 1}
  return {**sizes, 'num_key_value_heads': 2, 'rms_norm_eps': 1e-5, **more}


_STACK = {'arch_layout': 'T1', 'd_model': 32, 'd_intermediate': 48, 'num_heads': 2}
_WORDS = {'encoder': _STACK, 'backbone': {**_STACK, 'd_model': 64}, 'decoder': _STACK}
_CROSS = {'attention_num_kv_heads': 2}
MODELS: dict[str, dict[str, Any]] = {
  'hnet': _hnet(['m1', ['T1'], 'm1'], [64, 64], ratio_targets=[4.0]),
  'hnet_two_stages': _hnet(['m1', ['t1', ['T1'], 't1'], 'm1'], [64, 64, 64], ratio_targets=[3.0, 2.0]),
  'spacebyte': _hnet(['T1', ['T1'], 'T1'], [32, 64], chunking='spacebyte', post_norm=False),
  'transformer': _hnet(['T2'], [32], tie_embeddings=True),
  'hat': {'family': 'word_ar', 'words': 'hat(max_bytes=16)', **_WORDS},
  'word_pooled': {'family': 'word_ar', 'words': 'whitespace(max_bytes=16)', 'num_vectors': 2, **_WORDS},
  'megabyte': {'family': 'word_ar', 'words': 'fixed(size=4)', **_WORDS, 'encoder': None},
  'tfree_hat': {
    'family': 'tfree_hat',
    'encoder_config': _llama(16, 2, cross_attention_config={'num_attention_heads': 4, **_CROSS}),
    'backbone_config': _llama(32, 4),
    'decoder_config': _llama(16, 2, cross_attention_config={'num_attention_heads': 2, **_CROSS}),
    'max_word_size': 16,
  },
}


def configuration(model: Mapping[str, Any], steps: int, accumulate: int = 1) -> dict[str, Any]:
  """A training of `steps` steps on Python's documentation, each of `accumulate` micro-batches of eight short rows."""
  config = common.training(num_steps=steps, batch_size=DEVICES * accumulate, seq_len=32, learning_rate=3e-3).to_dict()
  config['model'] = dict(model)
  config['optimizer']['accumulate'] = accumulate
  config['loss_weights'] = {'ratio': 1.0}
  return config


def study(
  model: Mapping[str, Any],
  steps: int,
  meshes: Sequence[Sequence[int]] = MESHES,
  place: int = 0,
  accumulate: int = 1,
) -> dict[str, Any]:
  """Losses of every step and 'refits' by mesh; 'closest', the least distance of a boundary to 1/2; 'disagreements', see
  the module.

  place: of the stream, in batches, that is tried first. ValueError if there is none without a boundary near 1/2.
  """
  config = configuration(model, steps, accumulate)
  corpora = text.Texts.of(config['data']['source'], config['data']['validation']).open_training()
  found = None
  losses, refits = {}, {}
  for shape in ((1,) * len(sharding.AXES), *(shape for shape in meshes if np.prod(shape) > 1)):
    config['mesh'] = {'shape': list(shape)}
    trainer = Trainer.of(config)
    with jax.set_mesh(trainer.mesh):
      if found is None:
        initial = jax.device_get(trainer.state())
      programs = Programs(trainer, initial, trainer.abstract_batch(), lambda line: None, FAST)
      if found is None:
        found = _without_ties(trainer, programs, initial, corpora, steps, place)
        batches, history, closest, disagreements = found
      else:
        history = [metrics for metrics, _ in _train(trainer, programs, initial, batches)]
    losses[tuple(shape)] = [metrics['loss'] for metrics in history]
    refits[tuple(shape)] = history[-1].get('refits', 0.0)
  return {'losses': losses, 'closest': closest, 'disagreements': disagreements, 'refits': refits}


def _train(trainer: Trainer, programs: Programs, initial: Any, batches: Sequence[Any]) -> Iterator[tuple[dict, Any]]:
  """(metrics, parameters that they are of) step by step."""
  state = jax.device_put(initial, sharding.shardings(initial, trainer.mesh))
  runner = Runner(trainer, programs)
  for batch in batches:
    before = jax.device_get(state.params)
    runner.start(state, trainer.put(batch))
    state, metrics = runner.finish()
    metrics = read(metrics)
    if not math.isfinite(metrics['loss']):
      raise ValueError(f'a loss is {metrics["loss"]}, which cannot be compared: lower the learning rate')
    yield metrics, before


def _without_ties(trainer, programs, initial, corpora, steps, first) -> tuple[list, list[dict], float, int]:
  """(batches, metrics, closest, disagreements) of the first place without a boundary near one half."""
  forward = jax.jit(
    lambda params, batch: rebuild(trainer.model, params)(batch).boundary_probabilities, compiler_options=FAST
  )
  for place in range(first, first + TRIES):
    batches = list(itertools.islice(trainer.batches(corpora, place * trainer.settings.batch_size), steps))
    history, closest, disagreements = [], np.inf, 0
    for (metrics, params), batch in zip(_train(trainer, programs, initial, batches), batches, strict=True):
      stages = [np.asarray(p_BxL) for p_BxL in forward(params, batch)]
      history.append(metrics)
      closest = min([closest, *(np.abs(p_BxL - 0.5).min() for p_BxL in stages)])
      disagreements += any(len({rung(p_BxL.shape[1], n) for n in np.sum(p_BxL > 0.5, 1)}) > 1 for p_BxL in stages)
      if closest < MARGIN:
        break
    else:
      return batches, history, float(closest), disagreements
  raise ValueError(f'a boundary comes within {MARGIN} of 1/2 wherever the training begins: change the seed')


def difference(losses: Sequence[float], reference: Sequence[float]) -> float:
  """The largest, relative to the reference."""
  return max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=True))


def main(command: list[str]) -> None:
  """Prints the table; ends with code 1 if a difference exceeds 1e-5."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
  parser.add_argument('--steps', type=int, default=20)
  parser.add_argument('--accumulate', type=int, default=1, help='micro-batches a step, of eight rows each')
  arguments = parser.parse_args(command)
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', DEVICES)
  others = MESHES[1:]
  print('| model | first loss | last loss |', *(f'{"x".join(map(str, mesh))} |' for mesh in others), end=' ')
  print('closest boundary | capacities differ among rows | run again |', flush=True)
  print('| --- ' * (6 + len(others)) + '|', flush=True)
  worst = 0.0
  for name in arguments.models:
    found = study(MODELS[name], arguments.steps, accumulate=arguments.accumulate)
    reference = found['losses'][MESHES[0]]
    differences = [difference(found['losses'][mesh], reference) for mesh in others]
    worst = max(worst, *differences)
    closest = f'{found["closest"]:.1e}' if found['closest'] < 0.49 else 'a rule'
    cells = [name, f'{reference[0]:.4f}', f'{reference[-1]:.4f}', *(f'{value:.1e}' for value in differences)]
    again = f'{found["refits"][MESHES[0]]:.0f}'
    cells += [closest, f'{found["disagreements"]} of {arguments.steps} steps', again]
    print('|', ' | '.join(cells), '|', flush=True)
  sys.exit(int(worst > 1e-5))


if __name__ == '__main__':
  command_line.run(main)
