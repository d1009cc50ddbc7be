"""Property tests draw the same examples every time, so that only a change of the code makes one fail.

`HYPOTHESIS=random pytest …` looks further, with new examples every time.
"""

import os

from hypothesis import settings

settings.register_profile('fixed', derandomize=True)
settings.register_profile('random')
settings.load_profile(os.environ.get('HYPOTHESIS', 'fixed'))
# Tests run a program a few times, so what counts is how fast it compiles, here and in the processes that they start.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
