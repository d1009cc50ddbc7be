"""What the optimizer knows of a parameter of a word model: its stage, its decay."""

import jax
import pytest
from flax import nnx

import byte_models
from layers.paths import flatten
from tests.byte_models.tiny_word_ar import KINDS


@pytest.mark.parametrize('kind', KINDS)
def test_the_backbone_is_a_stage_of_its_own_and_norms_do_not_decay(kind):
  model = jax.eval_shape(lambda: byte_models.build(byte_models.parse(KINDS[kind]), rngs=nnx.Rngs(0)))
  assert model.lr_multipliers(None) == (1.0, 1.0) and model.lr_multipliers([1, 0.5]) == (1.0, 0.5)
  with pytest.raises(ValueError, match="lr_multipliers 'paper': 2 non-negative numbers"):
    model.lr_multipliers('paper')
  stages = {path: model.stage_of(path) for path in flatten(model)}
  assert {path for path, stage in stages.items() if stage} == {path for path in stages if path.startswith('backbone.')}
  assert {path for path in stages if not model.decays(path)} == {path for path in stages if path.endswith('.scale')}
