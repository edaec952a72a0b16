"""Suggested settings: amplitude, period and discard that suit a network."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from oscsim.core.checks import as_share, checked, untraced
from oscsim.core.errors import BadValue, warn
from oscsim.core.printing import AbstractPrinted
from oscsim.equilibrium import Equilibrium, default_tolerance, is_settled
from oscsim.equilibrium.corrected import require_frozen
from oscsim.equilibrium.linear import free_state
from oscsim.equilibrium.modes import slowest_time
from oscsim.equilibrium.stable_states import distinct, from_random_starts
from oscsim.equilibrium.states import At
from oscsim.equilibrium.vectors import flatten_samples
from oscsim.networks.base import AbstractNetwork, slowest_neuron
from oscsim.networks.inputs import Data, Inputs
from oscsim.response.amplitude import SAFE, optimal_amplitude
from oscsim.response.bias import relative_bias
from oscsim.response.radius import fitted_radius, scale_of
from oscsim.signals.noise import AbstractForcing
from oscsim.signals.teaching import Rotating


class Suggestion(AbstractPrinted):
    """Settings that `suggest` found for a network; `simulate(net, x, y, suggestion.teaching, ...)`.

    Attributes:
        amplitude: 0.4 of the convergence radius, and at most what moves an activity by about 1; under noise, that of
            `optimal_amplitude`.
        period: long enough for a lag of about a percent in the gradient, in units of time; 50 tau at least.
        discard: cycles until the start from rest is forgotten to 1e-4, or to a tenth of the accuracy.
        slowest_time: the time constant of the network's slowest mode.
        radius: estimate of the convergence radius in the complex plane of beta.
        cycles: how many to keep, after those that are discarded; None where no accuracy was asked for.
        error: the relative error of the gradient that theory predicts for these settings; None likewise.
        limit: what stands in the way of fewer cycles or shorter periods, a sentence; empty likewise.

    Example:
        >>> suggestion = osc.suggest(net, x, y)
        >>> suggestion.amplitude < suggestion.radius, suggestion.period > 6.28 * suggestion.slowest_time
        (True, True)
    """

    amplitude: float
    period: float
    discard: int
    slowest_time: float
    radius: float
    cycles: int | None = None
    error: float | None = None
    limit: str = ""

    @property
    def teaching(self) -> Rotating:
        """The suggested signal."""
        return Rotating(self.amplitude, self.period)

    def __str__(self) -> str:
        told = (
            f"amplitude={self.amplitude:.2g} (convergence radius about {self.radius:.2g}), period={self.period:.4g} "
            f"(slowest mode {self.slowest_time:.3g}), discard={self.discard}"
        )
        if self.cycles is None:
            return told
        return f"{told}, cycles={self.cycles} to keep: relative error {self.error:.2g}; {self.limit}"


@checked(net=untraced, x=untraced, y=untraced, noise=untraced, at=untraced)
def suggest(
    net: AbstractNetwork,
    x: Data,
    y: Data,
    *,
    bias: float = 0.01,
    accuracy: float | None = None,
    noise: AbstractForcing | None = None,
    at: At = None,
) -> Suggestion:
    r"""Amplitude, period and cycles to discard for this network on these data.

    The slowest mode, with time constant $\tau_s$, is found by power iteration on the linearised free equilibrium; the
    period is $2\pi\tau_s / \sqrt{\text{bias}}$, since the lag costs $O((\omega\tau_s)^2)$. The radius comes from the
    decay of the Fourier coefficients of settled points, $|c_n| \sim n^{-3/2} (A/R)^n$.

    With an `accuracy` they are such that the relative error of the gradient is that small by theory, and `limit` says
    what stands in the way of less effort: the bias is that of `predict_bias`, which falls as $T^{-2}$; under `noise`
    half of the accuracy is left to it, the amplitude is that of `optimal_amplitude`, and the spread of
    `predict_spread`, which falls as $M^{-1/2}$, gives the number of cycles $M$.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        bias: relative error that the finite period may cause, roughly; not used with an `accuracy`.
        accuracy: relative error of the gradient, all in all, that is aimed at.
        noise: on the potentials, as in `predict_spread`; needs an `accuracy`.
        at: the state that is meant, an `Equilibrium`, potentials or a `Run`; by default the one that `settle` finds.

    Raises:
        NotSettledError: the free network has no stable state, or none at `at`.
        NotHolomorphicError: the network declares itself non-holomorphic.
        TypeError: `noise` has no spectrum, is not additive, or acts in discrete time.
        ValueError: bad inputs, a bias or an accuracy outside (0, 1), a noise without an accuracy.

    Warns:
        UserWarning: some inputs have several stable states; neurons need not rest in the one that this is about.

    Example:
        >>> suggestion = osc.suggest(net, x, y)
        >>> run = osc.simulate(net, x, y, suggestion.teaching, cycles=suggestion.discard + 2)
        >>> print(osc.relative_error(run.gradient(), osc.exact_gradient(net, x, y)) < 0.05)
        True
    """
    bias = as_share("bias", bias)
    accuracy = None if accuracy is None else as_share("accuracy", accuracy)
    if noise is not None and accuracy is None:
        raise BadValue("noise without an accuracy would be ignored: say how right the gradient is to be")
    require_frozen("net", net, "what settles here")
    inputs, free = free_state(net, x, y, at, "a suggestion for a rotating signal")
    _warn_of_several(net, inputs, free)
    tau = slowest_neuron(net.following)
    slowest = slowest_time(net, inputs, free.potentials)
    radius = fitted_radius(net, inputs, free.potentials)
    amplitude = _two_digits(min(0.4 * radius, scale_of(net, free.potentials)))
    if accuracy is not None:
        return _accurate(net, inputs, free, float(accuracy), noise, slowest, radius, amplitude)
    period = max(50 * tau, _in_tens(2 * math.pi * slowest / math.sqrt(bias), tau))
    return Suggestion(amplitude, period, _discard(slowest, period), slowest, radius)


def _discard(slowest: float, period: float, to: float = 1e-4) -> int:
    """Cycles until a start is forgotten to that part."""
    return max(1, math.ceil(slowest * math.log(1 / to) / period))


def _accurate(
    net: AbstractNetwork,
    inputs: Inputs,
    free: Equilibrium,
    accuracy: float,
    noise: AbstractForcing | None,
    slowest: float,
    radius: float,
    amplitude: float,
) -> Suggestion:
    """The suggestion that meets an accuracy by theory."""
    digits = float(jnp.finfo(net.dtype).eps)
    if accuracy < digits:
        raise BadValue(f"accuracy={accuracy:g} is finer than the digits of {net.dtype}, {digits:.1g}: use a larger one")
    shortest = 50 * slowest_neuron(net.following)
    period, bias = _period_for(net, inputs, free, accuracy if noise is None else accuracy / 2, slowest, shortest)
    cycles, spread = 1, 0.0
    limit = f"the lag limits: the slowest mode, {slowest:.3g}, asks for a period of {period:.4g}"
    if period <= shortest:
        limit = f"nothing limits: the shortest period, 50 tau = {shortest:.4g}, is long enough"
    if noise is not None:
        best = optimal_amplitude(net, inputs.x, inputs.y, period, noise, 1, at=free)
        amplitude = float(best.amplitude)
        cycles = max(1, math.ceil(best.spread**2 / (accuracy**2 - bias**2)))
        spread = best.spread / math.sqrt(cycles)
        if cycles > 1 and amplitude >= SAFE * best.radius * (1 - 1e-6) and best.knee > amplitude:
            limit = (
                f"the radius limits: the noise asks for {cycles} cycles at {SAFE:g} of it, and a larger amplitude, of "
                "which fewer would do, is not safe"
            )
        elif cycles > 1:
            limit = (
                f"the noise limits: it asks for {cycles} cycles, mostly by what it does to the mean activities, which "
                "no amplitude lowers"
            )
    rounding = 1e4 * digits
    if accuracy < rounding:
        limit = f"the precision limits: {net.dtype} and its solver leave about {rounding:.1g}; use float64"
    error = math.hypot(bias, spread)
    discard = _discard(slowest, period, min(1e-4, accuracy / 10))
    return Suggestion(amplitude, period, discard, slowest, radius, cycles, error, limit)


def _period_for(
    net: AbstractNetwork, inputs: Inputs, free: Equilibrium, bias: float, slowest: float, shortest: float
) -> tuple[float, float]:
    """The period at which the lag is that small, and the lag there."""
    _, lag = relative_bias(net, inputs, free)
    period = max(shortest, _in_tens(2 * math.pi * slowest, shortest / 50))
    found = lag(period)
    for _ in range(6):  # it falls as 1 / T^2 only for large T
        if found <= bias and period <= shortest:
            break
        if 0.9 * bias <= found <= bias:
            break
        wanted = max(shortest, period * math.sqrt(found / (0.95 * bias)))
        if wanted == period:
            break
        period = wanted
        found = lag(period)
    return period, found


STARTS = 4
"""Random starts from which `suggest` looks for other states."""


def _warn_of_several(net: AbstractNetwork, inputs: Inputs, free: Equilibrium) -> None:
    """Warn of inputs with several stable states: those where random starts settle elsewhere."""
    ends = flatten_samples(free.potentials)[0]
    scale = jnp.maximum(2 * jnp.sqrt(jnp.mean(ends**2, axis=1)), 1)
    found = from_random_starts(net, inputs, STARTS, jax.random.key(0), scale, None)
    arrived = np.asarray(is_settled(found, default_tolerance(net.dtype))).reshape(STARTS, -1)
    others = np.asarray(flatten_samples(found.potentials)[0]).reshape(STARTS, len(ends), -1)
    ends = np.asarray(ends)
    several = [
        i for i in range(len(ends)) if distinct(np.concatenate([ends[i : i + 1], others[arrived[:, i], i]])).max() > 0
    ]
    if several:
        named = ", ".join(map(str, several[:5])) + (", ..." if len(several) > 5 else "")
        warn(
            f"{len(several)} of {len(ends)} inputs have several stable states (sample {named}): the suggestion is made "
            "for the one that settling finds, and neurons may come to rest in another, with another radius and another "
            "gradient; use start='settled', and oscsim.equilibria to see them all"
        )


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")


def _in_tens(value: float, tau: float) -> float:
    """Rounded up to tens of time constants."""
    return math.ceil(value / (10 * tau)) * 10 * tau
