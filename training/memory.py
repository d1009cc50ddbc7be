"""What a compiled program needs of a device's memory, and what is said where there is not enough."""

import dataclasses
import re

import jax


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device, by kind. aliased: outputs that stand where arguments stood (the donated state)."""

  arguments: int
  outputs: int
  aliased: int
  temporaries: int
  code: int

  @property
  def total(self) -> int:
    """What stands in memory together."""
    return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


def planned(compiled: jax.stages.Compiled) -> Memory:
  """What the compiler plans for a program."""
  found = compiled.memory_analysis()
  return Memory(
    found.argument_size_in_bytes,
    found.output_size_in_bytes,
    found.alias_size_in_bytes,
    found.temp_size_in_bytes,
    found.generated_code_size_in_bytes,
  )


def refusal(error: jax.errors.JaxRuntimeError) -> str | None:
  """What a compiler or a device says of memory that it does not have, without its list of buffers; None for an error
  of another kind.
  """
  if 'RESOURCE_EXHAUSTED' not in str(error):
    return None
  said = re.search(r'Used [\d.]+\w of [\d.]+\w hbm[^\n]*', str(error))
  return said[0].rstrip('.') if said else str(error).splitlines()[0]
