"""The optimal amplitude: the one at which the predicted error of the gradient is least."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from oscsim.core.checks import as_count, as_finite, as_plain, as_scalar, checked, require_positive, untraced
from oscsim.core.errors import BadValue
from oscsim.core.printing import AbstractPrinted
from oscsim.equilibrium import Equilibrium
from oscsim.equilibrium.corrected import require_frozen
from oscsim.equilibrium.linear import free_state
from oscsim.equilibrium.states import At
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.inputs import Data, Inputs
from oscsim.response.bias import relative_bias
from oscsim.response.radius import fitted_radius
from oscsim.response.spectra import Spectra
from oscsim.response.spread import ticks_of, unit_variance
from oscsim.signals.drive import check_drive
from oscsim.signals.noise import AbstractForcing
from oscsim.signals.teaching import Rotating

SAFE = 0.5
"""Of the convergence radius: beyond, a start from rest may run away, and the predicted spread lacks terms."""


class VarianceTerms(NamedTuple):
    r"""The variance of the whole gradient, summed over its entries: $a_{-2} A^{-2} + a_0 + a_2 A^2$.

    Example:
        >>> osc.response.VarianceTerms(falling=1e-4, flat=0.0, rising=1e-4).at(np.array([0.1, 1.0]))
        array([0.010001, 0.0002  ])
    """

    falling: float
    flat: float
    rising: float

    def at(self, amplitude: ArrayLike) -> np.ndarray | np.floating:
        """The variance at an amplitude, or at several."""
        return np.maximum(self.falling / amplitude**2 + self.flat + self.rising * amplitude**2, 0.0)

    @staticmethod
    def of(
        net: AbstractNetwork, inputs: Inputs, free: Equilibrium, spectra: Spectra, shared: bool, typical: float
    ) -> "VarianceTerms":
        """Over one unit of time; `typical` is an amplitude to be exact at where not all terms are there."""

        def total(*weights: float) -> float:
            variance = unit_variance(net, inputs, free, spectra, jnp.array(weights, net.dtype), shared)
            return sum(float(jnp.sum(v)) for v in jax.tree.leaves(variance))

        falling, rising = total(1.0, 0.0, 0.0), total(0.0, 0.0, 1.0)
        # Both at equal size, so that the term between them is not lost to rounding.
        balance = (falling / rising) ** 0.25 if falling > 0 and rising > 0 else typical
        flat = total(1 / balance, 1.0, balance) - falling / balance**2 - rising * balance**2
        return VarianceTerms(falling, flat, rising)


class OptimalAmplitude(AbstractPrinted):
    """What `optimal_amplitude` found; the errors are root mean squares over the norm of the exact gradient.

    Attributes:
        amplitude: where the predicted total error is least, `SAFE` times the radius at most.
        knee: where the noise on the phasor, which falls with the amplitude, equals all other errors together, which
            do not: a larger amplitude gains less than a factor of two in the squared error. May lie beyond the radius.
        bias: error that the finite period causes.
        spread: error that the noise causes at `amplitude`.
        radius: estimate of the convergence radius.
        period: of the teaching signal.

    Example:
        >>> best = osc.response.optimal_amplitude(net, x, y, period=100.0, noise=osc.WhiteNoise(0.1), cycles=10)
        >>> best.amplitude < best.radius, best.spread > 0
        (True, True)
    """

    amplitude: float
    knee: float
    bias: float
    spread: float
    radius: float
    period: float

    @property
    def error(self) -> float:
        """Bias and spread together."""
        return math.hypot(self.bias, self.spread)

    @property
    def teaching(self) -> Rotating:
        """The signal with this amplitude."""
        return Rotating(self.amplitude, self.period)

    def __str__(self) -> str:
        told = (
            f"amplitude={self.amplitude:.3g} (knee {self.knee:.3g}, convergence radius about {self.radius:.3g}), "
            f"relative error {self.error:.2g} (bias {self.bias:.2g}, spread {self.spread:.2g})"
        )
        if self.knee <= SAFE * self.radius:
            return told
        return (
            f"{told}; the knee lies beyond {SAFE:g} of the radius, {SAFE * self.radius:.3g}, where the choice stops: "
            "beyond, a start from rest may run away and the prediction lacks terms, though more amplitude would still "
            "lower the noise"
        )


@checked(net=untraced, x=untraced, y=untraced, noise=untraced, at=untraced, period=as_plain, points=untraced)
def optimal_amplitude(
    net: AbstractNetwork,
    x: Data,
    y: Data,
    period: ArrayLike,
    noise: AbstractForcing,
    cycles: int,
    *,
    points: Sequence[float] | np.ndarray | None = None,
    ticks: int | None = None,
    at: At = None,
) -> OptimalAmplitude:
    r"""The amplitude of a rotating signal that makes the predicted error of the gradient least.

    Summed over the parameters the squared error is $E^2(A) = b^2 + a_{-2} A^{-2} + a_0 + a_2 A^2$, with the bias $b$ of
    `predict_bias` and the variance of `predict_spread`. The first noise term falls with the amplitude, so the least
    error often lies at the largest amplitude that is safe. How much of that is worth having is what `knee` says.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        period: $T$ of the teaching signal, in units of time.
        noise: as in `predict_spread`.
        cycles: how many are averaged.
        points: amplitudes to choose among, an array; by default any.
        ticks: how often the demodulator reads in each cycle, as in `predict_spread`.
        at: the state that is meant, an `Equilibrium`, potentials or a `Run`; by default the one that `settle` finds.

    Raises:
        NotSettledError: the free network has no stable state, or none at `at`.
        NotHolomorphicError: the network declares itself non-holomorphic.
        TypeError: `noise` has no spectrum, is not additive, or acts in discrete time.
        ValueError: bad inputs or counts, no point below `SAFE` times the radius, a bad period or spectrum, an exact
            gradient of zero.

    Example:
        >>> best = osc.response.optimal_amplitude(net, x, y, period=100.0, noise=osc.WhiteNoise(0.1), cycles=10)
        >>> best.amplitude < osc.response.convergence_radius(net, x, y)
        True
    """
    check_drive(net, Rotating(1.0, period), lag_is_known=True)
    period = float(as_scalar("period", period))
    cycles, ticks = as_count("cycles", cycles), ticks_of(net, period, ticks)
    spectra = Spectra.of(net, noise, period, ticks)
    require_frozen("net", net, "what settles here")
    inputs, free = free_state(net, x, y, at)
    radius = fitted_radius(net, inputs, free.potentials)
    limit = SAFE * radius
    candidates = None if points is None else _candidates(points, limit)
    scale, bias_at = relative_bias(net, inputs, free)
    bias = bias_at(period)
    terms = VarianceTerms.of(net, inputs, free, spectra, noise.shared_over_batch, limit)
    falling, flat, rising = (term / (cycles * period * scale**2) for term in terms)
    relative = VarianceTerms(falling, flat, rising)
    if candidates is None:
        amplitude = min((falling / rising) ** 0.25, limit) if rising > 0 else limit
    else:
        amplitude = float(candidates[np.argmin(relative.at(candidates))])
    rest = bias**2 + flat
    denominator = rest + math.sqrt(rest**2 + 4 * falling * rising)
    knee = math.sqrt(2 * falling / denominator) if denominator > 0 else math.inf if falling > 0 else 0.0
    return OptimalAmplitude(amplitude, knee, bias, math.sqrt(relative.at(amplitude)), radius, period)


def _candidates(points: Sequence[float] | np.ndarray | None, limit: float) -> np.ndarray:
    """The amplitudes on offer that are safe."""
    values = np.atleast_1d(np.asarray(as_finite("points", untraced("points", points)), float))
    for value in values.ravel():
        require_positive("points", value)
    safe = values[values <= limit].ravel()
    if safe.size == 0:
        raise BadValue(
            f"points: none of {values.size} amplitudes is at most {SAFE:g} of the convergence radius, {limit:.3g}: "
            "offer smaller ones"
        )
    return safe
