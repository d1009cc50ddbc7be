"""H-Net in PyTorch, to compare speeds with: same architecture, same names of weights, no kernels but PyTorch's own.

Rows are single documents of equal length. Attention is `scaled_dot_product_attention`, Mamba-2's scan and the smoothing
are matrix products over tiles, chunks are gathered to the longest row's count, so that cost follows the chunks. The
state dict is the official one (hnet/official.py), so that both sides compute the same thing and the benchmarks can
check that they do. `step` decodes one row, byte by byte, with caches.
"""

import dataclasses
import json
import pathlib
import re
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64  # of Mamba-2
TILE = 64  # positions of a matrix product of the scan
SMOOTHING_TILE = 64


@dataclasses.dataclass(frozen=True)
class Sizes:
  """One stage of an official config.json."""

  width: int
  hidden: int
  heads: int
  rotary: int
  window: int
  state: int
  taps: int
  expand: int

  @classmethod
  def of(cls, config: dict[str, Any], stage: int) -> 'Sizes':
    at = lambda value: value[stage] if isinstance(value, list) else value
    ssm, attention = config['ssm_cfg'], config['attn_cfg']
    hidden = config['d_intermediate'][stage]
    return cls(
      width=config['d_model'][stage],
      hidden=hidden + -hidden % 128,
      heads=at(attention['num_heads']),
      rotary=at(attention['rotary_emb_dim']),
      window=at(attention['window_size']),
      state=at(ssm['d_state']),
      taps=at(ssm['d_conv']),
      expand=at(ssm['expand']),
    )


class RMSNorm(nn.Module):
  """x / rms(x) times a weight."""

  def __init__(self, width: int):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(width))

  def forward(self, x: Tensor) -> Tensor:
    return F.rms_norm(x, self.weight.shape, self.weight, 1e-5)


class SwiGLU(nn.Module):
  """The gated MLP; the second half of fc1 is the gate."""

  def __init__(self, sizes: Sizes):
    super().__init__()
    self.fc1 = nn.Linear(sizes.width, 2 * sizes.hidden, bias=False)
    self.fc2 = nn.Linear(sizes.hidden, sizes.width, bias=False)

  def forward(self, x: Tensor) -> Tensor:
    y, gate = self.fc1(x).chunk(2, -1)
    return self.fc2(F.silu(gate) * y)


class Attention(nn.Module):
  """Causal self-attention with rotary positions; a window w sees w + 1 keys."""

  def __init__(self, sizes: Sizes):
    super().__init__()
    self.sizes = sizes
    self.Wqkv = nn.Linear(sizes.width, 3 * sizes.width, bias=False)
    self.out_proj = nn.Linear(sizes.width, sizes.width, bias=False)

  def _project(self, x: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [B, L, D] at positions first, first + 1, ... -> q, k, v [B, H, L, K], turned."""
    sizes, (batch, length, _) = self.sizes, x.shape
    q, k, v = self.Wqkv(x).view(batch, length, 3, sizes.heads, -1).permute(2, 0, 3, 1, 4)
    half = sizes.rotary // 2
    angle = 10000.0 ** (-torch.arange(half) / half) * torch.arange(first, first + length)[:, None]
    cos, sin = angle.cos(), angle.sin()

    def turn(x: Tensor) -> Tensor:
      a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
      return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)

    return turn(q), turn(k), v

  def forward(self, x: Tensor) -> Tensor:
    q, k, v = self._project(x, 0)
    length, window = x.shape[1], self.sizes.window
    if 0 <= window < length - 1:
      gap = torch.arange(length)[:, None] - torch.arange(length)
      y = F.scaled_dot_product_attention(q, k, v, attn_mask=(gap >= 0) & (gap <= window))
    else:
      y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return self.out_proj(y.transpose(1, 2).flatten(2))

  def new_cache(self, max_length: int) -> dict[str, Any]:
    shape = (1, self.sizes.heads, max_length, self.sizes.width // self.sizes.heads)
    return {'k': torch.zeros(shape), 'v': torch.zeros(shape), 'length': 0}

  def step(self, x: Tensor, cache: dict[str, Any]) -> Tensor:
    at = cache['length']
    q, cache['k'][:, :, at : at + 1], cache['v'][:, :, at : at + 1] = self._project(x, at)
    first = max(0, at - self.sizes.window) if self.sizes.window >= 0 else 0
    past = slice(first, at + 1)
    cache['length'] = at + 1
    y = F.scaled_dot_product_attention(q, cache['k'][:, :, past], cache['v'][:, :, past])
    return self.out_proj(y.transpose(1, 2).flatten(2))


class Mamba2(nn.Module):
  """The Mamba-2 mixer of mamba_ssm."""

  def __init__(self, sizes: Sizes):
    super().__init__()
    self.inner, self.state = sizes.expand * sizes.width, sizes.state
    self.heads, channels = self.inner // HEAD, self.inner + 2 * sizes.state
    self.in_proj = nn.Linear(sizes.width, self.inner + channels + self.heads, bias=False)
    self.conv1d = nn.Conv1d(channels, channels, sizes.taps, groups=channels)
    self.dt_bias, self.A_log, self.D = (nn.Parameter(torch.zeros(self.heads)) for _ in range(3))
    self.norm = RMSNorm(self.inner)
    self.out_proj = nn.Linear(self.inner, sizes.width, bias=False)

  def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z, xbc, dt = self.in_proj(x).split([self.inner, self.inner + 2 * self.state, self.heads], -1)
    return z, xbc, F.softplus(dt + self.dt_bias)

  def forward(self, x: Tensor) -> Tensor:
    z, xbc, dt = self._split(x)
    taps = self.conv1d.kernel_size[0]
    xbc = F.silu(self.conv1d(F.pad(xbc.transpose(1, 2), (taps - 1, 0)))).transpose(1, 2)
    x, b, c = xbc.split([self.inner, self.state, self.state], -1)
    x = x.unflatten(-1, (self.heads, HEAD))
    y = scan(x, dt, -self.A_log.exp(), b, c) + self.D[:, None] * x
    return self.out_proj(self.norm(y.flatten(2) * F.silu(z)))

  def new_cache(self, max_length: int) -> dict[str, Any]:
    del max_length
    conv = torch.zeros(1, self.conv1d.in_channels, self.conv1d.kernel_size[0])
    return {'conv': conv, 'state': torch.zeros(1, self.heads, HEAD, self.state)}

  def step(self, x: Tensor, cache: dict[str, Any]) -> Tensor:
    z, xbc, dt = self._split(x[:, 0])
    cache['conv'] = torch.cat([cache['conv'][..., 1:], xbc[..., None]], -1)
    xbc = F.silu((cache['conv'] * self.conv1d.weight[:, 0]).sum(-1) + self.conv1d.bias)
    x, b, c = xbc.split([self.inner, self.state, self.state], -1)
    x = x.unflatten(-1, (self.heads, HEAD))
    decay = (dt * -self.A_log.exp()).exp()[..., None, None]
    cache['state'] = decay * cache['state'] + (dt[..., None] * x)[..., None] * b[:, None, None]
    y = cache['state'] @ c[:, None, :, None]
    y = y[..., 0] + self.D[:, None] * x
    return self.out_proj(self.norm(y.flatten(1) * F.silu(z)))[:, None]


def scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
  """Mamba-2's recurrence by products over tiles: x [B, L, H, P], dt [B, L, H], b, c [B, L, N] -> [B, L, H, P]."""
  batch, length, heads, _ = x.shape
  tile = min(TILE, length)
  x, dt, b, c = (F.pad(v, (0, 0) * (v.ndim - 2) + (0, -length % tile)) for v in (x, dt, b, c))
  x, dt, b, c = (v.unflatten(1, (-1, tile)) for v in (x, dt, b, c))
  log = (dt * a).cumsum(2).permute(0, 1, 3, 2)  # [B, G, H, T]
  u = (x * dt[..., None]).permute(0, 1, 3, 2, 4)  # [B, G, H, T, P]
  causal = torch.ones(tile, tile, dtype=torch.bool).tril()
  decay = (log[..., :, None] - log[..., None, :]).masked_fill(~causal, -torch.inf).exp()
  y = ((c @ b.transpose(-1, -2))[:, :, None] * decay) @ u
  added = (u * (log[..., -1:] - log).exp()[..., None]).transpose(-1, -2) @ b[:, :, None]  # [B, G, H, P, N]
  survives = log[..., -1].exp()[..., None, None]
  state, entering = torch.zeros_like(added[:, 0]), []
  for tile_added, tile_survives in zip(added.unbind(1), survives.unbind(1), strict=True):
    entering.append(state)
    state = tile_survives * state + tile_added
  y = y + log.exp()[..., None] * (c[:, :, None] @ torch.stack(entering, 1).transpose(-1, -2))
  return y.permute(0, 1, 3, 2, 4).flatten(1, 2)[:, :length].reshape(batch, length, heads, -1)


class Block(nn.Module):
  """Norm and mixer, then norm and MLP for upper-case kinds."""

  def __init__(self, kind: str, sizes: Sizes):
    super().__init__()
    self.norm1 = RMSNorm(sizes.width)
    self.mixer = (Mamba2 if kind in 'mM' else Attention)(sizes)
    self.mlp = None
    if kind.isupper():
      self.norm2, self.mlp = RMSNorm(sizes.width), SwiGLU(sizes)

  def forward(self, x: Tensor, residual: Tensor | None, cache: dict[str, Any] | None = None) -> tuple[Tensor, Tensor]:
    residual = x if residual is None else x + residual
    x = self.norm1(residual)
    x = self.mixer(x) if cache is None else self.mixer.step(x, cache)
    if self.mlp is not None:
      residual = x + residual
      x = self.mlp(self.norm2(residual))
    return x, residual


class Isotropic(nn.Module):
  """A stack of blocks, written in H-Net's layout grammar."""

  def __init__(self, layout: str, sizes: Sizes):
    super().__init__()
    kinds = ''.join(kind * int(count) for kind, count in re.findall(r'([mMtT])(\d+)', layout))
    self.layers = nn.ModuleList(Block(kind, sizes) for kind in kinds)
    self.rmsnorm = RMSNorm(sizes.width)

  def forward(self, x: Tensor, caches: list | None = None) -> Tensor:
    residual = None
    for block, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
      x, residual = block(x, residual, cache)
    return self.rmsnorm(x + residual)

  def new_cache(self, max_length: int) -> list[dict[str, Any]]:
    return [block.mixer.new_cache(max_length) for block in self.layers]


class Router(nn.Module):
  """Where chunks start, from the cosine of neighbouring encoder states."""

  def __init__(self, width: int):
    super().__init__()
    self.q_proj_layer, self.k_proj_layer = (nn.Linear(width, width, bias=False) for _ in range(2))

  def forward(self, e: Tensor) -> Tensor:
    """Probability [B, L] that a chunk starts."""
    p = 0.5 - 0.5 * F.cosine_similarity(self.q_proj_layer(e[:, :-1]), self.k_proj_layer(e[:, 1:]), -1)
    return F.pad(p.clamp(0, 1), (1, 0), value=1.0)


class Stage(nn.Module):
  """A stage of the hierarchy with those inside it; the innermost has `main_network` alone, an Isotropic."""

  def __init__(self, layout: list, config: dict[str, Any], index: int = 0):
    super().__init__()
    sizes = Sizes.of(config, index)
    if index and sizes.width > config['d_model'][index - 1]:
      self.pad_dimension = nn.Parameter(torch.zeros(sizes.width - config['d_model'][index - 1]))
    if len(layout) == 1:
      self.main_network = Isotropic(layout[0], sizes)
      return
    self.encoder, self.decoder = Isotropic(layout[0], sizes), Isotropic(layout[2], sizes)
    self.routing_module = Router(sizes.width)
    self.residual_proj = nn.Linear(sizes.width, sizes.width)
    self.main_network = Stage(layout[1], config, index + 1)

  def _widen(self, x: Tensor) -> Tensor:
    if not hasattr(self, 'pad_dimension'):
      return x
    return torch.cat([x, self.pad_dimension.expand(*x.shape[:-1], -1)], -1)

  def forward(self, x: Tensor) -> Tensor:
    width, x = x.shape[-1], self._widen(x)
    if isinstance(self.main_network, Isotropic):
      return self.main_network(x)[..., :width]
    e = self.encoder(x)
    p = self.routing_module(e)
    starts = p > 0.5
    starts = torch.cat([torch.ones_like(starts[:, :1]), starts[:, 1:]], 1)
    chunk = starts.cumsum(1)
    # A stable sort brings the boundaries of a row to its front, in order.
    where = (~starts).int().argsort(dim=1, stable=True)[:, : int(chunk[:, -1].max())]
    z = self.main_network(e.gather(1, where[..., None].expand(-1, -1, e.shape[-1])))
    smooth = smoothed(z, p.gather(1, where).clamp(1e-4, 1 - 1e-4))
    y = smooth.gather(1, (chunk - 1)[..., None].expand(-1, -1, z.shape[-1]))
    confidence = torch.where(starts, p, 1 - p)
    y = y * (1 + confidence - confidence.detach())[..., None] + self.residual_proj(e)
    return self.decoder(y)[..., :width]

  def new_cache(self, max_length: int) -> dict[str, Any]:
    if isinstance(self.main_network, Isotropic):
      return {'main': self.main_network.new_cache(max_length)}
    return {
      'encoder': self.encoder.new_cache(max_length),
      'main': self.main_network.new_cache(max_length),
      'decoder': self.decoder.new_cache(max_length),
      'last': None,
      'value': None,
    }

  def step(self, x: Tensor, cache: dict[str, Any]) -> Tensor:
    """One position of one row: [1, 1, D] -> the same."""
    width, x = x.shape[-1], self._widen(x)
    if isinstance(self.main_network, Isotropic):
      return self.main_network(x, cache['main'])[..., :width]
    e = self.encoder(x, cache['encoder'])
    last, cache['last'] = cache['last'], e
    p = 1.0 if last is None else float(self.routing_module(torch.cat([last, e], 1))[0, 1])
    if p > 0.5:
      weight = min(max(p, 1e-4), 1 - 1e-4)
      z = weight * self.main_network.step(e, cache['main'])
      cache['value'] = z if cache['value'] is None else z + (1 - weight) * cache['value']
    return self.decoder(cache['value'] + self.residual_proj(e), cache['decoder'])[..., :width]


def smoothed(z: Tensor, p: Tensor) -> Tensor:
  """s_m = p_m z_m + (1 - p_m) s_{m-1} by matrix products over tiles: z [B, M, D], p [B, M]."""
  batch, count, width = z.shape
  tile = min(SMOOTHING_TILE, count)
  z, p = F.pad(z * p[..., None], (0, 0, 0, -count % tile)), F.pad(p, (0, -count % tile))
  z, log = z.unflatten(1, (-1, tile)), (-p).log1p().unflatten(1, (-1, tile)).cumsum(-1)
  causal = torch.ones(tile, tile, dtype=torch.bool).tril()
  y = (log[..., :, None] - log[..., None, :]).masked_fill(~causal, -torch.inf).exp() @ z
  state, tiles = torch.zeros(batch, 1, width), []
  for inside, survives in zip(y.unbind(1), log.exp().unbind(1), strict=True):
    tiles.append(inside + survives[..., None] * state)
    state = tiles[-1][:, -1:]
  return torch.cat(tiles, 1)[:, :count]


class HNet(nn.Module):
  """Symbols in, logits for the next symbol out."""

  def __init__(self, config: dict[str, Any]):
    super().__init__()
    width = config['d_model'][0]
    self.embeddings = nn.Embedding(256, width)
    self.backbone = Stage(config['arch_layout'], config)
    self.lm_head = nn.Linear(width, 256, bias=False)

  def forward(self, symbols: Tensor) -> Tensor:
    """Symbols [B, L] -> logits [B, L, 256]."""
    return self.lm_head(self.backbone(self.embeddings(symbols)))

  def loss(self, symbols: Tensor) -> Tensor:
    """Mean nats of the bytes behind the first."""
    return F.cross_entropy(self(symbols)[:, :-1].flatten(0, 1), symbols[:, 1:].flatten())

  def new_cache(self, max_length: int) -> dict[str, Any]:
    return self.backbone.new_cache(max_length)

  def step(self, symbol: Tensor, cache: dict[str, Any]) -> Tensor:
    """Symbol [1] -> logits [256] for the next."""
    return self.lm_head(self.backbone.step(self.embeddings(symbol)[None], cache))[0, 0]


def load(directory: str) -> HNet:
  """A model from official config.json and model.safetensors."""
  model = HNet(json.loads(pathlib.Path(directory, 'config.json').read_text()))
  model.load_state_dict(safetensors.torch.load_file(pathlib.Path(directory, 'model.safetensors')))
  return model
