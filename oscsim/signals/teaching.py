r"""Teaching signals: $\beta(t)$, what turns at the output and nudges it towards the target.

A signal has a `period` and is called with the time in the cycle, $0 \le t \le T$, and the number of the cycle: time
restarts at every cycle, so the phase never drifts.
"""

import abc
import functools
from typing import ClassVar, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Inexact, Int, Real

from oscsim.core.arrays import Scalar, complex_of, is_traced, ratio
from oscsim.core.checks import (
    Given,
    as_numbers,
    as_real,
    checked,
    count,
    positive,
    require_instance,
    require_positive,
    scalar,
    shown,
)
from oscsim.core.errors import BadType, BadValue
from oscsim.core.printing import AbstractSettings

Number: TypeAlias = int | Int[Array, ""]
"""The number of a cycle."""


def as_amplitude(value: ArrayLike) -> Array:
    """A positive amplitude, or one per sample."""
    value = as_real("amplitude", value)
    if value.ndim == 0:
        require_positive("amplitude", value)
    return value


as_points = count("points", 2, "use 2 (symmetric) or more; the one-sided estimate is Classic")
"""A number of points on the teaching circle that gives an estimate."""


LATEST = 1e30
"""The latest time, or cycle, that a signal is asked for: the phase of a much later one overflows."""


def as_times(name: str, value: Given) -> Array:
    """Real numbers of any shape, traced or finite and no later than that, or an error that names them."""
    times = as_numbers(name, value, "use real numbers")
    if jnp.iscomplexobj(times):
        raise BadType(f"{name}={shown(value)}: use real numbers")
    if not is_traced(times) and not np.all(np.abs(np.asarray(times)) <= LATEST):
        raise BadValue(f"{name}={shown(value)}: use finite numbers, up to {LATEST:g}")
    return times


timed = checked(t=as_times, cycle=as_times)
"""For what is called with the time, and the number of the cycle."""


def as_teaching(name: str, value: Given) -> "AbstractTeaching":
    """A teaching signal, or an error that names what is none."""
    remedy = "use a signal with a period that is called with the time, a class below AbstractTeaching such as Rotating"
    require_instance(name, value, AbstractTeaching, remedy)
    return value


class AbstractTeaching(AbstractSettings):
    r"""A periodic teaching signal $\beta(t)$, complex or real.

    A subclass gives `period` and `__call__`.

    Example:
        >>> class TwoTones(osc.AbstractTeaching):
        ...     amplitude: jax.Array
        ...     period: jax.Array
        ...     def __call__(self, t, cycle=0):
        ...         turn = jnp.exp(2j * jnp.pi * t / self.period)
        ...         return self.amplitude * (turn + turn**2 / 2)
        >>> tones = osc.simulate(net, x, y, TwoTones(jnp.array(0.1), jnp.array(100.0)), cycles=3)
        >>> read, expected = tones.state.reading.response()[0], run.state.reading.response()[0]
        >>> np.allclose(read, expected, atol=1e-3)  # the second tone leaves the first coefficient as it is
        True
    """

    period: eqx.AbstractVar[Scalar]

    one_way: ClassVar[bool | None] = None
    """Whether it turns one way, with positive frequencies alone; None: that is seen from what was read of it."""

    points = None  # without a type, which would make it the first field of those that have one
    """The number of plateaus of a piecewise constant signal; None for any other."""

    @abc.abstractmethod
    def __call__(self, t: Real[Array, ""], cycle: Number = 0) -> Inexact[Array, ""]:
        r"""$\beta(t)$ for $0 \le t \le T$ in the cycle of that number, counted from 0: one number for all samples."""

    def begin(self, batch: int, dtype: DTypeLike) -> "Tuning | None":
        """Where the amplitudes of its samples stand before the first cycle; None: one signal for all."""
        return None

    def at(self, amplitude: Float[Array, "..."]) -> "AbstractTeaching":
        """The same signal at these amplitudes, one per sample; itself where it has one for all."""
        return self

    def tune(
        self, tuning: "Tuning", image: Float[Array, " batch"], response: Float[Array, " batch"], noisy: bool
    ) -> "Tuning":
        """The amplitudes for the next cycle, from the sizes of image and response of each sample in this one."""
        return tuning


class AbstractAdaptive(AbstractTeaching):
    r"""A signal with an amplitude for each sample, which it tunes itself between cycles."""

    amplitude: eqx.AbstractVar[Float[Array, "..."]]

    @abc.abstractmethod
    def at(self, amplitude: Float[Array, "..."]) -> "AbstractAdaptive": ...

    @abc.abstractmethod
    def begin(self, batch: int, dtype: DTypeLike) -> "Tuning": ...

    @abc.abstractmethod
    def tune(
        self, tuning: "Tuning", image: Float[Array, " batch"], response: Float[Array, " batch"], noisy: bool
    ) -> "Tuning": ...

    @abc.abstractmethod
    def next_start(self, start: Float[Array, ""], tuning: "Tuning") -> Float[Array, ""]:
        """What the next batch starts with, after one that started with `start` and ended like this."""

    def anew(self, tuning: "Tuning") -> "Tuning":
        """Where the amplitudes of other inputs stand, after some that ended like this: they start where most ended."""
        start = self.next_start(jnp.median(tuning.amplitude), tuning)
        fresh = self.at(start).begin(len(tuning.age), np.dtype(tuning.amplitude.dtype))
        return eqx.tree_at(lambda t: t.floor, fresh, tuning.floor)


class Rotating(AbstractTeaching):
    r"""A teaching signal that turns in the complex plane: $\beta(t) = A e^{i(2\pi t/T + \varphi)}$.

    Only positive frequencies, so every harmonic of the response is an exact power of `amplitude`.

    Attributes:
        amplitude: $A > 0$, dimensionless. Below the convergence radius of the network (see `suggest`).
        period: $T$, in the unit of the neurons' time constants.
        phase: $\varphi$, in radians.

    Raises:
        ValueError: amplitude or period are not positive.

    Source: Laborieux & Zenke (2022), section 4.

    Example:
        >>> signal = osc.Rotating(amplitude=0.2, period=100.0)
        >>> print(f"{signal(jnp.array(12.5)):.2f}")  # after an eighth of a turn
        0.14+0.14j
    """

    one_way: ClassVar[bool | None] = True

    # arrays, so that a changed number does not recompile
    amplitude: Scalar = eqx.field(converter=positive("amplitude"))
    period: Scalar = eqx.field(converter=positive("period"))
    phase: Scalar = eqx.field(converter=scalar("phase"), default=0.0)

    @timed
    def __call__(self, t: Real[Array, ""], cycle: Number = 0) -> Inexact[Array, ""]:
        return self.amplitude * jnp.exp(1j * (2 * jnp.pi * t / self.period + self.phase))


class Tuning(eqx.Module):
    """Where the amplitudes of an `Adaptive` signal stand, between two cycles.

    Attributes:
        amplitude: of each sample.
        age: how many cycles each sample has had at it.
        ceiling: what it is not raised above again: half way to an amplitude that was too large.
        image: the size of the image in the last cycle that was looked at; infinite before.
        ratio: the same relative to the response.
        raised: whether the amplitude was raised when it last changed.
        lowered: whether the amplitude was ever lowered.
        floor: the size of the image that noise alone leaves, the median over the samples; infinite before it was seen.
    """

    amplitude: Float[Array, " batch"]
    age: Int[Array, " batch"]
    ceiling: Float[Array, " batch"]
    image: Float[Array, " batch"]
    ratio: Float[Array, " batch"]
    raised: Bool[Array, " batch"]
    lowered: Bool[Array, " batch"]
    floor: Float[Array, ""]


class Adaptive(AbstractAdaptive):
    r"""A turning signal whose amplitude tunes itself, sample by sample: $\beta_b(t) = A_b e^{i(2\pi t/T + \varphi)}$.

    The estimate does not depend on the amplitude, so each sample may have its own. At the end of a cycle, the first
    after a change left out, each sample is judged by its image $q = \|c_{-1}\| / \|c_1\|$:

    - $q > 3\,\%$, and the image is three times larger than what noise leaves in the other samples, or grew when
      the amplitude was raised: the analytic regime is lost. The amplitude is halved, or quartered where $q > 20\,\%$,
      and never raised so far again.
    - $q > 1\,\%$ otherwise, under noise: noise dominates. The amplitude is doubled.

    In between it stays. Without noise it is never raised, since a small amplitude costs nothing but rounding.

    Attributes:
        period: $T$, in the unit of the neurons' time constants.
        amplitude: what every sample starts with; in training, what the first batch starts with. This default, and
            the next two, suit activations that bend on a scale of about 1.
        lowest: no sample goes below.
        highest: no sample goes above.
        phase: $\varphi$, in radians.

    Raises:
        ValueError: numbers that are not positive, or not in the order lowest, amplitude, highest.

    Example:
        >>> tuned = osc.simulate(net, x, y, osc.Adaptive(period=100.0, amplitude=4.0, highest=4.0), cycles=6)
        >>> print(tuned.state.tuning.amplitude < 4.0)  # lowered, sample by sample
        [ True  True  True]
    """

    one_way: ClassVar[bool | None] = True

    period: Scalar = eqx.field(converter=positive("period"))
    amplitude: Float[Array, "..."] = eqx.field(converter=as_amplitude, default=0.05)
    lowest: Scalar = eqx.field(converter=positive("lowest"), default=1e-3)
    highest: Scalar = eqx.field(converter=positive("highest"), default=1.0)
    phase: Scalar = eqx.field(converter=scalar("phase"), default=0.0)

    def __check_init__(self):
        if is_traced(self):
            return
        lowest, amplitude, highest = map(np.asarray, (self.lowest, self.amplitude, self.highest))  # also within a trace
        if not np.all((lowest <= amplitude) & (amplitude <= highest)):
            raise BadValue(
                f"amplitude={self.amplitude} is not between lowest={float(self.lowest):g} and "
                f"highest={float(self.highest):g}: change one of them"
            )

    @timed
    def __call__(self, t: Real[Array, ""], cycle: Number = 0) -> Inexact[Array, "..."]:
        """The signal at the starting amplitude, or one number per sample after `at`."""
        return self.amplitude * jnp.exp(1j * (2 * jnp.pi * t / self.period + self.phase))

    def at(self, amplitude: Float[Array, "..."]) -> "Adaptive":
        """The same signal at these amplitudes."""
        return eqx.tree_at(lambda signal: signal.amplitude, self, amplitude)

    def begin(self, batch: int, dtype: DTypeLike) -> Tuning:
        """Where the amplitudes stand before the first cycle."""
        return Tuning(
            amplitude=jnp.broadcast_to(self.amplitude, (batch,)).astype(dtype),
            age=jnp.zeros(batch, jnp.int32),
            ceiling=jnp.broadcast_to(self.highest, (batch,)).astype(dtype),
            image=jnp.full(batch, jnp.inf, dtype),
            ratio=jnp.full(batch, jnp.inf, dtype),
            raised=jnp.zeros(batch, bool),
            lowered=jnp.zeros(batch, bool),
            floor=jnp.asarray(jnp.inf, dtype),
        )

    def tune(self, tuning: Tuning, image: Array, response: Array, noisy: bool) -> Tuning:
        """The amplitudes for the next cycle, from the sizes of image and response of each sample in this one."""
        share = ratio(image, response)
        floor = jnp.minimum(1.05 * tuning.floor, jnp.median(image)) if noisy else jnp.zeros_like(tuning.floor)
        # Noise leaves the same image at every amplitude; past the radius it grows with it.
        in_vain = tuning.raised & (image > GREW * tuning.image)
        judged = tuning.age > 0
        lost = judged & (share > TOO_LARGE) & ((image > 3 * floor) | in_vain)
        drowned = judged & (share > DROWNED) & ~lost & noisy
        lower = jnp.maximum(
            tuning.amplitude * jnp.where(share > FAR_TOO_LARGE, 0.25, 0.5), self.lowest.astype(share.dtype)
        )
        ceiling = jnp.where(lost, jnp.minimum(tuning.ceiling, 0.75 * tuning.amplitude), tuning.ceiling)
        higher = jnp.maximum(jnp.minimum(2 * tuning.amplitude, ceiling), tuning.amplitude)
        amplitude = jnp.where(lost, lower, jnp.where(drowned, higher, tuning.amplitude))
        changed = amplitude != tuning.amplitude
        return Tuning(
            amplitude=amplitude,
            age=jnp.where(changed, 0, tuning.age + 1),
            ceiling=ceiling,
            image=jnp.where(judged, image, tuning.image),
            ratio=jnp.where(judged, share, tuning.ratio),
            raised=jnp.where(changed, amplitude > tuning.amplitude, tuning.raised & ~judged),
            lowered=tuning.lowered | (changed & lost),
            floor=jnp.where(jnp.any(judged), floor, tuning.floor),
        )

    def next_start(self, start: Array, tuning: Tuning) -> Array:
        """What the next batch starts with: lower where a sample was lost, higher where most drown in noise."""
        drown = jnp.median(tuning.ratio) > DROWNED
        factor = jnp.where(jnp.any(tuning.lowered), 0.8, jnp.where(drown, 1.25, 1.0))
        return jnp.clip(start * factor.astype(start.dtype), self.lowest, self.highest).astype(start.dtype)


TOO_LARGE, FAR_TOO_LARGE, DROWNED = 0.03, 0.2, 0.01
"""Images, relative to the response, above which `Adaptive` acts; a gradient is called wrong only much later."""

GREW = 3.0
"""An image that grew by this, when the amplitude was doubled, is not that of noise."""


class Staircase(AbstractTeaching):
    r"""The paper's piecewise constant signal: $\beta = A e^{2\pi i k/N}$ on the $k$-th of $N$ equal plateaus.

    Its steps hold negative harmonics too, so it is read once per plateau, at its end: an $N$-point estimate in time.

    Attributes:
        amplitude: $A > 0$, dimensionless.
        period: $T$, all $N$ plateaus together, in the unit of the neurons' time constants.
        points: $N$, at least 2.

    Raises:
        ValueError: amplitude or period are not positive, or fewer than two points.

    Source: Laborieux & Zenke (2022), Figs. 3a and 3b.

    Example:
        >>> signal = osc.Staircase(amplitude=0.2, period=100.0, points=8)
        >>> [f"{signal(jnp.array(t)):.2f}" for t in (0.0, 14.0, 24.0)]
        ['0.20+0.00j', '0.14+0.14j', '0.14+0.14j']
    """

    one_way: ClassVar[bool | None] = False

    amplitude: Scalar = eqx.field(converter=positive("amplitude"))
    period: Scalar = eqx.field(converter=positive("period"))
    points: int = eqx.field(static=True, converter=as_points)  # pyright: ignore[reportIncompatibleVariableOverride]

    @timed
    def __call__(self, t: Real[Array, ""], cycle: Number = 0) -> Inexact[Array, ""]:
        k = jnp.floor(self.points * t / self.period)
        return self.amplitude * jnp.exp(2j * jnp.pi * k / self.points)


class Cosine(AbstractTeaching):
    r"""A real signal for hardware without a second quadrature: $\beta(t) = A \cos(2\pi t/T)$.

    It holds the negative frequency as well, so the estimate is biased by $O(A^2)$; its first coefficient is $A/2$.

    Attributes:
        amplitude: $A > 0$, dimensionless.
        period: $T$, in the unit of the neurons' time constants.

    Raises:
        ValueError: amplitude or period are not positive.

    Example:
        >>> signal = osc.Cosine(amplitude=0.25, period=100.0)
        >>> print(signal(jnp.array(0.0)), signal(jnp.array(50.0)))
        0.25 -0.25
    """

    one_way: ClassVar[bool | None] = False

    amplitude: Scalar = eqx.field(converter=positive("amplitude"))
    period: Scalar = eqx.field(converter=positive("period"))

    @timed
    def __call__(self, t: Real[Array, ""], cycle: Number = 0) -> Inexact[Array, ""]:
        return self.amplitude * jnp.cos(2 * jnp.pi * t / self.period)


class Constant(AbstractTeaching):
    r"""A signal that does not turn: $\beta(t) = b$. It shows how a nudged network settles; it holds no gradient.

    Attributes:
        value: $b$, a real number; 0 leaves the network free.
        period: the stretch of time that counts as a cycle, in the unit of the neurons' time constants.

    Raises:
        ValueError: the period is not positive.

    Example:
        >>> nudged = osc.simulate(net, x, y, osc.Constant(0.5, period=50.0), cycles=2)
        >>> settled = osc.settle(net, x, y, beta=0.5)
        >>> np.allclose(nudged.phasors.mean[0][-1], settled.activities[0], atol=1e-3)
        True
    """

    one_way: ClassVar[bool | None] = False

    value: Scalar = eqx.field(converter=scalar("value"))
    period: Scalar = eqx.field(converter=positive("period"))

    @timed
    def __call__(self, t: Real[Array, ""], cycle: Number = 0) -> Inexact[Array, ""]:
        return jnp.broadcast_to(self.value, jnp.shape(t))


class Onset(AbstractTeaching):
    r"""A signal that is switched on smoothly over the first $n$ cycles.

    It is $\beta(t)\, \sin^2(\frac{\pi}{2} \min(t / (n T), 1))$ with $t$ counted from the very start. A start without a
    jump excites no transient beside the drive's own. The response to the first $n$ cycles is not periodic: discard
    them.

    Attributes:
        teaching: the signal to switch on.
        cycles: $n$, how many cycles it takes.

    Raises:
        ValueError: `cycles` is not positive.

    Example:
        >>> signal = osc.Onset(osc.Constant(0.25, period=100.0), cycles=1)
        >>> [f"{signal(jnp.array(t), 0):.3f}" for t in (0.0, 50.0, 100.0)]
        ['0.000', '0.125', '0.250']
    """

    teaching: AbstractTeaching = eqx.field(converter=functools.partial(as_teaching, "teaching"))
    cycles: Scalar = eqx.field(converter=positive("cycles"))

    @property
    def period(self) -> Scalar:
        """The period of the signal itself."""
        return self.teaching.period

    @property
    def points(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The plateaus of the signal itself."""
        return self.teaching.points

    @timed
    def __call__(self, t: Real[Array, ""], cycle: Number | None = None) -> Inexact[Array, ""]:
        """Without a cycle: the signal at full strength, as in every cycle after the first ones."""
        if cycle is None:
            return self.teaching(t)
        progress = jnp.minimum((cycle + t / self.period) / self.cycles, 1.0)
        return self.teaching(t, cycle) * jnp.sin(jnp.pi / 2 * progress) ** 2


def fourier_coefficient(teaching: AbstractTeaching, n: int, dtype: DTypeLike) -> Array:
    r"""$a_n = \frac1T \int_0^T \beta(t)\, e^{-in\omega t} dt$, complex, in the precision of the real `dtype`.

    The mean over the middles of 64 equal cells; of a signal with plateaus exactly, plateau by plateau.
    """
    points = teaching.points
    cells = points or 64
    turn = (np.arange(cells) + 0.5) / cells
    beta = jax.vmap(lambda x: jnp.asarray(teaching(x), complex_of(dtype)))(jnp.asarray(turn, dtype) * teaching.period)
    within = 1.0 if points is None else np.sinc(n / points)  # of the turning reference, over a plateau
    return jnp.mean(beta * jnp.asarray(within * np.exp(-2j * np.pi * n * turn), beta.dtype))


def teaching_circle(amplitude: Array, points: int, dtype: DTypeLike) -> Array:
    r"""$\beta_k = A e^{2\pi i k/N}$, with exact real points where they are real."""
    angles = 2 * np.pi * np.arange(points) / points
    unit = np.cos(angles) + 1j * np.where(2 * np.arange(points) % points == 0, 0.0, np.sin(angles))
    return amplitude * jnp.asarray(unit, jnp.promote_types(dtype, jnp.complex64))
