r"""Teaching signals: $\beta(t)$, what turns at the output and nudges it towards the target.

A signal is any module with a `period` and a call `signal(t)` for $0 \le t \le T$; time restarts at every cycle, so the
phase never drifts. Two more attributes are read where present: `points`, the number of plateaus of a piecewise
constant signal, and `during(cycle)`, the signal within the cycle of that number, for one that changes with the cycles.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Real

from oscsim._arrays import Scalar, as_count, complex_of, require_positive, scalar_named


class AbstractTeaching(eqx.Module):
    r"""A periodic teaching signal $\beta(t)$, complex or real."""

    period: eqx.AbstractVar[Scalar]

    @abc.abstractmethod
    def __call__(self, t: Real[Array, ""]) -> Inexact[Array, ""]:
        r"""$\beta(t)$ for $0 \le t \le T$: one number for all samples."""


class Rotating(AbstractTeaching):
    r"""A teaching signal that turns in the complex plane: $\beta(t) = A e^{i(2\pi t/T + \varphi)}$.

    Only positive frequencies, so every harmonic of the response is an exact power of `amplitude`.

    Attributes:
        amplitude: $A > 0$, dimensionless. Below the convergence radius of the network (see `suggest`).
        period: $T$, in units of the neurons' time constant.
        phase: $\varphi$, in radians.

    Raises:
        ValueError: amplitude or period are not positive.

    Source: Laborieux & Zenke (2022), section 4.
    """

    # arrays, so that a changed number does not recompile
    amplitude: Scalar = eqx.field(converter=scalar_named("amplitude"))
    period: Scalar = eqx.field(converter=scalar_named("period"))
    phase: Scalar = eqx.field(converter=scalar_named("phase"), default=0.0)

    def __check_init__(self):
        require_positive("amplitude", self.amplitude)
        require_positive("period", self.period)

    def __call__(self, t: Real[Array, ""]) -> Inexact[Array, ""]:
        return self.amplitude * jnp.exp(1j * (2 * jnp.pi * t / self.period + self.phase))


class Staircase(AbstractTeaching):
    r"""The paper's piecewise constant signal: $\beta = A e^{2\pi i k/N}$ on the $k$-th of $N$ equal plateaus.

    Its steps hold negative harmonics too, so it is read once per plateau, at its end: an $N$-point estimate in time.

    Attributes:
        amplitude: $A > 0$, dimensionless.
        period: $T$, all $N$ plateaus together, in units of the neurons' time constant.
        points: $N$, at least 2.

    Raises:
        ValueError: amplitude or period are not positive, or fewer than two points.

    Source: Laborieux & Zenke (2022), Figs. 3a and 3b.
    """

    amplitude: Scalar = eqx.field(converter=scalar_named("amplitude"))
    period: Scalar = eqx.field(converter=scalar_named("period"))
    points: int = eqx.field(static=True)

    def __check_init__(self):
        require_positive("amplitude", self.amplitude)
        require_positive("period", self.period)
        check_points(self.points)

    def __call__(self, t: Real[Array, ""]) -> Inexact[Array, ""]:
        k = jnp.floor(self.points * t / self.period)
        return self.amplitude * jnp.exp(2j * jnp.pi * k / self.points)


class Cosine(AbstractTeaching):
    r"""A real signal for hardware without a second quadrature: $\beta(t) = A \cos(2\pi t/T)$.

    It holds the negative frequency as well, so the estimate is biased by $O(A^2)$; its first coefficient is $A/2$.

    Attributes:
        amplitude: $A > 0$, dimensionless.
        period: $T$, in units of the neurons' time constant.

    Raises:
        ValueError: amplitude or period are not positive.
    """

    amplitude: Scalar = eqx.field(converter=scalar_named("amplitude"))
    period: Scalar = eqx.field(converter=scalar_named("period"))

    def __check_init__(self):
        require_positive("amplitude", self.amplitude)
        require_positive("period", self.period)

    def __call__(self, t: Real[Array, ""]) -> Inexact[Array, ""]:
        return self.amplitude * jnp.cos(2 * jnp.pi * t / self.period)


class Constant(AbstractTeaching):
    r"""A signal that does not turn: $\beta(t) = b$. It shows how a nudged network settles; it holds no gradient.

    Attributes:
        value: $b$, a real number; 0 leaves the network free.
        period: the stretch of time that counts as a cycle, in units of the neurons' time constant.

    Raises:
        ValueError: the period is not positive.
    """

    value: Scalar = eqx.field(converter=scalar_named("value"))
    period: Scalar = eqx.field(converter=scalar_named("period"))

    def __check_init__(self):
        require_positive("period", self.period)

    def __call__(self, t: Real[Array, ""]) -> Inexact[Array, ""]:
        return jnp.broadcast_to(self.value, jnp.shape(t))


class Onset(AbstractTeaching):
    r"""Another signal, switched on smoothly over the first $n$ cycles.

    It is $\beta(t)\, \sin^2(\frac{\pi}{2} \min(t / (n T), 1))$ with $t$ counted from the very start. A start without a
    jump excites no transient beside the drive's own. The first $n$ cycles are no cycles of a
    periodic response: discard them.

    Attributes:
        teaching: the signal to switch on.
        cycles: $n$, how many cycles it takes.

    Raises:
        ValueError: `cycles` is not positive.
    """

    teaching: Callable
    cycles: Scalar = eqx.field(converter=scalar_named("cycles"))

    def __check_init__(self):
        require_positive("cycles", self.cycles)

    @property
    def period(self) -> Scalar:
        """The period of the signal itself."""
        return self.teaching.period  # type: ignore[attr-defined]

    @property
    def points(self) -> int | None:
        """The plateaus of the signal itself."""
        return getattr(self.teaching, "points", None)

    def __call__(self, t: Real[Array, ""]) -> Inexact[Array, ""]:
        """The signal at full strength, as in every cycle after the first ones."""
        return self.teaching(t)

    def during(self, cycle: Any) -> Callable:
        """The signal within the cycle of that number, counted from 0."""
        signal = signal_during(self.teaching, cycle)

        def ramped(t):
            progress = jnp.minimum((cycle + t / self.period) / self.cycles, 1.0)
            return signal(t) * jnp.sin(jnp.pi / 2 * progress) ** 2

        return ramped


def signal_during(teaching: Any, cycle: Any) -> Callable:
    """The signal within one cycle: `teaching.during(cycle)` where the signal has that, the signal itself elsewhere."""
    during = getattr(teaching, "during", None)
    return teaching if during is None else during(cycle)


def fourier_coefficient(teaching: Any, n: int, dtype: Any) -> Array:
    r"""$a_n = \frac1T \int_0^T \beta(t)\, e^{-in\omega t} dt$, complex, in the precision of the real `dtype`.

    The mean over the middles of 64 equal cells; of a signal with plateaus exactly, plateau by plateau.
    """
    points = getattr(teaching, "points", None)
    cells = points or 64
    turn = (np.arange(cells) + 0.5) / cells
    beta = jax.vmap(lambda x: jnp.asarray(teaching(x), complex_of(dtype)))(jnp.asarray(turn, dtype) * teaching.period)
    within = 1.0 if points is None else np.sinc(n / points)  # of the turning reference, over a plateau
    return jnp.mean(beta * jnp.asarray(within * np.exp(-2j * np.pi * n * turn), beta.dtype))


def teaching_circle(amplitude: Array, points: int, dtype: Any) -> Array:
    r"""$\beta_k = A e^{2\pi i k/N}$, with exact real points where they are real."""
    angles = 2 * np.pi * np.arange(points) / points
    unit = np.cos(angles) + 1j * np.where(2 * np.arange(points) % points == 0, 0.0, np.sin(angles))
    return amplitude * jnp.asarray(unit, jnp.promote_types(dtype, jnp.complex64))


def check_points(points: Any) -> None:
    """Refuse a number of points on the teaching circle that gives no estimate."""
    as_count("points", points, 2, "use 2 (symmetric) or more; the one-sided estimate is Classic")
