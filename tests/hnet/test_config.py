"""The model branch: what it accepts, what it fills in, and one sentence that names whatever is wrong."""

import pytest

import hnet
from hnet.parts import KINDS
from hnet.parts.boundaries import Cosine, Stride, StrideEnd
from hnet.parts.pools import First
from hnet.systems import SYSTEMS
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
    ({'d_modle': [32]}, r'unknown config key model\.d_modle'),
    ({'ssm_cfg': {'dstate': 8}}, r'unknown config key model\.ssm_cfg\.dstate'),
    ({'attn_cfg': {**attention(), 'heads': 2}}, r'unknown config key model\.attn_cfg\.heads'),
    ({'chunking': {'bounds': 'space'}}, r'unknown config key model\.chunking\.bounds'),
    ({'fixed_capacities': [0.5]}, r'unknown config key model\.fixed_capacities'),
    ({'ratio_targets': [{'start': 2, 'stop': 3}]}, r'unknown config key model\.ratio_targets\.stop'),
  ],
)
def test_unknown_keys_are_named(changes, message):
  refused(changes, message)


@pytest.mark.parametrize(
  'layout',
  ['m4', [], ['m4', 'm4'], ['m4', ['T1']], ['m4', 'T1', 'm4'], ['m4', ['T1'], 'm4', 'm4'], [['T1']], 5, [5]],
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
    ({'post_norm': 'heads'}, "post_norm, if not 'head', 'heads' must be True or False"),
    ({'num_kv_heads': 3}, 'num_kv_heads 3 does not divide num_heads 2'),
    ({'rotary_base': 0}, 'rotary_base 0: must be above 0'),
    ({'mlp_multiple': 0}, 'mlp_multiple 0 must be an integer of at least 1'),
    ({'dtype': 'float16'}, "dtype 'float16' is not one of float32, bfloat16"),
    ({'chunking': 'words'}, "chunking 'words' is not known: use one of .*hnet, .*hnet_pool, .*hnet_space, .*spacebyte"),
    ({'chunking': 'hnet_pool(step=5)'}, "chunking 'hnet_pool.step=5.' has no argument 'step': hnet_pool takes size"),
    ({'chunking': 'hnet_pool(5,6)'}, "has no argument '6'"),
    ({'chunking': 'hnet_space(5)'}, "has no argument '5'"),
    ({'chunking': 'hnet_pool(half)'}, "size='half' is not a whole number"),
    ({'chunking': 'hnet_pool(0)'}, r'boundary stride\(0\): write stride\(N\) with N from 1 to 2147483647'),
    ({'chunking': f'hnet_pool({2**31})'}, r'boundary stride\(2147483648\): write'),
    ({'chunking': f'hnet_pool({"9" * 4000})'}, r'boundary stride\(9{50}\): write'),
    ({'chunking': f'hnet_pool({"9" * 5000})'}, 'is not a whole number'),
    ({'chunking': {'boundary': 'stride(-1)'}}, r'boundary stride\(-1\): write'),
    (
      {'chunking': {'boundary': 'words'}},
      "boundary 'words' is not known: use one of .*cosine, .*mark, .*space, .*stride",
    ),
    ({'chunking': {'pool': 'last'}}, "pool 'last' is not known"),
    ({'chunking': {'pool': 'first(widen=ones)'}}, "pool first: widen 'ones' is not one of learned, zeros"),
    ({'chunking': {'unpool': 'sum'}}, "unpool 'sum' is not known"),
    ({'chunking': {'unpool': 'ema(narrow=middle)'}}, "unpool: narrow 'middle' is not one of first, last"),
    ({'chunking': {'combine': 'ema'}}, "combine 'ema' is not known"),
    ({'chunking': {'losses': ['rates']}}, "loss 'rates' is not known: use one of .*ratio"),
    ({'chunking': {'losses': ['ratio(scope=row)']}}, "loss ratio: scope 'row' is not one of global, per_document"),
    ({'chunking': {'losses': ['ratio(target=1)']}}, 'ratio_targets 1.0 -> 1.0'),
    ({'chunking': ['hnet', 'hnet']}, r"chunking \['hnet', 'hnet'\] has 2 entries for 1 stages that cut"),
    ({'chunking': {'losses': ['ratio(4)']}, 'ratio_targets': 3.0}, 'stage 0 has a target in model.chunking'),
    ({'ratio_targets': [3.0, 3.0]}, r'ratio_targets \[3.0, 3.0\] has 2 entries for 1 stages'),
    ({'ratio_targets': 1.0}, 'ratio_targets .* must be above 1'),
    ({'ratio_targets': [{'start': 2, 'end': 3, 'until': 2}]}, 'ratio_targets until 2'),
    ({'ratio_targets': [{'start': 2, 'end': 3, 'since': 1}]}, 'ratio_targets since 1'),
    ({'bytes_per_chunk': [4.0, 5.0]}, 'bytes_per_chunk .* a list with one number for each of 1 stages'),
    ({'bytes_per_chunk': [0.5]}, 'bytes_per_chunk .* at least one byte'),
    ({'fixed_capacity': [0.5, 0.5]}, r'fixed_capacity \[0.5, 0.5\]: .* for each of 1 stages'),
    ({'fixed_capacity': [0.0]}, 'fixed_capacity 0.0: .* above 0 and at most 1'),
    ({'fixed_capacity': [1.5]}, 'fixed_capacity 1.5: .* above 0 and at most 1'),
  ],
)
def test_inconsistent_values_are_named(changes, message):
  refused(changes, message)


@pytest.mark.parametrize('key', ['boundary', 'unpool', 'combine', 'widen'])
def test_keys_of_the_old_spelling_say_where_they_went(key):
  refused({key: None}, rf"model\.{key} is part of model\.chunking now: write 'hnet', 'hnet_pool\(size=N\)'")


def test_the_ladder_says_what_to_do_without_it():
  refused({'ladder': {'fractions': (0.25, 0.5)}}, r'model\.ladder is gone: leave it out.* model\.fixed_capacity')


@pytest.mark.parametrize(
  'chunking, message',
  [
    ({'boundary': 'mark(words,by=stanzas)'}, "mark 'words': 'stanzas' is not known: use one of hat"),
    (
      {'boundary': 'levels(published=true)'},
      r"'levels\(word1,published=true\)' of a byte depends on .* or write leaks=true",
    ),
    (
      {'boundary': 'levels(2)'},
      'boundary levels: at=2, but 1 rules give levels from 1 to 1: name a rule for each stage',
    ),
    ({'boundary': 'levels(1,words)'}, "level 'words' is not known: write wordG"),
    (
      {'boundary': r'regex(\s+)'},
      'depends on later bytes, .*: the last byte of .* is not marked in .*, but not at its own',
    ),
    ({'boundary': 'regex([)'}, r"regex '\[': unterminated character set at position 0"),
    ({'boundary': 'ended(fixed)'}, 'by is one of hat, whitespace, uax29'),
    ({'pool': 'first(mixed)', 'unpool': 'indexed(narrow=half)'}, "narrow 'half' is not one of linear, mean"),
    ({'boundary': 'mark(by=hat)'}, r"the mark 'words' \(hat\) of a byte depends on later bytes, .*'fixed\(size=8\)'"),
    ({'pool': 'latent(heads=5)'}, 'pool latent: heads=5 does not divide the 64 channels into heads of an even size'),
    ({'pool': 'latent(heads=64)'}, 'pool latent: heads=64 does not divide the 64 channels into heads of an even size'),
    ({'pool': 'latent(heads=0)'}, 'pool latent: heads 0 must be an integer of at least 1'),
    ({'pool': 'latent(heads=4,kv_heads=3)'}, 'pool latent: kv_heads=3 does not divide heads=4'),
    ({'pool': 'latent(qk_norm=both)'}, "pool latent: qk_norm 'both' is not one of none, head, full"),
    ({'pool': 'latent(rotary_base=nan)'}, 'pool latent: rotary_base=nan must be a positive number'),
    ({'unpool': 'cross(norm_epsilon=0)'}, 'unpool cross: norm_epsilon=0.0 must be a positive number'),
    ({'unpool': 'cross(heads=5)'}, 'unpool cross: heads=5 does not divide the 32 channels'),
    ({'unpool': 'cross(layers=2)'}, 'unpool cross: layers=2, but the decoder has 1 blocks'),
    ({'unpool': 'cross', 'combine': 'ste'}, "unpool cross.* adds to the decoder's blocks, .* use combine through, or"),
    (
      {'losses': ['early']},
      "loss early needs 'early' of its boundary, which cosine .*: use boundary bernoulli, or ano",
    ),
    ({'combine': 'through'}, 'unpool ema.* gives every slot a vector, .* use combine linear or ste or sum, or'),
  ],
)
def test_parts_that_do_not_fit_are_named(chunking, message):
  refused({'chunking': chunking}, message)


def test_what_a_pool_reads_fits_where_a_boundary_emits(monkeypatch):
  monkeypatch.setitem(KINDS['boundary'], 'last', type('Last', (Stride,), {'emits': 'ends'}))
  monkeypatch.setitem(KINDS['pool'], 'all', type('All', (First,), {'reads': 'until'}))
  hnet.parse(branch(ONE_STAGE, chunking={'boundary': 'last', 'pool': 'all'}))
  hnet.parse(branch(ONE_STAGE, chunking={'boundary': 'last'}))
  refused(
    {'chunking': {'boundary': 'last', 'pool': 'latent(heads=2)'}},
    "reads 'before', and boundary last.* ends: use a pool that reads 'until' or 'first'",
  )
  refused(
    {'chunking': {'pool': 'all'}}, "reads 'until', and boundary cosine emits .* starts: use a pool that reads 'fi"
  )


class Ahead(StrideEnd):
  """Reads the next slot."""

  lookahead = 1


def test_a_boundary_that_looks_ahead_may_have_no_score_with_a_gradient(monkeypatch):
  monkeypatch.setitem(KINDS['boundary'], 'ahead', Ahead)
  assert hnet.parse(branch(ONE_STAGE, chunking={'boundary': 'ahead(3)'})).stages[0].boundary.make is Ahead
  monkeypatch.setitem(KINDS['boundary'], 'ahead', type('Learned', (Cosine,), {'lookahead': 1}))
  refused({'chunking': {'boundary': 'ahead'}}, 'boundary ahead looks 1 slots ahead and its score carries a gradient')


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
    ({'chunking': 5}, 'chunking'),
    ({'chunking': None}, 'chunking'),
    ({'chunking': []}, 'chunking'),
    ({'chunking': [None]}, 'chunking'),
    ({'chunking': {'boundary': 5}}, 'boundary 5'),
    ({'chunking': {'losses': 'ratio'}}, 'losses'),
    ({'chunking': {'losses': [5]}}, 'loss 5'),
    ({'chunking': {'losses': None}}, 'losses'),
    ({'ratio_targets': {'start': 2}}, 'ratio_targets'),
    ({'ratio_targets': ['x']}, 'ratio_targets'),
    ({'ratio_targets': [{'start': 2, 'end': 'x'}]}, 'ratio_targets'),
    ({'bytes_per_chunk': 5.0}, 'bytes_per_chunk'),
    ({'bytes_per_chunk': ['x']}, 'bytes_per_chunk'),
    ({'chunking': 'hnet_space', 'ratio_targets': [6.0]}, 'ratio_targets .* stage 0 has no ratio loss'),
    ({'chunking': 'hnet_space', 'ratio_targets': 6.0}, 'ratio_targets .* stage 0 has no ratio loss'),
    ({'chunking': {'losses': []}, 'ratio_targets': {'start': 2, 'end': 3}}, 'ratio_targets .* has no ratio loss'),
    ({'fixed_capacity': 0.5}, 'fixed_capacity'),
    ({'fixed_capacity': ['x']}, 'fixed_capacity'),
    ({'fixed_capacity': [float('nan')]}, 'fixed_capacity'),
    ({'tie_embeddings': 'false'}, 'tie_embeddings'),
    ({'remat': 'no'}, 'remat'),
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
  assert (outer.sizes, middle.sizes, inner.sizes) == ((32, 64, 4), (64, 128, 5), (128, 128, 22))
  # MLPs are rounded up to a multiple of 128; null means 8/3 of the width (170 -> 256)
  assert (outer.encoder.mlp_width, middle.encoder.mlp_width, inner.main.mlp_width) == (0, 256, 384)
  assert (middle.encoder.num_heads, middle.encoder.window, inner.main.window) == (4, 7, -1)
  assert (outer.encoder.d_state, middle.decoder.d_state) == (4, 8)
  assert outer.main is None and inner.encoder is None and inner.target is None
  assert (outer.encoder.d_conv, outer.encoder.expand) == (4, 2)


def test_what_is_not_given_is_the_published_model():
  config = hnet.parse({k: v for k, v in branch(ONE_STAGE).items() if k not in ('ssd_tile', 'family')})
  stage = config.stages[0]
  assert [part.name for part in (stage.boundary, stage.pool, stage.unpool, stage.combine)] == [
    'cosine', 'first(widen=learned)', 'ema(narrow=first)', 'ste'
  ]  # fmt: skip
  assert [(loss.make.name, loss.loss().scope) for loss in stage.losses] == [('ratio', 'global')]
  assert stage.target.start == stage.target.end == 6.0 and config.bytes_per_chunk == (6.0,)
  assert stage.limit is None and config.dtype == 'float32'
  assert not config.tie_embeddings and config.family == 'hnet'
  two = hnet.parse(branch(TWO_STAGE))
  assert [s.target.end for s in two.stages[:-1]] == [3.0, 3.0] and two.bytes_per_chunk == (3.0, 9.0)


def parts_of(config):
  """The names of the parts of each stage that cuts, in short."""
  keys = ('boundary', 'pool', 'unpool', 'combine')
  return [' '.join(getattr(stage, key).name for key in keys) for stage in config.stages[:-1]]


def test_rules_have_no_target_and_repeat_their_chunk():
  config = hnet.parse(branch(TWO_STAGE, chunking=['hnet_space', 'hnet_pool(size=2)']))
  assert [s.target for s in config.stages] == [None] * 3 and [s.losses for s in config.stages] == [()] * 3
  assert parts_of(config) == [
    f'{boundary} first(widen=learned) repeat(narrow=first) ste' for boundary in ('space', 'stride(size=2)')
  ]
  assert config.bytes_per_chunk == (6.0, 12.0)  # the paper's average of the space rule, and the stride
  mixed = branch(TWO_STAGE, chunking=['hnet', 'hnet_pool(2)'], ratio_targets=[{'start': 2, 'end': 4}, None])
  mixed = hnet.parse(mixed)
  assert [s.unpool.name for s in mixed.stages[:-1]] == ['ema(narrow=first)', 'repeat(narrow=first)']
  assert float(mixed.stages[0].target(0.5)) == 3.0 and mixed.bytes_per_chunk == (4.0, 8.0)
  one_for_all = hnet.parse(branch(TWO_STAGE, chunking=['hnet', 'hnet_pool(2)'], ratio_targets=5.0))
  assert [s.target and s.target.end for s in one_for_all.stages] == [5.0, None, None]


@pytest.mark.parametrize('system', SYSTEMS)
def test_a_system_is_its_parts_and_one_for_all_stages_is_one_for_each(system):
  # these have a rule for one stage and a head for one, and scratch rows need the main network inside
  is_one = system in ('aunet2', 'bolmo_chunker') or 'scratch' in SYSTEMS[system][1]
  layout, cuts = (ONE_STAGE, 1) if is_one else (TWO_STAGE, 2)
  same = [hnet.parse(branch(layout, chunking=c)) for c in (system, f' {system}( ) ', [system] * cuts, (system,) * cuts)]
  assert all(config == same[0] for config in same)
  options, parts = SYSTEMS[system]
  filled = lambda spec, stage: (
    spec.format(**options, stage=stage) if isinstance(spec, str) else [filled(part, stage) for part in spec]
  )
  in_full = [{key: filled(value, stage) for key, value in parts.items()} for stage in range(1, cuts + 1)]
  assert hnet.parse(branch(layout, chunking=in_full)) == same[0]


def test_what_a_mapping_leaves_out_is_the_published_part_or_that_of_a_rule():
  parse = lambda **chunking: hnet.parse(branch(ONE_STAGE, chunking=chunking))
  assert parse() == parse(boundary='cosine') == parse(losses=['ratio'], pool='first') == hnet.parse(branch(ONE_STAGE))
  assert parse(boundary='stride(5)') == hnet.parse(branch(ONE_STAGE, chunking='hnet_pool(5)'))
  assert parse(boundary='space', unpool='ema').stages[0].unpool.name == 'ema(narrow=first)'
  assert parts_of(hnet.parse(branch(ONE_STAGE, chunking='spacebyte'))) == [
    'space first(widen=zeros) scatter(narrow=last) sum'
  ]
  alone = parse(losses=[])
  assert alone.stages[0].losses == () and alone.stages[0].target is None and alone.bytes_per_chunk == (1.0,)
  at_any_depth = hnet.parse(branch(TWO_STAGE, chunking=['hnet', 'hnet_space']))
  assert at_any_depth.bytes_per_chunk == (3.0, 18.0)


def test_targets_and_scopes_stand_in_the_loss_or_in_their_own_keys():
  loss_of = lambda **changes: hnet.parse(branch(ONE_STAGE, **changes)).stages[0].losses[0].loss()
  described = lambda loss: (loss.target.start, loss.target.end, loss.target.until, loss.scope)
  assert described(loss_of()) == (6.0, 6.0, 1.0, 'global')
  assert described(loss_of(ratio_targets=4, ratio_scope='per_document')) == (4.0, 4.0, 1.0, 'per_document')
  assert described(loss_of(ratio_targets=[{'start': 2, 'end': 4}])) == (2.0, 4.0, 1.0, 'global')
  in_loss = lambda spec, **changes: described(loss_of(chunking={'losses': [spec]}, **changes))
  assert in_loss('ratio(4)') == (4.0, 4.0, 1.0, 'global')
  assert in_loss('ratio(4,2,0.5,per_document)') == (2.0, 4.0, 0.5, 'per_document')
  assert in_loss('ratio(start=2)') == (2.0, 6.0, 1.0, 'global')
  assert in_loss('ratio(scope=per_document)', ratio_targets=5) == (5.0, 5.0, 1.0, 'per_document')
  assert in_loss('ratio(4)', ratio_scope='per_document') == (4.0, 4.0, 1.0, 'per_document')
  assert in_loss('ratio(4,scope=global)', ratio_scope='per_document') == (4.0, 4.0, 1.0, 'global')
  assert hnet.parse(branch(ONE_STAGE, chunking={'losses': ['ratio(4)']})).bytes_per_chunk == (4.0,)


def test_a_fixed_capacity_is_a_share_for_each_stage_that_cuts():
  assert [s.limit for s in hnet.parse(branch(TWO_STAGE, fixed_capacity=(None, 0.25))).stages] == [None, 0.25, None]
  assert [s.limit for s in hnet.parse(branch(ONE_STAGE, fixed_capacity=[1])).stages] == [1, None]


def test_bytes_of_a_chunk_are_given_or_what_targets_and_rules_promise():
  sizes = lambda layout, **changes: hnet.parse(branch(layout, **changes)).bytes_per_chunk
  assert sizes(TWO_STAGE, bytes_per_chunk=[4, 9.5]) == (4.0, 9.5)
  assert sizes(ONE_STAGE, ratio_targets={'start': 2, 'end': 5}) == (5.0,)
  assert sizes(TWO_STAGE, chunking='hnet_pool(3)') == (3.0, 9.0)
  assert sizes(['T1']) == ()


@pytest.mark.parametrize(
  'changes', [{'chunking': 'hnet_pool'}, {'ratio_targets': 3.0}, {'bytes_per_chunk': [1.0]}, {'fixed_capacity': [0.5]}]
)
def test_nothing_is_cut_with_a_single_stage(changes):
  refused(changes, rf"model\.{next(iter(changes))} .*: with the single stage \['T1'\] nothing is cut", ['T1'])


def test_options_of_stacks_are_one_for_all_stages_or_one_for_each():
  found = hnet.parse(branch(TWO_STAGE, num_kv_heads=(0, 1, 2), rotary_base=500000.0, mlp_multiple=16, post_norm='head'))
  stacks = [stack for stage in found.stages for stack in (stage.encoder, stage.decoder, stage.main) if stack]
  assert [stack.num_kv_heads for stack in stacks] == [0, 0, 1, 1, 2]
  assert {stack.rotary_base for stack in stacks} == {500000.0} and {stack.mlp_width for stack in stacks} == {64}
  assert [stack.final_norm for stack in stacks] == [False, True, False, False, False]
  assert hnet.parse(branch(['T1'], post_norm='head')).stages[0].main.final_norm
  leaks = hnet.parse(branch(ONE_STAGE, chunking={'boundary': 'levels(1,pretok,published=true,leaks=true)'}))
  assert leaks.marks == (('levels(pretok,published=true,leaks=true)',) * 2,)


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
