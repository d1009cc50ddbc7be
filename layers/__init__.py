"""What every model is made of: linear maps, norms, attention, Mamba-2, MLPs, and the isotropic stack of them."""

from layers import neighbours

neighbours.check('kernels', 'text')
