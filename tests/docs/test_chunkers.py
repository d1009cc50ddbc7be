"""docs/chunkers.md: the lines that it counts are those of the classes, and none has more than 150."""

import pathlib
import re

from tests.docs import pages

PARTS = pathlib.Path(pages.DOCS).parent / 'hnet' / 'parts'


def test_classes_have_the_lines_that_the_page_counts():
  actual = {}
  for path in PARTS.glob('*.py'):
    actual |= pages.class_lines(path.read_text())
  counted = (pages.DOCS / 'chunkers.md').read_text().partition('## Lines')[2]
  counted = {name: int(lines) for name, lines in re.findall(r'([A-Z]\w+) (\d+)', counted)}
  assert len(counted) > 20 and counted == {name: actual[name] for name in counted}
  assert max(actual.values()) <= 150
