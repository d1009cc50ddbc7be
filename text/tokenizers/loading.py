"""Opens what `python -m text.tokenizers train` wrote, or any tokenizer.json."""

import copyreg
import json
import os
from pathlib import Path

from text import paths, regular_file
from text.tokenizers import rules
from text.tokenizers.boundless import Boundless
from text.tokenizers.less_is_better import LessIsBetter
from text.tokenizers.pathpiece import PathPiece
from text.tokenizers.picky import Picky
from text.tokenizers.stock import Stock
from text.tokenizers.tokenizer import Tokenizer

STOCK, RULES, CARD = 'tokenizer.json', 'rules.json', 'card.json'
KINDS = {'boundlessbpe': Boundless, 'lib': LessIsBetter, 'pathpiece': PathPiece, 'picky': Picky}  # of rules


def load(path: str | os.PathLike, digest: str = '') -> Tokenizer:
  """The tokenizer of a directory or of a file. digest: which it must have.

  Raises FileNotFoundError where there is none, OSError where it cannot be read, ValueError, with one sentence that
  names it, for a file that is damaged, changes the text, or has another digest.
  """
  file = paths.of(path, 'tokenizer')
  if file.is_dir():
    name = next((name for name in (STOCK, RULES) if (file / name).exists()), None)
    if name is None:
      raise FileNotFoundError(f"tokenizer '{path}': there is no {STOCK} in this directory: name one that has it")
    file = file / name
  regular_file.check(file, 'tokenizer')
  try:
    content = file.read_bytes()
  except FileNotFoundError:
    raise FileNotFoundError(
      f"tokenizer '{path}': there is no such file (working directory {os.getcwd()}): "
      '`python -m text.tokenizers train` makes one'
    ) from None
  except OSError as error:
    raise OSError(f"tokenizer '{path}' cannot be read ({error.strerror or error}): name a tokenizer.json") from error
  tokenizer = _open(content, file)
  if digest and digest != tokenizer.digest:
    raise ValueError(
      f"tokenizer '{path}' is another one, with digest {tokenizer.digest} and not {digest}: bring it back"
    )
  return tokenizer


def _open(content: bytes, file: Path) -> Tokenizer:
  try:
    if not rules.is_rules(content):
      return Stock(content, str(file), _kind(file))
    settings = json.loads(content)
    if settings['kind'] not in KINDS:
      raise ValueError(f"holds rules of kind '{settings['kind']}', which is not known: use {', '.join(KINDS)}")
    return KINDS[settings['kind']](settings, str(file))
  except ValueError as error:
    message = str(error)
    raise ValueError(message if message.startswith('tokenizer ') else f"tokenizer '{file}' {message}") from None


def _kind(file: Path) -> str:
  """What a card beside a file calls it, '' without one."""
  try:
    return str(json.loads((file.parent / CARD).read_text())['kind'])
  except (OSError, ValueError, KeyError, TypeError):
    return ''


for _made in (Stock, *KINDS.values()):  # workers get the path, and read the file again
  copyreg.pickle(_made, lambda tokenizer: (load, (tokenizer.path, tokenizer.digest)))
