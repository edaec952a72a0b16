"""Many realisations of the noise at once: how an estimate scatters."""

import time
from typing import Any

import diffrax
import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Key

from oscsim.core.arrays import all_finite, describe
from oscsim.core.checks import as_count
from oscsim.dynamics.averaging import Counts, averaged
from oscsim.dynamics.demodulation import AbstractDemodulator, Reading, require_whole
from oscsim.dynamics.plan import Cycle, Plan, as_plan
from oscsim.dynamics.readings import require_turning
from oscsim.dynamics.state import begin
from oscsim.equilibrium import free_equilibrium
from oscsim.networks.base import AbstractNetwork, Layers, parameters
from oscsim.networks.inputs import Inputs
from oscsim.signals.drive import check_drive
from oscsim.signals.noise import as_noises, require_noise_key

MEMORY = 2**28
"""Bytes that a chunk may take, roughly."""


class Ensemble(eqx.Module):
    """What `ensemble` returns; the leading axis of every array counts the realisations.

    Attributes:
        gradients: of the mean loss, one per realisation, a pytree like `parameters(net)`.
        readings: the mean reading of each realisation: `readings[1]` is $c_1$, (realisations, batch, neurons) per
            layer. `Points` after a `Staircase`.
        diverged: which realisations ran away; their gradients and readings are nan.
        teaching, noise: what was run.
        plan: how it was integrated and read, with every default filled in.
        seconds: wall time, compilation included.
    """

    gradients: Any
    readings: Reading
    diverged: Bool[np.ndarray, " realisations"]
    teaching: Any
    noise: Any
    plan: Plan
    seconds: float = eqx.field(static=True)

    @property
    def mean(self) -> Any:
        """The mean gradient over the realisations that did not diverge."""
        return jax.tree.map(lambda a: np.mean(a[~self.diverged], axis=0), self.gradients)

    @property
    def spread(self) -> Any:
        """The standard deviation of each parameter's gradient over the realisations that did not diverge."""
        return jax.tree.map(lambda a: np.std(a[~self.diverged], axis=0, ddof=1), self.gradients)

    def __str__(self) -> str:
        count, lost = len(self.diverged), int(np.sum(self.diverged))
        lines = [
            f"Ensemble of {count} realisations" + (f", {lost} of them DIVERGED" if lost else ""),
            f"  teaching  {describe(self.teaching)}",
            f"  noise     {describe(self.noise)}",
        ]
        if count - lost > 1:
            mean, spread = ([np.linalg.norm(a) for a in jax.tree.leaves(t)] for t in (self.mean, self.spread))
            lines.append(f"  gradient  norm {np.linalg.norm(mean):.4g}, spread {np.linalg.norm(spread):.4g}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def ensemble(
    net: AbstractNetwork,
    x: Any,
    y: Any,
    teaching: Any,
    *,
    realisations: int,
    cycles: int,
    noise: Any,
    key: Key[Array, ""] | None,
    discard: int = 1,
    chunk: int | None = None,
    demodulator: AbstractDemodulator | None = None,
    ticks: int | None = None,
    solver: diffrax.AbstractSolver | None = None,
    steps_per_cycle: int | None = None,
    start: Any = "rest",
) -> Ensemble:
    """Run the same network many times under independent noise, in one compiled batch, and read a gradient off each.

    Realisation $r$ is the run of `LockIn` or `simulate` with the key `jax.random.fold_in(key, r)`, whatever the chunk.

    Args:
        net: the neurons.
        x: inputs (batch, ...), the same in all realisations.
        y: targets.
        teaching: the signal, e.g. `Rotating(amplitude=0.4, period=200.0)`.
        realisations: how many.
        cycles: how many periods each of them runs.
        noise: what disturbs the neurons, one noise or a tuple.
        key: for the noise.
        discard: how many cycles at the start do not enter the reading.
        chunk: how many realisations are computed at a time; by default what fits into about 256 MB.
        demodulator: as in `simulate`.
        ticks: as in `simulate`.
        solver: as in `simulate`.
        steps_per_cycle: as in `simulate`.
        start: `"rest"` or `"settled"`, the free equilibrium.

    Raises:
        ValueError: no noise or no key, counts that are not positive, `discard` leaves no cycle; and as `simulate`.
        TypeError: objects of the wrong kind.
        NotHolomorphicError: as `simulate`. Nothing is raised on divergence: look at `diverged`.
    """
    realisations, cycles = as_count("realisations", realisations), as_count("cycles", cycles)
    if as_count("discard", discard, 0) >= cycles:
        raise ValueError(f"discard={discard} leaves nothing of {cycles} cycles: use 0 to {cycles - 1}")
    noises = as_noises(noise)
    if not noises:
        raise ValueError(f"noise={noise!r}: without noise all realisations are equal; use simulate")
    require_noise_key(noises, key)
    check_drive(net, teaching)
    plan = as_plan(Cycle(solver, None, steps_per_cycle, ticks, demodulator), teaching, net, noise)
    require_whole(plan.demodulator, discard)
    inputs = Inputs.of(net, x, y)
    potentials = _start(net, inputs, start)
    chunk = _fitting(net, inputs) if chunk is None else as_count("chunk", chunk)
    chunk = min(chunk, realisations)
    began = time.perf_counter()
    counts = np.int32(cycles), np.int32(discard)
    parts = []
    for first in range(0, realisations, chunk):
        # The last chunk is filled up, so that it runs the same program.
        numbers = np.arange(first, first + chunk, dtype=np.uint32)
        part = _realised(net, inputs, teaching, plan, noise, key, numbers, *counts, potentials)
        parts.append(jax.tree.map(lambda a, first=first: np.asarray(a)[: realisations - first].copy(), part))
    gradients, readings, diverged = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    if not np.all(diverged):
        require_turning(teaching, jax.tree.map(lambda a: a[~diverged], readings))
    return Ensemble(gradients, readings, diverged, teaching, noise, plan, time.perf_counter() - began)


@eqx.filter_jit
def _realised(
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    plan: Plan,
    noise: Any,
    key: Any,
    numbers: Any,
    cycles: Any,
    discard: Any,
    potentials: Layers,
) -> tuple[Any, Reading, Array]:
    """Gradient, mean reading and divergence of the realisations of these numbers."""

    def one(number):
        own = jax.random.fold_in(key, number)
        state = begin(net, inputs, teaching, cycle=plan, potentials=potentials, noise=noise, key=own)
        found = averaged(state, net, inputs, teaching, plan, own, Counts(cycles, discard, cycles), noise)
        reading = found.average.mean
        return reading.gradient(net, inputs), reading, found.state.diverged | ~all_finite(reading)

    return jax.vmap(one)(numbers)


def _start(net: AbstractNetwork, inputs: Inputs, start: Any) -> Layers:
    """The potentials that every realisation starts from."""
    if start == "rest":
        return net.rest(inputs.x.shape[0])
    if start == "settled":
        return free_equilibrium(net, inputs).potentials
    raise ValueError(f"start={start!r}: use 'rest' or 'settled'")


def _fitting(net: AbstractNetwork, inputs: Inputs) -> int:
    """How many realisations fit into a chunk: some twenty arrays of the neurons, and three gradients, for each."""
    neurons = sum(a.size for a in net.rest(inputs.x.shape[0]))
    learned = sum(a.size for a in jax.tree.leaves(parameters(net)))
    return max(1, int(MEMORY / (net.dtype.itemsize * (40 * neurons + 3 * learned))))
