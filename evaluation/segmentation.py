"""The chunks that a model cuts a text into, to look at."""

import itertools
from collections.abc import Sequence

import jax
import numpy as np

from evaluation import finite
from text import Batch, marks

MARKERS = '|‖⦀'  # where a chunk of stage 0, 1, 2 begins; deeper stages are written {3}, {4}, …
_LENGTH_MULTIPLE = 128  # texts of similar length share one compilation
# Control characters would move the cursor or worse; ends of lines and tabs are text.
CONTROLS = {code: f'\\x{code:02x}' for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in '\n\t'}


def segment(model, documents: Sequence[bytes]) -> list[tuple[np.ndarray, ...]]:
  """Where chunks begin in each document: per document one bool array [bytes] per stage, outermost first.

  All documents go through the model in one parallel pass, each behind its own BOS (which is not in the arrays).
  Raises ValueError if there is no document; NotFiniteError, a ValueError, for a model whose boundary probabilities are
  nan.
  """
  if not documents:
    raise ValueError('there is no document to segment')
  length = 1 + max(map(len, documents))
  batch = Batch.begun(documents, length + -length % _LENGTH_MULTIPLE)
  stages, is_finite_BxL = jax.device_get(_segmentations(model, marks.mark(batch, model.marks)))
  bad = np.argwhere(~np.broadcast_to(is_finite_BxL, batch.bytes.shape) & (batch.segment_ids > 0))
  if len(bad):
    row, position = bad[0].tolist()
    raise finite.NotFiniteError(
      f"the model's boundary probabilities are not finite at byte {max(position - 1, 0)} of text {row}: {finite.REMEDY}"
    )
  return [tuple(stage[row, 1 : 1 + len(text)] for stage in stages) for row, text in enumerate(documents)]


@jax.jit
def _segmentations(model, batch):
  output = model(batch)
  return output.segmentations, finite.everywhere(output.boundary_probabilities)


def show_chunks(text: bytes, segmentations: Sequence[np.ndarray]) -> str:
  """The text with a marker wherever a chunk begins.

  segmentations: per stage, outermost first, bool [len(text)], as `segment` gives them. A byte that begins chunks of
  several stages gets the marker of the deepest; a backslash stands before a marker that is text. Bytes that are not
  UTF-8, control characters, and the parts of a character that a boundary divides are shown as \\xNN, the end of a
  line as ↵ before the line break. Raises ValueError if an array is not as long as the text.
  """
  depth = np.zeros(len(text), np.int64)  # 0: no chunk begins here; s: the deepest that does is of stage s − 1
  for stage, starts in enumerate(segmentations):
    if np.shape(starts) != (len(text),):
      raise ValueError(f'stage {stage} marks an array of shape {np.shape(starts)}, the text has {len(text)} bytes')
    depth[np.asarray(starts, bool)] = stage + 1
  literal = {ord(marker): f'\\{marker}' for marker in MARKERS}
  shown, bounds = [], [0, *(np.flatnonzero(depth[1:]) + 1).tolist(), len(text)]
  for start, end in itertools.pairwise(bounds if text else []):
    if depth[start]:
      stage = int(depth[start]) - 1
      shown.append(MARKERS[stage] if stage < len(MARKERS) else f'{{{stage}}}')
    shown.append(visible(text[start:end]).translate(literal))
  return ''.join(shown)


def visible(text: bytes) -> str:
  """Bytes for a terminal: \\xNN for what is not UTF-8 and for control characters but tabs, ↵ at the ends of lines."""
  return text.decode('utf-8', 'backslashreplace').translate(CONTROLS | {ord('\n'): '↵\n'})
