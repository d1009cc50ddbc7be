"""Targets that read one file, guided by coverage: python -m tests.fuzz.guided --target=gguf --minutes=5

Needs `pip install atheris`. What reaches new lines or branches of this project's readers is kept, and changed further:
by libFuzzer, by `mutation`, and where it is JSON also as a tree. It begins with 300 cases of `python -m tests.fuzz`.
The first uncaught case ends it, with a code other than 0 and its input in --keep. libFuzzer prints statistics.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import sys
import tempfile

os.environ['JAX_PLATFORMS'] = 'cpu'

import atheris

with atheris.instrument_imports(include=['text', 'layers', 'hnet', 'byte_models', 'training', 'evaluation']):
  from tests.fuzz import mutation, running, sandbox
  from tests.fuzz.targets import TARGETS

FILES = {
  'config': 'config.json',
  'overrides': 'argv',
  'strings': 'spec',
  'tokenizer': 'tokenizer.json',
  'files': 'data.jsonl',
  'splitting': 'document',
  'gguf': 'model.gguf',
}
_STRINGS = {
  'overrides': 'argv',
  'strings': 'spec',
}  # where the file is a wrapping of our own
_NO_JSON = ('splitting', 'gguf')
_LONGEST = 200_000  # bytes of an input


def main() -> None:
  parser = argparse.ArgumentParser(description='Feeds a reader with what reaches new lines of it.')
  parser.add_argument('--target', required=True, choices=FILES)
  parser.add_argument('--minutes', type=float, default=5.0)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--keep', type=pathlib.Path, default=pathlib.Path('fuzz-findings'), help='where bad input goes')
  options = parser.parse_args()
  options.keep.mkdir(parents=True, exist_ok=True)
  options.keep = options.keep.resolve()
  with tempfile.TemporaryDirectory(prefix='fuzz-') as place:
    if not (child := os.fork()):  # libFuzzer ends the process that it runs in
      _fuzz(options, pathlib.Path(place).resolve())
    _, status = os.waitpid(child, 0)
  sys.exit(os.waitstatus_to_exitcode(status) != 0)


def _fuzz(options: argparse.Namespace, place: pathlib.Path) -> None:
  """Never returns."""
  key = options.target
  target, name = TARGETS[key], FILES[key]
  seeds, corpus, case = place / 'seeds', place / 'corpus', place / 'case'
  corpus.mkdir()
  os.chdir(place)
  target.prepare(seeds)
  for number in range(300):
    made = place / f'made-{number}'
    made.mkdir()
    target.make(running.generator(options.seed, target.name, number), seeds, made)
    if (made / name).exists() and (made / name).stat().st_size < _LONGEST:
      (made / name).rename(corpus / str(number))
  case.mkdir()
  audit = sandbox.Audit()

  def one(data: bytes) -> int:
    if key in _STRINGS and not _is_wrapped(data, _STRINGS[key]):
      return -1  # not to be kept
    (case / name).write_bytes(data)
    verdict = sandbox.judge(lambda: target.run(case), case, audit, target.bound(case))
    if verdict.outcome == 'uncaught':
      raise AssertionError(verdict.text)
    return 0

  def mutate(data: bytes, most: int, seed: int) -> bytes:
    rng = random.Random(seed)
    if key in _STRINGS:
      return _mutated_string(rng, data, _STRINGS[key], most)
    way = rng.randrange(3)
    if way == 0:
      return mutation.damage(rng, data)[:most]
    if way == 1 and key not in _NO_JSON:
      with contextlib.suppress(ValueError, RecursionError):
        return mutation.json_bytes(rng, mutation.edit(rng, json.loads(data)))[:most]
    return atheris.Mutate(data, most)

  arguments = {
    'max_total_time': int(60 * options.minutes),
    'seed': options.seed + 1,  # 0 means any
    'timeout': int(target.seconds),
    'rss_limit_mb': 0,  # `judge` looks at the memory of every case
    'max_len': _LONGEST,
    'artifact_prefix': f'{options.keep}/{target.name}-',
    'print_final_stats': 1,
    'verbosity': 0,
  }
  flags = [f'-{key}={value}' for key, value in arguments.items()]
  atheris.Setup([sys.argv[0], str(corpus), *flags], one, custom_mutator=mutate)
  atheris.Fuzz()


def _is_wrapped(data: bytes, key: str) -> bool:
  try:
    value = json.loads(data)[key]
  except (ValueError, RecursionError, KeyError, TypeError):
    return False
  return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value[:2]))


def _mutated_string(rng: random.Random, data: bytes, key: str, most: int) -> bytes:
  """The file with another string under the key, or with another last one of a list."""
  try:
    values = json.loads(data)
    old = values[key] if isinstance(values[key], str) else values[key][-1]
    change = rng.choice((mutation.damage, lambda _, text: atheris.Mutate(text, len(text) + 64)))
    new = change(rng, old.encode('utf-8', 'surrogatepass')).decode('utf-8', 'surrogateescape')
  except (ValueError, LookupError, TypeError, AttributeError):
    return data[:most]
  values[key] = new if isinstance(values[key], str) else [*values[key][:-1], new]
  changed = json.dumps(values).encode()
  return changed if len(changed) <= most else data[:most]


if __name__ == '__main__':
  main()
