"""The quickstart with chunks of several sizes: learned ones, and beside each a chunk every so many bytes.

python -m studies.sweep --config=configs/sweep_compression.py --workdir=runs/compression
"""

from typing import Any

import ml_collections

from configs import quickstart

SIZES = (3, 5, 8)


def get_config() -> ml_collections.ConfigDict:
  """The quickstart."""
  return quickstart.get_config()


def get_sweep() -> list[tuple[str, dict[str, Any]]]:
  """Runs by name, with what is changed in each."""
  learned = [(f'hnet_{size}', {'model.ratio_targets': (float(size),)}) for size in SIZES]
  fixed = {size: {'model.chunking': f'hnet_pool({size})', 'model.ratio_targets': None} for size in SIZES}
  return learned + [(f'pool_{size}', changes) for size, changes in fixed.items()]
