"""The model branch: what it accepts, what it fills in, and one sentence that names whatever is wrong."""

import pytest

import hnet
from layers.ladder import LadderConfig
from tests.hnet.tiny import ONE_STAGE, TWO_STAGE, attention, branch


def refused(changes, message, layout=ONE_STAGE):
  with pytest.raises(ValueError, match=message) as error:
    hnet.parse(branch(layout, **changes))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('key', ['arch_layout', 'd_model', 'd_intermediate', 'attn_cfg'])  # attention: its first key
def test_missing_keys_are_named(key):
  values = branch(ONE_STAGE)
  del values[key]
  with pytest.raises(ValueError, match=rf'model\.{key}(\.num_heads)? is missing'):
    hnet.parse(values)


@pytest.mark.parametrize('key', ['num_heads', 'rotary_emb_dim', 'window_size'])
def test_missing_attention_keys_are_named(key):
  refused({'attn_cfg': {k: v for k, v in attention().items() if k != key}}, rf'model\.attn_cfg\.{key} is missing')


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'d_modle': [32]}, r'model\.d_modle is not a key'),
    ({'ssm_cfg': {'dstate': 8}}, r'model\.ssm_cfg\.dstate is not a key'),
    ({'attn_cfg': {**attention(), 'heads': 2}}, r'model\.attn_cfg\.heads is not a key'),
    ({'ladder': {'rungs': (8,)}}, r'model\.ladder\.rungs is not a key'),
    ({'ratio_targets': [{'start': 2, 'stop': 3}]}, r'ratio_targets\.stop is not a key'),
  ],
)
def test_unknown_keys_are_named(changes, message):
  refused(changes, message)


@pytest.mark.parametrize(
  'layout',
  ['m4', [], ['m4', 'm4'], ['m4', ['T1']], ['m4', 'T1', 'm4'], ['m4', ['T1'], 'm4', 'm4'], [['T1']], None, 5, [5]],
)
def test_nesting_that_is_no_stage_is_refused(layout):
  with pytest.raises(ValueError, match='arch_layout .*: a stage is'):
    hnet.parse({**branch(ONE_STAGE), 'arch_layout': layout})


@pytest.mark.parametrize('string', ['x4', 'm', 'm4,T1', 'm4 ', ''])
@pytest.mark.parametrize('place', [0, 1, 2])
def test_odd_layout_strings_are_refused_wherever_they_stand(string, place):
  layout = ['m1', ['T1'], 'm1']
  layout[place] = [string] if place == 1 else string
  with pytest.raises(ValueError, match='arch_layout .*: a stack is written as letters'):
    hnet.parse({**branch(ONE_STAGE), 'arch_layout': layout})


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'d_model': [32]}, r'd_model \[32\].* a list of 2 integers'),
    ({'d_model': [32, 64, 64]}, 'd_model .* a list of 2 integers'),
    ({'d_model': 32}, 'd_model 32.* a list of 2'),
    ({'d_model': [32, -64]}, 'd_model -64 must be an integer of at least 1'),
    ({'d_model': [32, 64.0]}, 'd_model 64.0 must be an integer'),
    ({'d_model': [64, 32]}, r'd_model \[64, 32\] decreases from 64 to 32'),
    ({'d_model': [48, 64]}, 'd_model 48 .* multiple of its head size 64'),
    ({'d_intermediate': [0]}, 'd_intermediate .* a list of 2 integers'),
    ({'d_intermediate': [0, 0]}, 'd_intermediate 0 .* positive'),
    ({'attn_cfg': {**attention(), 'num_heads': 3}}, 'num_heads 3 does not divide d_model 64'),
    ({'attn_cfg': {**attention(), 'num_heads': [2]}}, r'attn_cfg\.num_heads \[2\] has 1 entries for 2 stages'),
    ({'attn_cfg': {**attention(), 'rotary_emb_dim': 34}}, 'rotary_emb_dim 34 .* at most the head size 32'),
    ({'attn_cfg': {**attention(), 'rotary_emb_dim': 5}}, 'rotary_emb_dim 5 must be even'),
    ({'attn_cfg': {**attention(), 'window_size': -2}}, 'window_size -2'),
    ({'vocab_size': 257}, 'vocab_size 257'),
    ({'ratio_scope': 'row'}, "ratio_scope 'row' is not one of global, per_document"),
    ({'dtype': 'float16'}, "dtype 'float16' is not one of float32, bfloat16"),
    ({'unpool': 'sum'}, "unpool 'sum' is not one of"),
    ({'combine': 'ema'}, "combine 'ema' is not one of"),
    ({'widen': 'ones'}, "widen 'ones' is not one of"),
    ({'boundary': 'words'}, "boundary 'words': write"),
    ({'boundary': 'stride:0'}, "boundary 'stride:0': write"),
    ({'ratio_targets': [3.0, 3.0]}, r'ratio_targets \[3.0, 3.0\] has 2 entries for 1 stages'),
    ({'ratio_targets': 1.0}, 'ratio_targets .* must be above 1'),
    ({'ratio_targets': [{'start': 2, 'end': 3, 'until': 2}]}, 'ratio_targets until 2'),
    ({'bytes_per_chunk': [4.0, 5.0]}, 'bytes_per_chunk .* a list with one number for each of 1 stages'),
    ({'bytes_per_chunk': [0.5]}, 'bytes_per_chunk .* at least one byte'),
    ({'ladder': {'fractions': (0.5, 0.25)}}, r'ladder\.fractions'),
    ({'ladder': {'row_groups': 0}}, r'ladder\.row_groups'),
  ],
)
def test_inconsistent_values_are_named(changes, message):
  refused(changes, message)


def test_the_space_rule_reads_bytes_only():
  refused({'boundary': ['cosine', 'space']}, "boundary 'space' at stage 1", TWO_STAGE)


@pytest.mark.parametrize(
  'changes, name',
  [
    ({'d_model': None}, 'd_model'),
    ({'d_intermediate': None}, 'd_intermediate'),
    ({'d_intermediate': ['x', 64]}, 'd_intermediate'),
    ({'d_intermediate': [-5, 64]}, 'd_intermediate'),
    ({'ssm_cfg': 5}, 'ssm_cfg'),
    ({'ssm_cfg': {'d_state': 0}}, 'd_state'),
    ({'ssm_cfg': {'d_conv': 0}}, 'd_conv'),
    ({'ssm_cfg': {'expand': 0}}, 'expand'),
    ({'ssd_tile': 0}, 'ssd_tile'),
    ({'attn_cfg': None}, 'attn_cfg'),
    ({'attn_cfg': {**attention(), 'num_heads': None}}, 'num_heads'),
    ({'attn_cfg': {**attention(), 'num_heads': 2.5}}, 'num_heads'),
    ({'attn_cfg': {**attention(), 'num_heads': 'two'}}, 'num_heads'),
    ({'attn_cfg': {**attention(), 'num_heads': [2, 2, 2]}}, 'num_heads'),
    ({'attn_cfg': {**attention(), 'window_size': 2.5}}, 'window_size'),
    ({'boundary': ['cosine', 'space']}, 'boundary'),
    ({'unpool': ['ema', 'repeat']}, 'unpool'),
    ({'ratio_targets': {'start': 2}}, 'ratio_targets'),
    ({'ratio_targets': ['x']}, 'ratio_targets'),
    ({'ratio_targets': [{'start': 2, 'end': 'x'}]}, 'ratio_targets'),
    ({'bytes_per_chunk': 5.0}, 'bytes_per_chunk'),
    ({'bytes_per_chunk': ['x']}, 'bytes_per_chunk'),
    ({'boundary': 'space', 'ratio_targets': [6.0]}, 'ratio_targets .* cuts by a rule'),
    ({'ladder': None}, 'ladder'),
    ({'ladder': {'fractions': 0.5}}, 'fractions'),
    ({'ladder': {'fractions': ['x']}}, 'fractions'),
    ({'tie_embeddings': 'false'}, 'tie_embeddings'),
    ({'remat': 'no'}, 'remat'),
    ({'ladder': {'keep_residuals': 1}}, 'keep_residuals'),
  ],
)
def test_values_of_the_wrong_kind_are_named(changes, name):
  refused(changes, name)


def test_stages_have_their_own_sizes():
  config = hnet.parse(
    {
      'arch_layout': ['m4', ['T1m4', ['T22'], 'm4T1'], 'm4'],
      'd_model': [32, 64, 128],
      'd_intermediate': [0, None, 300],
      'attn_cfg': {'num_heads': [2, 4, 8], 'rotary_emb_dim': 8, 'window_size': [1023, 7, -1]},
      'ssm_cfg': {'d_state': [4, 8, 16]},
    }
  )
  outer, middle, inner = config.stages
  assert (outer.encoder.layout, middle.decoder.layout, inner.main.layout) == ('m4', 'm4T1', 'T22')
  assert (outer.width_in, middle.width_in, inner.width_in) == (32, 32, 64)
  # MLPs are rounded up to a multiple of 128; null means 8/3 of the width (170 -> 256)
  assert (outer.encoder.mlp_width, middle.encoder.mlp_width, inner.main.mlp_width) == (0, 256, 384)
  assert (middle.encoder.num_heads, middle.encoder.window, inner.main.window) == (4, 7, -1)
  assert (outer.encoder.d_state, middle.decoder.d_state) == (4, 8)
  assert outer.main is None and inner.encoder is None and inner.target is None
  assert (outer.encoder.d_conv, outer.encoder.expand) == (4, 2)


def test_what_is_not_given_is_the_published_model():
  config = hnet.parse({k: v for k, v in branch(ONE_STAGE).items() if k not in ('ladder', 'ssd_tile', 'family')})
  stage = config.stages[0]
  assert (stage.boundary, stage.unpool, stage.combine, stage.widen) == ('cosine', 'ema', 'ste', 'learned')
  assert stage.target.start == stage.target.end == 6.0 and config.bytes_per_chunk == (6.0,)
  assert config.ladder == LadderConfig() and config.ladder.fractions[-1] == 1 and config.dtype == 'float32'
  assert not config.tie_embeddings and config.ratio_scope == 'global' and config.family == 'hnet'
  two = hnet.parse(branch(TWO_STAGE))
  assert [s.target.end for s in two.stages[:-1]] == [3.0, 3.0] and two.bytes_per_chunk == (3.0, 9.0)


def test_rules_have_no_target_and_repeat_their_chunk():
  config = hnet.parse(branch(TWO_STAGE, boundary=['space', 'stride:2']))
  assert [s.target for s in config.stages] == [None] * 3
  assert [s.unpool for s in config.stages[:-1]] == ['repeat', 'repeat']
  assert config.bytes_per_chunk == (6.0, 12.0)  # the paper's average of the space rule, and the stride
  mixed = hnet.parse(branch(TWO_STAGE, boundary=['cosine', 'stride:2'], ratio_targets=[{'start': 2, 'end': 4}, None]))
  assert [s.unpool for s in mixed.stages[:-1]] == ['ema', 'repeat']
  assert float(mixed.stages[0].target(0.5)) == 3.0 and mixed.bytes_per_chunk == (4.0, 8.0)


def test_equal_branches_give_equal_configurations_that_can_be_keys():
  first, second = hnet.parse(branch(TWO_STAGE)), hnet.parse(branch(TWO_STAGE))
  assert first == second and hash(first) == hash(second)
  assert first != hnet.parse(branch(TWO_STAGE, dtype='bfloat16'))


def test_the_official_form_is_read_back():
  config = hnet.parse(branch(TWO_STAGE, window=[5, 7, -1], tie_embeddings=True))
  official = config.official()
  assert set(official) == {
    'arch_layout', 'd_model', 'd_intermediate', 'vocab_size', 'ssm_cfg', 'attn_cfg', 'tie_embeddings'
  }  # fmt: skip
  assert official['arch_layout'] == TWO_STAGE and official['attn_cfg']['window_size'] == [5, 7, -1]
  assert hnet.parse(official).stages[2].main.width == 64 and hnet.parse(official).official() == official


def test_a_model_without_attention_needs_no_heads():
  config = hnet.parse({'arch_layout': ['M2'], 'd_model': [64], 'd_intermediate': [128]})
  assert hnet.parse(config.official()) == config
