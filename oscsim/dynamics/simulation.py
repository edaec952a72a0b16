"""Many cycles, one after another: `simulate` drives a network and returns a `Run`."""

import math
import time
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Key

from oscsim.core.arrays import complex_of
from oscsim.core.checks import as_count, require_positive
from oscsim.core.errors import DivergenceError
from oscsim.core.progress import interactive, tqdm
from oscsim.dynamics.average import Average, accumulated, response_change
from oscsim.dynamics.cycle import advance_watching
from oscsim.dynamics.demodulation import AbstractDemodulator, Reading, require_whole
from oscsim.dynamics.error_bars import check_steps, good_enough, gradient_and_error
from oscsim.dynamics.plan import Cycle, Plan, as_plan
from oscsim.dynamics.run import Run
from oscsim.dynamics.state import Effort, State, Watched, begin, begin_noise, divergence, first_state
from oscsim.equilibrium import Equilibrium, free_equilibrium
from oscsim.equilibrium.states import check_start
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.holomorphy import check_unseen
from oscsim.networks.inputs import Inputs, as_inputs, as_targets, clamped
from oscsim.signals.drive import check_drive
from oscsim.signals.noise import as_noises, require_noise_key


class PerCycle(eqx.Module):
    """Keep the reading of every cycle, and samples of a few neurons for the plots.

    Attributes:
        neurons: how many neurons of the first input are sampled at every tick, spread over the layers; 0 for none.
        every_cycle: keep the samples of every cycle; by default only those of the last one.

    Raises:
        ValueError: a negative number of neurons.
    """

    neurons: int = eqx.field(static=True, default=8)
    every_cycle: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        as_count("neurons", self.neurons, 0)


class Mean(eqx.Module):
    """Keep the mean reading alone: memory does not grow with the number of cycles.

    Attributes:
        discard: how many cycles at the start do not enter the mean; by default it starts anew at the first locked one.

    Raises:
        ValueError: a negative number of cycles.
    """

    discard: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.discard is not None:
            as_count("discard", self.discard, 0)


def simulate(
    net: AbstractNetwork,
    x: Any,
    y: Any,
    teaching: Any,
    *,
    cycles: int,
    noise: Any = None,
    demodulator: AbstractDemodulator | None = None,
    ticks: int | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    steps_per_cycle: int | None = None,
    record: PerCycle | Mean = PerCycle(),  # noqa: B008
    start: Any = "rest",
    tolerance: float | None = None,
    until: float | None = None,
    progress: bool | None = None,
    check: bool = True,
    key: Key[Array, ""] | None = None,
) -> Run:
    r"""Drive a network of coupled ODE neurons with a teaching signal, and read its activities while it turns.

    Integrates $\tau \dot u = -u + \frac{\partial\Phi}{\partial s}(\sigma(u), \beta(t))$ cycle after cycle. Compiled
    once per network shape and settings; another number of cycles, amplitude or period does not compile again.

    Args:
        net: the neurons.
        x: inputs (batch, ...), or a function from the cycle's index (a traced integer) to such.
        y: targets, (batch,) labels or (batch, classes), or a function of the cycle's index.
        teaching: the signal, e.g. `Rotating(amplitude=0.4, period=200.0)`.
        cycles: how many periods to integrate.
        noise: what disturbs the neurons, such as `WhiteNoise(0.1)`, or a tuple of noises; needs a key.
        demodulator: how coefficients are read; by default `Plateaus()` for a `Staircase`, `Boxcar()` for others.
        ticks: how often per cycle they are read (see `Cycle`).
        solver: an explicit diffrax solver; by default `diffrax.Tsit5()`, under noise `diffrax.Heun()`.
        stepsize_controller: a diffrax controller for adaptive steps (see `Cycle`).
        steps_per_cycle: so many equal steps instead; under noise always, by default of half a time constant or finer.
        record: `PerCycle(...)`, or `Mean(discard)` for long runs in constant memory.
        start: `"rest"`, `"settled"` (the free equilibrium), an `Equilibrium` or potentials, or an earlier `Run` or its
            `state` to go on from.
        tolerance: stop early once the lock residual (relative change of the reading from cycle to cycle) is below.
        until: stop early once the gradient's own error bar, `run.error().total`, is below; `cycles` is then the most.
        progress: show a progress bar; by default at a terminal and in notebooks.
        check: raise where the neurons diverge; without it `run.diverged` says so, and the readings of that cycle are
            nan.
        key: for the noise. The same key on going on from an earlier run continues its noise as if it had not stopped.

    Raises:
        DivergenceError: the neurons ran away; names the cycle, the layer and the amplitude.
        NotHolomorphicError: a complex signal meets a network that declares itself non-holomorphic.
        NotSettledError: `start="settled"` and there is no such state.
        ValueError: bad inputs, a period that the neurons cannot follow, counts that do not fit.
        TypeError: objects of the wrong kind.

    Source: Laborieux & Zenke (2022).
    """
    cycles = as_count("cycles", cycles)
    if not isinstance(record, (PerCycle, Mean)):
        raise TypeError(f"record={record!r}: use PerCycle() or Mean()")
    if tolerance is not None:
        require_positive("tolerance", tolerance)
    if until is not None:
        require_positive("until", until)
    require_noise_key(as_noises(noise), key)
    if isinstance(record, Mean) and (record.discard or 0) >= cycles:
        raise ValueError(f"record=Mean(discard={record.discard}) leaves nothing of {cycles} cycles: discard fewer")
    if (isinstance(record, Mean) or until is not None) and (callable(x) or callable(y)):
        what = "until averages" if until is not None else "record=Mean() averages"
        raise ValueError(
            f"{what} readings, which inputs that change with the cycle forbid: use PerCycle(), and no until"
        )
    check_drive(net, teaching)
    plan = as_plan(Cycle(solver, stepsize_controller, steps_per_cycle, ticks, demodulator), teaching, net, noise)
    state, x, y = starting_state(net, x, y, teaching, plan, start, noise, key)
    first = int(state.cycle)
    if jnp.iscomplexobj(jax.eval_shape(teaching, jnp.zeros((), net.dtype))):
        check_unseen(net, lambda: presenter(net, (x, y))(jnp.asarray(first)))
    discard = record.discard if isinstance(record, Mean) else None
    cut_off = max(0, plan.demodulator.warm_up - first)
    if isinstance(record, Mean) and discard is not None:
        require_whole(plan.demodulator, discard, first)
    elif cut_off:
        discard = cut_off
    watch = _spread(net, record.neurons) if isinstance(record, PerCycle) and record.neurons else None

    began = time.perf_counter()
    average = Average.empty(state.reading) if isinstance(record, Mean) or until is not None else None
    change = jnp.full(state.potentials[0].shape[0], jnp.inf, net.dtype)
    chunks = []
    watching = interactive() if progress is None else progress
    with tqdm(total=cycles, unit="cycle", disable=not watching) as bar:
        done, request = 0, 1 if watching else cycles
        while done < cycles:
            chunk_began = time.perf_counter()
            chunk = _run_chunk(
                state,
                net,
                (x, y),
                teaching,
                noise,
                key,
                plan,
                watch,
                isinstance(record, PerCycle) and record.every_cycle,
                isinstance(record, PerCycle),
                average,
                change,
                np.int32(first),
                None if discard is None else np.int32(discard),
                np.int32(min(request, cycles - done)),
                np.asarray(-1.0 if tolerance is None else tolerance),
                None if until is None else np.asarray(until, net.dtype),
            )
            state, average, change, done = chunk.state, chunk.average, chunk.change, done + int(chunk.count)
            chunks.append(_to_host(chunk, record))
            bar.update(int(chunk.count))
            if bool(chunk.finished):
                break
            if watching:  # so that the bar moves every quarter of a second
                elapsed = time.perf_counter() - chunk_began
                request = max(1, math.ceil(int(chunk.count) * 0.25 / elapsed))
    if check and bool(state.diverged):
        raise DivergenceError(divergence(net, teaching, state))
    if check and not bool(state.diverged):
        check_steps(net, lambda: presenter(net, (x, y))(state.cycle - 1), state.reading.mean, teaching, plan)
    readings, residual, effort, watched = _joined(chunks, record)
    if isinstance(record, Mean) and average is not None:
        readings = jax.tree.map(lambda a: np.asarray(a)[None], average.mean)
    return Run(
        network=net,
        x=x,
        y=y,
        teaching=teaching,
        noise=noise,
        plan=plan,
        first_cycle=first,
        phasors=readings,
        lock_residual=residual,
        effort=effort,
        watched=watched,
        watched_neurons=watch,
        state=state,
        average=average if isinstance(record, Mean) else None,
        change=np.asarray(change),
        until=until,
        seconds=time.perf_counter() - began,
    )


class _Chunk(eqx.Module):
    """Some cycles of a run, in buffers of fixed length; the first `count` entries are filled."""

    state: State
    average: Average | None
    change: Array
    readings: Reading | None
    lock_residual: Array
    effort: Effort
    watched: Watched | None
    count: Array
    finished: Array


@eqx.filter_jit
def _run_chunk(
    state: State,
    net: AbstractNetwork,
    data: tuple[Any, Any],
    teaching: Any,
    noise: Any,
    key: Key[Array, ""] | None,
    plan: Plan,
    watch: tuple[Any, ...] | None,
    every_cycle: bool,
    per_cycle: bool,
    average: Average | None,
    change: Array,
    first: Any,
    discard: Any,
    most: Any,
    tolerance: Any,
    until: Any,
) -> _Chunk:
    """Up to `most` cycles, fewer if the neurons lock or diverge; one compilation serves every number of cycles."""
    length = _buffer_length(state.reading) if per_cycle else MEAN_BUFFER
    present = presenter(net, data)

    def one(state):
        inputs = present(state.cycle)
        new, reading, watched, effort = advance_watching(state, net, inputs, teaching, key, plan, watch, noise)
        return new, reading, watched, effort, reading.change(state.reading)

    def buffer(a, many=True):
        return jnp.zeros((length, *a.shape) if many else a.shape, a.dtype)

    _, reading, watched, effort, residual = jax.eval_shape(one, state)
    empty = _Chunk(
        state=state,
        average=average,
        change=change,
        readings=jax.tree.map(buffer, reading) if per_cycle else None,
        lock_residual=buffer(residual),
        effort=jax.tree.map(buffer, effort),
        watched=jax.tree.map(lambda a: buffer(a, every_cycle), watched),
        count=jnp.zeros((), jnp.int32),
        finished=jnp.zeros((), bool),
    )

    def running(chunk):
        return (chunk.count < jnp.minimum(most, length)) & ~chunk.finished

    def run_one(chunk):
        i, number = chunk.count, chunk.state.cycle
        state, reading, watched, effort, residual = one(chunk.state)
        age = number - first if chunk.state.tuning is None else chunk.state.tuning.age
        change = response_change(reading, chunk.state.reading, number)
        average = None if chunk.average is None else accumulated(chunk.average, reading, residual, age, discard)

        def put(kept, new):
            return jax.tree.map(lambda a, b: a.at[i].set(b), kept, new)

        finished = (residual <= tolerance) & (number > first + (0 if discard is None else discard))
        if until is not None and average is not None:
            inputs = present(number)
            error = gradient_and_error(net, inputs, average, change, teaching, plan, noise)[1]
            finished |= good_enough(error, until)
        return _Chunk(
            state=state,
            average=average,
            change=change,
            readings=put(chunk.readings, reading) if per_cycle else None,
            lock_residual=put(chunk.lock_residual, residual),
            effort=put(chunk.effort, effort),
            watched=put(chunk.watched, watched) if every_cycle else watched,
            count=i + 1,
            finished=state.diverged | finished,
        )

    return lax.while_loop(running, run_one, empty)


MEAN_BUFFER = 256
"""Cycles per chunk where only scalars are kept for each."""


def _buffer_length(reading: Reading) -> int:
    """How many cycles a chunk holds: readings of 2 MB in all (larger buffers take time to fill), 64 cycles at most."""
    size = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(reading))
    return max(1, min(64, 2**21 // max(size, 1)))


def presenter(net: AbstractNetwork, data: tuple[Any, Any]) -> Callable[[Array], Inputs]:
    """From the cycle's index to its inputs; what does not change in time is clamped once."""
    x, y = data
    if not callable(x) and not callable(y):
        inputs = Inputs(x, y, clamped(net, x))
        return lambda cycle: inputs

    def present(cycle):
        x_now = as_inputs(net, x(cycle)) if callable(x) else x
        y_now = as_targets(net, y(cycle)) if callable(y) else y
        return Inputs(x_now, y_now, clamped(net, x_now))

    return present


def starting_state(
    net: AbstractNetwork,
    x: Any,
    y: Any,
    teaching: Any,
    plan: Plan,
    start: Any,
    noise: Any = None,
    key: Any = None,
) -> tuple[State, Any, Any]:
    """The first state, and the data in the network's precision (functions of the cycle stay functions)."""
    earlier = start.state if isinstance(start, Run) else start if isinstance(start, State) else None
    number = jnp.zeros((), jnp.int32) if earlier is None else earlier.cycle
    inputs = Inputs.of(net, x(number) if callable(x) else x, y(number) if callable(y) else y)
    x, y = x if callable(x) else inputs.x, y if callable(y) else inputs.y
    if earlier is not None:
        fresh = jax.eval_shape(lambda: begin(net, inputs, teaching, cycle=plan, noise=noise, key=key))
        if _layout(earlier.noise) != _layout(fresh.noise):  # another noise than before starts afresh
            disturbed = begin_noise(as_noises(noise), key, earlier.potentials)
            earlier = eqx.tree_at(lambda s: s.noise, earlier, disturbed, is_leaf=lambda a: a is None)
        if _layout(earlier) != _layout(fresh):
            raise ValueError(
                "start is a state of another network, batch or demodulator: continue with the same ones, or start from "
                "'rest' or 'settled'"
            )
        if bool(earlier.diverged):
            raise ValueError("start is a state that diverged: start from 'rest' with a lower amplitude")
        return earlier, x, y
    potentials = start.potentials if isinstance(start, Equilibrium) else start
    if isinstance(potentials, tuple):
        check_start(net, inputs, potentials)
        own = tuple(jnp.asarray(a, complex_of(net.dtype)) for a in potentials)
        return first_state(net, inputs, teaching, cycle=plan, potentials=own, noise=noise, key=key), x, y
    if start == "rest":
        return first_state(net, inputs, teaching, cycle=plan, noise=noise, key=key), x, y
    if start == "settled":
        free = free_equilibrium(net, inputs)
        state = first_state(net, inputs, teaching, cycle=plan, potentials=free.potentials, noise=noise, key=key)
        return state, x, y
    raise ValueError(f"start={start!r}: use 'rest', 'settled', an Equilibrium, or an earlier Run or its state")


def _layout(tree: Any) -> tuple:
    """Structure, shapes and types of a pytree."""
    return jax.tree.structure(tree), [(a.shape, a.dtype) for a in jax.tree.leaves(tree)]


def _to_host(chunk: _Chunk, record: PerCycle | Mean) -> tuple:
    """The filled part of a chunk as numpy arrays, so that the device holds one chunk at a time."""
    filled = slice(int(chunk.count))
    cut = jax.tree.map(lambda a: np.asarray(a)[filled].copy(), (chunk.readings, chunk.lock_residual, chunk.effort))
    every_cycle = isinstance(record, PerCycle) and record.every_cycle
    return *cut, jax.tree.map(lambda a: np.asarray(a)[filled if every_cycle else None].copy(), chunk.watched)


def _joined(chunks: list[tuple], record: PerCycle | Mean) -> tuple:
    """All chunks end to end; of the samples the last cycle alone, unless every cycle's are kept."""
    readings, residual, effort, watched = jax.tree.map(lambda *a: np.concatenate(a), *chunks)
    if isinstance(record, Mean) or not record.every_cycle:
        watched = jax.tree.map(lambda a: a[-1:], watched)
    return readings, residual, effort, watched


def _spread(net: AbstractNetwork, neurons: int) -> tuple[np.ndarray, ...]:
    """Flat indices of the watched neurons in each layer, spread evenly over layers and within them."""
    sizes = [math.prod(shape) for shape in net.shapes]
    share = [len(part) for part in np.array_split(np.arange(min(neurons, sum(sizes))), len(sizes))]
    return tuple(
        np.unique(np.linspace(0, size - 1, min(n, size)).round().astype(int))
        for size, n in zip(sizes, share, strict=True)
    )
