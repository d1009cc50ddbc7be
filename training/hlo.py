"""What a compiled program does, read from its text: bytes of collectives, and operations by the compiler's estimate.

A loop's body counts as often as XLA knows the loop to run, once where it does not know. Of a conditional, whose branch
is known only when it runs, the last branch counts; no step of ours has one.
"""

import collections
import dataclasses
import math
import re

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
_BYTES = {'pred': 1, 'token': 0, 'opaque': 0, 'bf16': 2}
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,<=]*)\]')
_OPERATION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = ')
_CALLED = re.compile(
  r'(calls|to_apply|condition|body|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)'
)


@dataclasses.dataclass(frozen=True)
class Operation:
  """bytes: the larger of operands and results, for a collective; channel: its own. cycles: as estimated, 0 where none
  are. source: the JAX operation that it comes from. called: (kind, computations). trips: rounds of a loop.
  """

  name: str
  opcode: str
  bytes: int
  cycles: int
  source: str
  called: tuple[tuple[str, tuple[str, ...]], ...]
  trips: int | None
  channel: str


@dataclasses.dataclass(frozen=True)
class Work:
  """Of one device in one run. collective_bytes: by kind. cycles: summed. slowest: (cycles, operation, times run), most
  first. unknown_loops: loops whose number of rounds XLA does not say, counted once.
  """

  collective_bytes: dict[str, int]
  cycles: int
  slowest: list[tuple[int, Operation, int]]
  unknown_loops: int


def work(text: str) -> Work:
  """From the optimized program's text."""
  computations, bounds, entry = _read(text)
  moved, slow, unknown = collections.Counter(), [], 0
  waiting = [(entry, 1, set())]
  while waiting:
    name, times, channels = waiting.pop()
    for operation in computations.get(name, ()):
      kind = operation.opcode.removesuffix('-start')
      # One that overlaps with other work stands in several fusions (its start, its end, what runs meanwhile), each with
      # its channel.
      if kind in COLLECTIVES and operation.channel not in channels:
        channels |= {operation.channel} - {''}
        # On a TPU a reduce-scatter is a fusion around an all-reduce, and says so in its name only.
        moved['reduce-scatter' if 'reduce-scatter' in name else kind] += operation.bytes * times
      if operation.cycles:
        slow.append((operation.cycles * times, operation, times))
      called = dict(operation.called)
      if operation.opcode == 'while':
        (condition,), (body,) = called['condition'], called['body']
        trips = operation.trips or bounds.get(condition)
        unknown += trips is None
        waiting.append((body, times * (trips or 1), set()))
      elif 'branch_computations' in called:
        waiting.append((called['branch_computations'][-1], times, set()))
      elif 'true_computation' in called:
        waiting.append((*called['true_computation'], times, set()))
      else:
        calls = called.get('calls', ())
        if operation.opcode.startswith(('call', 'async')):  # others apply a function of two numbers
          calls += called.get('to_apply', ())
        waiting += [(callee, times, channels) for callee in calls]
  slow.sort(key=lambda item: -item[0])
  return Work(dict(moved), sum(item[0] for item in slow), slow, unknown)


def _read(text: str) -> tuple[dict[str, list[Operation]], dict[str, int], str]:
  """(operations by computation; rounds of the loops whose condition is 'counter < constant'; name of the entry)."""
  computations: dict[str, list[Operation]] = {}
  bounds: dict[str, int] = {}
  sizes: dict[str, int] = {}
  constants: dict[str, int] = {}
  current, entry = None, ''
  for line in text.splitlines():
    if not line.startswith(' '):
      found = re.match(r'(ENTRY )?%?([\w.\-]+) \(', line)
      if found:
        current = found[2]
        computations[current] = []
        entry = current if found[1] else entry
      continue
    found = _OPERATION.match(line)
    if found and current is not None:
      computations[current].append(_operation(found[1], line[found.end() :], sizes))
      if constant := re.search(r' constant\((\d+)\)', line):
        constants[found[1]] = int(constant[1])
      bound = re.search(r'ROOT .* compare\(.*%([\w.\-]+)\), direction=LT', line)
      if bound and bound[1] in constants:
        bounds[current] = constants[bound[1]]
  return computations, bounds, entry


def _operation(name: str, rest: str, sizes: dict[str, int]) -> Operation:
  depth, type_ = 0, ''
  for letter in rest:  # a tuple's type has spaces and brackets inside
    depth += (letter in '([{') - (letter in ')]}')
    if letter == ' ' and not depth:
      break
    type_ += letter
  kind, _, after = rest[len(type_) + 1 :].partition('(')
  sizes[name] = result = _array_bytes(type_)
  opcode = kind.strip()
  moved = 0
  if opcode.removesuffix('-start') in COLLECTIVES:
    operands = sum(sizes.get(operand, 0) for operand in re.findall(r'%([\w.\-]+)', after.partition(')')[0]))
    pair = opcode.endswith('-start') and opcode != 'all-reduce-start'  # its type holds operands and results
    moved = max(operands, result - operands if pair else result)
  called = tuple((key, tuple(re.findall(r'[\w.\-]+', names))) for key, names in _CALLED.findall(after))
  cycles = re.search(r'"estimated_cycles":"(\d+)"', after)
  trips = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', after)
  source = re.search(r'op_name="([^"]*)"', after)
  channel = re.search(r'channel_id=(\d+)', after)
  return Operation(
    name=name,
    opcode=opcode,
    bytes=moved,
    cycles=int(cycles[1]) if cycles else 0,
    source=source[1] if source else '',
    called=called,
    trips=int(trips[1]) if trips else None,
    channel=channel[1] if channel else '',
  )


def _array_bytes(type_: str) -> int:
  total = 0
  for dtype, shape in _ARRAY.findall(re.sub(r'\{[^}]*\}', '', type_)):
    bits = re.search(r'\d+', dtype)
    size = _BYTES.get(dtype, int(bits[0]) / 8 if bits else 0)
    total += math.ceil(size * math.prod(int(n.strip('<=')) for n in shape.split(',') if n))
  return total
