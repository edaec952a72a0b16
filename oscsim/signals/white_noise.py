"""White noise on the potentials."""

import math

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key, Real

from oscsim.core.arrays import Scalar
from oscsim.core.checks import as_flag, not_negative
from oscsim.networks.base import Layers
from oscsim.signals.noise import (
    AbstractForcing,
    Draw,
    Increment,
    Quadratures,
    check_quadratures,
    normals,
    quadrature_share,
    scaled,
)


class WhiteNoise(AbstractForcing):
    r"""White noise on the potentials: $\tau\, du = (-u + \partial\Phi/\partial s)\, dt + q\, dW$.

    $W$ is a Wiener process of each neuron and sample: over a step $h$ it grows by a normal number of variance $h$. A
    lone neuron, $\partial\Phi/\partial s = 0$, fluctuates with variance $q^2 / (2\tau)$, to 2 % in the default steps;
    of `"circular"` noise each quadrature has half of that.

    Attributes:
        intensity: $q \ge 0$, in units of the potential times the square root of time.
        shared_over_batch: one noise for all samples of a batch; else independent ones.
        quadratures: `"real"` drives the real part of the potentials alone, $E|dW|^2 = dt$: physical neurons whose
            second quadrature is a computation. `"both"` drives real and imaginary parts independently, each with the
            full $q$, $E|dW|^2 = 2\, dt$: two noisy circuits. `"circular"` does so with $q/\sqrt2$ each,
            $E|dW|^2 = dt$: the circular complex normal process of intensity $q$.

    Raises:
        ValueError: an intensity that is negative or not finite, unknown quadratures.

    Source: Laborieux & Zenke (2022), section 5, in continuous time; see `StepNoise` for the relation.

    Example:
        >>> noise, key = osc.WhiteNoise(0.02), jax.random.key(0)
        >>> noisy = osc.simulate(net, x, y, osc.Rotating(0.2, 64.0), cycles=3, noise=noise, key=key)
        >>> bool(noisy.lock_residual[-1] > run.lock_residual[-1])  # noise keeps the cycles apart
        True
    """

    intensity: Scalar
    shared_over_batch: bool = eqx.field(static=True)
    quadratures: Quadratures = eqx.field(static=True)  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, intensity: ArrayLike, shared_over_batch: bool = False, quadratures: Quadratures = "real"):
        self.intensity = not_negative("intensity")(intensity)
        check_quadratures(quadratures)
        self.shared_over_batch, self.quadratures = as_flag("shared_over_batch", shared_over_batch), quadratures

    def check(self, solver: diffrax.AbstractSolver, step: float, time_constants: tuple[Array, ...]) -> None:
        """Every solver and every step will do."""

    def init(self, key: Key[Array, ""], u: Layers) -> None:
        return None

    def random(self, key: Key[Array, ""], u: Layers, area: bool) -> list[Layers]:
        count, _ = quadrature_share(self.quadratures)
        return normals(key, u, count * (2 if area else 1), self.shared_over_batch)

    def draw(self, state: None, random: list[Layers], step: Real[Array, ""], area: bool) -> Draw:
        count, share = quadrature_share(self.quadratures)
        deviation = self.intensity * jnp.sqrt(share * step)
        increment = Increment(scaled(random[0], deviation), scaled(random[1], deviation) if count == 2 else None)
        if not area:
            return Draw(None, increment, None)
        # The area is independent of the increment, with a twelfth of its variance.
        numbers, deviation = random[count:], deviation / math.sqrt(12)
        return Draw(
            None,
            increment,
            Increment(scaled(numbers[0], deviation), scaled(numbers[1], deviation) if count == 2 else None),
        )

    def amplitude(self, s: Layers) -> None:
        return None

    def spectrum(self, omega: ArrayLike) -> Array:
        r"""$q^2$ at every frequency; $2 q^2$ with both quadratures in full."""
        count, share = quadrature_share(self.quadratures)
        return jnp.full(jnp.shape(omega), count * share) * self.intensity**2
