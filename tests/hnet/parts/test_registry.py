"""Parts by their specifications: names with options, and one sentence for others."""

import pytest

from hnet import parts
from hnet.parts import KINDS
from tests.hnet.parts.common import SIZES


@pytest.mark.parametrize(
  'kind, spec, name, options',
  [
    ('boundary', 'cosine', 'cosine', {}),
    ('boundary', 'stride', 'stride(size=6)', {'size': 6}),
    ('boundary', 'stride(5)', 'stride(size=5)', {'size': 5}),
    ('boundary', ' stride ( size = 2147483647 ) ', 'stride(size=2147483647)', {'size': 2**31 - 1}),
    ('boundary', 'mark(by=script)', 'mark(name=words,by=script)', {'name': 'words', 'by': 'script'}),
    ('pool', 'first(zeros)', 'first(widen=zeros)', {'widen': 'zeros'}),
    ('unpool', 'repeat', 'repeat(narrow=first)', {'narrow': 'first'}),
    ('combine', 'sum', 'sum', {}),
    (
      'loss',
      'ratio(4)',
      'ratio(target=4.0,until=1.0,scope=)',
      {'target': 4.0, 'start': None, 'until': 1.0, 'scope': '', 'since': None},
    ),
  ],
)
def test_specifications_are_names_with_options(kind, spec, name, options):
  part = parts.parse(kind, spec)
  assert (part.kind, part.name, dict(part.options)) == (kind, name, options)
  assert parts.parse(kind, part.name) == part and hash(parts.parse(kind, part.name)) == hash(part)


@pytest.mark.parametrize(
  'kind, spec, sentence',
  [
    ('boundary', '', "boundary '' is not known: use one of .*cosine, .*mark, .*space, .*stride"),
    ('boundary', 'words', "boundary 'words' is not known"),
    ('boundary', 'stride:6', "boundary 'stride:6' is not known"),
    ('boundary', 'stride(', "boundary 'stride\\(' is not known"),
    ('boundary', 'space(3)', "boundary 'space\\(3\\)' has no argument '3': space takes"),
    ('boundary', 'stride(step=3)', "has no argument 'step': stride takes size"),
    ('boundary', 'stride(1.5)', "size='1.5' is not a whole number"),
    ('boundary', 'stride(3,4)', "has no argument '4'"),
    ('boundary', 'stride(3,size=4)', 'gives an argument twice'),
    ('boundary', None, 'boundary None must be a specification such as'),
    ('boundary', 6, 'boundary 6 must be a specification'),
    ('pool', 'last', "pool 'last' is not known: use one of .*first"),
    ('unpool', 'sum', "unpool 'sum' is not known: use one of .*cross, .*ema, .*repeat, .*scatter"),
    ('combine', 'ema', "combine 'ema' is not known: use one of linear, ste, sum, through"),
    (
      'loss',
      'ratio(goal=3)',
      "loss 'ratio\\(goal=3\\)' has no argument 'goal': ratio takes target, start, until, scope, since",
    ),
    ('loss', 'ratio(target=x)', "target='x' is not a number"),
  ],
)
def test_other_specifications_are_one_sentence(kind, spec, sentence):
  with pytest.raises(ValueError, match=sentence) as error:
    parts.parse(kind, spec)
  assert '\n' not in str(error.value)


def test_every_part_says_what_its_kind_has_to_say():
  for kind, classes in KINDS.items():
    for name, made in classes.items():
      assert isinstance(made.OPTIONS, dict) and made.__doc__, name
      if kind != 'loss':
        options = {**made.OPTIONS, **({'heads': 2} if 'heads' in made.OPTIONS else {})}
        few, more = (made.flops(SIZES, 1.0, chunks, **options) for chunks in (0.25, 0.5))
        assert 0 <= few <= more
  for boundary in KINDS['boundary'].values():
    assert boundary.differentiable <= (boundary.lookahead == 0) and boundary.learned >= boundary.differentiable
    assert boundary.emits in ('starts', 'ends')
    options = {key: value or key for key, value in boundary.OPTIONS.items()}
    assert boundary.chunk_size(**options) is None or not boundary.learned
  assert {pool.reads for pool in KINDS['pool'].values()} <= {'first', 'until', 'before'}
