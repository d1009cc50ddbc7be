"""The page as a file: its parts in one, with what every column makes of some texts, so that it needs no server."""

import base64
import hashlib
import json
import pathlib
import re
from typing import Any

from text import paths
from viewer import STATIC
from viewer.columns import Shelf

MODULES = (  # each imports only those before it
  'text.js', 'data.js', 'picture.js', 'page.js', 'details.js', 'column.js', 'save.js', 'main.js',
)  # fmt: skip
TEXTS = {
  'English': 'The committee was unaware of the unforgettable, counterintuitive results.\n',
  'Chinese': '語言模型讀取位元組,並學會在哪裡切分文字。自然语言没有空格。\n',
  'Python': 'def area(radius: float) -> float:\n  """Of a circle."""\n  return 3.14159 * radius**2\n',
  'Hebrew and Arabic': 'שלום עולם, זה טקסט (2024).\nمرحبا بالعالم، هذا نص.\n',
  'marks and emoji': 'naïve cafe\u0301, ẹ̀kọ́, हिन्दी, 👩‍👩‍👧 🇳🇱\n',
}
SAMPLES = [{'name': name, 'bytes': text.encode().decode('latin-1')} for name, text in TEXTS.items()]


def new_directory(name: str) -> pathlib.Path:
  """The path of a directory to write; FileExistsError where something is there."""
  directory = paths.of(name, '--export')
  if directory.exists():
    raise FileExistsError(f"--export '{name}' is there already and stays as it is: name another, or remove it")
  if not directory.absolute().parent.is_dir():
    raise FileNotFoundError(f"--export '{name}': there is no directory '{directory.absolute().parent}': make it first")
  return directory


def write(directory: pathlib.Path, shelf: Shelf, samples: list[dict[str, str]]) -> None:
  """Makes the directory with index.html and data.json: every text cut by every column at every step."""
  described, cuts = shelf.describe(), []
  for column in described:
    steps = column['steps'] or [None]
    for step in steps:
      for number, sample in enumerate(samples):
        result = shelf.cut(column['name'], step, sample['bytes'].encode('latin-1'))
        cuts.append({'column': column['name'], 'step': step, 'sample': number, 'result': result})
  most = max(len(sample['bytes']) for sample in samples)
  data = {'columns': described, 'samples': samples, 'most': most, 'most_written': 0, 'cuts': cuts}
  directory.mkdir()
  for name, content in {'data.json': json.dumps(data), 'index.html': page(data)}.items():
    (directory / name).write_text(content, encoding='utf-8')


def page(data: dict[str, Any]) -> str:
  """index.html with style, modules and data inside it; nothing else is loaded or run."""
  source = '\n'.join(_without_imports((STATIC / name).read_text(encoding='utf-8')) for name in MODULES)
  style = (STATIC / 'style.css').read_text(encoding='utf-8')
  html = (STATIC / 'index.html').read_text(encoding='utf-8')
  values = json.dumps(data).replace('<', '\\u003c')  # so that no text ends the element
  own = f"script-src 'sha256-{_digest(source)}'; style-src 'sha256-{_digest(style)}'"
  policy = f"default-src 'none'; img-src blob: data:; {own}"
  for tag, inside in {
    '<link rel="stylesheet" href="style.css">': (
      f'<meta http-equiv="content-security-policy" content="{policy}">\n<style>{style}</style>'
    ),
    '<script type="module" src="main.js"></script>': (
      f'<script type="application/json" id="data">{values}</script>\n<script type="module">{source}</script>'
    ),
  }.items():
    before, found, behind = html.partition(tag)
    if not found:
      raise AssertionError(f'index.html has no {tag}')
    html = before + inside + behind
  return html


def _without_imports(source: str) -> str:
  return re.sub(r'^export ', '', re.sub(r"^import .* from '\./.*';\n", '', source, flags=re.M), flags=re.M)


def _digest(text: str) -> str:
  return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
