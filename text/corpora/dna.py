"""Genomes as the four letters ACGT."""

import gzip
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from text.corpora.archives import Archive


def fasta(archives: Sequence[Archive], dropped: Counter, *, member: str) -> Iterator[bytes]:
  """Stretches of known bases of a gzipped FASTA file, upper case, in the order of the sequence.

  A stretch of N (telomere, centromere, gap of the assembly) ends a document: to leave the N out would make
  neighbours of bases that are thousands of bases apart, to keep them would make runs that anything predicts.
  """
  sequences: list[list[bytes]] = []
  for line in gzip.decompress(archives[0].read(member)).splitlines():
    if line.startswith(b'>'):
      sequences.append([])
    else:
      sequences[-1].append(line.strip())
  for lines in sequences:
    sequence = b''.join(lines).upper()
    stretches = re.findall(rb'[ACGT]+', sequence)
    dropped['bases that are not A, C, G or T'] += len(sequence) - sum(map(len, stretches))
    yield from stretches
