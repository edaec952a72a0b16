"""`GradientError`: how accurate a gradient is, as the estimate itself reports."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from oscsim.core.arrays import compiled, is_traced
from oscsim.core.checks import Given, as_real, shown
from oscsim.core.errors import RESULTS, BadValue, InexactGradientError, InexactGradientWarning, warn
from oscsim.core.printing import AbstractPrinted, percent
from oscsim.networks.learned import Gradient, named

TOLERANCE = 0.1
"""A gradient whose error is larger than this is called wrong, unless somebody asks for another tolerance."""

LOST = 0.1
"""A sample whose image is above this share of its response contributes an error worth naming."""


@compiled
def _total(contamination: Array, *rest: Array) -> Float[Array, ""]:
    return jnp.sqrt(contamination**2 + jnp.nansum(jnp.stack(rest) ** 2))


@compiled
def out_of_regime(
    image: Float[Array, " batch"], rounding: Float[Array, " batch"], change: Float[Array, " batch"]
) -> Bool[Array, " batch"]:
    """Which samples have an image that neither rounding nor a transient explains; without noise."""
    explained = (3 * rounding > image) | (change > 0.5 * image)
    return (image > LOST) & ~explained


class GradientError(AbstractPrinted):
    r"""How accurate a gradient is: the size of each part of its error, relative to the norm of the gradient.

    A part that cannot be known is nan, and `reasons` says why.

    Attributes:
        contamination: noise, transients, rounding and a lost analytic regime: from the image, and from the scatter of
            $c_0$, which the image does not see.
        lag: what the finite period leaves, $O((\omega\tau)^2)$.
        steps: what the solver's steps leave.
        asymmetry: what couplings without symmetry leave; 0 where the force has a potential.
        per_array: the same four for each array of parameters, relative to that array's own gradient: a pytree like the
            gradient with an array (4,) in each place.
        per_sample: the image of each sample relative to its response; nan where there is none.
        rounding: the part of `per_sample` that the precision alone explains.
        change: how much each sample's response changed in the last cycle, or differs between those averaged, relative
            to it.
        kept: over how many cycles each sample was averaged.
        skipped: how many cycles before those were left out.
        amplitude: of each sample's teaching signal, $|a_1|$.
        responding: how much of the gradient the response makes, which alone lags.
        deviation: the standard deviation of each parameter, a pytree like the gradient; None without several cycles or
            images.
        noisy: whether there was noise.

    Example:
        >>> error = run.error()
        >>> print(f"{error.lag:.1%}", error.total < 0.05)
        0.3% True
        >>> error.reasons  # nothing to complain of
        ()
    """

    contamination: Float[Array, ""]
    lag: Float[Array, ""]
    steps: Float[Array, ""]
    asymmetry: Float[Array, ""]
    per_array: PyTree
    per_sample: Float[Array, " batch"]
    rounding: Float[Array, " batch"]
    change: Float[Array, " batch"]
    kept: Int[Array, " batch"]
    skipped: Int[Array, " batch"]
    amplitude: Float[Array, " batch"]
    responding: Float[Array, ""] | float = 1.0
    deviation: Gradient | None = None
    noisy: bool = eqx.field(static=True, default=False)

    @property
    def total(self) -> Float[Array, ""]:
        """All parts in squares; nan where the contamination is unknown. Other unknown parts are left out."""
        return _total(self.contamination, self.lag, self.steps, self.asymmetry)

    def extrapolated(self, half: "GradientError", bias: Array) -> "GradientError":
        r"""The error of $(4\, g(T) - g(T/2)) / 3$, where this is that of $g(T)$ and `half` that of $g(T/2)$.

        `bias` is $|g(T) - g(T/2)| / 3$ relative to the gradient: the lag of $g(T)$. Of one mode, four times its square
        is left, each relative to what the response makes. Equal steps of one size lag like the neurons, and are
        extrapolated with them.
        """
        both = jnp.hypot(4 * self.contamination, half.contamination) / 3
        share = jnp.maximum(self.responding, jnp.finfo(bias.dtype).tiny)
        lag, steps = 4 * bias**2 / share, 4 * self.steps**2 / share
        worse = jnp.fmax(self.per_sample, half.per_sample)
        per_array = jax.tree.map(
            lambda a, b: jnp.stack([jnp.hypot(4 * a[0], b[0]) / 3, lag, steps, a[3]]), self.per_array, half.per_array
        )
        replaced = (both, lag, steps, per_array, worse)
        return eqx.tree_at(lambda e: (e.contamination, e.lag, e.steps, e.per_array, e.per_sample), self, replaced)

    @property
    def outside(self) -> Bool[Array, " batch"]:
        """Samples outside the analytic regime: an image that neither noise, nor rounding, nor a transient explains."""
        return out_of_regime(self.per_sample, self.rounding, self.change) & (not self.noisy)

    @property
    def result(self) -> RESULTS:
        """`RESULTS.successful` if the known error is within `TOLERANCE`, else the cause of its largest part."""
        parts = jnp.stack([self.contamination, self.lag, self.steps, self.asymmetry])
        largest = jnp.argmax(jnp.where(jnp.isnan(parts), -1, parts))
        found = RESULTS.asymmetry
        for place, cause in enumerate((self.cause, RESULTS.lag, RESULTS.steps)):
            found = RESULTS.where(largest == place, cause, found)
        return RESULTS.where(self.total > TOLERANCE, found, RESULTS.successful)

    @property
    def worst(self) -> Int[Array, ""]:
        """The sample whose image is largest, relative to its response."""
        return jnp.argmax(jnp.where(jnp.isfinite(self.per_sample), self.per_sample, -1))

    @property
    def cause(self) -> RESULTS:
        """What the contamination comes of: what explains the image of the worst sample."""
        image, change = self.per_sample[self.worst], self.change[self.worst]
        found = RESULTS.where(change > 0.5 * image, RESULTS.not_locked, RESULTS.out_of_regime)
        found = RESULTS.where(jnp.isfinite(change), found, RESULTS.one_cycle)
        found = RESULTS.noise if self.noisy else found
        found = RESULTS.where(3 * self.rounding[self.worst] > image, RESULTS.rounding, found)
        return RESULTS.where(jnp.isfinite(image), found, RESULTS.noise if self.noisy else RESULTS.not_locked)

    def by_name(self) -> dict[str, dict[str, float]]:
        """`per_array` as numbers, by the name of the parameter array and of the part."""
        return {name: dict(zip(PARTS, map(float, row), strict=True)) for name, row in named(self.per_array)}

    @property
    def reasons(self) -> tuple[str, ...]:
        """A sentence for each part that is unknown or above `TOLERANCE`: what it is and what to do. Not under jit."""
        return tuple(sentence for sentence, _ in self._findings())

    def _findings(self) -> list[tuple[str, float]]:
        """Sentences, each with the size of what it speaks of, the largest first; unknown parts last."""
        contamination, lag, steps, asymmetry = self._parts
        found = [
            (contamination, self._cause, UNKNOWN_CONTAMINATION),
            (lag, lambda: _sentence(RESULTS.lag, lag), UNKNOWN_LAG),
            (steps, lambda: _sentence(RESULTS.steps, steps), UNKNOWN_STEPS),
            (asymmetry, lambda: _sentence(RESULTS.asymmetry, asymmetry), UNKNOWN_ASYMMETRY),
        ]
        large = [(sentence(), size) for size, sentence, _ in found if size > TOLERANCE]
        unknown = [(sentence, size) for size, _, sentence in found if math.isnan(size)]
        return [*sorted(large, key=lambda item: -item[1]), *unknown]

    @property
    def _parts(self) -> tuple[float, ...]:
        return tuple(map(float, (self.contamination, self.lag, self.steps, self.asymmetry)))

    def _cause(self) -> str:
        """What the contamination is, and what to do."""
        worst, count = int(self.worst), len(self.per_sample)
        image = float(self.per_sample[worst])
        where = f", worst in sample {worst} of {count}, by {percent(image)} of its response" if image > 0 else ""
        return _sentence(self.cause, float(self.contamination), where)

    def __str__(self) -> str:
        total = float(self.total)
        if not math.isfinite(total):
            head = "gradient of unknown accuracy"
        else:
            head = (
                f"gradient good to {percent(total)}"
                if total < 0.995
                else f"gradient of no use, off by {percent(total)}"
            )
        parts = [
            f"{name} {percent(value)}"
            for name, value in zip(PARTS, self._parts, strict=True)
            if (value > 0 and name != "asymmetry") or value > 1e-4
        ]
        if self.noisy:
            parts = [part.replace("contamination", "noise") for part in parts]
        sentences = "; ".join(self.reasons)
        return head + (f": {', '.join(parts)}" if parts else "") + (f"; {sentences}" if sentences else "")

    def __repr__(self) -> str:
        return f"<{self}>"


UNKNOWN_CONTAMINATION = (
    "contamination unknown: this signal has no image, as it turns both ways or is read as points, and there are no two "
    "cycles to compare; keep two cycles or more, or use Rotating"
)
UNKNOWN_LAG = "lag unknown: the quadrature does not show it here; compare with twice the period"
UNKNOWN_STEPS = "steps unknown for this solver or controller: compare with half the step"
UNKNOWN_ASYMMETRY = "asymmetry unknown: the linear response at rest was not solved"

PARTS = ("contamination", "lag", "steps", "asymmetry")
"""The parts of an error, in the order of `per_array`."""


def _sentence(result: RESULTS, size: float, where: str = "") -> str:
    """What the result says, with the share of the gradient that it spoils."""
    what, *remedy = RESULTS[result].split("; ", 1)
    return "; ".join([f"{what} ({percent(size)} of the gradient{where})", *remedy])


def good_enough(error: GradientError, accuracy: ArrayLike) -> Bool[Array, ""]:
    """Whether the error that is known is below `accuracy`, over two cycles at least: one can look good by chance."""
    return (jnp.min(error.kept) >= 2) & (error.total <= accuracy)


def as_tolerance(name: str, value: Given) -> float:
    """A positive number; infinite for none, or an error that names it."""
    tolerance = as_real(name, value)
    if tolerance.ndim or is_traced(tolerance) or not float(tolerance) > 0:
        raise BadValue(f"{name}={shown(value)}: use a positive number; math.inf never warns")
    return float(tolerance)


def report(error: GradientError | None, tolerance: float, throw: bool) -> None:
    """Warn of a gradient whose own error is above a tolerance, or raise.

    Raises:
        InexactGradientError: with `throw`.
    """
    if error is None or is_traced(error) or not float(error.total) > tolerance:
        return
    if throw:
        raise InexactGradientError(str(error))
    warn(str(error), InexactGradientWarning)
