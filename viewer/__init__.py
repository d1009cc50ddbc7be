"""A local page where one sees text being cut: `python -m viewer RUNS…` (docs/viewer.md)."""

import pathlib

from layers import neighbours

neighbours.check('evaluation', 'training')

STATIC = pathlib.Path(__file__).parent / 'static'
LOCAL = ('127.0.0.1', 'localhost')  # names of this machine, as seen from itself alone
