"""Everything that is fed, by name."""

import importlib.util

from tests.fuzz.targets import configs, runs, texts, weights

_modules = [configs, weights, texts, runs]
if importlib.util.find_spec('torch') is not None:  # of the converter's own requirements
  from tests.fuzz.targets import torch_files

  _modules.append(torch_files)
TARGETS = {target.name: target for module in _modules for target in module.TARGETS}
