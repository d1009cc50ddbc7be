"""Published ways to chunk as data, each a choice of parts (hnet/parts); `model.chunking` names one for each stage."""

from collections.abc import Mapping, Sequence
from typing import Any

from hnet import parts
from hnet.parts import Part
from hnet.parts.scratch import POOLS, UNPOOLS
from layers import checks
from text.specification import arguments

_AUNET = {'pool': 'first(widen=linear)', 'unpool': 'indexed', 'combine': 'sum'}
_MEAN = {'pool': 'mean', 'unpool': 'repeat', 'combine': 'sum'}  # of dynamic-pooling and what followed from it
# name -> (its options, part -> specification)
# ({stage}: the stage, from 1 on)
SYSTEMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
  # AU-Net (arXiv 2506.14761) of two and of three stages: words, and pairs of words
  'aunet2': ({'one': 'word1'}, {'boundary': 'levels({stage},{one})', **_AUNET}),
  'aunet3': ({'one': 'word1', 'two': 'word2'}, {'boundary': 'levels({stage},{one},{two})', **_AUNET}),
  # BLT (arXiv 2412.09871): a chunk ends where a rule or another model says so; as released, its k vectors reach every
  # block of the decoder. With its n-grams and stacks: the family `blt`
  'blt': (
    {'boundary': 'space_end', 'queries': 2, 'heads': 4},
    {
      'boundary': '{boundary}',
      'pool': 'attend(queries={queries},heads={heads})',
      'unpool': 'attend(queries={queries},heads={heads})',
      'combine': 'through',
    },
  ),
  # BLT without cross attention: the largest, smallest and mean values of a chunk, and its vector at every slot
  'blt_reduce': (
    {'boundary': 'space_end', 'of': 'max'},
    {
      'boundary': '{boundary}',
      'pool': 'reduce({of})',
      'unpool': 'repeat(narrow=linear)',
      'combine': 'sum',
    },
  ),
  # Bolmo (arXiv 2512.15586): ends that a byte more shows than decoding has, learned from labels: those of a tokenizer's
  # pieces, or of what tokenizers such as GPT-2's cut text into before they look for pieces
  'bolmo_chunker': (
    {'by': r'regex([ ]?\w+|[ ]?[^\w\s]+|\s+(?!\S)|\s+)'},
    {
      'boundary': 'cosine_ahead',
      'pool': 'first(widen=linear)',
      'unpool': 'repeat',
      'combine': 'linear',
      'losses': ('bce(pieces,by={by})',),
    },
  ),
  # ByteFlow (arXiv 2603.03583) with a threshold, which the published choice among a window's positions is not. Its way
  # back: unpool=indexed(bin),combine=sum
  'byteflow_threshold': (
    {'size': 5.0, 'decay': 0.98, 'unpool': 'repeat', 'combine': 'ste'},
    {
      'boundary': 'coding_rate(decay={decay})',
      'pool': 'first',
      'unpool': '{unpool}',
      'combine': '{combine}',
      'losses': ('quantile({size})',),
    },
  ),
  # dynamic-pooling (arXiv 2211.09761), and its 'entropy' and 'unigram', whose boundaries learn from labels
  'dynamic_pooling': (
    {'target': '5', 'temperature': 0.5, 'evaluation': 'threshold'},
    {'boundary': 'gumbel({temperature},{evaluation})', **_MEAN, 'losses': ('binomial({target})',)},
  ),
  'dynamic_pooling_entropy': (
    {'spikes_left': 2},
    {'boundary': 'supervised', **_MEAN, 'losses': ('bce(spikes_left={spikes_left})',)},
  ),
  'dynamic_pooling_pieces': (
    {'by': 'fixed(size=8)'},
    {'boundary': 'supervised', **_MEAN, 'losses': ('bce(pieces,by={by})',)},
  ),
  # FLEXITOKENS (arXiv 2507.12720): one predictor, and a band for each script
  'flexitokens': (
    {'rate': '0.2', 'sigma': '0.02', 'deviations': 1.0, 'scripts': '', 'others': '', 'evaluation': 'threshold'},
    {
      'boundary': 'gumbel(evaluation={evaluation})',
      **_MEAN,
      'losses': ('hinge({rate},{sigma},{deviations},scripts={scripts},others={others})',),
    },
  ),
  # H-Net (arXiv 2507.07955)
  'hnet': ({}, {'boundary': 'cosine', 'pool': 'first', 'unpool': 'ema', 'combine': 'ste', 'losses': ('ratio',)}),
  # Table 1 of the paper: the same without a learned boundary, and so without smoothing
  'hnet_pool': ({'size': 6}, {'boundary': 'stride({size})', 'pool': 'first', 'unpool': 'repeat', 'combine': 'ste'}),
  'hnet_space': ({}, {'boundary': 'space', 'pool': 'first', 'unpool': 'repeat', 'combine': 'ste'}),
  # Hourglass (arXiv 2110.13711), with its mean and repeat
  'hourglass': ({'size': 6}, {'boundary': 'stride_end({size})', **_MEAN}),
  # MAGNET (arXiv 2407.08818): a predictor and a target for each script
  'magnet': (
    {
      'scripts': 'latin+cyrillic+devanagari',
      'target': '5+10+12.5',
      'others': '',
      'temperature': 0.5,
      'evaluation': 'threshold',
    },
    {
      'boundary': 'gumbel({temperature},{evaluation},scripts={scripts},others={others})',
      **_MEAN,
      'losses': ('binomial({target},scripts={scripts},others={others})',),
    },
  ),
  # lucidrains/h-net-dynamic-chunking: H-Net's probabilities before the stage inside, with one of its heads
  'hnet_weighted': (
    {},
    {
      'boundary': 'cosine',
      'pool': 'weighted_first',
      'unpool': 'decayed',
      'combine': 'ste',
      'losses': ('ratio',),
    },
  ),
  # Dauncey and Wattenhofer (arXiv 2602.13940); its blocks have no norm at the end of a stack (post_norm)
  'policy_router': (
    {'size': 5.0, 'draw': False},
    {
      'boundary': 'bernoulli({size},draw={draw})',
      'pool': 'first',
      'unpool': 'difference',
      'combine': 'sum',
      'losses': ('reinforce', 'rate({size})', 'early'),
    },
  ),
  # SOMBRERO (arXiv 2601.22805). Smoothing over chunks in place of slots: pool=first,unpool=ema; over what comes back at
  # slots: pool=first,unpool=smoothed_repeat
  'sombrero': (
    {'pool': 'smoothed_first', 'unpool': 'repeat'},
    {'boundary': 'sigmoid', 'pool': '{pool}', 'unpool': '{unpool}', 'combine': 'ste', 'losses': ('ratio', 'cab')},
  ),
  # Scratchpad Patching (arXiv 2605.09630): any boundary, and steps of the main network within its chunks
  'scratchpad': (
    {'boundary': 'space', 'rows': 'every(size=4)'},
    {'boundary': '{boundary}', 'pool': 'first', 'unpool': 'repeat', 'combine': 'ste', 'scratch': '{rows}'},
  ),
  # SpaceByte (arXiv 2404.14408); SpaceByte++ is the same between Mamba-2 stacks
  'spacebyte': (
    {},
    {'boundary': 'space', 'pool': 'first(widen=zeros)', 'unpool': 'scatter(narrow=last)', 'combine': 'sum'},
  ),
  # T-Free-HAT (arXiv 2603.15953) where a byte tells whether it begins a word; its late decisions: byte_models/tfree_hat
  'tfree_hat': (
    {'words': 'fixed(size=8)', 'pool_heads': 8, 'heads': 8},
    {
      'boundary': 'mark(words,by={words})',
      'pool': 'latent(heads={pool_heads})',
      'unpool': 'cross(heads={heads})',
      'combine': 'through',
    },
  ),
}
KEYS = ('boundary', 'pool', 'unpool', 'combine', 'losses', 'scratch')


def parse(chunking: Any, stage: int = 0) -> dict[str, Any]:
  """{'boundary', 'pool', 'unpool', 'combine': Part, 'losses': tuple of Parts, 'scratch': Part or None} of one stage.

  chunking: a system, such as 'hnet' or 'hnet_pool(size=5)', or a mapping from part to specification, in which what is
  missing is H-Net's; a boundary that is not learned is then repeated and not smoothed, and has no loss; with scratch
  rows nothing is smoothed. ValueError with one sentence for what is not known or does not fit together.
  """
  if isinstance(chunking, str):
    name, options = arguments(chunking, 'chunking', {name: options for name, (options, _) in SYSTEMS.items()})
    filled = lambda spec: spec.format(**options, stage=stage + 1) if isinstance(spec, str) else tuple(map(filled, spec))
    specs = {key: filled(value) for key, value in SYSTEMS[name][1].items()}
  else:
    specs = checks.known(chunking, KEYS, 'model.chunking')
  boundary = parts.parse('boundary', specs.get('boundary', 'cosine'))
  learned = boundary.make.learned
  losses = specs.get('losses', ('ratio',) if learned else ())
  if isinstance(losses, str) or not isinstance(losses, Sequence):
    raise ValueError(f'model.chunking losses {losses!r} must be a list of specifications, such as ["ratio"].')
  scratch = specs.get('scratch')
  scratch = None if scratch is None else parts.parse('scratch', scratch)
  pool = parts.parse('pool', specs.get('pool', 'first'))
  unpool = parts.parse('unpool', specs.get('unpool', 'ema' if learned and scratch is None else 'repeat'))
  combine = parts.parse('combine', specs.get('combine', 'through' if unpool.make.injects else 'ste'))
  losses = tuple(parts.parse('loss', loss) for loss in losses)
  _check_together(boundary, pool, unpool, combine)
  _check_given(boundary, tuple(filter(None, (unpool, *losses, scratch))))
  if scratch is not None:
    _check_scratch(scratch, pool, unpool)
  if learned and not boundary.make.differentiable and 'losses' not in specs:
    raise ValueError(
      f'boundary {boundary.name} gets no gradient through what it decides: name the losses that it learns from, such '
      "as losses: ['bce']."
    )
  return {
    'boundary': boundary,
    'pool': pool,
    'unpool': unpool,
    'combine': combine,
    'losses': losses,
    'scratch': scratch,
  }


def _check_together(boundary: Part, pool: Part, unpool: Part, combine: Part) -> None:
  if boundary.make.lookahead and boundary.make.differentiable:
    raise ValueError(
      f'boundary {boundary.name} looks {boundary.make.lookahead} slots ahead and its score carries a gradient, which '
      'tells the loss the next byte: stop the gradient (soft = stop_gradient), or look back.'
    )
  refused = {'starts': 'until', 'ends': 'before'}[boundary.make.emits]
  if pool.make.reads == refused:
    wanted = "reads 'until' or 'first'" if boundary.make.emits == 'ends' else "reads 'first' or 'before'"
    raise ValueError(
      f'pool {pool.name} reads {pool.make.reads!r}, and boundary {boundary.name} emits where what it finds '
      f'{boundary.make.emits[:-1]}s: use a pool that {wanted}, or another boundary.'
    )
  if unpool.make.injects != combine.make.injects:
    names = [name for name, part in parts.KINDS['combine'].items() if part.injects == unpool.make.injects]
    where = "adds to the decoder's blocks" if unpool.make.injects else 'gives every slot a vector'
    raise ValueError(
      f'unpool {unpool.name} {where}, which combine {combine.name} does not take: use combine {" or ".join(names)}, or '
      'another unpool.'
    )


def _check_given(boundary: Part, others: Sequence[Part]) -> None:
  gives = lambda made: getattr(made, 'gives', ())
  for part in others:
    for name in getattr(part.make, 'needs', ()):
      if name not in gives(boundary.make):
        fit = [fit for fit, made in parts.KINDS['boundary'].items() if name in gives(made)]
        raise ValueError(
          f"{part.kind} {part.name} needs '{name}' of its boundary, which {boundary.name} does not give: use boundary "
          f'{" or ".join(fit)}, or another {part.kind}.'
        )


def _check_scratch(scratch: Part, pool: Part, unpool: Part) -> None:
  why = {
    'pool': 'has no vector of a slot where no chunk starts',
    'unpool': 'carries what one row gives on to the slots of later ones, which scratch rows must not change',
  }
  for part, fits in ((pool, POOLS), (unpool, UNPOOLS)):
    if part.make not in fits:
      names = [name for name, made in parts.KINDS[part.kind].items() if made in fits]
      raise ValueError(
        f'{part.kind} {part.name} {why[part.kind]}, as scratch {scratch.name} needs it: use {part.kind} '
        f'{" or ".join(names)}, or no scratch rows.'
      )


def of_stages(chunking: Any, count: int) -> list[Mapping[str, Any]]:
  """The parts of `count` stages that cut: chunking is one for all of them, or a list with one for each."""
  if isinstance(chunking, list | tuple):
    if len(chunking) != count:
      raise ValueError(
        f'model.chunking {list(chunking)} has {len(chunking)} entries for {count} stages that cut: one each, or one '
        'for all.'
      )
    return [parse(of_stage, stage) for stage, of_stage in enumerate(chunking)]
  return [parse(chunking, stage) for stage in range(count)]
