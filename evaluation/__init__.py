"""A model in, numbers and text out: bits per byte, baselines on the same bytes, boundaries, generation."""

from evaluation.accuracy import WordAccuracy, word_accuracy, word_counts
from evaluation.baselines import compressed_bits_per_byte, markov_bits_per_byte
from evaluation.bits_per_byte import Result, evaluate, first_bytes
from evaluation.boundaries import BoundaryScore, boundary_scores, unit_starts
from evaluation.boundary_metrics import BoundaryMetrics, measure_boundaries
from evaluation.finite import NotFiniteError
from evaluation.flips import Flips, boundary_flips
from evaluation.generation import generate, stream
from evaluation.segmentation import segment, show_chunks

__all__ = [
  'BoundaryMetrics',
  'BoundaryScore',
  'Flips',
  'NotFiniteError',
  'Result',
  'WordAccuracy',
  'boundary_flips',
  'boundary_scores',
  'compressed_bits_per_byte',
  'evaluate',
  'first_bytes',
  'generate',
  'markov_bits_per_byte',
  'measure_boundaries',
  'segment',
  'show_chunks',
  'stream',
  'unit_starts',
  'word_accuracy',
  'word_counts',
]
