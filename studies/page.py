"""One page of headings, sentences, pictures and tables, as Markdown and as HTML that holds all of it."""

import base64
import dataclasses
import html
from collections.abc import Sequence
from typing import Any

from evaluation import report

STYLE = (
  'body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#111;background:#fff}'
  'img{width:100%;background:#fff}table{border-collapse:collapse;display:block;overflow-x:auto}code{overflow-wrap:'
  'anywhere}th,td{padding:.2em .7em;border-bottom:1px solid #ccc;text-align:left}td.n{text-align:right}'
  '@media(prefers-color-scheme:dark){body{color:#ddd;background:#16181c}th,td{border-color:#444}}'
)
HEAD = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'


@dataclasses.dataclass(frozen=True)
class Part:
  """said: a sentence or two. file: name of the picture, an SVG; '' where there is none. rows: of a table."""

  heading: str
  said: str
  file: str = ''
  picture: str = ''
  rows: Sequence[dict[str, Any]] = ()


def markdown(command: str, parts: Sequence[Part]) -> str:
  """With links to the files of the pictures."""
  lines = [f'`{command}`']
  for part in parts:
    lines += [f'## {part.heading}', part.said]
    lines += [f'![{part.heading}]({part.file})'] if part.picture else []
    lines += [report.markdown(part.rows)] if part.rows else []
  return '\n\n'.join(lines)


def as_html(title: str, command: str, parts: Sequence[Part]) -> str:
  """A whole document, pictures in it."""
  text = html.escape
  blocks = [f'<h1>{text(title)}</h1><p><code>{text(command)}</code></p>']
  for part in parts:
    blocks.append(f'<h2>{text(part.heading)}</h2><p>{text(part.said)}</p>')
    if part.picture:
      data = base64.b64encode(part.picture.encode()).decode()
      blocks.append(f'<img alt="{text(part.heading)}" src="data:image/svg+xml;base64,{data}">')
    if part.rows:
      blocks.append(_table(part.rows))
  return f'{HEAD}<title>{text(title)}</title><style>{STYLE}</style>{"".join(blocks)}</html>'


def _table(rows: Sequence[dict[str, Any]]) -> str:
  cell = lambda value: f'<td class="n">{value:,}' if isinstance(value, int) else f'<td>{html.escape(str(value))}'
  head = ''.join(f'<th>{html.escape(name)}' for name in rows[0])
  return f'<table><tr>{head}{"".join("<tr>" + "".join(map(cell, row.values())) for row in rows)}</table>'
