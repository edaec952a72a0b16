"""The convergence radius in beta: the distance of the nearest singularity."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from oscsim.core.arrays import norm, repeated
from oscsim.core.checks import checked, untraced
from oscsim.equilibrium import default_tolerance, settle_inputs
from oscsim.equilibrium.corrected import require_frozen
from oscsim.equilibrium.linear import free_state
from oscsim.equilibrium.states import At
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Data, Inputs
from oscsim.signals.teaching import teaching_circle

POINTS = 32
"""Of the teaching circle, to find the radius from."""

UNIT = 1024.0
"""The unit of potentials is a power of this: 1 for every usual activation, and none takes digits from a number."""


def scale_of(net: AbstractNetwork, u: Layers) -> float:
    r"""The scale of the potentials, and so of the signal: about what moves an activity by 1, $1 / \sigma'$.

    Where potentials and weights are $k$ times larger, and activations as much wider, so is the signal that moves them.
    """
    slope = float(_steepest(net, u))
    return 1 / slope if 0 < slope < math.inf else 1.0


def unit_of(net: AbstractNetwork, u: Layers) -> float:
    """The power of `UNIT` that is nearest to that scale."""
    return UNIT ** round(math.log(scale_of(net, u), UNIT))


@eqx.filter_jit
def _steepest(net: AbstractNetwork, u: Layers) -> Array:
    """The steepest slope of an activation at these potentials, which may lie where it is saturated, or at rest."""

    def slopes(u):
        return jax.jvp(net.activities, (u,), (jax.tree.map(jnp.ones_like, u),))[1]

    found = (*slopes(u), *slopes(net.rest(1)))
    return jnp.max(jnp.stack([jnp.max(jnp.abs(a)) for a in found]))


@checked(net=untraced, x=untraced, y=untraced, at=untraced)
def convergence_radius(net: AbstractNetwork, x: Data, y: Data, *, at: At = None) -> float:
    r"""An estimate of the convergence radius: the distance of the nearest singularity of $s(\beta)$ from $\beta = 0$.

    From the decay of the Fourier coefficients of settled points, $|c_n| \sim n^{-3/2} (A/R)^n$, as at the square-root
    branch point where two equilibria meet. Amplitudes below it give exact gradients. 100 or more means none was found
    (times the scale on which the activations bend, where that is not about 1).

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...); the radius is the least over the batch.
        y: targets, (batch,) labels or (batch, classes).
        at: the state that is meant, an `Equilibrium`, potentials or a `Run`; by default the one that `settle` finds.

    Raises:
        NotSettledError: the free network has no stable state, or none at `at`.
        NotHolomorphicError: the network declares itself non-holomorphic.
        ValueError: bad inputs.

    Example:
        >>> radius = osc.response.convergence_radius(net, x, y)
        >>> 0.2 < radius < 2.0  # the amplitude of run, 0.2, lies below
        True
    """
    require_frozen("net", net, "what settles here")
    inputs, free = free_state(net, x, y, at)
    return fitted_radius(net, inputs, free.potentials)


def fitted_radius(net: AbstractNetwork, inputs: Inputs, u: Layers) -> float:
    r"""From $|c_n| \sim n^{-3/2} (A/R)^n$, as at the square-root branch point where two equilibria meet.

    Fitted at growing amplitudes, to the coefficients clear of rounding, until the points no longer settle on one sheet.
    """
    unit, tolerance = unit_of(net, u), default_tolerance(net.dtype)
    radius, amplitude = None, 1e-3  # in that unit
    while amplitude < 100:
        beta = jnp.asarray(unit * amplitude, net.dtype)
        sizes, settled = _coefficients(net, inputs, u, beta, unit * tolerance)
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
    return unit * (amplitude if radius is None else radius)


@eqx.filter_jit
def _coefficients(
    net: AbstractNetwork, inputs: Inputs, u: Layers, amplitude: Array, tolerance: float
) -> tuple[Array, Array]:
    """The size of each Fourier coefficient over the settled teaching circle, and whether all points settled."""
    half = teaching_circle(amplitude, POINTS, net.dtype)[: POINTS // 2 + 1]
    batch = inputs.x.shape[0]
    tiled, start = repeated((inputs, u), len(half))
    found = settle_inputs(net, tiled, jnp.repeat(half, batch), tolerance, start=start)

    def transform(a):
        a = a.reshape(len(half), batch, *a.shape[1:])
        whole = jnp.concatenate([a, a[1:-1][::-1].conj()])
        return jnp.fft.fft(whole, axis=0) / POINTS

    c = jax.tree.map(transform, found.activities)
    sizes = jnp.stack([norm(jax.tree.map(lambda a, n=n: a[n], c)) for n in range(POINTS)])
    return sizes, jnp.all(found.residual <= 10 * tolerance)
