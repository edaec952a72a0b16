"""Multiplicative noise: white, with an amplitude that follows the activity."""

from collections.abc import Callable
from typing import Literal

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key, Real

from oscsim.core.arrays import Scalar
from oscsim.core.checks import as_flag, as_function, choice, not_negative
from oscsim.core.errors import BadValue
from oscsim.networks.base import Layers
from oscsim.signals.noise import AbstractForcing, Draw, Increment, is_srk, normals, scaled


def activity(s: Array) -> Array:
    """The activity itself: noise in proportion to what a neuron emits."""
    return s


class Multiplicative(AbstractForcing):
    r"""White noise in proportion to the activity: $\tau\, du = (-u + \partial\Phi/\partial s)\, dt + q\, g(s)\, dW$.

    $W$ is a real Wiener process of each neuron and sample. With a holomorphic $g$ the whole path stays a holomorphic
    function of the teaching signal. Stratonovich unless asked otherwise: the limit of noise with a short correlation
    time, as physical noise is. Then the solver is `Heun`; of the Ito equation it is `Euler`. The other one would
    converge to the other equation, and is refused.

    The two differ by a drift: Stratonovich is Ito with $\frac{q^2}{2 \tau^2}\, g'(s)\, \sigma'(u)\, g(s)$ added to
    $\dot u$. A lone linear neuron, $\sigma(u) = u$, with $g(s) = 1 + b s$ has, in the Ito equation, mean 0 and variance
    $q^2 / (2\tau - q^2 b^2)$; in that of Stratonovich mean $m = q^2 b / (2\tau - q^2 b^2)$ and
    $E u^2 = q^2 (1 + 3 b m) / (2\tau - 2 q^2 b^2)$.

    Attributes:
        intensity: $q \ge 0$, in units of the potential times the square root of time, at $g = 1$.
        function: $g$, elementwise, on complex arrays; by default $g(s) = s$.
        interpretation: `"stratonovich"` or `"ito"`.
        shared_over_batch: one Wiener process for all samples of a batch; else independent ones.

    Raises:
        TypeError: `function` cannot be called.
        ValueError: an intensity that is negative or not finite, an unknown interpretation; when run, a solver that
            converges to the other equation.

    Source: Kloeden & Platen (1992), sections 4.9 and 10.2.

    Example:
        >>> noise = osc.Multiplicative(0.1, lambda s: 1 + s / 2)
        >>> print(noise.amplitude((jnp.array([[0.0, 1.0]]),))[0])  # g(s), for one layer of two neurons
        [[1.  1.5]]
    """

    intensity: Scalar
    function: Callable
    interpretation: Literal["stratonovich", "ito"] = eqx.field(static=True)
    shared_over_batch: bool = eqx.field(static=True)

    def __init__(
        self,
        intensity: ArrayLike,
        function: Callable = activity,
        interpretation: Literal["stratonovich", "ito"] = "stratonovich",
        shared_over_batch: bool = False,
    ):
        self.intensity = not_negative("intensity")(intensity)
        self.function = as_function("function", function)
        self.interpretation = choice("stratonovich", "ito")("interpretation", interpretation)
        self.shared_over_batch = as_flag("shared_over_batch", shared_over_batch)

    def check(self, solver: diffrax.AbstractSolver, step: float, time_constants: tuple[Array, ...]) -> None:
        """Refuse a solver that converges to the other equation."""
        right, other = {
            "stratonovich": (diffrax.AbstractStratonovichSolver, "diffrax.Heun()"),
            "ito": (diffrax.AbstractItoSolver, "diffrax.Euler()"),
        }[self.interpretation]
        if is_srk(solver):
            raise BadValue(f"solver={solver!r} is for additive noise, Multiplicative is not: use {other}")
        if not isinstance(solver, right):
            raise BadValue(
                f"solver={solver!r} does not converge to the equation of interpretation={self.interpretation!r}: use "
                f"{other}"
            )

    def init(self, key: Key[Array, ""], u: Layers) -> None:
        return None

    def random(self, key: Key[Array, ""], u: Layers, area: bool) -> Layers:
        return normals(key, u, 1, self.shared_over_batch)[0]

    def draw(self, state: None, random: Layers, step: Real[Array, ""], area: bool) -> Draw:
        return Draw(None, Increment(scaled(random, self.intensity * jnp.sqrt(step)), None), None)

    def amplitude(self, s: Layers) -> Layers:
        return tuple(jnp.asarray(self.function(layer), layer.dtype) for layer in s)

    def spectrum(self, omega: ArrayLike) -> Array:
        r"""$q^2$ at every frequency, to be multiplied with $|g(s)|^2$."""
        return jnp.ones(jnp.shape(omega)) * self.intensity**2
