"""Bytes in, batches out: corpora, the packing of documents into rows, and the input pipeline.

A document in a batch is BOS + its bytes + EOS. Neither value occurs in UTF-8; where raw data holds them all the same
they are kept, scored and counted like any other byte. grain is imported only when a pipeline is started.
"""

from text.batch import BOS, EOS, Batch
from text.corpus import Corpus, MemoryCorpus
from text.mixture import Mixture, open_mixture, parse_sources
from text.pipeline import pipeline  # from here on `text.pipeline` is the function, not its module
from text.sources import document_groups, open_corpus
from text.stored import open_gold
from text.texts import Texts

__all__ = [
  'BOS',
  'EOS',
  'Batch',
  'Corpus',
  'MemoryCorpus',
  'Mixture',
  'Texts',
  'document_groups',
  'open_corpus',
  'open_gold',
  'open_mixture',
  'parse_sources',
  'pipeline',
]
