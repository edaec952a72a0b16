r"""The linear response of the free equilibrium: what a lock-in reads, and with how much noise, without time stepping.

With everything holomorphic and a teaching signal $\beta = a\, e^{i\omega t}$ that turns one way, harmonic $n$ of the
response depends on the harmonics below it alone. So the first one is $a \chi(\omega)$ at any amplitude, with the
linear susceptibility $\chi$; and to a small disturbance at one frequency the driven network answers at that frequency
and at those $n\omega$ above it, in proportion to $a^n$. Both follow from the Taylor series of the force along
the orbit, $u(\epsilon) = u_0 + \epsilon u_1 + \epsilon^2 u_2 + \dots$ with $\epsilon$ for $\beta$.
"""

from oscsim.equilibrium.linear import susceptibility
from oscsim.response.amplitude import OptimalAmplitude, VarianceTerms, optimal_amplitude
from oscsim.response.anchors import anchor_rates
from oscsim.response.bias import predict_bias, predict_gradient
from oscsim.response.branch_points import BranchPoints, branch_points
from oscsim.response.radius import convergence_radius
from oscsim.response.spectra import Spectra
from oscsim.response.spread import predict_spread
from oscsim.response.stability import StabilityMap, stability_map

__all__ = [
    "BranchPoints",
    "OptimalAmplitude",
    "Spectra",
    "StabilityMap",
    "VarianceTerms",
    "anchor_rates",
    "branch_points",
    "convergence_radius",
    "optimal_amplitude",
    "predict_bias",
    "predict_gradient",
    "predict_spread",
    "stability_map",
    "susceptibility",
]
