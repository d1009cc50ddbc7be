"""Text of an HTML fragment."""

import html
import re

_HIDDEN = re.compile(r'<(script|style|title)\b.*?</\1>|<!--.*?-->', re.S | re.I)
_BREAK = re.compile(r'</?(?:p|div|li|ul|ol|dl|dt|dd|br|hr|h[1-6]|table|tr|td|th|blockquote|pre|center)\b[^>]*>', re.I)
_TAG = re.compile(r'</?[a-zA-Z][^>]*>')


def lines_of(fragment: str) -> list[str]:
  """The lines that a browser would show, without tags, entities resolved, every run of white space one space."""
  text = ' '.join(_HIDDEN.sub(' ', fragment).split())
  text = html.unescape(_TAG.sub('', _BREAK.sub('\n', text)))
  return [line for line in (' '.join(line.split()) for line in text.split('\n')) if line]
