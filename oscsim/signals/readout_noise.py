"""Readout noise, between the neurons and the demodulator."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from oscsim.core.arrays import Scalar
from oscsim.core.checks import as_flag, not_negative
from oscsim.networks.base import Layers
from oscsim.signals.noise import AbstractReadoutNoise, Quadratures, check_quadratures, normals, quadrature_share, scaled


class ReadoutNoise(AbstractReadoutNoise):
    r"""Noise of the sensor: the demodulator sees $s(t_j) + \sigma \xi_j$ at every tick; the neurons feel nothing.

    $\xi_j$ is a fresh normal number of each neuron, sample and tick. The mean over $K$ ticks and $M$ cycles leaves
    $\sigma / \sqrt{K M}$ of it in a coefficient: $\sigma^2 / (K M)$ of variance, twice that with `"both"` quadratures.
    What the plots draw is the activity itself.

    Attributes:
        standard_deviation: $\sigma \ge 0$ of one reading, in units of the activity.
        shared_over_batch: one noise for all samples of a batch; else independent ones.
        quadratures: `"real"` disturbs the real part alone, `"both"` real and imaginary part with $\sigma$ each,
            `"circular"` with $\sigma / \sqrt2$ each.

    Raises:
        ValueError: a standard deviation that is negative or not finite, unknown quadratures.

    Example:
        >>> noise, key = osc.ReadoutNoise(0.01), jax.random.key(0)
        >>> noisy = osc.simulate(net, x, y, osc.Rotating(0.2, 64.0), cycles=3, noise=noise, key=key)
        >>> bool(noisy.lock_residual[-1] > run.lock_residual[-1])  # noise keeps the cycles apart
        True
    """

    standard_deviation: Scalar
    shared_over_batch: bool = eqx.field(static=True)
    quadratures: Quadratures = eqx.field(static=True)

    def __init__(
        self, standard_deviation: ArrayLike, shared_over_batch: bool = False, quadratures: Quadratures = "real"
    ):
        self.standard_deviation = not_negative("standard_deviation")(standard_deviation)
        check_quadratures(quadratures)
        self.shared_over_batch, self.quadratures = as_flag("shared_over_batch", shared_over_batch), quadratures

    def check(self, solver: diffrax.AbstractSolver, step: float, time_constants: tuple[Array, ...]) -> None:
        """Every solver and every step will do."""

    def init(self, key: Key[Array, ""], u: Layers) -> None:
        return None

    def random(self, key: Key[Array, ""], u: Layers, area: bool) -> list[Layers]:
        count, _ = quadrature_share(self.quadratures)
        return normals(key, u, count, self.shared_over_batch)

    def reading(self, random: list[Layers], s: Layers) -> Layers:
        count, share = quadrature_share(self.quadratures)
        deviation = self.standard_deviation * jnp.sqrt(share)
        drawn = [scaled(layers, deviation) for layers in random]
        real = [layer.real + a for layer, a in zip(s, drawn[0], strict=True)]
        imag = [layer.imag for layer in s] if count == 1 else [a.imag + b for a, b in zip(s, drawn[1], strict=True)]
        return tuple(lax.complex(a, b) for a, b in zip(real, imag, strict=True))
