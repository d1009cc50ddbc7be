"""The model of hnet_torch.py with the chunking of the package h-net-dynamic-chunking in place of its own.

Its `DynamicSequenceChunker` draws the same boundaries from the same weights, so every stack does the same work. It
scales chunks before the inner network where the paper's code scales them behind it, so losses are not equal: the
benchmark compares the number of chunks. Needs `pip install h-net-dynamic-chunking`.
"""

import json
import pathlib

import safetensors.torch
import torch
from h_net_dynamic_chunking.h_net_dynamic_chunking import DynamicSequenceChunker
from torch import Tensor

from benchmarks.peers import hnet_torch


class Stage(hnet_torch.Stage):
  """A stage whose chunks are drawn, gathered, smoothed and spread by the package."""

  def make_chunker(self) -> None:
    """Takes the weights of the router and of the residual over; call it once they are loaded."""
    self.chunker = DynamicSequenceChunker(self.residual_proj.weight.shape[0], handle_residual_proj=True)
    # The package compares the query here with the key before; the paper's code the key here with the query before.
    pair = [self.routing_module.k_proj_layer.weight, self.routing_module.q_proj_layer.weight]
    with torch.no_grad():
      self.chunker.to_queries_keys.weight.copy_(torch.cat(pair))
    self.chunker.residual_proj = self.residual_proj
    del self.routing_module

  def forward(self, x: Tensor) -> Tensor:
    """[B, L, D] -> [B, L, D]."""
    width, x = x.shape[-1], self._widen(x)
    if isinstance(self.main_network, hnet_torch.Isotropic):
      return self.main_network(x)[..., :width]
    chunks, spread, _ = self.chunker(self.encoder(x))
    self.num_chunks = chunks.shape[1]
    return self.decoder(spread(self.main_network(chunks)))[..., :width]


def load(directory: str) -> hnet_torch.HNet:
  """A model from official config.json and model.safetensors."""
  config = json.loads(pathlib.Path(directory, 'config.json').read_text())
  model = hnet_torch.HNet(config)
  model.load_state_dict(safetensors.torch.load_file(pathlib.Path(directory, 'model.safetensors')))
  for module in list(model.modules()):
    if isinstance(module, hnet_torch.Stage):
      module.__class__ = Stage
      if hasattr(module, 'encoder'):
        module.make_chunker()
  return model
