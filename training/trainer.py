"""What a config trains with, for a loop, a benchmark or a study: mesh, abstract model, optimizer, and the step."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import byte_models
import text
from layers.capacity import Capacities
from text import marks
from text.mixture import Mixture
from training import config as config_lib
from training import description, sharding
from training import state as state_lib
from training.optimizer import Optimizer, make_optimizer, parameter_groups
from training.step import make_step


@dataclasses.dataclass(frozen=True)
class Trainer:
  """model: of ShapeDtypeStructs. devices: that there are; the mesh may use fewer. The step and the state run under
  `jax.set_mesh(trainer.mesh)`.
  """

  settings: config_lib.Config
  mesh: jax.sharding.Mesh
  model: Any
  optimizer: Optimizer
  devices: int

  @classmethod
  def of(cls, config: Any, devices: Sequence[jax.Device] | None = None) -> 'Trainer':
    """From a config (ConfigDict or mapping), over these devices or all of this run's; ValueError with one sentence for
    one that cannot be trained there.
    """
    settings = config_lib.parse(config)
    devices = jax.devices() if devices is None else devices
    mesh = sharding.make_mesh(settings, devices)
    model = description.abstract_model(settings.model)
    groups = parameter_groups(model, list(state_lib.flatten(model)), settings.optimizer)
    return cls(settings, mesh, model, make_optimizer(settings.optimizer, settings.num_steps, *groups), len(devices))

  def abstract_state(self) -> state_lib.TrainState:
    """Shapes and dtypes of the state."""
    return jax.eval_shape(self._fresh)

  def state(
    self, params: Mapping[str, jax.Array] | None = None, borrowed: Mapping[str, jax.Array] | None = None
  ) -> state_lib.TrainState:
    """Step 0 on the mesh, from these parameters or from those that the seed draws; borrowed: in place of some."""
    initialise = jax.jit(self._fresh, out_shardings=sharding.shardings(self.abstract_state(), self.mesh))
    put = lambda flat: jax.device_put(dict(flat), sharding.shardings(dict(flat), self.mesh))
    return initialise(None if params is None else put(params), put(borrowed or {}))

  def _fresh(self, params=None, borrowed=None) -> state_lib.TrainState:
    if params is None:
      model = byte_models.build(byte_models.parse(self.settings.model), rngs=nnx.Rngs(self.settings.seed))
      params = state_lib.flatten(model)
    return state_lib.create(params | (borrowed or {}), self.optimizer.init, ema=self.settings.optimizer.ema > 0)

  def batches(self, corpora: Mixture, start_row: int = 0) -> Iterator[text.Batch]:
    """This process' share of each global batch (numpy), from a row of the stream on, for ever."""
    share, shares = sharding.share_of_rows(self.mesh)
    return text.pipeline(
      corpora,
      batch_size=self.settings.batch_size,
      seq_len=self.settings.seq_len,
      seed=self.settings.seed,
      start_row=start_row,
      host=share,
      hosts=shares,
      workers=self.settings.data.workers,
      prefetch=self.settings.data.prefetch,
      marks=self.model.marks,
    )

  def put(self, batch: text.Batch) -> text.Batch:
    """The batch on the mesh."""
    return sharding.put_batch(batch, self.mesh)

  def abstract_batch(self) -> text.Batch:
    """Shapes and dtypes of a global batch."""
    rows = lambda dtype: jax.ShapeDtypeStruct((self.settings.batch_size, self.settings.seq_len), dtype)
    of_model = {name: rows(kind.DTYPE) for name, kind in marks.parse(self.model.marks).items()}
    return text.Batch(rows(np.uint8), rows(np.int32), of_model, rows(bool))

  def lower(
    self, state: Any, batch: text.Batch, capacities: Capacities, report: Callable[[str], None] = print
  ) -> jax.stages.Lowered:
    """The step at some capacities, (state, batch) -> (state, metrics, needed), for the devices of the mesh; the state
    is donated.

    state, batch: arrays or their shapes. A line goes to `report` for each loss weight without effect, for what the mesh
    does not divide, and for devices that it leaves idle.
    """
    settings = self.settings
    step = make_step(settings, self.model, self.optimizer, self.mesh, capacities)
    places = sharding.shardings(state, self.mesh)
    here, everywhere = (NamedSharding(self.mesh, spec) for spec in (sharding.batch_spec(self.mesh), PartitionSpec()))
    jitted = jax.jit(
      step, donate_argnums=0, in_shardings=(places, here), out_shardings=(places, everywhere, everywhere)
    )
    with jax.set_mesh(self.mesh):
      lowered = jitted.lower(state, batch)
    if idle := self.devices - self.mesh.size:
      report(f'mesh.shape {settings.mesh.shape} leaves {idle} of {self.devices} devices idle: a size of -1 uses all')
    for phrase in sharding.undivided(self.model, state.params, self.mesh):
      report(phrase)
    for name in settings.loss_weights:
      if f'{name}_loss' not in lowered.out_info[1]:
        report(f'loss_weights.{name} has no effect: the model has no auxiliary loss of that name')
    return lowered

  def compile(
    self,
    state: Any,
    batch: text.Batch,
    capacities: Capacities,
    report: Callable[[str], None] = print,
    options: Mapping[str, Any] | None = None,
  ) -> Callable:
    """The step compiled ahead of time, so that the first is as fast as the others; one more line goes to `report`.
    options: the compiler's.
    """
    began = time.perf_counter()
    compiled = self.lower(state, batch, capacities, report).compile(compiler_options=options)
    kind, room = self.mesh.devices.flat[0].device_kind, ' and '.join(map(str, capacities))
    of_rows = f' and {room} chunks a row' if room else ''
    report(f'compiled in {time.perf_counter() - began:.0f} s for {self.mesh.size} x {kind}{of_rows}')
    return compiled
