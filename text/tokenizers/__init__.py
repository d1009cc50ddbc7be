"""Tokenizers: `load(path)` opens one, `python -m text.tokenizers train` makes one (docs/tokenizers.md).

Each has ids for any bytes, and the bytes of every id; the document is these bytes, laid end to end.
"""

from text.tokenizers.loading import load
from text.tokenizers.stock import Stock
from text.tokenizers.tokenizer import Tokenizer

__all__ = ['Stock', 'Tokenizer', 'load']
