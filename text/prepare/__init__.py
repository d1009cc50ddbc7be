"""Any source of text into a directory that text/prepared.py reads fast: `python -m text.prepare`, or `prepare`."""

from text.prepare.assignment import ByHash, ByPosition
from text.prepare.preparation import SHARD_BYTES, prepare

__all__ = ['SHARD_BYTES', 'ByHash', 'ByPosition', 'prepare']
