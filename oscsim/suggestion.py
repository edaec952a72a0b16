"""Which amplitude, period and discard suit a network: the first question of every user."""

import math
from typing import Any

import equinox as eqx

from oscsim._arrays import as_scalar
from oscsim.equilibrium import free_equilibrium
from oscsim.networks.base import AbstractNetwork, check_parameters, require_holomorphic, slowest_neuron
from oscsim.networks.inputs import Inputs
from oscsim.response.modes import slowest_time
from oscsim.response.radius import fitted_radius
from oscsim.teaching import Rotating


class Suggestion(eqx.Module):
    """Settings that `suggest` found for a network; `simulate(net, x, y, suggestion.teaching, ...)`.

    Attributes:
        amplitude: 0.4 of the convergence radius, and 1 at most.
        period: long enough for a lag of about a percent in the gradient, in units of time; 50 tau at least.
        discard: cycles until the start from rest is forgotten to 1e-4.
        slowest_time: the time constant of the network's slowest mode.
        radius: estimate of the convergence radius in the complex plane of beta.
    """

    amplitude: float
    period: float
    discard: int
    slowest_time: float
    radius: float

    @property
    def teaching(self) -> Rotating:
        """The suggested signal."""
        return Rotating(self.amplitude, self.period)

    def __str__(self) -> str:
        return (
            f"amplitude={self.amplitude:.2g} (convergence radius about {self.radius:.2g}), period={self.period:.4g} "
            f"(slowest mode {self.slowest_time:.3g}), discard={self.discard}"
        )


def suggest(net: AbstractNetwork, x: Any, y: Any, *, bias: float = 0.01) -> Suggestion:
    r"""Amplitude, period and cycles to discard for this network on these data.

    The slowest mode, with time constant $\tau_s$, is found by power iteration on the linearised free equilibrium; the
    period is $2\pi\tau_s / \sqrt{\text{bias}}$, since the lag costs $O((\omega\tau_s)^2)$. The radius comes from the
    decay of the Fourier coefficients of settled points, $|c_n| \sim n^{-3/2} (A/R)^n$.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        bias: relative error that the finite period may cause, roughly.

    Raises:
        NotSettledError: the free network has no stable state.
        NotHolomorphicError: the network declares itself non-holomorphic.
        ValueError: bad inputs, or a bias outside (0, 1).
    """
    if not 0 < as_scalar(bias, "bias") < 1:
        raise ValueError(f"bias={bias}: use a fraction between 0 and 1")
    check_parameters(net)
    require_holomorphic(net, "a suggestion for a rotating signal")
    inputs = Inputs.of(net, x, y)
    free = free_equilibrium(net, inputs)
    tau = slowest_neuron(net.time_constants)
    slowest = slowest_time(net, inputs, free.potentials)
    radius = fitted_radius(net, inputs, free.potentials)
    amplitude = _two_digits(min(0.4 * radius, 1.0))
    period = max(50 * tau, math.ceil(2 * math.pi * slowest / math.sqrt(bias) / 10) * 10)
    discard = max(1, math.ceil(slowest * math.log(1e4) / period))
    return Suggestion(amplitude, float(period), discard, slowest, radius)


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")
