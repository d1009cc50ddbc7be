"""Weights as others publish them: config.json beside model.safetensors, and where their tensors lie in our parameters.

A parameter may hold several tensors side by side (queries, keys and values; an MLP's two inputs), and a run of blocks
holds its layers along a leading axis. `Part` says where one tensor is; a format is a list of parts.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from layers import checks
from text import paths, regular_file

CONFIG = 'config.json'
PARAMS = 'params.json'  # where Meta's code has it
WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'  # of weights in several files
DTYPES = ('float32', 'bfloat16', 'float16')
_HEADER_DTYPES = dict(zip(('F32', 'BF16', 'F16'), DTYPES, strict=True))

Config = TypeVar('Config')


@dataclasses.dataclass(frozen=True)
class Part:
  """One named tensor: its shape, the path of the parameter that holds it, its layer in a run of stacked blocks (None
  outside runs), and how ours differs: 'same', 'transpose', or 'conv' ([channels, 1, taps] against [taps, channels]).
  Parts with the same path and layer lie side by side along the last axis, in order. pairs: channels of a head of a
  linear map, whose rotary pairs are (2i, 2i + 1) in theirs and (i, i + pairs / 2) in ours; 0: as they are.
  """

  name: str
  shape: tuple[int, ...]
  path: str
  layer: int | None = None
  layout: str = 'same'
  pairs: int = 0

  @property
  def width(self) -> int:
    """Size of our last axis."""
    return self.shape[-1 if self.layout == 'same' else 0]

  def ours(self, value: Any) -> np.ndarray:
    """float32, in our layout."""
    value = np.asarray(value)
    value = {'same': lambda: value, 'transpose': lambda: value.T, 'conv': lambda: value[:, 0].T}[self.layout]()
    return np.asarray(self._turned(value, self.pairs // 2, 2), np.float32)

  def theirs(self, value: np.ndarray) -> np.ndarray:
    """In the published layout."""
    value = self._turned(value, 2, self.pairs // 2)
    back = {'same': lambda: value, 'transpose': lambda: value.T, 'conv': lambda: value.T[:, None]}[self.layout]
    return np.ascontiguousarray(back())

  def _turned(self, value: np.ndarray, *sizes: int) -> np.ndarray:
    """Every head's channels, seen with these two sizes, the other way round."""
    return value.reshape(len(value), -1, *sizes).swapaxes(-1, -2).reshape(value.shape) if self.pairs else value


def linear(name: str, path: str, d_in: int, d_out: int, layer: int | None = None, pairs: int = 0) -> Part:
  """The part of a linear map: theirs is [out, in]."""
  return Part(name, (d_out, d_in), path, layer, 'transpose', pairs)


class Stored:
  """One tensor of a safetensors file: shape and dtype at once, values when numpy asks for them."""

  def __init__(self, file: Any, name: str):
    header = file.get_slice(name)
    self.shape, self.dtype = tuple(header.get_shape()), _HEADER_DTYPES.get(header.get_dtype(), header.get_dtype())
    self._read = lambda: file.get_tensor(name)

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    return np.array(self._read(), dtype, copy=copy)


def check(parts: Iterable[Part], tensors: Mapping[str, Any], where: object) -> None:
  """Raises ValueError, naming the tensor, unless `tensors` (name -> shape and dtype) are exactly these parts."""
  parts = {part.name: part for part in parts}
  for odd, word in ((parts.keys() - tensors.keys(), 'lacks'), (tensors.keys() - parts.keys(), 'has the surplus')):
    if odd:
      raise ValueError(f'{where} {word} tensor {min(odd)} ({len(odd)} such): it does not fit this configuration.')
  for name, part in parts.items():
    shape, dtype = tuple(tensors[name].shape), str(tensors[name].dtype)
    if shape != part.shape:
      raise ValueError(f'{where}: tensor {name} has shape {shape}, this configuration needs {part.shape}.')
    if dtype not in DTYPES:
      raise ValueError(f'{where}: tensor {name} is {dtype}; weights are {", ".join(DTYPES)}.')


def without_tied(tensors: Mapping[str, Any], copy: str, original: str, where: object) -> dict[str, Any]:
  """Tensors without the second name of one that a model uses twice; ValueError if the two differ."""
  if copy in tensors and original in tensors and not np.array_equal(tensors[copy], tensors[original]):
    raise ValueError(f'{where}: tensor {copy} differs from {original}, but {CONFIG} ties them.')
  return {name: tensor for name, tensor in tensors.items() if name != copy}


def gather(parts: Iterable[Part], tensors: Mapping[str, Any]) -> dict[str, Array]:
  """Path -> float32 parameter, from tensors that `check` has passed."""
  paths: dict[str, dict[int | None, list[Part]]] = {}
  for part in parts:
    paths.setdefault(part.path, {}).setdefault(part.layer, []).append(part)
  flat = {}
  for path, layers in paths.items():
    values = [np.concatenate([part.ours(tensors[part.name]) for part in layers[layer]], -1) for layer in layers]
    flat[path] = jnp.asarray(values[0] if None in layers else np.stack(values))
  return flat


def scatter(
  parts: Iterable[Part], flat: Mapping[str, Any], dtypes: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
  """The inverse of `gather`: name -> tensor, float32 where dtypes (name -> dtype) does not say another."""
  used: dict[tuple[str, int | None], int] = {}
  tensors = {}
  for part in parts:
    value = np.asarray(flat[part.path]) if part.layer is None else np.asarray(flat[part.path][part.layer])
    first = used.get((part.path, part.layer), 0)
    used[part.path, part.layer] = last = first + part.width
    value = part.theirs(value[..., first:last])
    tensors[part.name] = value.astype(jnp.dtype((dtypes or {}).get(part.name, 'float32')))
  return tensors


def read_config(file: Path, parse: Callable[[dict[str, Any]], Config]) -> Config:
  """What `parse` makes of a config.json; its ValueError names the file. Raises as `read_json` too."""
  values = read_json(file)
  try:
    return parse(values)
  except ValueError as error:
    raise ValueError(f'{file}: {error}') from None


def config_file(path: str | os.PathLike) -> Path:
  """The config of a directory of weights, whether or not it is there; raises as `directory`."""
  place = directory(path)
  return place / (PARAMS if (place / PARAMS).is_file() and not (place / CONFIG).exists() else CONFIG)


def read(path: str | os.PathLike, parse: Callable[[dict[str, Any]], Config]) -> tuple[Path, Config, dict[str, Stored]]:
  """(the directory of weights that a user names, what `parse` makes of its config.json, its tensors).

  Raises as `directory`, `read_config` and `read_tensors`.
  """
  place = directory(path)
  return place, read_config(place / CONFIG, parse), read_tensors(place)


def read_tensors(directory: Path) -> dict[str, Stored]:
  """Name -> tensor of model.safetensors or, where only its index is there, of the files that this names.

  Only headers are read. Raises FileNotFoundError for a file that is missing, ValueError for one that is damaged and for
  an index that its files do not agree with.
  """
  index = directory / INDEX
  if (directory / WEIGHTS).exists() or not index.is_file():
    return _opened(directory / WEIGHTS)
  places = read_json(index).get('weight_map')
  if not isinstance(places, dict) or not all(isinstance(f, str) and f == os.path.basename(f) for f in places.values()):
    raise ValueError(f'{index} is damaged: weight_map is no mapping from tensors to the names of files beside it.')
  files = {file: _opened(directory / file) for file in sorted(set(places.values()))}
  odd = {(name, file) for file, tensors in files.items() for name in tensors} ^ set(places.items())
  if odd:
    name, file = min(odd)
    raise ValueError(f'{index} and {file} disagree about tensor {name}: they do not belong together, fetch them again.')
  return {name: files[file][name] for name, file in places.items()}


def _opened(file: Path) -> dict[str, Stored]:
  regular_file.check(file, 'weights file')
  if not file.is_file():
    raise _missing(file)
  try:
    opened = safe_open(file, framework='numpy')
    return {name: Stored(opened, name) for name in opened.keys()}  # noqa: SIM118, a file is not a mapping
  except SafetensorError as error:
    raise ValueError(f'{file} is not a whole safetensors file: {error}.') from None
  except OSError as error:  # it does not name the file
    raise OSError(f'{file} cannot be read: {error}.') from None


def read_json(file: Path) -> dict[str, Any]:
  """The mapping in a JSON file. Raises FileNotFoundError if it is missing, ValueError if it holds something else."""
  regular_file.check(file, 'JSON file')
  try:
    values = json.loads(file.read_bytes())
  except (FileNotFoundError, NotADirectoryError):
    raise _missing(file) from None
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{file} is not JSON: {error}.') from None
  if not isinstance(values, dict):
    raise ValueError(f'{file} holds a {type(values).__name__} and not a mapping.')
  return checks.shallow(values, str(file))


def _missing(file: Path) -> FileNotFoundError:
  return FileNotFoundError(
    f'{file} is missing: official weights are a directory with {CONFIG} and {WEIGHTS}, whole or in parts.'
  )


def directory(path: str | os.PathLike) -> Path:
  """The directory of weights that a user names; raises as `text.paths.of`."""
  return paths.of(path, 'the directory of weights')


def write(path: str | os.PathLike, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
  """config.json and model.safetensors into a directory, which is made; each as `replace` does it."""
  place = directory(path)
  place.mkdir(parents=True, exist_ok=True)
  # transformers asks for the format
  replace(place / WEIGHTS, lambda file: save_file(dict(tensors), file, metadata={'format': 'pt'}))
  write_json(place / CONFIG, config)


def write_json(file: Path, values: Mapping[str, Any]) -> None:
  """A mapping as a JSON file, put in place as `replace` does it."""
  text = json.dumps(values, indent=2) + '\n'
  replace(file, lambda partial: partial.write_text(text, encoding='utf-8'))


def replace(file: Path, fill: Callable[[Path], Any]) -> None:
  """Has `fill` write a file beside it and puts that in its place once it is whole; a failure changes nothing."""
  partial = file.with_name(f'{file.name}.partial')
  partial.unlink(missing_ok=True)  # a link of that name would be followed
  try:
    fill(partial)
    os.replace(partial, file)
  finally:
    partial.unlink(missing_ok=True)
