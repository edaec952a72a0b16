"""What an estimate says of its own error."""

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from oscsim.core.arrays import compiled
from oscsim.core.errors import InexactGradientError, InexactGradientWarning
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


class GradientError(eqx.Module):
    r"""How right a gradient is: the size of each part of its error, relative to the norm of the gradient.

    A part that cannot be known is nan, and `reasons` says why.

    Attributes:
        contamination: noise, transients, rounding and a lost analytic regime: from the image, and from the scatter of
            $c_0$, which the image does not see.
        lag: what the finite period leaves, $O((\omega\tau)^2)$.
        steps: what the solver's steps leave.
        asymmetry: what couplings without symmetry leave; 0 where the force has a potential.
        per_array: the same four for each array of parameters, relative to that array's own gradient: a pytree like the
            gradient with an array (4,) in each place.
        deviation: the standard deviation of each parameter, a pytree like the gradient; None without several cycles or
            images.
        per_sample: the image of each sample relative to its response; nan where there is none.
        rounding: the part of `per_sample` that the precision alone explains.
        change: how much each sample's response changed in the last cycle, relative to it.
        kept: over how many cycles each sample was averaged.
        skipped: how many cycles before those were left out.
        amplitude: of each sample's teaching signal, $|a_1|$.
        noisy: whether there was noise.
    """

    contamination: Float[Array, ""]
    lag: Float[Array, ""]
    steps: Float[Array, ""]
    asymmetry: Float[Array, ""]
    per_array: PyTree
    deviation: Gradient | None
    per_sample: Float[Array, " batch"]
    rounding: Float[Array, " batch"]
    change: Float[Array, " batch"]
    kept: Int[Array, " batch"]
    skipped: Int[Array, " batch"]
    amplitude: Float[Array, " batch"]
    noisy: bool = eqx.field(static=True, default=False)

    @property
    def total(self) -> Float[Array, ""]:
        """All parts in squares; nan where the contamination is unknown. Other unknown parts are left out."""
        return _total(self.contamination, self.lag, self.steps, self.asymmetry)

    def extrapolated(self, half: "GradientError", bias: Array) -> "GradientError":
        r"""The error of $(4\, g(T) - g(T/2)) / 3$, where this is that of $g(T)$ and `half` that of $g(T/2)$.

        `bias` is $|g(T) - g(T/2)| / 3$ relative to the gradient: the lag of $g(T)$. Of one mode, four times its square
        is left. Equal steps of one size lag like the neurons, and are extrapolated with them.
        """
        both = jnp.hypot(4 * self.contamination, half.contamination) / 3
        lag, steps = 4 * bias**2, 4 * self.steps**2
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
            (lag, lambda: LAGGING.format(_percent(lag)), UNKNOWN_LAG),
            (steps, lambda: COARSE.format(_percent(steps)), UNKNOWN_STEPS),
            (asymmetry, lambda: ASYMMETRIC.format(_percent(asymmetry)), UNKNOWN_ASYMMETRY),
        ]
        large = [(sentence(), size) for size, sentence, _ in found if size > TOLERANCE]
        unknown = [(sentence, size) for size, _, sentence in found if math.isnan(size)]
        return [*sorted(large, key=lambda item: -item[1]), *unknown]

    @property
    def _parts(self) -> tuple[float, ...]:
        return tuple(map(float, (self.contamination, self.lag, self.steps, self.asymmetry)))

    def _cause(self) -> str:
        """What the contamination is, and what to do."""
        image = np.asarray(self.per_sample)
        size = _percent(float(self.contamination))
        if not np.any(np.isfinite(image)):
            return f"the cycles differ, which leaves {size}; average more cycles, or discard more"
        worst = int(np.argmax(np.where(np.isfinite(image), image, -1)))
        where = (
            f"{size} (worst in sample {worst} of {len(image)}, whose image is {_percent(float(image[worst]))} of its "
            "response)"
        )
        rounding, change = float(self.rounding[worst]), float(self.change[worst])
        if 3 * rounding > image[worst]:
            return f"rounding leaves {where}: the precision swallows the response; use a larger amplitude, or float64"
        if self.noisy:
            return f"noise leaves {where}; average more cycles, or use a larger amplitude"
        if not math.isfinite(change):
            return (
                f"the only cycle leaves {where}: a start that is not forgotten, or an amplitude past the convergence "
                "radius; run more cycles, or use start='settled'"
            )
        if change > 0.5 * image[worst]:
            return (
                f"not locked: the cycles still change, which leaves {where}; run more cycles, or discard more, and if "
                "that does not help lower the amplitude"
            )
        outside = max(int(np.sum(np.asarray(self.outside))), 1)
        return (
            f"outside the analytic regime: {outside} of {len(image)} samples are past their convergence radius, which "
            f"leaves {where}; lower the amplitude, or use Adaptive; if that changes nothing, take more steps_per_cycle"
        )

    def __str__(self) -> str:
        if not math.isfinite(float(self.total)):
            head = "gradient of unknown accuracy"
        else:
            head = f"gradient good to {_percent(float(self.total))}"
        parts = [
            f"{name} {_percent(value)}"
            for name, value in zip(
                PARTS, map(float, (self.contamination, self.lag, self.steps, self.asymmetry)), strict=True
            )
            if (value > 0 and name != "asymmetry") or value > 1e-4
        ]
        if self.noisy:
            parts = [part.replace("contamination", "noise") for part in parts]
        sentences = "; ".join(self.reasons)
        return head + (f": {', '.join(parts)}" if parts else "") + (f"; {sentences}" if sentences else "")

    def __repr__(self) -> str:
        return f"<{self}>"


LAGGING = "the neurons lag behind the period, which leaves {}; use a longer period, or extrapolate=True"
COARSE = "the solver's steps leave {}; use more steps_per_cycle, or tighter tolerances"
ASYMMETRIC = "the couplings are not symmetric, which leaves {} at any amplitude and period"
UNKNOWN_CONTAMINATION = (
    "contamination unknown: this signal has no image, as it turns both ways or is read as points, and there are no two "
    "cycles to compare; keep two cycles or more, or use Rotating"
)
UNKNOWN_LAG = "lag unknown: the quadrature does not show it here; compare with twice the period"
UNKNOWN_STEPS = "steps unknown for this solver or controller: compare with half the step"
UNKNOWN_ASYMMETRY = "asymmetry unknown: the linear response at rest was not solved"

PARTS = ("contamination", "lag", "steps", "asymmetry")
"""The parts of an error, in the order of `per_array`."""


def _percent(value: float) -> str:
    return "an unknown share" if not math.isfinite(value) else f"{100 * value:.2g} %"


def good_enough(error: GradientError, accuracy: ArrayLike) -> Bool[Array, ""]:
    """Whether the error that is known is below `accuracy`, over two cycles at least: one can look good by chance."""
    return (jnp.min(error.kept) >= 2) & (error.total <= accuracy)


def report(error: GradientError | None, tolerance: float, throw: bool) -> None:
    """Warn of a gradient whose own error is above a tolerance, or raise.

    Raises:
        InexactGradientError: with `throw`.
    """
    if error is None or not float(error.total) > tolerance:
        return
    if throw:
        raise InexactGradientError(str(error))
    warnings.warn(str(error), InexactGradientWarning, stacklevel=3)
