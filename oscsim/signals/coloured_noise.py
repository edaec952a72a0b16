"""Coloured noise on the potentials: it has a correlation time."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, Real

from oscsim.core.arrays import Scalar, is_traced
from oscsim.core.checks import as_flag, not_negative, positive
from oscsim.core.errors import BadValue
from oscsim.networks.base import Layers
from oscsim.signals.noise import (
    AbstractForcing,
    Draw,
    Increment,
    Quadratures,
    check_quadratures,
    is_srk,
    normals,
    quadrature_share,
)


class OrnsteinUhlenbeck(AbstractForcing):
    r"""Coloured noise: $\tau \dot u = -u + \partial\Phi/\partial s + \eta$ with $t_c\, d\eta = -\eta\, dt + q\, dW$.

    The spectrum of $\eta$ is $q^2 / (1 + (\omega t_c)^2)$, its autocorrelation $\frac{q^2}{2 t_c} e^{-|t|/t_c}$; for
    $t_c \to 0$ it becomes `WhiteNoise(q)`. Real, and of each neuron and sample, unless asked otherwise. It starts in
    its stationary distribution, and lives on in the simulation's state over ticks, cycles and resumed runs. A lone
    neuron, $\partial\Phi/\partial s = 0$, fluctuates with variance $q^2 / (2 (\tau + t_c))$, to 2 % in the default
    steps.

    A step $h$ draws $\eta$ at its end and $\int\eta\, dt$ over it from their exact joint distribution: with $x = h /
    t_c$, $\eta' = e^{-x} \eta + \sqrt{\tfrac{q^2}{2 t_c} (1 - e^{-2x})}\, \xi_1$ and $\int\eta\, dt = t_c \tanh
    \tfrac{x}{2}\, (\eta + \eta') + q \sqrt{t_c (x - 2 \tanh \tfrac{x}{2})}\, \xi_2$. So the noise itself has no step
    error; the potentials have the strong order of the solver for a path this smooth, 1 with `Euler` and 2 with `Heun`.

    Attributes:
        intensity: $q \ge 0$, in units of the potential times the square root of time.
        correlation_time: $t_c > 0$, in units of time; not below the solver's step.
        shared_over_batch: one noise for all samples of a batch; else independent ones.
        quadratures: `"real"`, `"both"` or `"circular"`, as for `WhiteNoise`.

    Raises:
        ValueError: a negative intensity, a correlation time that is not positive, unknown quadratures; when run, a
            correlation time below the step, or a solver that needs Lévy areas.

    Source: Gillespie (1996), the exact update.

    Example:
        >>> noise = osc.OrnsteinUhlenbeck(intensity=0.1, correlation_time=5.0)
        >>> print(f"{noise.spectrum(0.0):.3f} {noise.spectrum(0.2):.3f}")  # half the power at 1 / correlation time
        0.010 0.005
    """

    intensity: Scalar
    correlation_time: Scalar
    shared_over_batch: bool = eqx.field(static=True)
    quadratures: Quadratures = eqx.field(static=True)  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        intensity: ArrayLike,
        correlation_time: ArrayLike,
        shared_over_batch: bool = False,
        quadratures: Quadratures = "real",
    ):
        self.intensity = not_negative("intensity")(intensity)
        self.correlation_time = positive("correlation_time")(correlation_time)
        check_quadratures(quadratures)
        self.shared_over_batch, self.quadratures = as_flag("shared_over_batch", shared_over_batch), quadratures

    def check(self, solver: diffrax.AbstractSolver, step: float, time_constants: tuple[Array, ...]) -> None:
        """Refuse steps longer than the correlation time, and solvers that need Lévy areas."""
        check_correlation_time(self.correlation_time, step)
        if is_srk(solver):
            raise BadValue(
                f"solver={solver!r} with OrnsteinUhlenbeck: its space-time Lévy areas are those of white noise; use "
                "diffrax.Heun(), of strong order 2 for this noise"
            )

    def init(self, key: Key[Array, ""], u: Layers) -> tuple[Layers, ...]:
        count, share = quadrature_share(self.quadratures)
        deviation = self.intensity * jnp.sqrt(share / (2 * self.correlation_time))
        return tuple(
            tuple(deviation.astype(a.dtype) * a for a in layers)
            for layers in normals(key, u, count, self.shared_over_batch)
        )

    def random(self, key: Key[Array, ""], u: Layers, area: bool) -> list[Layers]:
        count, _ = quadrature_share(self.quadratures)
        return normals(key, u, 2 * count, self.shared_over_batch)

    def draw(self, state: tuple[Layers, ...], random: list[Layers], step: Real[Array, ""], area: bool) -> Draw:
        count, share = quadrature_share(self.quadratures)
        dtype = random[0][0].dtype
        correlation_time, step = self.correlation_time.astype(dtype), step.astype(dtype)
        q = self.intensity.astype(dtype) * jnp.sqrt(jnp.asarray(share, dtype))
        x = step / correlation_time
        decay = jnp.exp(-x)
        kick = q * jnp.sqrt(-jnp.expm1(-2 * x) / (2 * correlation_time))
        slope = correlation_time * jnp.tanh(x / 2)
        rest = q * jnp.sqrt(correlation_time * _bridge_variance(x))
        after = tuple(
            tuple(decay * eta + kick * a for eta, a in zip(layers, drawn, strict=True))
            for layers, drawn in zip(state, random[:count], strict=True)
        )
        integral = [
            tuple(slope * (eta + new) + rest * a for eta, new, a in zip(before, now, drawn, strict=True))
            for before, now, drawn in zip(state, after, random[count:], strict=True)
        ]
        return Draw(after, Increment(integral[0], integral[1] if count == 2 else None), None)

    def amplitude(self, s: Layers) -> None:
        return None

    def spectrum(self, omega: ArrayLike) -> Array:
        r"""$q^2 / (1 + (\omega t_c)^2)$; twice that with both quadratures in full."""
        count, share = quadrature_share(self.quadratures)
        return count * share * self.intensity**2 / (1 + (jnp.asarray(omega) * self.correlation_time) ** 2)


def check_correlation_time(correlation_time: Array, step: float) -> None:
    """Refuse a correlation time below the step, which would be white noise of another intensity."""
    if not is_traced(correlation_time) and float(correlation_time) < step * (1 - 1e-6):
        raise BadValue(
            f"correlation_time={float(correlation_time):g} is below the step of {step:g}: take more steps_per_cycle, "
            "or use white noise"
        )


def _bridge_variance(x: Float[Array, ""]) -> Float[Array, ""]:
    r"""$x - 2 \tanh(x/2)$, without the cancellation at small $x$."""
    series = x**3 / 12 * (1 - x**2 / 10 + 17 * x**4 / 1680 - 31 * x**6 / 30240)
    return jnp.where(x < 0.1, series, x - 2 * jnp.tanh(x / 2))
