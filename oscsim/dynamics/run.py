"""`Run`, a finished simulation: what was read, how it went, and the gradient in it."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from oscsim.core import checkpoint
from oscsim.core.arrays import Count, describe, is_traced, norm, per_sample, promoting, ratio
from oscsim.core.checks import as_count, as_flag, as_index, checked, instance
from oscsim.core.errors import RESULTS, BadValue, NotHolomorphicError, NotSettledError
from oscsim.core.printing import AbstractPrinted
from oscsim.core.units import Units, as_units
from oscsim.dynamics.average import Average, accumulated
from oscsim.dynamics.cycle import Watch, Watched
from oscsim.dynamics.demodulation import Reading, require_whole
from oscsim.dynamics.equation import Effort
from oscsim.dynamics.error_bars import LOCKED, gradient_and_error, response_lag
from oscsim.dynamics.export import attributes, export, labelled, neuron_axes
from oscsim.dynamics.gradient import Phasors, require_turning
from oscsim.dynamics.gradient_error import TOLERANCE, GradientError, as_tolerance, report
from oscsim.dynamics.integration import Plan
from oscsim.dynamics.state import State, failure
from oscsim.dynamics.stopping import AbstractStop
from oscsim.dynamics.system import System
from oscsim.equilibrium import Equilibrium, exact_gradient, settle, state_at
from oscsim.equilibrium.linear import held_potentials
from oscsim.equilibrium.metrics import apart, cosine, per_layer, relative_error
from oscsim.equilibrium.vectors import is_dense
from oscsim.networks.base import AbstractNetwork, Layers, in_short, time_unit
from oscsim.networks.inputs import Data, Inputs, Stream
from oscsim.networks.learned import Gradient, parameters
from oscsim.signals.teaching import AbstractTeaching

if TYPE_CHECKING:
    import xarray


class Run(AbstractPrinted):
    """What `simulate` returns.

    Attributes:
        system: what was run: network, teaching signal, noises, and the plan of how it was integrated and read.
        stream: what it was shown.
        first_cycle: number of the first cycle in `phasors`; above 0 where an earlier run was continued.
        phasors: the readings, with a leading axis over cycles: `run.phasors[1]` is $c_1$, (cycles, batch, neurons) per
            layer. After `record=Mean()` a single one, the mean. `Points` after a `Staircase`.
        lock_residual: relative change of the reading in each cycle; 1 in the first.
        effort: accepted and rejected solver steps of each cycle.
        watched: samples of neurons, (cycles, ticks, samples, neurons) per layer: of the last cycle, or of all.
        watch: which neurons and samples those are.
        state: where it ended; `simulate(..., start=run)` goes on from there.
        average: after `record=Mean()`, the mean and what is known of its error; else None.
        change: how much each sample's response changed in the last cycle, relative to it; infinite after a single one,
            nan after a `Staircase`, whose points tell of none.
        until: the rule by which it might have stopped early, if there was one.
        seconds: wall time, compilation included.

    Example:
        >>> run.cycles, run.phasors[1][0].shape  # (cycles, batch, neurons)
        (3, (3, 3, 5))
        >>> print(f"{run.compare().cosine:.2f}")  # to the exact gradient
        1.00
    """

    system: System
    stream: Stream
    first_cycle: int = eqx.field(static=True)
    phasors: Reading
    lock_residual: Float[Array | np.ndarray, " cycles"]
    effort: Effort
    watched: Watched | None
    watch: Watch | None
    state: State
    average: Average | None
    change: Float[Array | np.ndarray, " batch"]
    until: AbstractStop | None
    seconds: float

    @property
    def network(self) -> AbstractNetwork:
        """The neurons."""
        return self.system.network

    @property
    def teaching(self) -> AbstractTeaching:
        """The signal."""
        return self.system.teaching

    @property
    def plan(self) -> Plan:
        """How it was integrated and read, with every default filled in."""
        return self.system.plan

    @property
    def x(self) -> Data:
        """Inputs, or a function of the cycle's number."""
        return self.stream.x

    @property
    def y(self) -> Data:
        """Targets, or a function of the cycle's number."""
        return self.stream.y

    @property
    def cycles(self) -> int:
        """How many cycles were run."""
        return len(self.lock_residual)

    @property
    def diverged(self) -> bool:
        """Whether the last cycle failed: the neurons ran away, or the solver gave up (with `throw=False`)."""
        return bool(self.state.diverged)

    @property
    def result(self) -> RESULTS:
        """`RESULTS.successful`, or what went wrong: the neurons diverged, or what spoils the gradient most."""
        if bool(self.state.exhausted):
            return RESULTS.max_steps_reached
        return RESULTS.diverged if self.diverged else self.error().result

    @property
    def locked(self) -> bool:
        """Whether the reading changed by less than 1 % in the last cycle, so that an orbit is a closed curve."""
        return bool(self.lock_residual[-1] < LOCKED)

    @property
    def inputs(self) -> Inputs:
        """What the network was shown; with data that change from cycle to cycle, in the last cycle."""
        return self.inputs_in(self.first_cycle + self.cycles - 1)

    def inputs_in(self, cycle: int) -> Inputs:
        """What the network was shown in the cycle of that number."""
        cycle = cycle if is_traced(cycle) else as_index("cycle", cycle)
        return self.stream.at(self.network, cycle)

    @promoting
    @checked(cumulative=as_flag, tolerance=as_tolerance, throw=as_flag)
    def gradient(
        self,
        discard: int | None = None,
        cumulative: bool = False,
        *,
        tolerance: float = TOLERANCE,
        throw: bool = False,
    ) -> Gradient:
        """The gradient of the mean loss, from the readings averaged over the cycles after the first `discard`.

        With data that change from cycle to cycle, the mean of each cycle's own gradient instead.

        Args:
            discard: how many cycles at the start to leave out; by default those before the network locked, which
                `discarded` counts.
            cumulative: a leading axis of running results, after 1, 2, ... of the kept cycles.
            tolerance: where the error of the result, `error(discard).total`, is larger, there is a warning that says
                why and what to do. Not with `cumulative`.
            throw: raise an error instead.

        Raises:
            ValueError: `discard` is negative or leaves no cycle; the signal does not turn, so there is no gradient.
            InexactGradientError: with `throw`, the error is above the tolerance.
        """
        readings = self._kept(discard)
        if cumulative:
            if self.changing:
                return _cumulative_means(jax.tree.map(lambda *a: jnp.stack(a), *(g for g, _ in self._each(readings))))
            return _gradients(self.network, self.inputs, _cumulative_means(readings))
        gradient, error = self._estimated(discard, in_full=False)
        report(error, tolerance, throw)
        return gradient

    @promoting
    def error(self, discard: int | None = None) -> GradientError:
        """How right `gradient(discard)` is, by the run's own measure (see `GradientError`).

        The lag is computed from the linear response at the run's own state where that is known, else it is estimated
        from the quadrature. With two cycles or more, `deviation` is the standard deviation of each parameter.

        Raises:
            ValueError: as `gradient`.
        """
        return self._estimated(discard)[1]

    def discarded(self, discard: int | None = None) -> int:
        """How many cycles at the start `gradient(discard)` leaves out."""
        if discard is not None:
            return as_count("discard", discard, 0)
        if self.average is not None:
            return int(np.max(self.average.skipped))
        cut_off = self.plan.demodulator.cut_off(self.first_cycle)
        if self.changing or self._recorded - cut_off < 2 or is_traced(self.phasors):
            return min(cut_off, self._recorded - 1)
        average = _average(jax.tree.map(lambda a: a[cut_off:], self.phasors), self._changes()[cut_off:], None)
        return cut_off + int(np.max(average.skipped))

    @property
    def changing(self) -> bool:
        """Whether inputs or targets change from cycle to cycle."""
        return self.stream.changing

    @property
    def _recorded(self) -> int:
        return jax.tree.leaves(self.phasors)[0].shape[0]

    def _changes(self) -> Array | np.ndarray:
        """The lock residual of the recorded cycles."""
        return self.lock_residual[-self._recorded :]

    def _kept(self, discard: int | None) -> Reading:
        """The readings that count, or an error that says why there are none."""
        kept = self._recorded
        if discard is not None and as_count("discard", discard, 0) >= kept:
            raise BadValue(f"discard={discard}: {kept} cycle(s) were recorded, use 0 to {kept - 1}")
        first = 0 if self.average is not None else self.discarded(discard)
        if kept == self.cycles and self.average is None:  # of a mean `simulate` has seen to it
            require_whole(self.plan.demodulator, first, self.first_cycle)
        readings = jax.tree.map(lambda a: jnp.asarray(a[first:]), self.phasors)
        require_turning(self.teaching, readings)
        return readings

    def _each(self, readings: Reading) -> list[tuple[Gradient, GradientError]]:
        """Gradient and error of each reading on its own, with the inputs of its cycle."""
        count = jax.tree.leaves(readings)[0].shape[0]
        first = self.first_cycle + self.cycles - count
        alone = jnp.full(len(self.change), jnp.nan, self.network.dtype)
        return [
            _gradient_and_error(
                self.system,
                self.inputs_in(first + i),
                _average(jax.tree.map(lambda a, i=i: a[i : i + 1], readings), np.zeros(1), 0),
                alone,
            )
            for i in range(count)
        ]

    def _estimated(self, discard: int | None, in_full: bool = True) -> tuple[Gradient, GradientError]:
        """Gradient and error over the cycles that count; in full with the lag of the response, and each deviation."""
        readings = self._kept(discard)
        if self.changing:
            return combined(self._each(readings))
        average, count = self.average, jax.tree.leaves(readings)[0].shape[0]
        if average is None:
            # Traced, the cycles before the lock cannot be counted beforehand: the average starts anew after them.
            unknown = discard is None and is_traced(readings)
            average = _average(readings, self._changes()[-count:], None if unknown else 0)
            average = eqx.tree_at(lambda a: a.skipped, average, average.skipped + self._recorded - count)
        lag = self._lag(average) if in_full and isinstance(average.mean, Phasors) else None
        change = jnp.asarray(self.change, self.network.dtype)
        gradient, error = _gradient_and_error(self.system, self.inputs, average, change, lag)
        if in_full and self.average is None and count > 1 and self.plan.demodulator.independent:
            deviation = _deviation(self.network, self.inputs, readings)
            error = eqx.tree_at(lambda e: e.deviation, error, deviation, is_leaf=lambda a: a is None)
        return gradient, error

    def _lag(self, average: Average) -> Gradient | None:
        """What the finite period does to the gradient, by the linear response at the run's own state, if known."""
        if is_traced(average) or (average.mean.has_image and not bool(average.mean.one_way)):
            return None
        if not is_dense(self.network):
            return None  # the quadrature will do: a linear solve per sample would take as long as the run
        try:
            found = self.equilibrium
        except (NotSettledError, NotHolomorphicError):
            return None
        return response_lag(self.network, self.inputs, found.potentials, 2 * jnp.pi / self.teaching.period)

    @property
    def equilibrium(self) -> Equilibrium:
        r"""The free equilibrium that the neurons rest in, from the run's own mean activities.

        Raises:
            NotSettledError: left to themselves they would come to rest nowhere.
        """
        kept = jax.tree.map(lambda a: jnp.asarray(a[-1]), self.phasors.mean)
        return resting_state(self.network, self.inputs, kept)

    @promoting
    def exact(self) -> Gradient:
        """The exact gradient at the state that the neurons rest in.

        Raises:
            NotSettledError: they rest in none.
        """
        return exact_gradient(self.network, self.inputs.x, self.inputs.y, at=self.equilibrium)

    @promoting
    def compare(self, discard: int | None = None) -> "Comparison":
        """The gradient beside the exact one at the run's own state, and beside its own error bar.

        Raises:
            NotSettledError: the neurons rest in no free equilibrium.
            ValueError: as `gradient`.
        """
        gradient, error = self._estimated(discard)
        exact = self.exact()
        return Comparison(
            float(cosine(gradient, exact)),
            float(relative_error(gradient, exact)),
            {name: float(value) for name, value in per_layer(relative_error, gradient, exact).items()},
            error,
        )

    def elsewhere(self) -> tuple[int, ...]:
        """The samples that rest in another state than settling from rest finds.

        Raises:
            NotSettledError: the neurons rest in no free equilibrium, or the free network has none.
        """
        inputs = self.inputs
        own, found = self.equilibrium, settle(self.network, inputs.x, inputs.y)
        return tuple(int(i) for i in apart(own.activities, found.activities))

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
        s = jax.tree.map(lambda a: jnp.asarray(a[-1]), self.phasors.mean)
        held = self.network.activities(held_potentials(self.network, self.inputs, s))
        return max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(held, s, strict=True))

    @property
    def time(self) -> np.ndarray:
        """The times of what was watched, at the end of each tick, from the start of the first cycle on."""
        cycles, ticks = self.watched.teaching.shape[:2] if self.watched is not None else (0, self.plan.ticks)
        first = self.first_cycle + self.cycles - cycles
        return float(self.teaching.period) * (first + (1 + np.arange(cycles * ticks)) / ticks)

    @checked(units=as_units)
    def to_xarray(self, units: Units | None = None) -> "xarray.Dataset":
        """The readings as labelled arrays: one variable per layer, with its dimensions, and the settings as attributes.

        `layer_1`, ...: complex (cycle, harmonic, sample, neuron...), or (cycle, point, sample, neuron...) after a
        `Staircase`; `teaching` likewise; `lock_residual`, `accepted_steps`, `rejected_steps` over `cycle_run`. What was
        watched: `activity_1`, ..., and `potential_1`, `noise_1`, ... where asked for: complex (time, watched_sample,
        watched_neuron_1), and `signal`, (time, watched_sample). Times, potentials and signals are labelled with
        the units in `units`; without it times are in `"tau"` where all time constants are 1, else in `"time_constant"`,
        the unit that these were given in.
        """
        import xarray

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
        teaching = np.asarray(teaching)
        own = ("sample",) if teaching.ndim > 2 else ()  # an amplitude for each sample
        variables: dict[str, tuple] = {"teaching": (("cycle", axis, *own), teaching)}
        for number, layer in enumerate(layers, start=1):
            axes = ("cycle", axis, "sample", *neuron_axes(number, layer.ndim - 3))
            variables[f"layer_{number}"] = (axes, np.asarray(layer))
        variables["lock_residual"] = ("cycle_run", self.lock_residual)
        variables["accepted_steps"] = ("cycle_run", self.effort.accepted)
        variables["rejected_steps"] = ("cycle_run", self.effort.rejected)
        traces, places = self._traces()
        found = xarray.Dataset(
            variables | traces,
            coords={"cycle": kept, "cycle_run": numbers, axis: labels} | places,
            attrs=attributes(self.network, self.teaching)
            | {"noise": describe(self.system.noises), "plan": describe(self.plan), "seconds": self.seconds},
        )
        return found if units is None else labelled(found, units)

    def _traces(self) -> tuple[dict[str, tuple], dict[str, tuple]]:
        """What was watched as variables of a data set, and their coordinates."""
        watched, watch = self.watched, self.watch
        if watched is None or watch is None:
            return {}, {}
        places: dict[str, tuple] = {
            "time": ("time", self.time, {"units": time_unit(self.network.time_constants)}),
            "watched_sample": ("watched_sample", np.asarray(watch.samples)),
        }
        found: dict[str, tuple] = {"signal": (("time", "watched_sample"), _flattened(watched.teaching))}
        kinds = {"activity": watched.activities, "potential": watched.potentials, "noise": watched.noise}
        for name, layers in kinds.items():
            for number, (layer, neurons) in enumerate(zip(layers or (), watch.neurons, strict=False), start=1):
                if len(neurons):
                    axis = f"watched_neuron_{number}"
                    places[axis] = (axis, np.asarray(neurons))
                    found[f"{name}_{number}"] = (("time", "watched_sample", axis), _flattened(layer))
        return found, places

    def save(self, path: str | Path) -> Path:
        """Write the run to one file, complete or not at all; `Run.load` reads it back.

        Raises:
            ValueError: something in it cannot be written, such as a lambda; the message names it.
            OSError: the folder cannot be written.
        """
        return checkpoint.save(self, path)

    @checked(units=as_units)
    def export(self, path: str | Path, units: Units | None = None) -> Path:
        """Write the readings for other programs, complete or not at all; the ending of the path decides how.

        - `.nc`: `to_xarray()` as netCDF 3, complex variables in two, `layer_1_real` and `layer_1_imag`.
        - `.zarr`: `to_xarray()` as a Zarr group, complex numbers as they are.
        - `.csv`: a row for each reading of a neuron: layer, cycle, harmonic or point, sample, neuron, `real`, `imag`.
        - `.mat`: the variables of `to_xarray()` for MATLAB, with the dimensions of each as text, and the settings as a
          structure.

        What is at the path is replaced; a Zarr group is not. `units` names the units, as for `to_xarray`.

        Raises:
            ValueError: another ending; a Zarr group where there is something already.
            OSError: the folder cannot be written.

        Example:
            >>> run.export("run.nc").name
            'run.nc'
        """
        return export(self.to_xarray(units), path)

    @staticmethod
    def load(path: str | Path) -> "Run":
        """Read a run that `save` wrote.

        Raises:
            ValueError: the file is truncated, or is not a saved run.
        """
        return checkpoint.load(path, expect=Run)

    def __repr__(self) -> str:
        """What was run and how it went, from what is known already; `print(run)` asks how right it is, too."""
        return "\n".join(self._facts())

    def __str__(self) -> str:
        first, *facts = self._facts(f", mean loss {float(self.loss):.4g}")
        return "\n".join([first, *(f"  {line}" for line in self.verdict), *facts])

    def _facts(self, loss: str = "") -> list[str]:
        steps = int(np.sum(self.effort.accepted))
        rejected = int(np.sum(self.effort.rejected))
        batch = self.state.potentials[0].shape[0]
        lock = float(self.lock_residual[-1])
        how = f"{steps} steps of {type(self.plan.solver).__name__}"
        return [
            f"Run of {self.cycles} cycles" + (f" (from cycle {self.first_cycle + 1})" if self.first_cycle else ""),
            f"  network   {in_short(self.network)}",
            f"  inputs    {batch} samples{loss}",
            f"  teaching  {describe(self.teaching)}",
            *([f"  noise     {describe(self.system.noises)}"] if self.system.noises else []),
            f"  effort    {how}, {rejected} rejected, {self.plan.ticks} ticks a cycle, {self.seconds:.2g} s",
            f"  lock      residual {lock:.2g} in the last cycle",
        ]

    @property
    def verdict(self) -> tuple[str, ...]:
        """How right the gradient is, why not, and which state it belongs to: a sentence each."""
        if bool(self.state.exhausted):
            return (f"NOT INTEGRATED: {failure(self.system, self.state)}",)
        if self.diverged:
            return (f"DIVERGED in cycle {int(self.state.cycle) + 1}: there is no gradient",)
        try:
            error = self.error()
        except ValueError as refused:  # a signal that does not turn
            return (f"no gradient: {refused}",)
        found = [str(error)]
        left_out = self.discarded()
        if left_out:
            found.append(f"{left_out} of {self.cycles} cycles left out: the network had not locked")
        if self.until is not None:
            found.append(self.until.verdict(float(error.total), float(self.lock_residual[-1]), self.cycles))
        try:
            elsewhere = self.elsewhere()
        except NotSettledError:
            found.append("its mean is no free equilibrium: not locked, or past the convergence radius")
        else:
            if elsewhere:
                found.append(
                    f"{_listed_samples(elsewhere)} in another state than settling from rest finds: compare with "
                    "run.exact(), which is taken there"
                )
        return tuple(found)


RUN = instance(Run, "use what simulate returned")
"""The kind of arguments that are runs."""


def _flattened(samples: Array | np.ndarray) -> np.ndarray:
    """(cycles, ticks, ...) as (time, ...)."""
    return np.asarray(samples).reshape(-1, *samples.shape[2:])


def resting_state(network: AbstractNetwork, inputs: Inputs, mean: Layers) -> Equilibrium:
    """The free equilibrium of neurons whose mean activities were read: the one there, or where they would come to rest.

    Raises:
        NotSettledError: they would come to rest nowhere.
    """
    u = held_potentials(network, inputs, mean)
    try:
        return state_at(network, inputs, u)
    except NotSettledError:
        return settle(network, inputs.x, inputs.y, start=u, method="flow")


class Comparison(NamedTuple):
    """A gradient beside the exact one at the same state.

    Attributes:
        cosine: between the two.
        relative_error: the norm of the difference over that of the exact one.
        per_array: the same for each array of parameters, by name.
        error: what the estimate says of itself.
    """

    cosine: float
    relative_error: float
    per_array: dict[str, float]
    error: GradientError

    def __str__(self) -> str:
        bar = float(self.error.total)
        return f"cosine {self.cosine:.6f}, relative error {self.relative_error:.2g}, by its own measure {bar:.2g}"


def _listed_samples(numbers: tuple[int, ...]) -> str:
    """`sample 3 rests`, or `samples 1, 2 and 5 more rest`."""
    if len(numbers) == 1:
        return f"sample {numbers[0]} rests"
    shown = ", ".join(map(str, numbers[:3]))
    return f"samples {shown}{f' and {len(numbers) - 3} more' if len(numbers) > 3 else ''} rest"


def combined(each: list[tuple[Gradient, GradientError]]) -> tuple[Gradient, GradientError]:
    """The mean of gradients of different inputs, and its error: contaminations are independent, all else adds up."""
    gradient = jax.tree.map(lambda *a: jnp.mean(jnp.stack(a), axis=0), *(g for g, _ in each))
    weights = ratio(jnp.stack([norm(g) for g, _ in each]), norm(gradient)) / len(each)
    errors = jax.tree.map(lambda *a: jnp.stack(a), *(e for _, e in each))
    last = each[-1][1]
    spread = jnp.sqrt(jnp.sum((weights * errors.contamination) ** 2))
    rest = (jnp.sum(weights * part) for part in (errors.lag, errors.steps, errors.asymmetry))
    image = jnp.max(errors.per_sample, axis=0)
    return gradient, eqx.tree_at(
        lambda e: (e.contamination, e.lag, e.steps, e.asymmetry, e.per_sample), last, (spread, *rest, image)
    )


@eqx.filter_jit
def _average(readings: Reading, changes: ArrayLike, discard: Count | int | None) -> Average:
    """The average of readings, (cycles, ...)."""
    empty = Average.empty(jax.tree.map(lambda a: a[0], readings))

    def one(average, numbered):
        age, reading, change = numbered
        change = jnp.asarray(change, average.quality.dtype)
        return accumulated(average, reading, change, age, discard), None

    count = len(jax.tree.leaves(readings)[0])
    return jax.lax.scan(one, empty, (jnp.arange(count), readings, jnp.asarray(changes)))[0]


_gradient_and_error = eqx.filter_jit(gradient_and_error)
"""`gradient_and_error`, compiled."""


@eqx.filter_jit
def _deviation(network: AbstractNetwork, inputs: Inputs, readings: Reading) -> Gradient:
    r"""$\sqrt{\sum_m (g_m - \bar g)^2 / (M (M - 1))}$ of the gradients in the $M$ readings, one at a time."""
    count = len(jax.tree.leaves(readings)[0])
    nothing = jax.tree.map(jnp.zeros_like, parameters(network))

    def add(carry, numbered):
        mean, squares = carry
        number, reading = numbered
        gradient = reading.gradient(network, inputs)
        new = jax.tree.map(lambda m, g: m + (g - m) / (number + 1), mean, gradient)
        squares = jax.tree.map(lambda s, m, n, g: s + (g - m) * (g - n), squares, mean, new, gradient)
        return (new, squares), None

    _, squares = jax.lax.scan(add, (nothing, nothing), (jnp.arange(count), readings))[0]
    return jax.tree.map(lambda s: jnp.sqrt(jnp.maximum(s, 0) / (count * (count - 1))), squares)


def _cumulative_means(tree: PyTree) -> Gradient:
    """The mean of the first 1, 2, ... entries along the leading axis."""
    return jax.tree.map(
        lambda a: jnp.cumsum(a, axis=0) / per_sample(jnp.arange(1, len(a) + 1, dtype=a.real.dtype), a), tree
    )


@eqx.filter_jit
def _gradients(network: AbstractNetwork, inputs: Inputs, readings: Reading) -> Gradient:
    """The gradient in each of many readings, one at a time: memory as for one."""
    return jax.lax.map(lambda reading: reading.gradient(network, inputs), readings)
