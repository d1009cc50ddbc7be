"""The quickstart with four learning rates, to be run by studies.sweep.

python -m studies.sweep --config=configs/sweep_learning_rate.py --workdir=runs/learning_rate
python -m studies.sweep --config=configs/sweep_learning_rate.py:hat --workdir=runs/learning_rate_hat --axis seed=0,1
"""

from typing import Any

import ml_collections

from configs import compare


def get_config(arg: str = 'hnet') -> ml_collections.ConfigDict:
  """arg: a model of configs/compare.py, here as large as its quickstart."""
  if arg not in compare.MODELS:
    raise ValueError(f"configs/sweep_learning_rate.py has no model '{arg}': use one of {', '.join(compare.MODELS)}")
  return compare.MODELS[arg][0].get_config()


def get_sweep() -> dict[str, Any]:
  """Axes, which are crossed."""
  return {'optimizer.learning_rate': (0.001, 0.002, 0.004, 0.008)}
