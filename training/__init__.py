"""Training: from a config to a work directory with checkpoints and metrics, and back to a model."""

from layers import neighbours

neighbours.check('byte_models', 'evaluation', 'hnet')

from training.description import describe
from training.interrupt import Interrupted
from training.loop import train
from training.recorder import Diverged
from training.workdir import Loaded, load

__all__ = ['Diverged', 'Interrupted', 'Loaded', 'describe', 'load', 'train']
