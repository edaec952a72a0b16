"""Ensembles: many realisations of the noise at once, to see how an estimate scatters."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Key

from oscsim.core.arrays import all_finite, describe, is_traced, per_sample, promoting
from oscsim.core.checks import as_count, require_instance
from oscsim.core.errors import BadValue
from oscsim.core.printing import AbstractPrinted
from oscsim.dynamics.cycles import Counts, averaged
from oscsim.dynamics.gradient import Reading, require_turning
from oscsim.dynamics.state import begin
from oscsim.dynamics.system import System
from oscsim.estimators.lock_in import LockIn
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Data, Inputs
from oscsim.networks.learned import Gradient, parameters
from oscsim.signals.noise import noise_key, require_noise_key

MEMORY = 2**28
"""Bytes that a chunk may take, roughly."""


class Ensemble(AbstractPrinted):
    """What `ensemble` returns; the leading axis of every array counts the realisations.

    Attributes:
        gradients: of the mean loss, one per realisation, a pytree like `parameters(net)`.
        readings: the mean reading of each realisation: `readings[1]` is $c_1$, (realisations, batch, neurons) per
            layer. `Points` after a `Staircase`.
        diverged: which realisations ran away; their gradients and readings are nan.
        system: what was run.
        seconds: wall time, compilation included.

    Example:
        >>> lock_in = osc.LockIn(osc.Rotating(0.2, 64.0), cycles=2, discard=1, noise=osc.WhiteNoise(0.02))
        >>> many = osc.ensemble(lock_in, net, x, y, realisations=4, key=jax.random.key(0))
        >>> many.gradients.weights[0].shape, many.spread.weights[0].shape
        ((4, 5, 6), (5, 6))
    """

    gradients: Gradient
    readings: Reading
    diverged: Bool[Array | np.ndarray, " realisations"]
    system: System
    seconds: float

    @property
    def mean(self) -> Gradient:
        """The mean gradient over the realisations that did not diverge."""
        if is_traced(self.diverged):
            kept = ~jnp.asarray(self.diverged)
            return jax.tree.map(lambda a: jnp.mean(a, axis=0, where=per_sample(kept, a)), self.gradients)
        return jax.tree.map(lambda a: np.mean(a[~self.diverged], axis=0), self.gradients)

    @property
    def spread(self) -> Gradient:
        """The standard deviation of each parameter's gradient over the realisations that did not diverge."""
        if is_traced(self.diverged):
            kept = ~jnp.asarray(self.diverged)
            return jax.tree.map(lambda a: jnp.std(a, axis=0, ddof=1, where=per_sample(kept, a)), self.gradients)
        return jax.tree.map(lambda a: np.std(a[~self.diverged], axis=0, ddof=1), self.gradients)

    def __str__(self) -> str:
        count, lost = len(self.diverged), int(np.sum(self.diverged))
        lines = [
            f"Ensemble of {count} realisations" + (f", {lost} of them DIVERGED" if lost else ""),
            f"  teaching  {describe(self.system.teaching)}",
            f"  noise     {describe(self.system.noises)}",
        ]
        if count - lost > 1:
            mean, spread = ([np.linalg.norm(a) for a in jax.tree.leaves(t)] for t in (self.mean, self.spread))
            lines.append(f"  gradient  norm {np.linalg.norm(mean):.4g}, spread {np.linalg.norm(spread):.4g}")
        return "\n".join(lines)


@promoting
def ensemble(
    lock_in: LockIn,
    net: AbstractNetwork,
    x: Data,
    y: Data,
    *,
    realisations: int,
    key: Key[Array, ""] | None,
    chunk: int | None = None,
) -> Ensemble:
    """Run the same network many times under independent noise, in one compiled batch, and read a gradient off each.

    Realisation $r$ is the run of `lock_in` with the key `jax.random.fold_in(key, r)`, whatever the chunk. Traced by
    jax, as in `jax.vmap` over amplitudes, all are computed at once.

    Args:
        lock_in: signal, noise, cycles, and how they are integrated and read.
        net: the neurons.
        x: inputs (batch, ...), the same in all realisations.
        y: targets.
        realisations: how many.
        key: for the noise.
        chunk: how many realisations are computed at a time; by default what fits into about 256 MB.

    Raises:
        ValueError: no noise or no key, counts that are not positive, a `lock_in` that extrapolates; and as `simulate`.
        TypeError: objects of the wrong kind.
        NotHolomorphicError: as `simulate`. Nothing is raised on divergence: look at `diverged`.

    Example:
        >>> lock_in = osc.LockIn(osc.Rotating(0.2, 64.0), cycles=2, discard=1, noise=osc.WhiteNoise(0.02))
        >>> many = osc.ensemble(lock_in, net, x, y, realisations=4, key=jax.random.key(0))
        >>> print(osc.cosine(many.mean, osc.exact_gradient(net, x, y)) > 0.9)
        True
    """
    realisations = as_count("realisations", realisations)
    require_instance("lock_in", lock_in, LockIn, "use LockIn(teaching, noise=..., cycles=...)")
    if not lock_in.noises:
        raise BadValue("lock_in.noises=(): without noise all realisations are equal; use simulate")
    if lock_in.extrapolate:
        raise BadValue("lock_in.extrapolate=True runs every realisation twice: call it with keys of your own")
    require_noise_key(lock_in.noises, key)
    system, inputs = lock_in.system(net), Inputs.of(net, x, y)
    start = lock_in.potentials(system, inputs)
    start = net.rest(inputs.x.shape[0]) if start is None else start
    chunk = min(_fitting(net, inputs) if chunk is None else as_count("chunk", chunk), realisations)
    began, counts, parts = time.perf_counter(), lock_in.counts(net.dtype), []
    if is_traced(system, inputs, start, key):
        numbers = np.arange(realisations, dtype=np.uint32)
        return Ensemble(*_realised(system, inputs, start, counts, numbers, key=key), system, 0.0)
    for first in range(0, realisations, chunk):
        # The last chunk is filled up, so that it runs the same program.
        numbers = np.arange(first, first + chunk, dtype=np.uint32)
        part = _realised(system, inputs, start, counts, numbers, key=key)
        parts.append(jax.tree.map(lambda a, first=first: np.asarray(a)[: realisations - first].copy(), part))
    gradients, readings, diverged = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    if not np.all(diverged):
        require_turning(system.teaching, jax.tree.map(lambda a: a[~diverged], readings))
    return Ensemble(gradients, readings, diverged, system, time.perf_counter() - began)


@eqx.filter_jit
def _realised(
    system: System, inputs: Inputs, start: Layers, counts: Counts, numbers: ArrayLike, *, key: Key[Array, ""] | None
) -> tuple[Gradient, Reading, Array]:
    """Gradient, mean reading and divergence of the realisations of these numbers."""

    def one(number):
        own = jax.random.fold_in(noise_key(key), number)
        found = averaged(system, begin(system, inputs, key=own, start=start), inputs, counts, key=own)
        reading = found.averages.mean
        return reading.gradient(system.network, inputs), reading, found.state.diverged | ~all_finite(reading)

    return jax.vmap(one)(numbers)


def _fitting(net: AbstractNetwork, inputs: Inputs) -> int:
    """How many realisations fit into a chunk: some twenty arrays of the neurons, and three gradients, for each."""
    neurons = sum(a.size for a in net.rest(inputs.x.shape[0]))
    learned = sum(a.size for a in jax.tree.leaves(parameters(net)))
    return max(1, int(MEMORY / (net.dtype.itemsize * (40 * neurons + 3 * learned))))
