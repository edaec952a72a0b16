"""`simulate`: drives a network over many cycles and returns a `Run`."""

import math
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from oscsim.core.arrays import Count, complex_of, describe, is_traced, promoting
from oscsim.core.checks import as_count, as_flag, as_native, as_path, checked, require_instance
from oscsim.core.errors import BadValue
from oscsim.core.progress import Progress
from oscsim.dynamics.cycle import Cycle, Watch, Watched
from oscsim.dynamics.cycles import Averaged
from oscsim.dynamics.demodulation import AbstractDemodulator, Reading, require_whole
from oscsim.dynamics.equation import Effort
from oscsim.dynamics.integration import Integration
from oscsim.dynamics.orbit import locked_start
from oscsim.dynamics.record import AbstractRecord, PerCycle, SampleFiles, Samples, announce, require_room
from oscsim.dynamics.run import Run
from oscsim.dynamics.state import State, begin, begin_compiled, begin_noise, failure
from oscsim.dynamics.step_error import check_steps
from oscsim.dynamics.stopping import AbstractStop, Accuracy
from oscsim.dynamics.system import System
from oscsim.equilibrium import Equilibrium, free_equilibrium
from oscsim.equilibrium.states import check_start
from oscsim.networks.base import AbstractNetwork, Layers, as_network
from oscsim.networks.holomorphy import check_unseen
from oscsim.networks.inputs import Data, Stream
from oscsim.signals.noise import AbstractNoise, require_noise_key
from oscsim.signals.teaching import AbstractTeaching

Start = str | Equilibrium | Layers | State | Run
"""Where neurons start: `"rest"`, `"settled"`, `"locked"`, a state, potentials, or an earlier run."""


@promoting
@checked(net=as_network, progress=as_flag, throw=as_flag)
def simulate(
    net: AbstractNetwork,
    x: Data,
    y: Data,
    teaching: AbstractTeaching,
    *,
    cycles: int,
    noise: AbstractNoise | tuple[AbstractNoise, ...] | None = None,
    demodulator: AbstractDemodulator | None = None,
    integration: Integration = Integration(),  # noqa: B008
    record: AbstractRecord = PerCycle(),  # noqa: B008
    start: Start = "rest",
    until: float | AbstractStop | None = None,
    progress: bool | None = None,
    throw: bool = True,
    key: Key[Array, ""] | None = None,
) -> Run:
    r"""Drive a network of coupled ODE neurons with a teaching signal, and read its activities while it turns.

    Traced by jax (`jax.vmap` over amplitudes, `jax.grad`, `jax.jit`) it is pure: all cycles are run, nothing is raised
    for what they hold, and the arrays of the run are traced. The integration's `adjoint` says which derivatives there
    are.

    Integrates $\tau \dot u = -u + \frac{\partial\Phi}{\partial s}(\sigma(u), \beta(t))$ cycle after cycle. Compiled
    once per network shape and settings; another number of cycles, amplitude or period does not compile again.

    Args:
        net: the neurons.
        x: inputs (batch, ...); a function from the number of the cycle to such, where they change from cycle to cycle;
            or `Moving(function)` and `TimeSeries(values, interval)`, where they move within the cycle.
        y: targets, (batch,) labels or (batch, classes), or a function of the cycle's index.
        teaching: the signal, e.g. `Rotating(amplitude=0.4, period=200.0)`.
        cycles: how many periods to integrate.
        noise: what disturbs the neurons, such as `WhiteNoise(0.1)`, or a tuple of noises; needs a key.
        demodulator: how coefficients are read; by default `Plateaus()` for a `Staircase`, `Boxcar()` for others.
        integration: solver, steps and ticks.
        record: `PerCycle(...)`, or `Mean(discard)` for long runs in constant memory.
        start: `"rest"`, `"settled"` (the free equilibrium), `"locked"` (on the orbit of the network without noise, so
            that nothing is discarded), an `Equilibrium` or potentials, or an earlier `Run` or its `state` to go on
            from.
        until: stop early, `cycles` being the most: once the gradient's own error bar, `run.error().total`, is below a
            number, `until=0.01`; or by a rule, such as `Locked(1e-6)`.
        progress: show a progress bar; by default at a terminal and in notebooks.
        throw: raise where the neurons diverge; without it `run.diverged` says so, and the readings of that cycle are
            nan.
        key: for the noise. The same key on going on from an earlier run continues its noise as if it had not stopped.

    Raises:
        DivergenceError: the neurons ran away; names the cycle, the layer and the amplitude.
        MaxStepsError: the signal is too slow, or some neurons too fast, for the solver's steps.
        NotHolomorphicError: a complex signal meets a network that declares itself non-holomorphic.
        NotSettledError: `start="settled"` or `"locked"` and there is no such state, or no orbit.
        ValueError: bad inputs, a period that the neurons cannot follow, counts that do not fit.
        TypeError: objects of the wrong kind.

    Source: Laborieux & Zenke (2022).

    Example:
        >>> run = osc.simulate(net, x, y, osc.Rotating(amplitude=0.2, period=100.0), cycles=3)
        >>> print(f"{osc.cosine(run.gradient(), osc.exact_gradient(net, x, y)):.2f}")
        1.00
    """
    cycles, until = as_count("cycles", cycles), as_stop(until)
    system = System.of(net, teaching, noise, integration, demodulator)
    require_noise_key(system.noises, key)
    state, stream = starting_state(system, x, y, start, key)
    first = _first_cycle(start, state)
    _check_record(record, cycles, until, stream.changing)
    check_lasts(system, stream, first, cycles)
    if jnp.iscomplexobj(jax.eval_shape(teaching, jnp.zeros((), net.dtype))):
        check_unseen(net, lambda: stream.at(net, jnp.asarray(first)))
    discard = _discarded(system, record, first)
    watch = record.watch(net, len(state.potentials[0]))
    kept, folder = cycles if record.every_cycle else 1, record.folder and as_path("folder", record.folder)
    announce(watch, kept, system.plan.ticks, np.dtype(complex_of(net.dtype)).itemsize, folder)
    if record.every_reading:
        require_room(cycles, state.reading)
    averages = not record.every_reading or (until is not None and until.averages)

    began, found = time.perf_counter(), Averaged.begin(system, state, averages)
    fixed = _Fixed(system, stream, record.every_reading, record.every_cycle, watch, discard)
    if is_traced(system, found, stream, key):
        _require_fixed(until, progress, record)
        found, recorded = _run_traced(fixed, found, cycles, key=key)
    else:

        def run_chunk(found, most):
            return _run_chunk(fixed, found, until, most, key=key)

        samples = Samples(record.every_cycle) if folder is None else SampleFiles(folder)
        found, recorded = _run_all(run_chunk, found, samples, record.every_cycle, cycles, progress)
        if throw and bool(found.state.diverged):
            raise failure(system, found.state)
        if throw:
            check_steps(system, lambda: stream.at(net, found.state.cycle - 1), found.state.reading.mean)
    readings, residual, effort, watched = recorded
    average = None if record.every_reading else found.average
    on_host = jnp if is_traced(found) else np
    if average is not None:
        readings = jax.tree.map(lambda a: on_host.asarray(a)[None], average.mean)
    return Run(
        system=system,
        stream=stream,
        first_cycle=first,
        phasors=readings,
        lock_residual=residual,
        effort=effort,
        watched=watched,
        watch=watch,
        state=found.state,
        average=average,
        change=on_host.asarray(found.change),
        until=until,
        seconds=time.perf_counter() - began,
    )


def _first_cycle(start: Start, state: State) -> int:
    """The number of the first cycle, which cannot be looked at where the state is traced."""
    if not is_traced(state.cycle):
        return int(state.cycle)
    match start:
        case Run():
            return start.first_cycle + start.cycles
        case State():
            raise BadValue("start is a traced State, whose cycle is not known: use advance, or start from a Run")
    return 0


def _require_fixed(until: AbstractStop | None, progress: bool | None, record: AbstractRecord) -> None:
    """Refuse what is decided cycle by cycle where everything is traced."""
    if until is not None:
        raise BadValue(
            f"until={describe(until)} under a transformation of jax, where all runs take the same cycles: leave it "
            "out, or call simulate once for each setting"
        )
    if progress:
        raise BadValue("progress=True under a transformation of jax, which runs later and elsewhere: leave it out")
    if record.folder is not None:
        raise BadValue(f"folder={record.folder} under a transformation of jax, which writes no files: leave it out")


class _Fixed(eqx.Module):
    """What stays the same from cycle to cycle of a run."""

    system: System
    stream: Stream
    every_reading: bool = eqx.field(static=True)
    every_cycle: bool = eqx.field(static=True)
    watch: Watch | None
    discard: Count | None

    def advance(self, found: Averaged, key: Key[Array, ""] | None) -> tuple[Averaged, Cycle]:
        """One more cycle."""
        number = found.state.cycle
        inputs = self.stream.at(self.system.network, number)
        return found.advance(self.system, inputs, key, self.discard, number == 0, self.watch)


def _run_traced(fixed: _Fixed, found: Averaged, cycles: int, *, key: Key[Array, ""] | None) -> tuple[Averaged, tuple]:
    """So many cycles as one pure scan, with derivatives, and what is recorded of them."""

    @jax.checkpoint
    def one(found, _):
        found, cycle = fixed.advance(found, key)
        reading = cycle.reading if fixed.every_reading else None
        return found, (reading, found.residual, cycle.effort, cycle.watched)

    found, (*rest, watched) = lax.scan(one, found, length=cycles)
    return found, (*rest, watched if fixed.every_cycle else jax.tree.map(lambda a: a[-1:], watched))


def _run_all(
    run_chunk: Callable[[Averaged, np.int32], "_Chunk"],
    found: Averaged,
    samples: Samples | SampleFiles,
    every_cycle: bool,
    cycles: int,
    progress: bool | None,
) -> tuple[Averaged, tuple]:
    """Chunk after chunk until all cycles are done, or a rule ends them, and what is recorded of them."""
    chunks, done = [], 0
    with Progress(cycles, "cycle", shown=progress) as bar:
        request = 1 if bar.watched else cycles
        while done < cycles:
            chunk_began = time.perf_counter()
            with bar.compiling("a cycle"):
                chunk = run_chunk(found, np.int32(min(request, cycles - done)))
                count = int(chunk.count)
                found, done = chunk.found, done + count
                bar.update(done)
            *rest, watched = _to_host(chunk, every_cycle)
            chunks.append(rest)
            samples.add(watched)
            if bool(chunk.finished):
                break
            if bar.watched:  # so that the bar moves every quarter of a second
                request = max(1, math.ceil(count * 0.25 / (time.perf_counter() - chunk_began)))
    return found, (*jax.tree.map(lambda *a: np.concatenate(a), *chunks), samples.read())


def as_stop(until: float | AbstractStop | None) -> AbstractStop | None:
    """A rule that ends a run, from one, from an accuracy, or from nothing."""
    return until if until is None or isinstance(until, AbstractStop) else Accuracy(until)


def _check_record(record: AbstractRecord, cycles: int, until: AbstractStop | None, changing: bool) -> None:
    """Refuse what a record or a rule cannot do with these cycles and inputs."""
    require_instance("record", record, AbstractRecord, "use PerCycle() or Mean()")
    if record.folder is not None and not record.every_cycle:
        raise BadValue(f"folder={record.folder} is for samples of every cycle: give every_cycle=True, or leave it out")
    if (record.discard or 0) >= cycles:
        raise BadValue(f"record=Mean(discard={record.discard}) leaves nothing of {cycles} cycles: discard fewer")
    averaging = until is not None and until.averages
    if changing and (averaging or not record.every_reading):
        what = "until averages" if averaging else "record=Mean() averages"
        raise BadValue(f"{what} readings, which inputs that change with the cycle forbid: use PerCycle(), and no until")


def check_lasts(system: System, stream: Stream, first: int, cycles: int) -> None:
    """Refuse more cycles than what is recorded, inputs or noise, lasts for."""
    stream.check_lasts(first, cycles)
    period = system.teaching.period
    if not is_traced(period):
        for noise in system.noises:
            noise.check_lasts(first + cycles, float(period))


def _discarded(system: System, record: AbstractRecord, first: int) -> np.int32 | None:
    """How many cycles do not enter the average, if that is known beforehand."""
    cut_off = system.plan.demodulator.cut_off(first)
    if record.discard is not None:
        require_whole(system.plan.demodulator, record.discard, first)
        return np.int32(record.discard)
    return np.int32(cut_off) if cut_off else None


class _Chunk(eqx.Module):
    """Some cycles of a run, in buffers of fixed length; the first `count` entries are filled."""

    found: Averaged
    readings: Reading | None
    lock_residual: Float[Array, " length"]
    effort: Effort
    watched: Watched | None
    count: Int[Array, ""]
    finished: Bool[Array, ""]


@eqx.filter_jit
def _run_chunk(
    fixed: _Fixed, found: Averaged, until: AbstractStop | None, most: Count, *, key: Key[Array, ""] | None
) -> _Chunk:
    """Up to `most` cycles, fewer if they may stop or diverge; one compilation serves every number of cycles."""
    every_reading, every_cycle = fixed.every_reading, fixed.every_cycle

    def buffer(a, many=True):
        return jnp.zeros((length, *a.shape) if many else a.shape, a.dtype)

    _, cycle = jax.eval_shape(lambda found: fixed.advance(found, key), found)
    kept = (cycle.reading if every_reading else None, cycle.watched if every_cycle else None)
    length = _buffer_length(kept)
    empty = _Chunk(
        found=found,
        readings=jax.tree.map(buffer, cycle.reading) if every_reading else None,
        lock_residual=buffer(found.residual),
        effort=jax.tree.map(buffer, cycle.effort),
        watched=jax.tree.map(lambda a: buffer(a, every_cycle), cycle.watched),
        count=jnp.zeros((), jnp.int32),
        finished=jnp.zeros((), bool),
    )

    def running(chunk):
        return (chunk.count < jnp.minimum(most, length)) & ~chunk.finished

    def run_one(chunk):
        def put(kept, new):
            return jax.tree.map(lambda a, b: a.at[chunk.count].set(b), kept, new)

        found, cycle = fixed.advance(chunk.found, key)
        finished = found.state.diverged
        if until is not None:
            shown = fixed.stream.at(fixed.system.network, chunk.found.state.cycle)
            discard = np.int32(0) if fixed.discard is None else fixed.discard
            finished |= until.reached(fixed.system, shown, found, discard)
        return _Chunk(
            found=found,
            readings=put(chunk.readings, cycle.reading) if every_reading else None,
            lock_residual=put(chunk.lock_residual, found.residual),
            effort=put(chunk.effort, cycle.effort),
            watched=put(chunk.watched, cycle.watched) if every_cycle else cycle.watched,
            count=chunk.count + 1,
            finished=finished,
        )

    return lax.while_loop(running, run_one, empty)


def _buffer_length(kept: PyTree) -> int:
    """How many cycles a chunk holds: 2 MB (larger buffers take time to fill) and 64 at most; 256 of scalars alone."""
    size = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(kept))
    return max(1, min(64, 2**21 // size)) if size else 256


def starting_state(
    system: System, x: Data, y: Data, start: Start, key: Key[Array, ""] | None = None
) -> tuple[State, Stream]:
    """The first state, and what is shown from there on."""
    net = system.network
    earlier = start.state if isinstance(start, Run) else start if isinstance(start, State) else None
    number = jnp.zeros((), jnp.int32) if earlier is None else earlier.cycle
    stream = Stream.of(net, x, y, system.teaching.period, number)
    inputs = stream.at(net, number)
    if earlier is not None:
        fresh = jax.eval_shape(lambda: begin(system, inputs, key=key))
        if _layout(earlier.noise) != _layout(fresh.noise):  # another noise than before starts afresh
            disturbed = begin_noise(system.noises, key, earlier.potentials)
            earlier = eqx.tree_at(lambda s: s.noise, earlier, disturbed, is_leaf=lambda a: a is None)
        if _layout(earlier) != _layout(fresh):
            raise BadValue(
                "start is a state of another network, batch or demodulator: continue with the same ones, or start from "
                "'rest' or 'settled'"
            )
        if not is_traced(earlier.diverged) and bool(earlier.diverged):
            raise BadValue("start is a state that diverged: start from 'rest' with a lower amplitude")
        return earlier, stream
    name = start if isinstance(start, str) else None  # an array is not to be compared with a name
    if name == "rest":
        return begin_compiled(system, inputs, key=key), stream
    if name == "locked":
        on_orbit = locked_start(net, inputs, system.teaching)
        return begin_compiled(system, inputs, key=key, start=on_orbit), stream
    potentials = free_equilibrium(net, inputs).potentials if name == "settled" else start
    potentials = potentials.potentials if isinstance(potentials, Equilibrium) else potentials
    if not isinstance(potentials, tuple):
        given = f"start={start!r}" if isinstance(start, str | None) else f"start is of type {type(start).__name__}"
        raise BadValue(
            f"{given}: use 'rest', 'settled', 'locked', an Equilibrium, or an earlier Run or its state; or potentials, "
            "a tuple with one array per layer"
        )
    potentials = as_native("start", potentials)
    check_start(net, inputs, potentials)
    own = tuple(jnp.asarray(a, complex_of(net.dtype)) for a in potentials)
    return begin_compiled(system, inputs, key=key, start=own), stream


def _layout(tree: PyTree) -> tuple:
    """Structure, shapes and types of a pytree."""
    return jax.tree.structure(tree), [(a.shape, a.dtype) for a in jax.tree.leaves(tree)]


def _to_host(chunk: _Chunk, every_cycle: bool) -> tuple:
    """The filled part of a chunk as numpy arrays, so that the device holds one chunk at a time."""
    filled = slice(int(chunk.count))
    cut = jax.tree.map(lambda a: np.asarray(a)[filled].copy(), (chunk.readings, chunk.lock_residual, chunk.effort))
    return *cut, jax.tree.map(lambda a: np.asarray(a)[filled if every_cycle else None].copy(), chunk.watched)
