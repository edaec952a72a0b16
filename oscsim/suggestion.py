"""Which amplitude, period and discard suit a network: the first question of every user."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from oscsim._arrays import as_scalar, norm
from oscsim.equilibrium import default_tolerance, require_settled, settle_inputs
from oscsim.networks.base import AbstractNetwork, check_parameters, require_holomorphic
from oscsim.networks.inputs import Inputs
from oscsim.teaching import Rotating, teaching_circle

POINTS = 32
"""Of the teaching circle, to find the radius from."""


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
    tolerance = default_tolerance(net.dtype)
    free = settle_inputs(net, inputs, jnp.zeros(()), tolerance)
    require_settled(net, inputs, free, 0.0, tolerance)
    tau = slowest_neuron(net)
    slowest = slowest_time(net, inputs, free.potentials)
    radius = fitted_radius(net, inputs, free.potentials, tolerance)
    amplitude = _two_digits(min(0.4 * radius, 1.0))
    period = max(50 * tau, math.ceil(2 * math.pi * slowest / math.sqrt(bias) / 10) * 10)
    discard = max(1, math.ceil(slowest * math.log(1e4) / period))
    return Suggestion(amplitude, float(period), discard, slowest, radius)


def slowest_neuron(net: AbstractNetwork) -> float:
    """The largest of the neurons' own time constants."""
    return max(float(jnp.max(t)) for t in net.time_constants)


def slowest_time(net: AbstractNetwork, inputs: Inputs, u: Any) -> float:
    """The time constant of the network's slowest mode at the free equilibrium `u`, over all samples."""
    gain = float(jnp.max(_slowest_gain(net, inputs, u)))
    return slowest_neuron(net) / max(1 - gain, 1e-3)


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")


@eqx.filter_jit
def _slowest_gain(net: AbstractNetwork, inputs: Inputs, u: Any, iterations: int = 300) -> Array:
    """The rightmost eigenvalue of the Jacobian of the force in the potentials, per sample, by power iteration.

    A first pass finds the largest in size; shifted by that, the rightmost one is the largest in size. Eigenvalues are
    real where the slope of the activation is positive.
    """

    def force(u):
        return net.force(inputs.clamped, net.activities(u), inputs.y, jnp.zeros((), net.dtype))

    def per_sample(a, like):
        return a.reshape(-1, *(1,) * (like.ndim - 1))

    def size(v):
        return jnp.sqrt(sum(jnp.sum(a.reshape(len(a), -1) ** 2, axis=1) for a in v))

    def normalised(v):
        length = jnp.maximum(size(v), jnp.finfo(net.dtype).tiny)
        return tuple(a / per_sample(length, a) for a in v)

    def largest(shift):
        """The size of the largest eigenvalue of the Jacobian plus `shift`."""

        def iterate(_, carry):
            v, _ = carry
            new = jax.jvp(force, (u,), (v,))[1]
            new = tuple(a + per_sample(shift, b) * b for a, b in zip(new, v, strict=True))
            return normalised(new), size(new)

        keys = jax.random.split(jax.random.key(0), len(u))
        start = normalised(tuple(jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, u, strict=True)))
        return lax.fori_loop(0, iterations, iterate, (start, jnp.zeros(len(u[0]), net.dtype)))[1]

    shift = largest(jnp.zeros(len(u[0]), net.dtype))
    return largest(shift) - shift


@eqx.filter_jit
def _coefficients(
    net: AbstractNetwork, inputs: Inputs, u: Any, amplitude: Array, tolerance: float
) -> tuple[Array, Array]:
    """The size of each Fourier coefficient over the settled teaching circle, and whether all points settled."""
    half = teaching_circle(amplitude, POINTS, net.dtype)[: POINTS // 2 + 1]
    batch = inputs.x.shape[0]
    tiled, start = jax.tree.map(lambda a: jnp.tile(a, (len(half), *(1,) * (a.ndim - 1))), (inputs, u))
    found = settle_inputs(net, tiled, jnp.repeat(half, batch), tolerance, start=start)

    def transform(a):
        a = a.reshape(len(half), batch, *a.shape[1:])
        whole = jnp.concatenate([a, a[1:-1][::-1].conj()])
        return jnp.fft.fft(whole, axis=0) / POINTS

    c = jax.tree.map(transform, found.activities)
    sizes = jnp.stack([norm(jax.tree.map(lambda a, n=n: a[n], c)) for n in range(POINTS)])
    return sizes, jnp.all(found.residual <= 10 * tolerance)


def fitted_radius(net: AbstractNetwork, inputs: Inputs, u: Any, tolerance: float) -> float:
    r"""From $|c_n| \sim n^{-3/2} (A/R)^n$, as at the square-root branch point where two equilibria meet.

    Fitted at growing amplitudes, to the coefficients clear of rounding, until the points no longer settle on one sheet.
    """
    radius, amplitude = None, 1e-3
    while amplitude < 100:
        sizes, settled = _coefficients(net, inputs, u, jnp.asarray(amplitude, net.dtype), tolerance)
        sizes = np.asarray(sizes)
        # Beyond the radius negative harmonics appear: the last ones of the transform.
        if not bool(settled) or not np.all(np.isfinite(sizes)) or sizes[-1] > 1e-2 * sizes[1]:
            break
        n = np.arange(2, POINTS // 2)
        n = n[sizes[n] > 30 * tolerance * max(1.0, sizes[0])]
        if len(n) > 3:
            n = n[n >= 4]  # the law holds for large n
        if len(n) > 1:
            decay = np.polyfit(n, np.log(sizes[n]) + 1.5 * np.log(n), 1)[0]
            radius = amplitude * float(np.exp(-decay))
        amplitude *= 1.5 if amplitude > 0.04 else 7
    return amplitude if radius is None else radius
