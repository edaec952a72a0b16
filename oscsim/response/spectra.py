"""Noise spectra at the frequencies that a lock-in reads."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from oscsim.core.arrays import describe
from oscsim.core.errors import BadType, BadValue
from oscsim.networks.base import AbstractNetwork, fastest_neuron
from oscsim.signals.noise import AbstractForcing, Noise

FOLDS = 2**16
"""At most so many frequencies that sampling folds are added up."""


class Spectra(eqx.Module):
    r"""The noise's spectral density where a lock-in listens: at $k K\omega + m\omega$ for $m = -1, 0, 1$.

    `density` holds $k = 0, \dots,$ `folds`, in a buffer that need not grow with every change of the period; beyond,
    where $R(\nu) \approx 1 / (i\nu\tau)$, `tail` holds the sums of $S(\nu) / \nu^2$ over both signs of $k$ for
    $m = 0$ and $m = 1$.

    Example:
        >>> spectra = osc.response.Spectra.of(net, osc.WhiteNoise(0.1), period=100.0, ticks=64)
        >>> print(spectra.density[0])  # white: the same at every frequency
        [0.01 0.01 0.01]
    """

    omega: Float[Array, ""]
    sampling: Float[Array, ""]
    folds: Int[Array, ""]
    density: Float[Array, "buffer 3"]
    tail: Float[Array, "2"]
    real: bool = eqx.field(static=True)

    @staticmethod
    def of(net: AbstractNetwork, noise: Noise, period: float, ticks: int) -> "Spectra":
        if not isinstance(noise, AbstractForcing):
            raise BadType(
                f"noise={noise!r} has no `spectrum(omega)` to predict from: use one noise on the potentials, such as "
                "WhiteNoise (independent noises add in variance)"
            )
        if noise.discrete:
            raise BadType(
                f"noise={describe(noise)} is noise in discrete time, which has no spectrum above its steps: use "
                "WhiteNoise(standard_deviation * sqrt(time constant)), the same at low frequencies"
            )
        if noise.amplitude(net.activities(net.rest(1))) is not None:
            raise BadType(f"noise={describe(noise)} depends on the activities: only additive noise can be predicted")
        fastest = fastest_neuron(net.time_constants)
        omega = 2 * np.pi / period
        sampling = ticks * omega
        folds = math.ceil(16 / (sampling * fastest))
        if folds > FOLDS:
            raise BadValue(
                f"ticks={ticks} in period={period:g} fold noise of {folds:.2g} frequencies onto each that is read, "
                f"{FOLDS} at most: read more often, or use a shorter period"
            )
        buffer = max(32, 2 ** (folds + 1).bit_length())
        near = sampling * np.arange(buffer)[:, None] + omega * np.array([-1, 0, 1])
        far = sampling * np.arange(folds + 1, folds + 4097)
        far = np.stack([np.concatenate([far, -far]), np.concatenate([far, -far]) + omega])
        frequencies = np.concatenate([near.ravel(), far.ravel()])
        density = np.asarray(jax.vmap(lambda nu: jnp.asarray(noise.spectrum(nu)))(jnp.asarray(frequencies)), float)
        if density.shape != frequencies.shape or not np.all((density >= 0) & np.isfinite(density)):
            raise BadValue(
                f"noise={describe(noise)} has a spectrum of shape {density.shape[1:]} or with values that are negative "
                "or not finite: `spectrum(omega)` returns one finite power spectral density"
            )
        tail = np.sum((density[near.size :] / frequencies[near.size :] ** 2).reshape(far.shape), axis=1)
        values = (omega, sampling, folds, density[: near.size].reshape(near.shape), tail)
        return Spectra(*(jnp.asarray(a) for a in values), real=noise.quadratures == "real")
