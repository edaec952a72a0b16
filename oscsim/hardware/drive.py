"""Imperfect teaching signals and demodulators."""

import functools
import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, PyTree, Real

from oscsim.core.arrays import Scalar
from oscsim.core.checks import as_sequence, not_negative, scalar
from oscsim.dynamics.demodulation import DEMODULATOR, AbstractDemodulator, Reading
from oscsim.hardware.precision import rounded
from oscsim.networks.base import Layers
from oscsim.signals.teaching import AbstractTeaching, Number, as_teaching, timed


class DistortedTeaching(AbstractTeaching):
    r"""A teaching signal with harmonic distortion, a phase error, and a leak of one quadrature into the other.

    $\beta'(t) = e^{i\varphi} \left(\beta(t) + \sum_{n \ge 2} d_n\, \beta(n t) + \epsilon\, \overline{\beta(t)}
    \right)$. Harmonics leave the estimate exact to first order in the amplitude; the image $\epsilon$, a negative
    frequency as quadratures of unequal gain make it, biases it by $O(A^2)$ as `Cosine` does. The phase is harmless
    where the demodulator reads the signal itself; for a phase that it does not know see `ImperfectDemodulator`. A real
    signal stays real: the phase shifts its time, and it has no image.

    Attributes:
        teaching: the ideal.
        harmonics: $(d_2, d_3, ...)$, relative to the signal.
        phase: $\varphi$, in radians.
        image: $\epsilon$, relative.

    Raises:
        ValueError: numbers that are not finite.

    Example:
        >>> ideal = osc.Rotating(0.2, 100.0)
        >>> distorted = osc.hardware.DistortedTeaching(ideal, harmonics=[0.1], image=0.05)
        >>> print(f"{distorted(jnp.array(0.0)).real / ideal(jnp.array(0.0)).real:.2f}")  # 1 + 0.1 + 0.05
        1.15
    """

    teaching: AbstractTeaching = eqx.field(converter=functools.partial(as_teaching, "teaching"))
    harmonics: tuple[Scalar, ...] = eqx.field(
        default=(), converter=lambda values: tuple(scalar("harmonics")(v) for v in as_sequence("harmonics", values))
    )
    phase: Scalar = eqx.field(converter=scalar("phase"), default=0.0)
    image: Scalar = eqx.field(converter=scalar("image"), default=0.0)

    @property
    def period(self) -> Scalar:
        """The period of the signal itself."""
        return self.teaching.period

    @property
    def points(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The plateaus of the signal itself."""
        return self.teaching.points

    @timed
    def __call__(self, t: Real[Array, ""], cycle: Number | None = None) -> Inexact[Array, "..."]:
        ideal = self.teaching if cycle is None else functools.partial(self.teaching, cycle=cycle)
        is_complex = jnp.iscomplexobj(ideal(t))
        t = t if is_complex else t + self.phase * self.period / (2 * math.pi)
        beta = ideal(t)
        image = self.image * jnp.conj(beta) if is_complex else 0.0
        for n, part in enumerate(self.harmonics, start=2):
            beta += part * ideal(jnp.mod(n * t, self.period))
        return (beta + image) * jnp.exp(1j * self.phase) if is_complex else beta


class ImperfectDemodulator(AbstractDemodulator):
    r"""A demodulator with a converter of finite resolution, and a reference that is out of phase.

    It sees real and imaginary part of the activities at the nearest multiple of `resolution`, and takes the teaching
    signal for $\beta e^{i\varphi}$: the response $c_1 / a_1$ is turned by $-\varphi$, and the gradient, its real part,
    comes out as $\cos\varphi$ of itself plus $\sin\varphi$ of the quadrature component.

    Attributes:
        demodulator: the ideal.
        resolution: the step, in units of the activity; 0 for none.
        phase: $\varphi$, in radians.

    Raises:
        ValueError: a negative resolution, a phase that is not finite.

    Example:
        >>> reader = osc.hardware.ImperfectDemodulator(osc.Boxcar(), phase=0.2)
        >>> seen = osc.simulate(net, x, y, osc.Rotating(0.2, 100.0), cycles=3, demodulator=reader)
        >>> turned = seen.state.reading.response()[0] / run.state.reading.response()[0]
        >>> np.allclose(turned, np.exp(-0.2j), atol=1e-3)
        True
    """

    demodulator: AbstractDemodulator = eqx.field(converter=functools.partial(DEMODULATOR, "demodulator"))
    resolution: Scalar = eqx.field(converter=not_negative("resolution"), default=0.0)
    phase: Scalar = eqx.field(converter=scalar("phase"), default=0.0)

    @property
    def fewest_ticks(self) -> int:
        """As the ideal needs them."""
        return self.demodulator.fewest_ticks

    @property
    def warm_up(self) -> int:
        """As the ideal needs it."""
        return self.demodulator.warm_up

    @property
    def independent(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As those of the ideal are."""
        return self.demodulator.independent

    def init(self, s: Layers, beta: Inexact[Array, "..."], ticks: int) -> PyTree:
        return self.demodulator.init(s, beta, ticks)

    def begin(self, state: PyTree, cycle: Int[Array, ""]) -> PyTree:
        return self.demodulator.begin(state, cycle)

    def update(self, state: PyTree, s: Layers, beta: Inexact[Array, "..."], tick: Int[Array, ""], ticks: int) -> PyTree:
        seen = tuple(rounded(layer, self.resolution) for layer in s)
        reference = beta * jnp.exp(1j * self.phase).astype(beta.dtype)
        return self.demodulator.update(state, seen, reference, tick, ticks)

    def read(self, state: PyTree) -> Reading:
        return self.demodulator.read(state)
