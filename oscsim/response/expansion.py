"""The orbit of one sample, and what noise does to its reading."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from oscsim.core.arrays import to_complex
from oscsim.equilibrium.vectors import as_layers, flat, flat_force, flat_time_constants
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.response.spectra import Spectra


class Expansion(eqx.Module):
    r"""One sample's periodic orbit as a power series in the signal.

    Attributes:
        jacobians: $J_0, J_1, J_2$ of $\partial F/\partial u$ along it.
        slopes: $D_0, D_1, D_2$ of $\sigma'$ along it.
        c_0: the free activities.
        chi: the response of the activities.
    """

    jacobians: tuple[Array, Array, Array]
    slopes: tuple[Array, Array, Array]
    c_0: Array
    chi: Array

    @staticmethod
    def of(net: AbstractNetwork, clamped: PyTree[Array], y: Array, layers: Layers, omega: Array) -> "Expansion":
        """The orbit in a rotating signal of this frequency, in a network at the potentials `layers`."""
        u = to_complex(flat(layers))
        tau = flat_time_constants(net)
        force = flat_force(net, clamped, y)
        zero = jnp.zeros((), net.dtype)

        def jacobian(u, e):
            return jax.jacfwd(lambda u: force(u, to_complex(e)), holomorphic=True)(u)

        def solve(n, right):
            return jnp.linalg.solve(jnp.diag(1 + 1j * n * omega * tau) - jacobian(u, zero), right)

        u_1 = solve(1, jax.jvp(lambda e: force(u, to_complex(e)), (zero,), (zero + 1,))[1])
        u_2 = solve(2, _series(lambda e: force(u + e * u_1, to_complex(e)), zero)[2])

        def along(e):
            return u + e * u_1 + e**2 * u_2

        def activities(u):
            return flat(net.activities(as_layers(net, u[None])))

        def slope(u):
            return jax.jvp(activities, (u,), (jnp.ones_like(u),))[1]

        slopes = _series(lambda e: slope(along(e)), zero)
        return Expansion(_series(lambda e: jacobian(along(e), e), zero), slopes, activities(u), slopes[0] * u_1)


def _series(function: Callable[[Array], Array], zero: Array) -> tuple[Array, Array, Array]:
    """The first three Taylor coefficients at zero of a function of one real number."""

    def first(e):
        return jax.jvp(function, (e,), (jnp.ones_like(e),))

    (value, slope), (_, curvature) = jax.jvp(first, (zero,), (jnp.ones_like(zero),))
    return value, slope, curvature / 2


def noise_columns(
    net: AbstractNetwork, expansion: Expansion, spectra: Spectra, fold: Array, weights: Float[Array, "3"]
) -> Float[Array, "parts columns"]:
    r"""What independent unit noises do to the reading of one sample, at the frequencies of one $k$ and of $-k$.

    The reading is $(\delta c_0, \delta\chi)$, complex; as a real vector its real parts, then its imaginary parts. Each
    column is the root of a variance, so the reading's covariance times $MT$ is the sum of their outer products.
    """
    tau = flat_time_constants(net)
    (j_0, j_1, j_2), (d_0, d_1, d_2) = expansion.jacobians, (d[:, None] for d in expansion.slopes)
    on_phasor, on_mean, from_below = weights

    def resolvent(m):
        nu = fold * spectra.sampling + m * spectra.omega
        return jnp.linalg.inv(jnp.diag(1 + 1j * nu.astype(net.dtype) * tau) - j_0)

    def answers(at, above, two_above):
        """Activities at the frequency of the noise, at that plus omega, and at that plus 2 omega."""
        w_0 = at
        w_1 = above @ (j_1 @ w_0)
        w_2 = two_above @ (j_1 @ w_1 + j_2 @ w_0)
        return d_0 * w_0, d_0 * w_1 + d_1 * w_0, d_0 * w_2 + d_1 * w_1 + d_2 * w_0

    def reading(mean, phasor):
        return jnp.concatenate([mean, phasor])

    below, here, above = (resolvent(m) for m in (-1, 0, 1))
    nothing = jnp.zeros_like(here)
    pairs = []
    # Real noise at -nu is the conjugate of that at nu, so those two act together.
    for sign, density in ((1, spectra.density[fold, 2]), (-1, spectra.density[fold, 0])):
        up, down = (above, below) if sign == 1 else (below.conj(), above.conj())
        centre = here if sign == 1 else here.conj()
        direct = on_phasor * reading(nothing, d_0 * up)  # at k K omega + omega
        _, mean, phasor = answers(up.conj(), centre.conj(), down.conj())  # at minus that
        pairs.append((direct, from_below * reading(mean, phasor), density))
    plus = on_mean * reading(*answers(here, above, nothing)[:2])  # at k K omega and minus that
    minus = on_mean * reading(*answers(here.conj(), below.conj(), nothing)[:2])
    pairs.append((plus, minus, spectra.density[fold, 1]))

    # Re(a xi + b conj(xi)) with a circular xi of unit power has the variance |a + conj(b)|^2 / 2; with another xi in
    # place of its conjugate, (|a|^2 + |b|^2) / 2. At k = 0 the two signs are one and the same.
    share = jnp.where(fold == 0, 0.25, 0.5)
    parts = [
        jnp.sqrt(share * density).astype(net.dtype) * _as_real(part)
        for a, b, density in pairs
        for part in ((a + b, -1j * (a - b)) if spectra.real else (a, -1j * a, b, -1j * b))
    ]
    return jnp.concatenate(parts, axis=1)


def tail_columns(
    net: AbstractNetwork, expansion: Expansion, spectra: Spectra, weights: Float[Array, "3"]
) -> Float[Array, "parts columns"]:
    r"""The same for all higher $k$ at once, where the neurons' inertia is all that is left."""
    d_0, d_1, _ = (jnp.diag(d / flat_time_constants(net)) for d in expansion.slopes)
    phasor = weights[0] * jnp.concatenate([jnp.zeros_like(d_0), d_0])
    mean = weights[1] * jnp.concatenate([d_0, d_1])
    root_mean, root_phasor = jnp.sqrt(spectra.tail / 2).astype(net.dtype)
    # Of k and -k together only the real part moves the mean.
    means = [math.sqrt(2) * mean] if spectra.real else [mean, -1j * mean]
    parts = [root_mean * _as_real(part) for part in means]
    parts += [root_phasor * _as_real(part) for part in (phasor, -1j * phasor)]
    return jnp.concatenate(parts, axis=1)


def _as_real(columns: Array) -> Array:
    return jnp.concatenate([columns.real, columns.imag])
