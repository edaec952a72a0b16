"""Noise of the teaching signal."""

import math
from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Key, PyTree, Real

from oscsim.core.arrays import Scalar
from oscsim.core.checks import not_negative, positive
from oscsim.networks.base import Layers
from oscsim.signals.coloured_noise import check_correlation_time
from oscsim.signals.noise import AbstractTeachingNoise


class TeachingNoise(AbstractTeachingNoise):
    r"""Jitter of the teaching signal in amplitude and phase: $\beta(t)\, (1 + a(t))\, e^{i\varphi(t)}$.

    $a$ and $\varphi$ are independent stationary Ornstein-Uhlenbeck processes with autocorrelations
    $\sigma_a^2 e^{-|t|/t_c}$ and $\sigma_\varphi^2 e^{-|t|/t_c}$, drawn from their exact distribution once per step of
    the solver and held in it. One generator serves all samples, so the jitter is theirs in common. For a real signal
    the phase shifts time instead, $\beta(t + \varphi T / 2\pi)$, which for `Rotating` is the same.

    The demodulator is shown the signal as it is, jitter and all, as a lock-in amplifier measures its own reference: an
    error in the mean amplitude cancels in $c_1 / a_1$.

    Attributes:
        amplitude: $\sigma_a \ge 0$, relative.
        phase: $\sigma_\varphi \ge 0$, in radians.
        correlation_time: $t_c > 0$, in units of time; not below the solver's step.

    Raises:
        ValueError: a negative deviation, a correlation time that is not positive; when run, one below the step.

    Example:
        >>> noise, key = osc.TeachingNoise(0.05, 0.05, correlation_time=1.0), jax.random.key(0)
        >>> noisy = osc.simulate(net, x, y, osc.Rotating(0.2, 64.0), cycles=3, noise=noise, key=key)
        >>> bool(noisy.lock_residual[-1] > run.lock_residual[-1])  # noise keeps the cycles apart
        True
    """

    shared_over_batch: ClassVar[bool] = True

    amplitude: Scalar = eqx.field(converter=not_negative("amplitude"), default=0.0)
    phase: Scalar = eqx.field(converter=not_negative("phase"), default=0.0)
    correlation_time: Scalar = eqx.field(converter=positive("correlation_time"), kw_only=True)

    def check(self, solver: diffrax.AbstractSolver, step: float, time_constants: tuple[Array, ...]) -> None:
        """Refuse steps longer than the correlation time."""
        check_correlation_time(self.correlation_time, step)

    def init(self, key: Key[Array, ""], u: Layers) -> Array:
        """Two standard normal numbers: amplitude and phase in units of their deviations."""
        return jax.random.normal(key, (2,), u[0].real.dtype)

    def random(self, key: Key[Array, ""], u: Layers, area: bool) -> Array:
        return jax.random.normal(key, (2,), u[0].real.dtype)

    def draw(self, state: Array, random: Array, step: Real[Array, ""]) -> Array:
        x = (step / self.correlation_time).astype(state.dtype)
        return jnp.exp(-x) * state + jnp.sqrt(-jnp.expm1(-2 * x)) * random

    def signal(
        self, state: PyTree, teaching: Callable, t: Real[Array, ""], period: Real[Array, ""]
    ) -> Inexact[Array, "..."]:
        grown = 1 + self.amplitude * state[0]
        phase = self.phase * state[1]
        beta = teaching(t)
        if jnp.iscomplexobj(beta):
            return beta * (grown * jnp.exp(1j * phase))
        return teaching(t + phase * period / (2 * math.pi)) * grown
