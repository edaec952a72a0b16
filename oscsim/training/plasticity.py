r"""Learning without a demodulator: the weights are part of the equation, and they average because they are slow.

$\tau \dot u = -u + \frac{\partial\Phi}{\partial s}$, $\dot\theta = -\eta\, \mathrm{Re}\big[e^{-i\omega t}
(-\frac{\partial\Phi}{\partial\theta}(t)) / a_1\big]$: each synapse multiplies its own product by the turning reference
and follows it. Over a cycle that moves it by $-\eta T$ times the gradient of the mean loss, to second order in $\eta$.
It holds while time scales stay apart, which `check_time_scales` looks at.
"""

import math
import time

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from oscsim.core.arrays import Count, describe, norm, promoting
from oscsim.core.checks import (
    as_count,
    as_flag,
    as_pair,
    both,
    checked,
    positive,
    untraced,
)
from oscsim.core.errors import BadValue
from oscsim.core.printing import AbstractPrinted
from oscsim.core.progress import Progress
from oscsim.dynamics.integration import Integration
from oscsim.dynamics.plastic import advance_plastic
from oscsim.dynamics.simulation import Start, check_lasts, starting_state
from oscsim.dynamics.state import State, failure
from oscsim.dynamics.system import System
from oscsim.networks.base import AbstractNetwork, as_network, in_short
from oscsim.networks.inputs import Data, Stream
from oscsim.networks.learned import split_parameters
from oscsim.response.time_scales import TimeScales, time_scales_of, warn_of
from oscsim.signals.drive import turning_coefficient
from oscsim.signals.teaching import AbstractAdaptive, AbstractTeaching

CHUNK = 256
"""Cycles per device call, at most: one compilation serves every number of them."""

LONGEST_LOOK = 64
"""How many cycles of changing data are looked at to see how long an input stays."""


class Learned(AbstractPrinted):
    r"""What `learn` returns.

    Attributes:
        network: with its parameters after the last cycle.
        system: how it learned: the signal, and how it was integrated; with the parameters that it began with.
        rate: $\eta$.
        first_cycle: number of the first cycle; above 0 where an earlier state was continued.
        loss: of each cycle, the mean cost at that cycle's mean activities, with the weights it began with.
        drift: of each cycle, how far the weights moved from its beginning to its end, as a norm over all parameters.
        state: where it ended; `learn(learned.network, ..., start=learned)` goes on from there.
        time_scales: as at the start; None with `throw=False`.
        seconds: wall time, compilation included.

    Example:
        >>> learned = osc.learn(net, (x, y), osc.Rotating(0.2, 100.0), rate=1e-4, cycles=3)
        >>> learned.cycles, learned.loss.shape, learned.network.weights[0].shape
        (3, (3,), (5, 6))
    """

    network: AbstractNetwork
    rate: Float[Array, ""]
    system: System
    first_cycle: int = eqx.field(static=True)
    loss: Float[np.ndarray, " cycles"]
    drift: Float[np.ndarray, " cycles"]
    state: State
    time_scales: TimeScales | None
    seconds: float

    @property
    def cycles(self) -> int:
        """How many cycles were run."""
        return len(self.loss)

    @property
    def diverged(self) -> bool:
        """Whether neurons or weights ran away in the last cycle (with `throw=False`; otherwise an error was raised)."""
        return bool(self.state.diverged)

    def __str__(self) -> str:
        part = max(1, self.cycles // 10)  # single cycles differ by their inputs
        change = " -> ".join(f"{np.mean(self.loss[some]):.4g}" for some in (slice(part), slice(-part, None)))
        moved = " -> ".join(f"{np.mean(self.drift[some]):.2g}" for some in (slice(part), slice(-part, None)))
        continued = f" (from cycle {self.first_cycle + 1})" if self.first_cycle else ""
        plan = self.system.plan
        lines = [
            f"Learned in {self.cycles} cycles{continued}" + (", DIVERGED" if self.diverged else ""),
            f"  network   {in_short(self.network)}",
            f"  teaching  {describe(self.system.teaching)}, rate {float(self.rate):.4g}",
            f"  loss      {change} (means of the first and the last {part})",
            f"  drift     {moved} a cycle",
            f"  effort    {type(plan.solver).__name__}, {plan.ticks} ticks a cycle, {self.seconds:.2g} s",
        ]
        return "\n".join(lines)


@promoting
@checked(
    net=both(as_network, untraced),
    data=both(as_pair, untraced),
    teaching=untraced,
    rate=untraced,
    start=untraced,
    progress=as_flag,
    throw=as_flag,
)
def learn(
    net: AbstractNetwork,
    data: tuple[Data, Data],
    teaching: AbstractTeaching,
    *,
    rate: ArrayLike,
    cycles: int,
    integration: Integration = Integration(),  # noqa: B008
    start: "Start | Learned" = "rest",
    progress: bool | None = None,
    throw: bool = True,
) -> Learned:
    r"""Let a network learn by itself: neurons and weights in one equation, no demodulator and no phases.

    $$\tau \dot u = -u + \frac{\partial\Phi}{\partial s}(\sigma(u), \beta(t)), \qquad
    \dot\theta = -\eta\, \mathrm{Re}\Big[e^{-i\omega t} \Big(-\frac{\partial\Phi}{\partial\theta}(t)\Big) / a_1\Big]$$

    with $\omega = 2\pi/T$, $a_1$ the signal's first Fourier coefficient, and the mean over the batch. Each synapse sees
    what is at its place and at this moment. Over a cycle of a locked response the weights move by $-\eta T$ times the
    gradient that `LockIn` reads at this period, up to $O(\eta^2)$; most of that is the answer of the neurons to the
    weights' own swing, about $\eta\tau/(4 |a_1|^2)\, \nabla |\partial\Phi/\partial\theta|^2$ of additional gradient. So
    a large amplitude and a short period allow a fast rate (see `check_time_scales`).

    A change of inputs sets off a transient, which moves weights by about $\eta \tau_s \Delta / |a_1|$, with $\Delta$
    the change of $\partial\Phi/\partial\theta$, once per input. A signal that starts a quarter of a turn ahead,
    `phase=pi/2`, takes this away up to a factor of $\omega\tau_s$: inputs then change where the reference is zero. What
    is left, of the response's own transient, is worth some $\tau_s$ of gradient at any amplitude.

    Compiled once per network shape and settings; another rate or number of cycles does not compile again. Memory does
    not grow with the cycles but for `loss` and `drift`.

    Args:
        net: the neurons, with the weights to start from.
        data: inputs and targets, `(x, y)`: (batch, ...), and (batch,) labels or (batch, classes); either may be a
            function from the cycle's index (a traced integer) to such.
        teaching: the signal, e.g. `Rotating(amplitude=0.5, period=50.0)`.
        rate: $\eta > 0$, per gradient and time.
        cycles: how many periods to integrate.
        integration: solver, steps and ticks; at the ticks activities are sampled for `loss`, and no synapse sees them.
        start: `"rest"`, `"settled"` (the free equilibrium), an earlier `Learned`, or a `Run` (a response that has
            locked already teaches from the first cycle on), or the `state` of either. Their weights are not taken.
        progress: show a progress bar; by default at a terminal and in notebooks.
        throw: warn where time scales are too close for learning, as `check_time_scales` does with the first input, and
            raise where something diverges; without it `learned.diverged` says so, and the loss of that cycle is nan.

    Raises:
        DivergenceError: neurons or weights ran away; names the cycle, the layer, the signal and the rate.
        MaxStepsError: the signal is too slow, or some neurons too fast, for the solver's steps.
        NotHolomorphicError: a complex signal meets a network that declares itself non-holomorphic.
        NotSettledError: the free network has no stable state (with `throw`, or `start="settled"`).
        ValueError: a rate that is not positive, a signal that does not turn, bad inputs, counts that do not fit.
        TypeError: objects of the wrong kind.

    Source: Laborieux & Zenke (2022), section 4, with the demodulation left to the slowness of the weights.

    Example:
        >>> learned = osc.learn(net, (x, y), osc.Rotating(0.2, 100.0), rate=1e-4, cycles=3)
        >>> on = osc.learn(learned.network, (x, y), osc.Rotating(0.2, 100.0), rate=1e-4, cycles=3, start=learned)
        >>> on.first_cycle, bool(on.loss[-1] < learned.loss[0])
        (3, True)
    """
    cycles = as_count("cycles", cycles)
    rate_now = positive("rate")(rate)
    if isinstance(teaching, AbstractAdaptive):
        raise BadValue(
            f"teaching={describe(teaching)}: weights in the equation follow one signal of fixed amplitude, without "
            "images to tune it by; use Rotating"
        )
    system = System.of(net, teaching, None, integration)
    turning_coefficient(teaching, net.dtype)
    state, stream = starting_state(system, *data, start.state if isinstance(start, Learned) else start)
    first = int(state.cycle)
    check_lasts(system, stream, first, cycles)
    scales = None
    if throw:
        shown = stream.at(net, state.cycle)
        lasting = _cycles_per_input(net, stream, first, cycles)
        scales = time_scales_of(net, shown, teaching, lasting, float(rate_now), False)
        warn_of(scales)

    began = time.perf_counter()
    losses, drifts, done = [], [], 0
    with Progress(cycles, "cycle", shown=progress) as bar:
        while done < cycles and not bool(state.diverged):
            most = np.int32(min(CHUNK, cycles - done))
            with bar.compiling("a cycle"):
                state, net, loss, drift, count = _learn_chunk(system, state, net, stream, rate_now, most)
                done += int(count)
                bar.update(done)
            losses.append(np.asarray(loss)[: int(count)])
            drifts.append(np.asarray(drift)[: int(count)])
    if throw and bool(state.diverged):
        error = failure(system, state)
        raise type(error)(f"{error}; or lower rate={float(rate_now):.3g}")
    return Learned(
        network=net,
        system=system,
        rate=rate_now,
        first_cycle=first,
        loss=np.concatenate(losses),
        drift=np.concatenate(drifts),
        state=state,
        time_scales=scales,
        seconds=time.perf_counter() - began,
    )


@eqx.filter_jit
def _learn_chunk(
    system: System, state: State, net: AbstractNetwork, stream: Stream, rate: Array, most: Count
) -> tuple[State, AbstractNetwork, Array, Array, Array]:
    """Up to `most` cycles, fewer if something diverges; losses and drifts in buffers, of which `count` are filled."""
    learned, fixed = split_parameters(net)

    def one(carry):
        state, learned, losses, drifts, i = carry
        net = eqx.combine(learned, fixed)
        shown = stream.at(net, state.cycle)
        state, moved, reading = advance_plastic(system.with_network(net), state, shown, rate)
        loss = jnp.mean(net.loss(net.clamped(shown.x), reading.mean, shown.y))
        losses, drifts = losses.at[i].set(loss), drifts.at[i].set(norm(moved).astype(drifts.dtype))
        return state, eqx.apply_updates(learned, moved), losses, drifts, i + 1

    def running(carry):
        state, *_, i = carry
        return (i < most) & ~state.diverged

    empty = jnp.zeros(CHUNK, net.dtype)
    start = (state, learned, empty, empty, jnp.zeros((), jnp.int32))
    state, learned, losses, drifts, count = lax.while_loop(running, one, start)
    return state, eqx.combine(learned, fixed), losses, drifts, count


def _cycles_per_input(net: AbstractNetwork, stream: Stream, first: int, cycles: int) -> float:
    """For how many cycles the data of cycle `first` stay what they are; infinite if that is to the end of the run."""
    if not stream.changing:
        return math.inf

    def shown(cycle):
        inputs = stream.at(net, jnp.asarray(cycle, jnp.int32))
        return np.asarray(inputs.x), np.asarray(inputs.y)

    def change(steps, after):
        return next((n for n in steps if not all(map(np.array_equal, now, shown(n)))), after)

    now = shown(first)
    end = change(range(first + 1, min(first + cycles, first + LONGEST_LOOK)), math.inf)
    start = change(range(first - 1, max(-1, first - LONGEST_LOOK), -1), -1)
    return float(end - start - 1)
