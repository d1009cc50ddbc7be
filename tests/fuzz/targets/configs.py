"""Configurations: whole trees, overrides on the command line, strings that name a thing, tokenizer.json."""

import contextlib
import importlib
import io
import json
import pathlib
import random
import re

from absl import flags

import byte_models
import hnet
import text
import training
from layers import weights
from tests.fuzz import mutation
from tests.fuzz.running import Target
from tests.fuzz.sandbox import Refused
from text import command_line as text_command_line
from text import marks, mixture, noise, sources, subwords, synthetic, units, words
from training import command_line, config_flag
from training import config as config_lib

_CONFIGS = (
  'quickstart',
  'quickstart_space',
  'quickstart_hat',
  'quickstart_word_pooled',
  'quickstart_megabyte',
  'quickstart_tfree_hat',
  'hnet_2stage_small',
  'quickstart_mamba',
)


def _config(name: str):
  return importlib.import_module(f'configs.{name}').get_config()


def _prepare_configs(seeds: pathlib.Path) -> None:
  seeds.mkdir(exist_ok=True)
  for name in _CONFIGS:
    weights.write_json(seeds / f'{name}.json', config_lib.resolve(_config(name)))
  training.describe(weights.read_json(seeds / 'quickstart.json'))


def _make_config(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  values = json.loads(rng.choice(sorted(seeds.iterdir())).read_bytes())
  if rng.random() < 0.7:
    values['model'] = mutation.edit(rng, values['model'])
  else:
    values = mutation.edit(rng, values)
  (case / 'config.json').write_bytes(mutation.json_bytes(rng, values))


def _run_config(case: pathlib.Path) -> None:
  values = weights.read_json(case / 'config.json')
  settings = config_lib.parse(values)
  config_lib.refuse_changes(values, config_lib.resolve(_config('quickstart')) | {'model': values['model']}, 'DIR')
  byte_models.parse(settings.model)
  training.describe(values)


# --- --config.KEY=VALUE


def _prepare_overrides(seeds: pathlib.Path) -> None:
  seeds.mkdir(exist_ok=True)
  weights.write_json(seeds / 'argv', {'argv': ['train.py', '--config.num_steps=3']})
  _run_overrides(seeds)


def _make_overrides(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  del seeds
  tree = config_lib.resolve(_config('quickstart'))
  paths = [path for path in mutation.places(tree) if all(isinstance(key, str) for key in path)]
  argv = ['train.py']
  for _ in range(rng.randint(1, 2)):
    path = '.'.join(rng.choice(paths))
    if rng.random() < 0.1:
      path = rng.choice(
        (
          path[:-1],
          f'{path}.x',
          '',
          '.',
          '__class__',
          'model.__class__.__init__',
          'to_dict',
          '_fields',
          *mutation.STRINGS[:8],
        )
      )
    value = mutation.leaf(rng)
    text = rng.choice((repr, str))(value)
    argv.append(f'--config{rng.choice(("", ".", ".", ".", "."))}{path}={text}')
  (case / 'argv').write_text(json.dumps({'argv': argv}))


def _run_overrides(case: pathlib.Path) -> None:
  argv = json.loads((case / 'argv').read_text())['argv']
  values, errors = flags.FlagValues(), io.StringIO()

  def call(argv):
    config_flag.define('The experiment.', values)
    try:
      values(config_flag.rewritten(argv, values))
    except flags.Error as error:  # absl prints it, with the usage
      raise Refused(text_command_line.sentence(error)) from None
    config = _config('quickstart')
    config_flag.change(config, config_flag.changes(values))
    byte_models.parse(config_lib.parse(config).model)

  try:
    with contextlib.redirect_stderr(errors):
      command_line._guarded(call, argv)
  except SystemExit:
    raise Refused(errors.getvalue().removesuffix('\n')) from None


# --- strings that name a thing

_SPECS = {
  'source': (
    'python_docs',
    'files:{}/*.txt',
    'files:{}/a.jsonl#text@all',
    'prepared:{}',
    'corpus:english_wiki',
    'tfds:{}:train[:90%]#text',
    'noise:drop(rate=0.1):files:{}/*.txt',
    'synthetic:markov(documents=3,length=9)',
    'corpus:english_large/kjv',
  ),
  'splitter': ('hat(max_bytes=64)', 'whitespace', 'uax29(max_bytes=8)', 'fixed(size=8)'),
  'boundary': ('cosine', 'space', 'stride(6)'),
  'chunking': ('hnet', 'hnet_pool(size=6)', 'spacebyte'),
  'noise': ('antspeak', 'drop(rate=0.1,seed=2)', 'repeat(rate=0.2,most=4)', 'misspell(rate=0.1)'),
  'units': ('byte', 'char(limit=0x3000)', 'subword(file={}/tokenizer.json,digest=0123)'),
  'tokens': ('tokens(file={}/tokenizer.json)', 'tokens(file={}/tokenizer.json,digest=0123)', 'tokens(file="{}")'),
  'synthetic': (
    'markov(order=2,states=2,p=0.1,q=0.2)',
    'words(vocabulary=50,zipf=1.0,documents=2,length=30)',
    'markov(order=2,states=9,dense=true)',
  ),
}


def _prepare_specs(seeds: pathlib.Path) -> None:
  seeds.mkdir(exist_ok=True)
  weights.write_json(seeds / 'spec', {'kind': 'source', 'spec': 'synthetic:markov(documents=3,length=9)'})
  _run_spec(seeds)


def _make_spec(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  del seeds
  (case / 'a.txt').write_bytes(b'some text')
  (case / 'a.jsonl').write_bytes(b'{"text": "some text"}\n')
  kind = rng.choice(tuple(_SPECS))
  spec = rng.choice(_SPECS[kind]).format(case)
  for _ in range(rng.randint(1, 2)):
    numbers = list(re.finditer(r'\d+(\.\d+)?', spec))
    parts = re.split(r'([:(),=#@/])', spec)
    way = rng.randrange(5)
    if way == 0 and numbers:
      found = rng.choice(numbers)
      spec = f'{spec[: found.start()]}{mutation.number(rng)}{spec[found.end() :]}'
    elif way == 1:
      parts[rng.randrange(len(parts))] = rng.choice(
        (*mutation.STRINGS, ',', ':', '(', ')', 'noise', '**', '[', '~root', '#')
      )
      spec = ''.join(parts)
    elif way == 2:
      spec = mutation.damage(rng, spec.encode('utf-8', 'surrogatepass')).decode('utf-8', 'surrogateescape')
    elif way == 3:
      spec = 'noise:drop(rate=0.5):' * rng.choice((1, 3, 500, 5000)) + spec
    else:
      spec = spec.replace(',', ',' * 2).replace('(', f'(seed={mutation.number(rng)},', 1)
  value = spec
  if kind == 'source' and rng.random() < 0.3:
    value = mutation.edit(rng, [[spec, 1.0], ['python_docs', 2]])
  (case / 'spec').write_text(json.dumps({'kind': kind, 'spec': value}))


def _run_spec(case: pathlib.Path) -> None:
  request = json.loads((case / 'spec').read_text())
  kind, spec = request['kind'], request['spec']
  if kind in ('boundary', 'chunking'):
    sizes = {'arch_layout': ['m1', ['m1'], 'm1'], 'd_model': [64, 64], 'd_intermediate': [0, 0]}
    hnet.parse({**sizes, 'chunking': spec if kind == 'chunking' else {'boundary': spec}})
  elif kind == 'splitter':
    words.parse(spec)(b'some text \xff here')
  elif kind == 'units':
    units.parse(spec)(b'word')
  elif kind == 'tokens':
    marks.mark(text.Batch.of([b'word']), {'units': spec})
  elif kind == 'noise':
    noise.parse(spec)(b'some text \xff here', 3)
  elif kind == 'synthetic':
    _draw(synthetic.parse(spec))
  else:
    for name, _ in mixture.parse_sources(spec):
      source = sources.parse(name)
      if isinstance(source, synthetic.Synthetic):
        _draw(source)
      elif not re.search(r'tfds:|/dev|/etc|/proc|/sys|~|:/\*', name) and name.startswith(
        ('files:', 'prepared:', 'corpus:', 'noise:')
      ):
        source.open('train')  # what it names on this machine is the user's word, also all of it; tfds may download


def _draw(source: synthetic.Synthetic) -> None:
  if dict(source.arguments)['documents'] * dict(source.arguments)['length'] <= 10**5:
    source.open('validation')


# --- tokenizer.json


def _prepare_tokenizer(seeds: pathlib.Path) -> None:
  seeds.mkdir(exist_ok=True)
  if not (seeds / 'tokenizer.json').exists():
    documents = [b'some words, and some more words, and other wordings'] * 30
    subwords.train(documents, words.parse('hat'), 260).save(str(seeds / 'tokenizer.json'))
  _run_tokenizer(seeds)


def _make_tokenizer(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  values = json.loads((seeds / 'tokenizer.json').read_bytes())
  if rng.random() < 0.5:
    values = mutation.edit(rng, values)
  else:
    key = rng.choice(('pre_tokenizer', 'added_tokens', 'model', 'normalizer', 'post_processor', 'decoder'))
    values[key] = mutation.edit(rng, {'x': values[key]})
    values[key] = values[key].get('x') if isinstance(values[key], dict) else values[key]
  (case / 'tokenizer.json').write_bytes(mutation.json_bytes(rng, values))


def _run_tokenizer(case: pathlib.Path) -> None:
  units.parse.cache_clear()  # by name, and every case has the same
  spelled = units.parse(f'subword(file={case}/tokenizer.json)')
  for word in (b'words', b'\xff\xfe', 'café'.encode(), b' ' * 20):
    if b''.join(spelled.table[unit] for unit in spelled(word)) != word:
      raise AssertionError(f'the units of {word!r} do not spell it')


TARGETS = (
  Target('config', _prepare_configs, _make_config, _run_config, constant=500),
  Target('overrides', _prepare_overrides, _make_overrides, _run_overrides),
  Target('strings', _prepare_specs, _make_spec, _run_spec),
  Target('tokenizer', _prepare_tokenizer, _make_tokenizer, _run_tokenizer),
)
