r"""How right an estimate is, measured on the estimate itself.

With a teaching signal that turns one way, below the convergence radius, locked and without noise, harmonic -1 of every
neuron is exactly zero. What stands there, the *image*, is contamination, and about as large as that in harmonic 1:
noise, transients and rounding put the same power into both, and past the radius negative harmonics appear. Passed
through the gradient's formula in place of the response, the image is a sample of the gradient's error:

$$g_{img} = -\nabla_\theta \frac{d}{d\epsilon} \mathrm{Re}\,
\Phi(\theta; x, c_0 + \epsilon\, \overline{c_{-1}} / a_1, y, 0)$$

What the image does not see has an entry of its own: the error of $c_0$, the lag behind a finite period, the steps of
the solver, and couplings without symmetry.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from oscsim.core.arrays import complex_of, is_traced, norm, per_sample, sample_norm
from oscsim.core.errors import InexactGradientError, InexactGradientWarning
from oscsim.dynamics.average import Average, turns_one_way
from oscsim.dynamics.plan import Plan
from oscsim.dynamics.readings import Phasors
from oscsim.equilibrium.asymmetry import asymmetry_error
from oscsim.equilibrium.linear import gradient_read, linear_response, response_gradient
from oscsim.equilibrium.modes import fastest_rate
from oscsim.networks.base import AbstractNetwork, Layers, fastest_neuron, named
from oscsim.networks.inputs import Inputs
from oscsim.signals.noise import AbstractForcing, as_noises
from oscsim.signals.teaching import is_one_way

TOLERANCE = 0.1
"""A gradient whose error is larger than this is called wrong, unless somebody asks for another tolerance."""

LAG = 1.0
r"""The lag is about so many times the squared quadrature: 1 for one real mode, more for several."""

SCATTER = 2.5
"""What is left of the equations counts where it is larger than so many times what scatter leaves of them."""

LOST = 0.1
"""A sample whose image is above this share of its response contributes an error worth naming."""


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
    per_array: Any
    deviation: Any
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
        rest = jnp.stack([self.lag, self.steps, self.asymmetry])
        return jnp.sqrt(self.contamination**2 + jnp.nansum(rest**2))

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
        image = self.per_sample
        explained = (3 * self.rounding > image) | (self.change > 0.5 * image)
        return (image > LOST) & ~explained & (not self.noisy)

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
            f"leaves {where}; lower the amplitude, or use Adaptive"
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


def gradient_and_error(
    network: AbstractNetwork,
    inputs: Inputs,
    average: Average,
    change: Float[Array, " batch"],
    teaching: Any,
    plan: Plan,
    noise: Any = None,
    lag: Any = None,
) -> tuple[Any, GradientError]:
    """The gradient in an average of readings, and how right it is: pure, works under jit.

    Args:
        network: the neurons.
        inputs: what they were shown.
        average: the readings.
        change: of each sample's response in the last cycle, relative; nan or infinite where there was one alone.
        teaching: the signal.
        plan: how it was integrated and read.
        noise: what disturbed it.
        lag: the lag's own contribution as a pytree like the gradient, where it is known better than from the
            quadrature.
    """
    reading: Any = average.mean  # phasors in the functions below that ask for harmonics
    dtype = network.dtype
    gradient = reading.gradient(network, inputs)
    size, sizes = norm(gradient), jax.tree.map(norm, gradient)
    tiny = jnp.finfo(dtype).tiny
    several = average.count > 1
    unknown = jnp.asarray(jnp.nan, dtype)

    def norms(tree):
        return jax.tree.map(norm, tree)

    def from_contrast():
        moved = jax.jvp(lambda r: r.gradient(network, inputs), (reading,), (average.contrast,))[1]
        known = jnp.all(several)
        return jax.tree.map(lambda a: jnp.where(known, norm(a), jnp.nan), moved)

    def from_image():
        factor = jnp.asarray(mean_factor(noise, teaching, plan), dtype)
        of_response = [image_response(reading)]
        of_mean = [mean_error(average, several & plan.demodulator.independent, factor)]
        if as_noises(noise):  # strong noise moves both for good, which averaging does not reveal
            shift, bias = imbalance(network, inputs, reading, 2 * jnp.pi / teaching.period)
            of_response, of_mean = [*of_response, bias], [*of_mean, shift]
        return jax.tree.map(jnp.hypot, joined(along_response, of_response), joined(along_mean, of_mean))

    def along_response(error):
        return norms(response_gradient(network, inputs, reading[0], error, 0.0))

    def along_mean(error):
        c_0, chi = reading[0], reading.response()
        return norms(jax.jvp(lambda c_0: response_gradient(network, inputs, c_0, chi), (c_0,), (error,))[1])

    def joined(norms_along, errors):
        """Scatter, and what is left of the equations where scatter does not explain it; array by array."""
        stacked = jax.tree.map(lambda *a: jnp.stack(a), *errors)  # one program for both
        found = jax.vmap(norms_along)(stacked)

        def both(a):
            beyond = a[-1] ** 2 - (SCATTER * a[0]) ** 2 if len(a) > 1 else jnp.zeros_like(a[0])
            return jnp.sqrt(a[0] ** 2 + jnp.maximum(beyond, 0))

        return jax.tree.map(both, found)

    batch = len(reading.mean[0])
    blank = jnp.full(batch, jnp.nan, dtype)
    if isinstance(reading, Phasors):
        one_way = is_one_way(teaching) if reading.has_image else False
        if one_way is None:
            one_way = turns_one_way(reading)
            parts = lax.cond(one_way, from_image, from_contrast)
            image = jnp.where(one_way, reading.image_ratio(), jnp.nan)
        else:
            parts, image = (from_image(), reading.image_ratio()) if one_way else (from_contrast(), blank)
        chi = reading.response()
        directions = jax.tree.map(lambda c: jnp.stack([-1j * c, c]), chi)
        both = jax.vmap(along_response)(directions)
        # what of the gradient the response makes: the readout's own derivative neither lags nor feels the steps
        quadrature, responded = (jax.tree.map(lambda a, i=i: a[i], both) for i in (0, 1))
        moved = norm(responded)
        # noise is as large in one quadrature as in the other
        noise_free = jax.tree.map(
            lambda q, p: jnp.sqrt(jnp.maximum(q**2 - jnp.nan_to_num(p) ** 2, 0)), quadrature, parts
        )
        time = norm(noise_free) / jnp.maximum(moved, tiny)
        if lag is not None:
            lags = norms(lag)
        elif network.symmetric:
            lags = jax.tree.map(lambda q: LAG * time * q, noise_free)
        else:
            lags = jax.tree.map(lambda s: unknown, sizes)
        rounding = rounding_ratio(reading)
        amplitude = jnp.abs(reading.teaching[reading.harmonics.index(1)]).astype(dtype)
    else:
        parts, image, rounding = from_contrast(), blank, blank
        amplitude = jnp.max(jnp.abs(reading.teaching), axis=0).astype(dtype)
        lags, time, responded = jax.tree.map(lambda s: unknown, sizes), unknown, sizes
    stepped = jax.tree.map(lambda s: step_error(plan, teaching, time, dtype) * s, responded)
    skew = jax.tree.map(jnp.zeros_like, sizes) if network.symmetric else asymmetry_norms(network, inputs, reading.mean)
    all_parts = (parts, lags, stepped, skew)
    per_array = jax.tree.map(lambda s, *p: jnp.stack(p) / jnp.maximum(s, tiny), sizes, *all_parts)
    contamination, lagging, steps, skewed = (norm(part) / jnp.maximum(size, tiny) for part in all_parts)
    return gradient, GradientError(
        contamination,
        lagging,
        steps,
        skewed,
        per_array,
        None,
        image,
        rounding,
        change,
        average.count,
        average.skipped,
        amplitude,
        noisy=bool(as_noises(noise)),
    )


def good_enough(error: GradientError, accuracy: Any) -> Bool[Array, ""]:
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


def image_response(reading: Phasors) -> Layers:
    r"""$\overline{c_{-1}} / a_1$, what stands for an error of the response $\chi = c_1 / a_1$."""
    a_1 = reading.teaching[reading.harmonics.index(1)]
    return tuple(jnp.conj(c) / per_sample(a_1, c) for c in reading[-1])


def mean_error(average: Average, measured: Bool[Array, " batch"], factor: Array) -> Layers:
    r"""A sample of the error of $c_0$: the contrast of the cycles where it is known, else from the image.

    Real noise that is white down to zero frequency moves $c_0$ as much as twice the power of the image's real part.
    """
    mean: Any = average.mean
    contrast: Any = average.contrast
    from_image = (factor * math.sqrt(2) * c.real for c in mean[-1])
    return tuple(
        jnp.where(per_sample(measured, d), d, c.astype(d.dtype)) for d, c in zip(contrast[0], from_image, strict=True)
    )


SWEEPS, SHORT = 3, 1.7
"""How often an imbalance is passed on through the network, and by how much that falls short of for ever."""


def imbalance(network: AbstractNetwork, inputs: Inputs, reading: Phasors, omega: Array) -> tuple[Layers, Layers]:
    r"""How far mean and response are from what the equation asks of them: errors of $c_0$ and of $\chi$.

    Without noise $c_0 = \sigma(F(c_0))$, and $\chi = \sigma'(F(c_0))\, v$ with

    $$(1 + i\omega\tau)\, v = \frac{\partial F}{\partial s} \chi + \frac{\partial F}{\partial\beta}.$$

    Strong noise is rectified by $\sigma$ and shifts both, by its second power and for good. What is left of the two
    equations, passed on through the network a few times, is about that shift.
    """
    zero = jnp.zeros((), complex_of(network.dtype))
    s = tuple(c.real.astype(c.dtype) for c in reading[0])
    taus, chi = network.time_constants, reading.response()

    def force(s, beta):
        return network.force(inputs.clamped, s, inputs.y, beta)

    u = tuple(f.real.astype(f.dtype) for f in force(s, zero))
    slow = tuple(1 / (1 + 1j * omega * tau) for tau in taus)

    def passed_on(v, direct, lag):
        moved = jax.jvp(force, (s, zero), (v, jnp.full_like(zero, direct)))[1]
        moved = tuple((m * k if lag else m).astype(m.dtype) for m, k in zip(moved, slow, strict=True))
        return jax.jvp(network.activities, (u,), (moved,))[1]

    def summed(error, lag):
        total, v = error, error
        for _ in range(SWEEPS - 1):
            v = passed_on(v, 0.0, lag)
            total = jax.tree.map(jnp.add, total, v)
        return jax.tree.map(lambda a: SHORT * a, total)

    of_mean = jax.tree.map(jnp.subtract, network.activities(u), s)
    of_response = jax.tree.map(jnp.subtract, passed_on(chi, 1.0, True), chi)
    return summed(of_mean, False), summed(of_response, True)


def mean_factor(noise: Any, teaching: Any, plan: Plan) -> Any:
    r"""$\sqrt{S(0) / S(\omega)}$ of the noise on the potentials: for the error of $c_0$ in a single cycle.

    Complex noise has half its power in each quadrature of $c_{-1}$, and so has $c_0$: then $1 / \sqrt 2$ of that.
    """
    forcings = [n for n in as_noises(noise) if isinstance(n, AbstractForcing)]
    if not as_noises(noise):
        return 1.0
    complex_noise = all(getattr(n, "quadratures", "real") != "real" for n in as_noises(noise))
    share = math.sqrt(0.5) if complex_noise else 1.0
    if not forcings:
        return share
    omega = 2 * jnp.pi / teaching.period
    slow, at = (jnp.sum(jnp.stack([jnp.asarray(n.spectrum(w), float) for n in forcings])) for w in (0.0, omega))
    return share * jnp.sqrt(jnp.where(at > 0, slow / jnp.maximum(at, jnp.finfo(at.dtype).tiny), 1.0))


def rounding_ratio(reading: Phasors) -> Float[Array, " batch"]:
    """What rounding alone leaves of the response, relative: half a unit in the last place of the activities."""
    sizes = sample_norm(reading[1])
    eps = jnp.finfo(sizes.dtype).eps
    return eps * sample_norm(reading[0]) / jnp.maximum(sizes, jnp.finfo(sizes.dtype).tiny)


def asymmetry_norms(network: AbstractNetwork, inputs: Inputs, c_0: Layers) -> Any:
    """The norm of what asymmetry leaves, per parameter array, at the state that the neurons rest in."""
    u = network.force(inputs.clamped, tuple(c.real for c in c_0), inputs.y, jnp.zeros((), network.dtype))
    found = asymmetry_error(network, inputs, u)
    return jax.tree.map(lambda a, b: norm(a - b), found.read, found.exact)


def _stages(matrix: np.ndarray, z: Any, right: np.ndarray) -> list[Any]:
    """The solution of $(1 - zA) k = r$ for a matrix of an explicit method, stage by stage."""
    stages: list[Any] = []
    for row, value in zip(matrix, right, strict=True):
        stages.append(value + z * _weighted(row[: len(stages)], stages))
    return stages


def _weighted(weights: np.ndarray, values: list[Any]) -> Any:
    return sum((float(w) * v for w, v in zip(weights, values, strict=True) if w), 0.0)


@eqx.filter_jit
def response_lag(network: AbstractNetwork, inputs: Inputs, u: Layers, omega: Array) -> Any:
    r"""What the lag does to the gradient at the state `u`: that read with $\chi(\omega)$ minus that with $\chi(0)$."""
    s = network.activities(u)

    def read(omega):
        return gradient_read(
            network, inputs, s, linear_response(network, inputs, u, jnp.asarray(omega, network.dtype))[1]
        )

    return jax.tree.map(jnp.subtract, read(omega), read(0.0))


def step_error(plan: Plan, teaching: Any, lag: Array, dtype: Any) -> Float[Array, ""]:
    r"""The relative error that the solver's steps leave in the response.

    Of equal steps: exact for one mode whose time constant is the measured lag, $|g_q| / (|g| \omega)$. An explicit
    Runge-Kutta method with tableau $(A, b, c)$ and $z = -h / \tau$ answers $e^{i\omega t}$ with $\frac{h}{\tau}
    b^\top (1 - zA)^{-1} e^{i\omega h c} / (e^{i\omega h} - 1 - z b^\top (1 - zA)^{-1} 1)$ in place of
    $1 / (1 + i\omega\tau)$. Of adaptive steps: the controller's relative tolerance.
    """
    if plan.steps_per_cycle is None:
        return jnp.asarray(getattr(plan.stepsize_controller, "rtol", jnp.nan), dtype)
    tableau = tableau_of(plan.solver)
    if tableau is None:
        return jnp.asarray(jnp.nan, dtype)
    matrix, weights, nodes = tableau
    turn = 2 * math.pi / plan.steps_per_cycle
    # Of higher orders fast modes have the larger error: a mode is taken to be no faster than one step.
    least = 1e-3 * turn if len(nodes) == 1 else turn
    x = jnp.maximum(jnp.nan_to_num(lag), least).astype(dtype)  # omega tau
    z = -turn / x
    driven, kept = _stages(matrix, z, np.exp(1j * turn * nodes)), _stages(matrix, z, np.ones(len(nodes)))
    answer = -z * _weighted(weights, driven) / (complex(np.exp(1j * turn)) - 1 - z * _weighted(weights, kept))
    exact = 1 / (1 + 1j * x)
    return (jnp.abs(answer.real - exact.real) / exact.real).astype(dtype)


GROWS = 1.05
"""A mode that a step multiplies by more than this is taken to be unstable."""

SHORT_STEP = 0.6
"""Steps up to so many of the fastest neuron's time constants are not looked at: couplings make few modes that fast."""


def check_steps(
    network: AbstractNetwork, inputs: Callable[[], Inputs], mean: Layers, teaching: Any, plan: Plan
) -> None:
    """Refuse equal steps that the network's fastest mode, at these mean activities, would make unstable.

    The couplings can make it faster than every neuron alone. A solver that has become unstable may still lock, around
    an orbit that the neurons do not have.

    Raises:
        ValueError: the steps are too long; names how many it takes.
    """
    tableau = None if plan.steps_per_cycle is None else tableau_of(plan.solver)
    if tableau is None or plan.steps_per_cycle is None or is_traced(network, mean, teaching):
        return
    period = float(teaching.period)
    if period / plan.steps_per_cycle <= SHORT_STEP * fastest_neuron(network.time_constants):
        return
    rate = float(fastest_rate(network, inputs(), tuple(c.real for c in mean)))
    matrix, weights, _ = tableau
    ones = np.ones(len(weights))

    def grows(steps):
        z = -rate * period / steps
        return abs(1 + z * _weighted(weights, _stages(matrix, z, ones))) > GROWS

    if not math.isfinite(rate) or not grows(plan.steps_per_cycle):
        return
    needed = plan.steps_per_cycle
    while grows(needed):
        needed += plan.ticks
    raise ValueError(
        f"steps_per_cycle={plan.steps_per_cycle} makes steps of {period / plan.steps_per_cycle:.3g}, and the fastest "
        f"mode of this network decays within {1 / rate:.3g}: {type(plan.solver).__name__} is unstable there; use "
        f"{needed} or more"
    )


def tableau_of(solver: diffrax.AbstractSolver) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The Butcher tableau of an explicit solver: its matrix, weights and nodes; None where it has no such form."""
    if isinstance(solver, diffrax.Euler):
        return np.zeros((1, 1)), np.ones(1), np.zeros(1)
    tableau = getattr(solver, "tableau", None)
    if not isinstance(tableau, diffrax.ButcherTableau):
        return None
    count = len(tableau.b_sol)
    matrix = np.zeros((count, count))
    for row, entries in enumerate(tableau.a_lower, start=1):
        matrix[row, : len(entries)] = entries
    return matrix, np.asarray(tableau.b_sol), np.concatenate([[0.0], tableau.c])
