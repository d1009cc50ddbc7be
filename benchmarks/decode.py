"""Decoding an H-Net against PyTorch: same weights, same prompt, greedy, in turns on one machine.

  pip install -r requirements-torch.txt
  python -m benchmarks.decode
  python -m benchmarks.decode --weights=DIR --batch_size=32

Prints bytes a second (medians over turns) behind a prompt of real text, prompt included in neither time nor bytes.
PyTorch decodes one row, as the authors' code does; ours is the loop of generate.py, sampling included, with one row and
with --batch_size rows. All must write the same first bytes.
"""

import statistics
import tempfile
import time

from absl import app, flags

from benchmarks import subject, turns
from text import paths

CONTESTANTS = ('ours', 'ours, batch', 'torch')
AGREE = 32  # bytes that must be the same; later, rounding may decide between two bytes that are as likely

_WEIGHTS = flags.DEFINE_string('weights', None, 'Directory with official weights; none: a fresh model.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Rows of the batch.')
_PROMPT = flags.DEFINE_integer('prompt', 128, 'Bytes of the prompt.')
_BYTES = flags.DEFINE_integer('bytes', 256, 'Bytes that are decoded in a turn.')
_SOURCE = flags.DEFINE_string('source', 'python_docs', 'Text of the prompts.')
_TURNS = flags.DEFINE_integer('turns', 7, 'How often each contestant runs.')
_CONTESTANT = flags.DEFINE_string('contestant', None, 'Used by the benchmark itself.')


def main(_: list[str]) -> None:
  """Runs the contest, or one contestant's side of it."""
  if _CONTESTANT.value:
    turns.serve(*_prepare(_CONTESTANT.value))
    return
  with tempfile.TemporaryDirectory() as fresh:
    weights = subject.fresh_model(fresh) if _WEIGHTS.value is None else paths.of(_WEIGHTS.value, '--weights')
    given = (_BATCH_SIZE, _PROMPT, _BYTES, _SOURCE)
    arguments = [f'--weights={weights}', *(f'--{flag.name}={flag.value}' for flag in given)]
    facts, seconds = turns.play('benchmarks.decode', CONTESTANTS, arguments, _TURNS.value)
  if len({fact['text'] for fact in facts.values()}) > 1:
    raise RuntimeError(f'the contestants do not write the same: {facts}')
  speed = {name: facts[name]['rows'] * _BYTES.value / statistics.median(values) for name, values in seconds.items()}
  print(f'{"":14} {"rows":>5} {"bytes/s":>9} {"of torch":>9}')
  for name, value in speed.items():
    print(f'{name:14} {facts[name]["rows"]:5} {value:9,.0f} {value / speed["torch"]:9.1f}')


def _prepare(name: str):
  """(facts, run) of a contestant."""
  if name == 'torch':
    return _prepare_torch()
  return _prepare_ours(_BATCH_SIZE.value if name == 'ours, batch' else 1)


def _prepare_ours(rows: int):
  import hnet
  from evaluation import generation

  model = hnet.from_pretrained(_WEIGHTS.value)
  prompts = [row.tobytes() for row in subject.rows(_SOURCE.value, rows, _PROMPT.value)]

  def write(length: int) -> tuple[bytes, float]:
    """The first row's text, and the seconds behind the first dispatch, which reads the prompt."""
    pieces = generation.stream(model, prompts, length + generation.STEPS, temperature=0.0, stop_at_eos=False)
    taken = [next(pieces)[0]]
    began = time.perf_counter()
    taken += [piece[0] for piece in pieces]
    return b''.join(taken), time.perf_counter() - began

  return {'rows': rows, 'text': write(_BYTES.value)[0][:AGREE].hex()}, lambda: write(_BYTES.value)[1]


def _prepare_torch():
  import torch

  from benchmarks.peers import hnet_torch

  model = hnet_torch.load(_WEIGHTS.value)
  prompt = b'\xfe' + subject.rows(_SOURCE.value, 1, _PROMPT.value)[0].tobytes()

  @torch.inference_mode()
  def write(length: int) -> tuple[bytes, float]:
    cache = model.new_cache(len(prompt) + length)
    for symbol in prompt:
      logits = model.step(torch.tensor([symbol]), cache)
    taken, began = [], time.perf_counter()
    for _ in range(length):
      symbol = logits.argmax()
      taken.append(int(symbol))
      logits = model.step(symbol[None], cache)
    return bytes(taken), time.perf_counter() - began

  return {'rows': 1, 'text': write(_BYTES.value)[0][:AGREE].hex()}, lambda: write(_BYTES.value)[1]


if __name__ == '__main__':
  app.run(main)
