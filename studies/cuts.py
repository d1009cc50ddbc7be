"""The same texts cut by several models, on the terminal and as a picture.

  python -m studies.cuts runs/chunkers/hnet runs/chunkers/blt --text='Where is the text cut?' --out=cuts.svg

A row a model and text. In the picture a chunk of the outermost stage is one colour, the next one the other; where a
chunk of a deeper stage begins stands a line, the thicker the deeper. A character of several bytes is as wide as its
bytes are in all, so that a boundary inside it shows.
"""

import itertools
import pathlib
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np

import evaluation
import training
from evaluation.segmentation import show_chunks, visible
from studies import kept
from text import command_line, paths

TEXTS = (
  'The committee’s unbelievably long report was read in 1998.',
  '他们昨天在北京大学的图书馆里看书。',
  'def mean(values):\n  return sum(values) / len(values)',
)
COLUMN, LINE = 8.0, 22  # of the picture: width of a letter, height of a row
STYLE = (
  'text{font:13px ui-monospace,Menlo,Consolas,monospace;white-space:pre;fill:#111}.name{fill:#666}.a{fill:#cfe2ff}'
  '.b{fill:#ffe3b3}line{stroke:#b00020}@media(prefers-color-scheme:dark){text{fill:#eee}.name{fill:#aaa}'
  '.a{fill:#27496d}.b{fill:#6b4b16}line{stroke:#ff6b81}}'
)


def picture(rows: Sequence[tuple[str, bytes, Sequence[np.ndarray]]]) -> str:
  """SVG of (name, text, segmentations as `evaluation.segment` gives them), a line each."""
  left = COLUMN * (1 + max(len(name) for name, _, _ in rows))
  lines, right = [], 0.0
  for number, (name, text, stages) in enumerate(rows):
    characters = [c.encode('utf-8', 'surrogateescape') for c in text.decode('utf-8', 'surrogateescape')]
    widths = [_columns(character) * COLUMN for character in characters]
    edges = left + np.concatenate([[0.0], np.cumsum(widths)])
    # The left edge of every byte, and the right one of the last: a character's bytes share its width evenly.
    at = [x + w * i / len(c) for x, w, c in zip(edges, widths, characters, strict=False) for i in range(len(c))]
    at, right = [*at, edges[-1]], max(right, edges[-1])
    lines += [f'<g transform="translate(0,{LINE * number})">', _text(0, name, ' class="name"'), *_boxes(at, stages)]
    lines += [_text(x, {b'\n': '↵'}.get(c) or visible(c)) for x, c in zip(edges, characters, strict=False) if c != b' ']
    lines.append('</g>')
  size = f'width="{right + 4:.0f}" height="{LINE * len(rows)}"'
  return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>\n{"".join(lines)}\n</svg>'


def _boxes(at: Sequence[float], stages: Sequence[np.ndarray]) -> Iterator[str]:
  """Chunks of the outermost stage as boxes, and lines where those of deeper ones begin; at: edges of the bytes."""
  starts = [0, *(np.flatnonzero(stages[0][1:]) + 1).tolist()] if stages else [0]
  for number, (begin, end) in enumerate(itertools.pairwise([*starts, len(at) - 1])):
    box = f'x="{at[begin]:.1f}" y="2" width="{at[end] - at[begin]:.1f}" height="{LINE - 4}"'
    yield f'<rect class="{"ab"[number % 2]}" {box}/>'
  for depth, of_stage in enumerate(stages[1:], 1):
    for begin in np.flatnonzero(of_stage).tolist():
      yield f'<line stroke-width="{2 * depth}" x1="{at[begin]:.1f}" x2="{at[begin]:.1f}" y1="1" y2="{LINE - 1}"/>'


def _text(x: float, shown: str, attributes: str = '') -> str:
  return f'<text{attributes} x="{x:.1f}" y="{LINE - 6}">{escape(shown)}</text>'


def _columns(character: bytes) -> int:
  """How many letters wide it is shown; of what is not UTF-8, or a control character, as its \\xNN."""
  shown = '↵' if character == b'\n' else visible(character)
  return sum(2 if unicodedata.east_asian_width(letter) in 'WF' else 1 for letter in shown)


def named(directories: Sequence[pathlib.Path]) -> Mapping[str, pathlib.Path]:
  """By the last part of their path; ValueError where two have the same."""
  found = {directory.name: directory for directory in directories}
  if len(found) < len(directories):
    raise ValueError(f'{", ".join(map(str, directories))}: two have the same name: give directories that differ in it')
  return found


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m studies.cuts', description=__doc__)
  parser.add_argument('workdirs', nargs='+', help='of runs with a checkpoint')
  parser.add_argument('--text', action='append', help='may be given several times; an English, Chinese and code line')
  parser.add_argument('--out', help='a file for the picture, .svg')
  flags = parser.parse_args(arguments)
  out = None if flags.out is None else paths.of(flags.out, '--out')
  if out is not None and out.suffix != '.svg':
    raise ValueError(f'--out={out} must be an .svg file')
  runs = named([paths.of(directory, 'a work directory') for directory in flags.workdirs])
  texts = [text.encode('utf-8', 'surrogateescape') for text in flags.text or TEXTS]
  if not all(texts):
    raise ValueError("--text='' has nothing to cut: give a text")
  found = {}
  for name, directory in runs.items():
    print(f'cutting with {name}', file=sys.stderr, flush=True)
    found[name] = evaluation.segment(training.load(directory).model, texts)
  rows = [(name, text, found[name][number]) for number, text in enumerate(texts) for name in runs]
  wide = max(map(len, runs))
  for name, text, stages in rows:
    print(f'{name:<{wide}}  {show_chunks(text, stages)}'.replace('\n', f'\n{"":<{wide}}  '))
  if out is not None:
    kept.write_page(out, picture(rows))
    print(f'written to {out}')


if __name__ == '__main__':
  command_line.run(main)
