"""--config.KEY=VALUE: every key of every experiment, by what a user types."""

import copy
import importlib
import json
import pathlib

import ml_collections
import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st

import byte_models
import configs
from tests.byte_models import tiny_token_lm
from text import command_line
from training import config as config_lib
from training import config_flag, earlier

NAMES = sorted(path.stem for path in pathlib.Path(configs.__file__).parent.glob('[!_]*.py') if path.stem != 'common')


def config_of(name='quickstart'):
  needs = [str(tiny_token_lm.tokenizer())] if name == 'quickstart_bpe' else []
  return importlib.import_module(f'configs.{name}').get_config(*needs)


def keys(tree, prefix=''):
  """(key, value) of every branch and leaf."""
  for name, value in tree.items():
    yield prefix + name, value
    if isinstance(value, dict):
      yield from keys(value, f'{prefix}{name}.')


def changed(*entries, name='quickstart'):
  config = config_of(name)
  config_flag.change(config, entries)
  return config


def value_of(config, key):
  value = config_lib.resolve(config)
  for name in key.split('.'):
    value = value[name]
  return value


@pytest.mark.parametrize('name', NAMES)
def test_a_key_that_is_set_to_its_own_value_changes_nothing(name):
  config = config_of(name)
  plain, resolved = config.to_dict(), config_lib.resolve(config)
  for tree in (plain, resolved):  # with tuples, and as config.json has it
    for key, value in keys(tree):
      texts = {repr(value), str(value), json.dumps(value) if isinstance(value, list) else repr(value)}
      for text in texts:
        config_flag.change(config, [f'{key}={text}'])
      assert config_lib.resolve(config) == resolved, (key, texts)
  assert config_lib.parse(config) == config_lib.parse(plain)


OPEN = ('loss_weights.', 'optimizer.groups.')  # branches with keys of the user's


@pytest.mark.parametrize('name', NAMES)
def test_a_misspelled_key_of_any_branch_is_named_with_the_right_one(name):
  resolved = config_lib.resolve(config_of(name))
  for key, _ in keys(resolved):
    if key.startswith(OPEN):
      continue
    config = copy.deepcopy(resolved)
    config_flag.change(config, [f'{key}x=1'])
    with pytest.raises(ValueError) as error:
      byte_models.parse(config_lib.parse(config).model)
    assert str(error.value) == f'unknown config key {key}x. Did you mean "{key}"?'


@pytest.mark.parametrize('name', NAMES)
def test_text_where_a_number_or_a_switch_stands_is_refused_with_the_key_in_full(name):
  resolved = config_lib.resolve(config_of(name))
  for key, value in keys(resolved):
    if isinstance(value, int | float):
      config = copy.deepcopy(resolved)
      config_flag.change(config, [f'{key}=x'])
      with pytest.raises(ValueError) as error:
        byte_models.parse(config_lib.parse(config).model)
      assert key in str(error.value) and "'x'" in str(error.value)


@pytest.mark.parametrize('name', NAMES)
def test_a_config_of_today_is_read_from_a_work_directory_as_it_is(name):
  resolved = config_lib.resolve(config_of(name))
  assert earlier.current(resolved) == resolved


@pytest.mark.parametrize('name', NAMES)
def test_what_a_config_leaves_out_can_be_changed_key_by_key(name):
  config = config_of(name)
  other = {
    key: not value if isinstance(value, bool) else value + 1
    for key, value in keys(config_lib.resolve(config))
    if isinstance(value, int)
  }
  config_flag.change(config, [f'{key}={value}' for key, value in other.items()])
  assert dict(keys(config_lib.resolve(config))).items() >= other.items()


PLAIN = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
  lambda part: st.lists(part).map(tuple) | st.lists(part) | st.dictionaries(st.from_regex(r'\A[a-z_]+\Z'), part),
  max_leaves=8,
)


@given(PLAIN)
def test_what_python_writes_is_what_is_read(value):
  config = {'model': {}}
  config_flag.change(config, [f'model.x={value!r}'])
  assert config == {'model': {'x': value}}
  config['model']['x'] = [value, value]  # another value of another type stands there
  config_flag.change(config, [f'model.x={value!r}'])
  assert config == {'model': {'x': value}}


@given(st.text(min_size=1).filter(lambda text: text.strip()[:1] not in ('', '"', "'") and text.strip() != 'None'))
def test_text_is_taken_as_it_stands_where_text_is_held(text):
  config = changed(f'init_from={text}', f'optimizer.groups.a.pattern=({text})')
  assert config.init_from == text and config.optimizer.groups.a.pattern == f'({text})'


SET = {
  "data.source=(('files:a,b/*#text', 3.0), ('corpus:x', 1))": [['files:a,b/*#text', 3.0], ['corpus:x', 1]],
  'data.source=[["a", 1.0]]': [['a', 1.0]],
  "data.source=(('files:caf\udce9/*', 1.0),)": [['files:caf\udce9/*', 1.0]],
  'data.source=noise:drop(rate=0.1,seed=1):files:a/*': 'noise:drop(rate=0.1,seed=1):files:a/*',
  "data.validation=('a', 'b')": ['a', 'b'],
  'data.validation=': '',
  'optimizer.lr_multipliers=paper': 'paper',
  'optimizer.lr_multipliers=(2.0, 1)': [2.0, 1],
  'optimizer.lr_multipliers=None': None,
  'optimizer.learning_rate=1': 1.0,
  'optimizer.skip_norm=10': 10.0,
  "optimizer.schedule={'name': 'cosine', 'warmup': 0, 'decay': 0, 'final': 0.1}": {
    'name': 'cosine', 'warmup': 0, 'decay': 0, 'final': 0.1,
  },
  'loss_weights.other=0.5': 0.5,
  'loss_weights={}': {},
  'mesh.shape=4,8,2': [4, 8, 2],
  'mesh.shape=8': [8],
  'eval.seq_len=512': 512,
  'eval.batch_size=0x10': 16,
  'init_from=12': '12',
  "init_from='runs/a b'": 'runs/a b',
  'model.dtype=bfloat16': 'bfloat16',
  'model.remat': True,
  'model.remat=true': True,
  'model.tie_embeddings=False': False,
  'model.ratio_targets=4.0': [4.0],
  "model.ratio_targets=({'start': 2, 'end': 4.0},)": [{'start': 2, 'end': 4.0}],
  'model.ratio_targets=None': None,
  'model.bytes_per_chunk=(4.8,)': [4.8],
  'model.attn_cfg.window_size=-1': -1,
  'model.attn_cfg.num_heads=2': 2,
  'model.ssm_cfg.d_state=32': 32,
  'model.fixed_capacity=(0.5,)': [0.5],
  'model.chunking=("hnet",)': ['hnet'],
  "model.chunking={'unpool': 'repeat'}": {'unpool': 'repeat'},
}  # fmt: skip


@pytest.mark.parametrize('entry', SET)
def test_a_value_of_any_type_is_set_and_fits(entry):
  config = changed(entry)
  key = entry.partition('=')[0]
  assert value_of(config, key) == SET[entry]
  assert type(value_of(config, key)) is type(SET[entry])
  byte_models.parse(config_lib.parse(config).model)


def test_groups_and_branches_grow_key_by_key_and_the_last_value_holds():
  entries = ['optimizer.groups.router.pattern=boundary', 'optimizer.groups.router.multiplier=0.1', 'seed=1', 'seed=2']
  settings = config_lib.parse(changed(*entries))
  assert settings.optimizer.groups == {'router': config_lib.Group('boundary', 0.1)} and settings.seed == 2
  config = changed('model.encoder.qk_norm=head', 'model.backbone.num_kv_heads=2', name='quickstart_hat')
  assert byte_models.parse(config_lib.parse(config).model).encoder.qk_norm == 'head'
  partial = {'data': {'source': 'a'}}  # a tree of a user's, without the rest
  config_flag.change(partial, ['eval.max_bytes=5', 'data.prefetch=2'])
  assert partial == {'data': {'source': 'a', 'prefetch': 2}, 'eval': {'max_bytes': 5}}


def test_what_refers_to_a_key_follows_it():
  config = ml_collections.ConfigDict({'seq_len': 64})
  config.eval = {'seq_len': config.get_ref('seq_len')}
  config.lock()
  config_flag.change(config, ['seq_len=128'])
  assert config.eval.seq_len == 128 and config.is_locked


REFUSED = {
  'num_stepz=3': 'unknown config key num_stepz. Did you mean "num_steps"?',
  'optimizer.clip_nrm=1': 'unknown config key optimizer.clip_nrm. Did you mean "optimizer.clip_norm"?',
  'modle.remat=1': 'unknown config key modle. Did you mean "model"?',
  'optimizer.groups.a.patern=x': 'unknown config key optimizer.groups.a.patern. Did you mean',
  'model.remta=True': 'unknown config key model.remta. Did you mean "model.remat"?',
  'model.ssm_cfg.d_stat=3': 'unknown config key model.ssm_cfg.d_stat. Did you mean "model.ssm_cfg.d_state"?',
  'seed.x=1': 'unknown config key seed.x: seed is 0 and has no keys',
  'model.d_model.0=1': 'unknown config key model.d_model.0: model.d_model is (128, 256) and has no keys',
  'data.to_dict=1': 'unknown config key data.to_dict',
  '=1': "unknown config key '': write names with dots between them",
  'data..source=1': "unknown config key 'data..source'",
  'seed': '--config.seed has no value: write --config.seed=VALUE',
  'data.source=((a, 3.0), (b, 1.0))': 'config key data.source: ((a, 3.0), (b, 1.0)) cannot be read: brackets',
  'data.source="a': 'config key data.source: "a cannot be read',
  'data.source=((1, 2),)': 'config key data.source: a data source is a string or a list of (source, weight)',
  'num_steps=1e3': 'config key num_steps must be a whole number, got 1000.0',
  'num_steps=': "config key num_steps must be a whole number, got ''",
  'num_steps=None': 'config key num_steps must be a whole number, got None',
  'num_steps=True': 'config key num_steps must be a whole number, got True',
  'optimizer.eps=1e999': 'config key optimizer.eps: 1e999 holds what no config can',
  'model.x={1, 2}': 'config key model.x: {1, 2} holds what no config can',
  "optimizer.learning_rate='1'": "config key optimizer.learning_rate must be a finite number, got '1'",
  'optimizer.betas=0.9': 'config key optimizer.betas must be two numbers',
  'optimizer.groups.a.multiplier=2': 'missing config key optimizer.groups.a.pattern',
  'init_from=None': 'config key init_from must be a string, got None',
  'data=files:x': "config key data must be a branch with keys, got 'files:x'",
  'model=5': 'config key model must be a branch with keys, got 5',
  'model.dtype=float16': "model.dtype 'float16' is not one of",
  'model.remat=1': 'model.remat 1 must be True or False',
  'model.ssd_tile=x': "model.ssd_tile 'x' must be an integer",
  'model.ssm_cfg.d_state=0': 'model.ssm_cfg.d_state 0 must be an integer of at least 1',
  'model.attn_cfg.num_heads=3': 'model.attn_cfg.num_heads 3 does not divide d_model 256',
  'model.attn_cfg.rotary_emb_dim=3': 'model.attn_cfg.rotary_emb_dim 3 must be even',
  'model.d_model=(128,)': 'model.d_model (128,): arch_layout has 2 stages',
  'model.fixed_capacity=1': 'model.fixed_capacity 1: a list with one share',
  'model.ladder.fractions=1': 'model.ladder is gone',
  'model.chunking.pool=first': "unknown config key model.chunking.pool: model.chunking is 'hnet' and has no keys",
  'model.boundary=spaces': 'model.boundary is part of model.chunking now',
}


@pytest.mark.parametrize('entry', REFUSED)
def test_what_is_wrong_is_one_sentence_with_the_key_in_full(entry):
  with pytest.raises(ValueError) as error:
    byte_models.parse(config_lib.parse(changed(entry)).model)
  sentence = str(error.value).replace('[128]', '(128,)')
  assert sentence.startswith(REFUSED[entry]) and '\n' not in sentence


def test_a_branch_behind_a_key_of_it_is_refused():
  with pytest.raises(ValueError, match=r'^--config\.data stands behind --config\.data\.source and would undo it'):
    changed('data.source=a', "data={'source': 'b'}")


ARGV = [
  (['--config.a.b=1', '-config.c', '2', '--config=x.py'], ['a.b=1', 'c=2'], []),
  (['--config', 'x.py', '--config.a', '-1.5', '--config.b', '--noconfig.c', '--n=3'], ['a=-1.5', 'b', 'c=False'], []),
  (['--config=x.py', "--config.a=(('b=c', 1),)", '--config.d='], ["a=(('b=c', 1),)", 'd='], []),
  (['--config=x.py', '--config.a=1', '--', '--config.b=2'], ['a=1'], ['--config.b=2']),
]


@pytest.mark.parametrize('argv, expected, words', ARGV)
def test_all_ways_to_write_a_flag(argv, expected, words):
  known = flags.FlagValues()
  config_flag.define('The experiment.', known)
  flags.DEFINE_integer('n', 0, '', flag_values=known)
  rest = known(config_flag.rewritten(['train.py', *argv], known))
  assert (known.config, config_flag.changes(known), rest[1:]) == ('x.py', expected, words)


def test_keys_may_stand_in_a_file_of_flags(tmp_path):
  (tmp_path / 'flags').write_text('--config=x.py\n--config.seed=3\n')
  known = flags.FlagValues()
  config_flag.define('The experiment.', known)
  flags.DEFINE_string('flagfile', '', '', flag_values=known)
  known(config_flag.rewritten(['train.py', f'--flagfile={tmp_path}/flags', '--config.seed=4'], known))
  assert known.config == 'x.py' and config_flag.changes(known) == ['seed=3', 'seed=4']


def experiment(directory, body, parameter="arg='none'"):
  path = directory / 'with: colon.py'
  path.write_text(f'def get_config({parameter}):\n  {body}\n')
  return path


def test_an_experiment_is_a_file_and_perhaps_an_argument(tmp_path, monkeypatch):
  experiment(tmp_path, "return {'seed': arg}")
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  for named, expected in (('', 'none'), (':', ''), (':x=a.py:y', 'x=a.py:y')):
    for place in ('', '~/', f'{tmp_path}/'):
      assert config_flag.load(f'{place}with: colon.py{named}') == {'seed': expected}


@pytest.mark.parametrize(
  'body, parameter, sentence',
  [
    ('return 3', '', 'its get_config() returned 3 and not a ConfigDict or a dict'),
    ('return {}', '', 'what stands behind the colon does not fit its get_config()'),
    ('raise ValueError("no such model")', 'arg', 'no such model'),
    (None, '', 'there is no file'),
  ],
)
def test_a_file_that_is_no_experiment_is_one_sentence(tmp_path, body, parameter, sentence):
  path = experiment(tmp_path, body, parameter) if body else tmp_path / 'x.py'
  with pytest.raises((ValueError, OSError)) as error:
    config_flag.load(str(path) if body == 'return 3' else f'{path}:argument')
  assert sentence in str(error.value) and command_line.is_sentence(error.value)
