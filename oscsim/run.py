"""A finished simulation: what was read, how it went, and the gradient in it."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, Float

from oscsim import checkpoint
from oscsim._arrays import as_count, describe
from oscsim.cycle import Effort, Plan, State, Watched
from oscsim.demodulation import Reading, require_whole
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.inputs import Inputs
from oscsim.readings import Phasors, require_turning


class Run(eqx.Module):
    """What `simulate` returns.

    Attributes:
        network, x, y, teaching, noise: what was run.
        plan: how it was integrated and read, with every default filled in.
        first_cycle: number of the first cycle in `phasors`; above 0 where an earlier run was continued.
        phasors: the readings, with a leading axis over cycles: `run.phasors[1]` is $c_1$, (cycles, batch, neurons) per
            layer. After `record=Mean()` a single one, the mean. `Points` after a `Staircase`.
        lock_residual: relative change of the reading in each cycle; 1 in the first.
        effort: accepted and rejected solver steps of each cycle.
        watched: samples of a few neurons, (cycles, ticks, watched) per layer: of the last cycle unless more were asked.
        watched_neurons: their flat indices in each layer.
        state: where it ended; `simulate(..., start=run)` goes on from there.
        seconds: wall time, compilation included.
    """

    network: AbstractNetwork
    x: Any
    y: Any
    teaching: Any
    noise: Any
    plan: Plan
    first_cycle: int = eqx.field(static=True)
    phasors: Reading
    lock_residual: Float[np.ndarray, " cycles"]
    effort: Effort
    watched: Watched | None
    watched_neurons: tuple[np.ndarray, ...] | None
    state: State
    seconds: float = eqx.field(static=True)

    @property
    def cycles(self) -> int:
        """How many cycles were run."""
        return len(self.lock_residual)

    @property
    def diverged(self) -> bool:
        """Whether the neurons ran away in the last cycle (with `check=False`; otherwise an error was raised)."""
        return bool(self.state.diverged)

    @property
    def inputs(self) -> Inputs:
        """What the network was shown; with data that change from cycle to cycle, in the last cycle."""
        return self.inputs_in(self.first_cycle + self.cycles - 1)

    def inputs_in(self, cycle: int) -> Inputs:
        """What the network was shown in the cycle of that number."""
        x = self.x(cycle) if callable(self.x) else self.x
        y = self.y(cycle) if callable(self.y) else self.y
        return Inputs.of(self.network, x, y)

    def gradient(self, discard: int = 0, cumulative: bool = False) -> Any:
        """The gradient of the mean loss, from the readings averaged over the cycles after the first `discard`.

        With data that change from cycle to cycle, the mean of each cycle's own gradient instead.

        Args:
            discard: how many cycles at the start to leave out: those before the network locked.
            cumulative: a leading axis of running results, after 1, 2, ... of the kept cycles.

        Raises:
            ValueError: `discard` is negative or leaves no cycle; the signal does not turn, so there is no gradient.
        """
        kept = jax.tree.leaves(self.phasors)[0].shape[0]
        if as_count("discard", discard, 0) >= kept:
            raise ValueError(f"discard={discard}: {kept} cycle(s) were recorded, use 0 to {kept - 1}")
        if kept == self.cycles:  # of a mean `simulate` has seen to it
            require_whole(self.plan.demodulator, discard, self.first_cycle)
        readings = jax.tree.map(lambda a: jnp.asarray(a[discard:]), self.phasors)
        require_turning(self.teaching, readings)
        if callable(self.x) or callable(self.y):
            first = self.first_cycle + discard
            each = [
                _gradient(self.network, self.inputs_in(first + i), jax.tree.map(lambda a, i=i: a[i], readings))
                for i in range(kept - discard)
            ]
            running = _cumulative_means(jax.tree.map(lambda *a: jnp.stack(a), *each))
            return running if cumulative else jax.tree.map(lambda a: a[-1], running)
        if cumulative:
            return _gradients(self.network, self.inputs, _cumulative_means(readings))
        return _gradient(self.network, self.inputs, jax.tree.map(lambda a: jnp.mean(a, axis=0), readings))

    @property
    def loss(self) -> Array:
        """The mean loss at the mean activities of the last recorded cycle."""
        inputs = self.inputs
        s = jax.tree.map(lambda a: jnp.asarray(a[-1]), self.phasors.mean)
        return jnp.mean(self.network.loss(inputs.clamped, s, inputs.y))

    @property
    def equilibrium_residual(self) -> float:
        r"""How far the last mean activities are from a free equilibrium, $\max|\sigma(\partial\Phi_0/\partial s) - s|$.

        It vanishes with the lock residual while the amplitude is below the convergence radius, and not beyond.
        """
        inputs = self.inputs
        s = jax.tree.map(lambda a: jnp.asarray(a[-1]), self.phasors.mean)
        force = self.network.force(inputs.clamped, s, inputs.y, 0.0)
        moved = [jnp.max(jnp.abs(a - b)) for a, b in zip(self.network.activities(force), s, strict=True)]
        return float(jnp.max(jnp.stack(moved)))

    def to_xarray(self) -> xarray.Dataset:
        """The readings as labelled arrays: one variable per layer, with its dimensions, and the settings as attributes.

        `layer_1`, ...: complex (cycle, harmonic, sample, neuron...), or (cycle, point, sample, neuron...) after a
        `Staircase`; `teaching` likewise; `lock_residual`, `accepted_steps`, `rejected_steps` over `cycle_run`.
        """
        reading = self.phasors
        if isinstance(reading, Phasors):
            axis, labels = "harmonic", list(reading.harmonics)
            layers = [np.stack(a, axis=1) for a in zip(*reading.activities, strict=True)]
            teaching = np.stack(reading.teaching, axis=1)
        else:
            axis, labels = "point", list(range(reading.teaching.shape[1]))
            layers, teaching = list(reading.activities), reading.teaching
        numbers = self.first_cycle + 1 + np.arange(self.cycles)
        kept = numbers if len(teaching) == self.cycles else numbers[-1:]
        variables: dict[str, Any] = {"teaching": (("cycle", axis), np.asarray(teaching))}
        for number, layer in enumerate(layers, start=1):
            neurons = [f"neuron_{number}" + (f"_{i}" if layer.ndim > 4 else "") for i in range(layer.ndim - 3)]
            variables[f"layer_{number}"] = (("cycle", axis, "sample", *neurons), np.asarray(layer))
        variables["lock_residual"] = ("cycle_run", self.lock_residual)
        variables["accepted_steps"] = ("cycle_run", self.effort.accepted)
        variables["rejected_steps"] = ("cycle_run", self.effort.rejected)
        return xarray.Dataset(
            variables,
            coords={"cycle": kept, "cycle_run": numbers, axis: labels},
            attrs={
                "network": describe(self.network),
                "teaching": describe(self.teaching),
                "noise": describe(self.noise),
                "plan": describe(self.plan),
                "period": float(self.teaching.period),
                "time_unit": "tau",
                "seconds": self.seconds,
            },
        )

    def save(self, path: str | Path) -> Path:
        """Write the run to one file, complete or not at all; `Run.load` reads it back.

        Raises:
            ValueError: something in it cannot be written, such as a lambda; the message names it.
            OSError: the folder cannot be written.
        """
        return checkpoint.save(self, path)

    @staticmethod
    def load(path: str | Path) -> "Run":
        """Read a run that `save` wrote.

        Raises:
            ValueError: the file is truncated, or is not a saved run.
        """
        return checkpoint.load(path, expect=Run)

    def __str__(self) -> str:
        steps = int(np.sum(self.effort.accepted))
        rejected = int(np.sum(self.effort.rejected))
        batch = self.state.potentials[0].shape[0]
        layers = "-".join("x".join(map(str, shape)) for shape in self.network.shapes)
        lock = float(self.lock_residual[-1])
        how = f"{steps} steps of {type(self.plan.solver).__name__}"
        lines = [
            f"Run of {self.cycles} cycles" + (f" (from cycle {self.first_cycle + 1})" if self.first_cycle else ""),
            f"  network   {type(self.network).__name__}, neurons {layers}, {describe(self.network.activation)}",
            f"  inputs    {batch} samples, mean loss {float(self.loss):.4g}",
            f"  teaching  {describe(self.teaching)}",
            *([] if self.noise is None else [f"  noise     {describe(self.noise)}"]),
            f"  effort    {how}, {rejected} rejected, {self.plan.ticks} ticks a cycle, {self.seconds:.2g} s",
            f"  lock      residual {lock:.2g} in the last cycle" + (", DIVERGED" if self.diverged else ""),
            f"  mean      a free equilibrium to {self.equilibrium_residual:.2g}",
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def _cumulative_means(tree: Any) -> Any:
    """The mean of the first 1, 2, ... entries along the leading axis."""
    return jax.tree.map(
        lambda a: (
            jnp.cumsum(a, axis=0) / jnp.arange(1, len(a) + 1, dtype=a.real.dtype).reshape(-1, *(1,) * (a.ndim - 1))
        ),
        tree,
    )


@eqx.filter_jit
def _gradient(network: AbstractNetwork, inputs: Inputs, reading: Reading) -> Any:
    """The gradient in one reading, compiled."""
    return reading.gradient(network, inputs)


@eqx.filter_jit
def _gradients(network: AbstractNetwork, inputs: Inputs, readings: Reading) -> Any:
    """The gradient in each of many readings, one at a time: memory as for one."""
    return jax.lax.map(lambda reading: reading.gradient(network, inputs), readings)
