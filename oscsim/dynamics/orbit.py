"""`periodic_orbit`: where driven neurons end, without stepping there."""

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from oscsim.core.arrays import describe, is_traced, per_sample, promoting, ratio, sample_norm
from oscsim.core.checks import as_count, as_flag, as_positive, as_real, both, checked
from oscsim.core.errors import BadValue, NotSettledError
from oscsim.core.printing import AbstractPrinted
from oscsim.dynamics.cycle import Watch, Watched
from oscsim.dynamics.error_bars import solved_gradient_and_error
from oscsim.dynamics.export import attributes, neuron_axes
from oscsim.dynamics.gradient import Phasors, require_turning
from oscsim.dynamics.gradient_error import TOLERANCE, GradientError, as_tolerance, report
from oscsim.dynamics.integration import Integration, require_integration
from oscsim.dynamics.record import PerCycle
from oscsim.equilibrium import settled_start, state_at
from oscsim.equilibrium.harmonics import at_times, balanced, frequency, is_one_way, power_series, sampled
from oscsim.equilibrium.states import At, default_tolerance
from oscsim.networks.base import AbstractNetwork, Layers, as_network
from oscsim.networks.inputs import Data, Inputs
from oscsim.networks.learned import Gradient
from oscsim.signals.drive import check_drive
from oscsim.signals.teaching import AbstractTeaching, as_times

if TYPE_CHECKING:
    import xarray

COUNTS = 8, 32, 128
"""How many harmonics are tried, one after the other."""

FOUND = 0.1
"""What the harmonics may leave of the equation, relative to the motion, that the orbit counts as found."""

ROUNDED = 8
"""Units in the last place of the potentials that rounding leaves of the equation."""

SWEEPS = 500
"""Sweeps over all points of the period, at most."""

TICKS = 64
"""How many samples of a cycle are recorded."""


class PeriodicOrbit(AbstractPrinted):
    r"""The orbit of driven neurons, $u(t) = \sum_n u_n e^{in\omega t}$, and what a lock-in would read on it.

    Attributes:
        network: the neurons.
        inputs: what they are shown.
        teaching: the signal.
        harmonics: which $n$ are kept, ascending.
        potentials: $u_n$, one complex (harmonics, batch, ...) array per layer.
        phasors: the Fourier coefficients of the activities and of the signal: `phasors[1]` is $c_1$.
        residual: of each sample, what the harmonics leave of the neurons' equation along the period, relative to
            their motion about the mean, in the mean square.

    Example:
        >>> orbit = osc.periodic_orbit(net, x, y, osc.Rotating(0.2, 100.0))
        >>> print(osc.relative_error(orbit.gradient(), run.gradient()) < 1e-3)  # run has stepped there
        True
        >>> orbit.activities_at(25.0)[0].shape  # a quarter of a period after its start
        (3, 5)
    """

    network: AbstractNetwork
    inputs: Inputs
    teaching: AbstractTeaching
    harmonics: tuple[int, ...] = eqx.field(static=True)
    potentials: Layers
    phasors: Phasors
    residual: Float[Array, " batch"]

    @promoting
    @checked(tolerance=as_tolerance, throw=as_flag)
    def gradient(self, *, tolerance: float = TOLERANCE, throw: bool = False) -> Gradient:
        """The gradient of the mean loss that a lock-in reads on this orbit.

        Args:
            tolerance: a larger `error().total` than this gives a warning that says why, and what to do.
            throw: raise an error instead.

        Raises:
            ValueError: the signal does not turn, so there is no gradient.
            InexactGradientError: with `throw`, the error is above the tolerance.
        """
        require_turning(self.teaching, self.phasors)
        gradient, error = _read(self.network, self.inputs, self.teaching, self.phasors)
        report(error, tolerance, throw)
        return gradient

    @promoting
    def error(self) -> GradientError:
        """How right `gradient` is: the lag behind the period, and what a signal that turns both ways mixes in."""
        return _read(self.network, self.inputs, self.teaching, self.phasors)[1]

    @checked(time=both(as_times, as_real))
    def potentials_at(self, time: ArrayLike) -> Layers:
        """The potentials at a time in the cycle, complex, one (batch, ...) array per layer; `simulate` starts there."""
        turn = jnp.asarray(time) / self.teaching.period
        if turn.ndim:
            raise BadValue(f"time has shape {turn.shape}: use one number, and jax.vmap over several")
        return tuple(a[0] for a in at_times(self.harmonics, self.potentials, turn[None]))

    @checked(time=both(as_times, as_real))
    def activities_at(self, time: ArrayLike) -> Layers:
        """The activities at a time in the cycle, complex, one (batch, ...) array per layer."""
        return self.network.activities(self.potentials_at(time))

    def multipliers(self, *, integration: Integration | None = None) -> Complex[np.ndarray, "batch neurons"]:
        r"""The Floquet multipliers of each sample's orbit, the largest first: the orbit is stable if all are below 1.

        They are the eigenvalues of $\partial u(T)/\partial u(0)$: by these factors small displacements from the orbit
        grow in each period, so $\log|\mu|/T$ are the growth rates. Under a signal with positive frequencies only,
        below the convergence radius, they are $e^{\lambda_j T}$ with the modes $\lambda_j$ of the free state, at any
        amplitude: such a signal makes no stable state unstable. `Cosine` can.

        Those below about 1e-12 (1e-5 in float32) are rounding. The cost is that of one cycle for each neuron.

        Args:
            integration: how a cycle is integrated; by default by `diffrax.Dopri8()` in steps of a quarter of the
                network's fastest time constant.

        Raises:
            DivergenceError: the neurons left the orbit within one cycle: it is unstable, or was not found.
            ValueError: under jit, as eigenvalues are found outside.

        Example:
            >>> orbit = osc.periodic_orbit(net, x, y, osc.Rotating(0.2, 100.0))
            >>> print(np.all(np.abs(orbit.multipliers()) < 1))
            True
        """
        from oscsim.dynamics.floquet import multipliers

        if is_traced(self):
            raise BadValue("multipliers() under jax.jit or jax.vmap: call it outside")
        if integration is not None:
            require_integration(integration)
        return multipliers(self, integration)

    def to_xarray(self) -> "xarray.Dataset":
        """The harmonics as labelled arrays, as `Run.to_xarray` has them.

        `layer_1`, ...: activities, complex (harmonic, sample, neuron...); `potential_1`, ... likewise; `teaching` over
        `harmonic`; `residual` over `sample`.
        """
        import xarray

        variables: dict[str, tuple] = {"teaching": ("harmonic", np.asarray(jnp.stack(self.phasors.teaching)))}
        for number, (s, u) in enumerate(
            zip(zip(*self.phasors.activities, strict=True), self.potentials, strict=True), 1
        ):
            axes = ("harmonic", "sample", *neuron_axes(number, u.ndim - 2))
            variables[f"layer_{number}"] = (axes, np.stack(s))
            variables[f"potential_{number}"] = (axes, np.asarray(u))
        variables["residual"] = ("sample", np.asarray(self.residual))
        about = attributes(self.network, self.teaching)
        return xarray.Dataset(variables, coords={"harmonic": list(self.harmonics)}, attrs=about)

    def __repr__(self) -> str:
        if is_traced(self):
            return eqx.tree_pformat(self)
        worst, batch = float(jnp.max(self.residual)), len(self.residual)
        return (
            f"PeriodicOrbit of {batch} samples under {describe(self.teaching)}: harmonics {self.harmonics[0]} to "
            f"{self.harmonics[-1]} leave {100 * worst:.2g} % of the motion"
        )


@promoting
@checked(net=as_network, throw=as_flag)
def periodic_orbit(
    net: AbstractNetwork,
    x: Data,
    y: Data,
    teaching: AbstractTeaching,
    *,
    harmonics: int | None = None,
    tolerance: float | None = None,
    at: At = None,
    throw: bool = True,
) -> PeriodicOrbit:
    r"""The orbit on which a driven network ends, as harmonics, without stepping there.

    The harmonics of the potentials solve $(1 + in\omega\tau)\, u_n = \langle F(u(t), \beta(t))\, e^{-in\omega t}
    \rangle$. Under a signal with positive frequencies only, $u_0$ is the free state, and each harmonic follows from
    those below it: the linear system $(1 + in\omega\tau - \partial F/\partial u)\, u_n = \langle F(\sum_{m<n} u_m
    e^{im\omega t}, \beta)\, e^{-in\omega t} \rangle$ (see `Rotating`). Under any other signal they are found together
    (harmonic balance). An orbit at one free state is found; a network that has several has one at each, see `at`.

    Stability is not looked at. Under a signal with positive frequencies only, below the convergence radius, the orbit
    is as stable as its free state.

    Args:
        net: a holomorphic network, or a real signal.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        teaching: a periodic signal without plateaus.
        harmonics: how many to keep, $1 \le n \le$ `harmonics`, and those below zero where there are any; by default
            8, 32 or 128, the first that is enough.
        tolerance: what they may leave of the motion to be enough; by default 1e-10 in float64, 1e-5 in float32.
        at: the free state that is meant, an `Equilibrium`, potentials or a `Run`; by default the one that `settle`
            finds.
        throw: raise where no orbit is found; without it, look at `residual`.

    Raises:
        NotSettledError: the free network has no stable state; or no orbit was found: the harmonics leave more than a
            tenth of a sample's motion.
        NotHolomorphicError: a complex signal meets a network that declares itself non-holomorphic.
        ValueError: bad inputs; a period that the neurons cannot follow; a `Staircase`, whose steps have no convergent
            series.

    Source: Laborieux & Zenke (2022), section 4, for the dynamics.

    Example:
        >>> orbit = osc.periodic_orbit(net, x, y, osc.Cosine(0.2, 100.0))
        >>> orbit.harmonics[0], orbit.harmonics[-1], orbit.phasors[1][0].shape
        (-8, 8, (3, 5))
    """
    check_drive(net, teaching, lag_is_known=True)
    _require_smooth(teaching)
    inputs = Inputs.of(net, x, y)
    enough = as_positive("tolerance", _enough(net.dtype) if tolerance is None else tolerance)
    counts = COUNTS if harmonics is None else (as_count("harmonics", harmonics),)
    orbit = _first_that_is_enough(net, inputs, state_at(net, inputs, at).potentials, teaching, counts, enough)
    if throw and not is_traced(orbit):
        _require_found(orbit)
    return orbit


def watched(orbit: PeriodicOrbit, record: PerCycle) -> tuple[Watch, Watched]:
    """Which neurons a record keeps, and what it would hold of one cycle of this orbit."""
    net, batch = orbit.network, len(orbit.residual)
    watch = record.watch(net, batch)
    if watch is None:
        raise BadValue("record keeps no neurons: use PerCycle(neurons=8)")
    if watch.noise:
        raise BadValue("noise=True in the record: an orbit has none; leave it out")
    u = at_times(orbit.harmonics, orbit.potentials, jnp.arange(1, TICKS + 1) / TICKS)
    kept = jax.vmap(lambda u: watch.picked(net.activities(u)))(u)
    betas = jnp.roll(sampled(orbit.teaching, TICKS, net.dtype), -1, axis=0)
    betas = jnp.broadcast_to(betas.reshape(TICKS, -1), (TICKS, batch))[:, watch.samples]
    return watch, Watched(tuple(a[None] for a in kept), betas[None])


def locked_start(net: AbstractNetwork, inputs: Inputs, teaching: AbstractTeaching) -> Layers:
    """Where the neurons are on their orbit as a cycle begins, complex.

    Under jit, as in training, by the first eight harmonics; a sample without an orbit starts where it settles.

    Raises:
        NotSettledError: no free state, or no orbit, was found; not under jit.
        ValueError: a signal that moves in steps, or inputs that move within the cycle.
    """
    _require_smooth(teaching)
    if inputs.moving is not None:
        raise BadValue("start='locked' with inputs that move within the cycle: use 'settled', and discard cycles")
    free = settled_start(net, inputs)
    counts, enough = (COUNTS[0],) if is_traced(net, inputs, teaching) else COUNTS, _enough(net.dtype)
    orbit = _first_that_is_enough(net, inputs, free, teaching, counts, enough)
    if not is_traced(orbit):
        _require_found(orbit)
    locked = orbit.residual <= FOUND
    start = orbit.potentials_at(jnp.zeros((), net.dtype))
    return tuple(jnp.where(per_sample(locked, a), a, b) for a, b in zip(start, free, strict=True))


def _require_smooth(teaching: AbstractTeaching) -> None:
    if teaching.points is not None:
        raise BadValue(
            f"teaching={describe(teaching)} moves in steps, which no few harmonics follow: simulate it from rest or "
            "settled, or use a signal without plateaus"
        )


def _require_found(orbit: PeriodicOrbit) -> None:
    if bool(jnp.all(orbit.residual <= FOUND)):
        return
    sample = int(jnp.argmax(jnp.where(jnp.isnan(orbit.residual), jnp.inf, orbit.residual)))
    raise NotSettledError(
        f"no orbit was found for sample {sample} under {describe(orbit.teaching)}: harmonics up to "
        f"{orbit.harmonics[-1]} leave {100 * float(orbit.residual[sample]):.3g} % of its motion; the amplitude may be "
        "past the convergence radius (see suggest): lower it, or allow more harmonics"
    )


def _first_that_is_enough(
    net: AbstractNetwork,
    inputs: Inputs,
    free: Layers,
    teaching: AbstractTeaching,
    counts: tuple[int, ...],
    enough: ArrayLike,
) -> PeriodicOrbit:
    """The orbit with the first of these counts of harmonics that leaves next to nothing; the last one under jit."""
    for count in counts:
        orbit = _orbit(net, inputs, free, teaching, count)
        if is_traced(orbit):
            continue
        swing = sample_norm(tuple(jnp.moveaxis(a[1:], 1, 0) for a in orbit.potentials))
        rounded = ratio(ROUNDED * jnp.finfo(net.dtype).eps * sample_norm(free), swing)
        if bool(jnp.all(orbit.residual <= jnp.maximum(enough, rounded))):
            break
    return orbit


def _enough(dtype: np.dtype) -> float:
    return 1e-10 if dtype == np.float64 else 1e-5


def _orbit(net: AbstractNetwork, inputs: Inputs, free: Layers, teaching: AbstractTeaching, count: int) -> PeriodicOrbit:
    one_way = is_one_way(teaching, net.dtype)
    values, phasors, residual = _solved(net, inputs, free, teaching, count, one_way)
    return PeriodicOrbit(net, inputs, teaching, phasors.harmonics, values, phasors, residual)


@eqx.filter_jit
def _solved(
    net: AbstractNetwork, inputs: Inputs, free: Layers, teaching: AbstractTeaching, count: int, one_way: bool
) -> tuple[Layers, Phasors, Float[Array, " batch"]]:
    tolerance = max(default_tolerance(net.dtype) / 10, 4 * float(jnp.finfo(net.dtype).eps))
    if one_way:
        found = power_series(net, inputs, free, teaching, count, tolerance)
    else:
        found = balanced(net, inputs, free, teaching, count, tolerance, SWEEPS)
    points = 4 * count + 2
    along = at_times(found.numbers, found.values, jnp.arange(points) / points)
    activities = tuple(_coefficients(s, found.numbers) for s in jax.vmap(net.activities)(along))
    teachings = _coefficients(sampled(teaching, points, net.dtype), found.numbers)
    by_harmonic = [tuple(a[i] for a in activities) for i in range(len(found.numbers))]
    phasors = Phasors(tuple(by_harmonic), tuple(teachings), found.numbers)
    return found.values, phasors, found.residual


def _coefficients(along: Array, numbers: tuple[int, ...]) -> Complex[Array, "harmonics ..."]:
    """Those Fourier coefficients of a function sampled along the period."""
    return jnp.fft.fft(along, axis=0)[jnp.asarray(numbers)] / len(along)


@eqx.filter_jit
def _read(
    net: AbstractNetwork, inputs: Inputs, teaching: AbstractTeaching, phasors: Phasors
) -> tuple[Gradient, GradientError]:
    return solved_gradient_and_error(net, inputs, phasors, frequency(teaching, net.dtype))
