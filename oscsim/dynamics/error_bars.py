r"""Error bars: how accurate an estimate is, measured on the estimate itself.

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
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from oscsim.core.arrays import complex_of, norm, per_sample, ratio, sample_norm, to_complex
from oscsim.dynamics.average import Average
from oscsim.dynamics.gradient import Phasors
from oscsim.dynamics.gradient_error import GradientError, out_of_regime
from oscsim.dynamics.step_error import step_error
from oscsim.dynamics.system import System
from oscsim.equilibrium.asymmetry import asymmetry_error
from oscsim.equilibrium.linear import gradient_read, held_potentials, linear_response, response_gradient
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs
from oscsim.networks.learned import Gradient, parameters
from oscsim.signals.noise import AbstractForcing

LAG = 1.0
r"""The lag is about so many times the squared quadrature: 1 for one real mode, more for several."""

PAST = 2.0
"""Past the convergence radius the response is off by about so many times the image."""

SCATTER = 2.5
"""What is left of the equations counts where it is larger than so many times what scatter leaves of them."""


class Found(NamedTuple):
    """What was measured of an average of readings.

    Attributes:
        contamination, lag, steps: the norm of what each adds to the gradient, for each array of parameters.
        responding: the norm of what the response adds to the gradient.
        image, rounding, amplitude: per sample, as in `GradientError`.
    """

    contamination: PyTree
    lag: Gradient | None
    steps: PyTree
    responding: Float[Array, ""]
    image: Float[Array, " batch"]
    rounding: Float[Array, " batch"]
    amplitude: Float[Array, " batch"]


def gradient_and_error(
    system: System, inputs: Inputs, average: Average, change: Float[Array, " batch"], lag: Gradient | None = None
) -> tuple[Gradient, GradientError]:
    """The gradient in an average of readings, and how right it is: pure, works under jit.

    Args:
        system: what was read.
        inputs: what it was shown.
        average: the readings.
        change: of each sample's response in the last cycle, relative; nan or infinite where there was one alone.
        lag: the lag's own contribution as a pytree like the gradient, where it is known better than from the
            quadrature.
    """
    network, reading = system.network, average.mean
    gradient = reading.gradient(network, inputs)
    sizes = norms(gradient)
    if lag is None and not network.symmetric:  # its quadrature shows the asymmetry as well
        u = held_potentials(network, inputs, reading.mean)
        lag = response_lag(network, inputs, u, 2 * jnp.pi / system.teaching.period)
    if isinstance(reading, Phasors) and isinstance(average.contrast, Phasors):
        found = _of_phasors(system, inputs, average, reading, change, lag)
        change = jnp.fmax(change, scatter(reading, average.contrast)) if reading.has_image else change
    else:
        found = _of_points(system, inputs, average, sizes)
    return gradient, GradientError(
        **relative_parts(
            sizes, found.contamination, found.lag, found.steps, asymmetry_norms(network, inputs, reading.mean)
        ),
        per_sample=found.image,
        rounding=found.rounding,
        change=change,
        kept=average.count,
        skipped=average.skipped,
        amplitude=found.amplitude,
        responding=ratio(found.responding, norm(sizes)),
        noisy=bool(system.noises),
    )


def relative_parts(
    sizes: PyTree, contamination: PyTree, lag: PyTree, steps: PyTree, asymmetry: PyTree, size: Array | None = None
) -> dict[str, PyTree]:
    """The parts of a `GradientError` by their names, relative to the gradient: in all, and `per_array`.

    Args:
        sizes: the norm of each array of the gradient.
        contamination: the norm of what this part adds to each.
        lag: likewise.
        steps: likewise.
        asymmetry: likewise.
        size: the norm of the whole gradient; by default that of `sizes`.
    """
    parts = {"contamination": contamination, "lag": lag, "steps": steps, "asymmetry": asymmetry}
    whole = norm(sizes) if size is None else size
    per_array = jax.tree.map(lambda size, *part: ratio(jnp.stack(part), size), sizes, *parts.values())
    return {name: ratio(norm(part), whole) for name, part in parts.items()} | {"per_array": per_array}


def norms(tree: PyTree) -> PyTree:
    """The norm of each array of a pytree."""
    return jax.tree.map(norm, tree)


def _of_points(system: System, inputs: Inputs, average: Average, sizes: PyTree) -> Found:
    """Of points there is neither an image nor a quadrature: the cycles are held against each other."""
    dtype = system.network.dtype
    unknown, blank = jnp.asarray(jnp.nan, dtype), jnp.full(len(average.count), jnp.nan, dtype)
    amplitude = jnp.max(jnp.abs(jnp.asarray(average.mean.teaching)), axis=0).astype(dtype)
    per_size = step_error(system, unknown)
    steps = jax.tree.map(lambda size: per_size * size, sizes)
    lag = jax.tree.map(lambda size: unknown, sizes)
    contrast = _from_contrast(system.network, inputs, average)
    return Found(contrast, lag, steps, norm(sizes), blank, blank, amplitude)


def _of_phasors(
    system: System,
    inputs: Inputs,
    average: Average,
    reading: Phasors,
    change: Float[Array, " batch"],
    lag: Gradient | None,
) -> Found:
    """What image, quadrature and the known response to steps say."""
    network, dtype = system.network, system.network.dtype
    one_way = system.teaching.one_way if reading.has_image else False
    suspected = None if one_way is False else _suspected(system, inputs, average, reading, change)
    chi = reading.response()
    off = [] if suspected is None else suspected.response
    directions = [*off, tuple(-1j * c for c in chi), chi]
    *off, quadrature, responded = _each(lambda v: _along_response(network, inputs, reading, v), directions)
    contamination, image = _contaminated(system, inputs, average, reading, suspected, off)
    time, lags = _lagging(quadrature, responded, contamination)
    lags = lags if lag is None else norms(lag)
    per_size = step_error(system, time)
    steps = jax.tree.map(lambda size: per_size * size, responded)
    amplitude = jnp.abs(reading.teaching[reading.harmonics.index(1)]).astype(dtype)
    return Found(contamination, lags, steps, norm(responded), image, rounding_ratio(reading), amplitude)


def _lagging(quadrature: PyTree, responded: PyTree, contamination: PyTree) -> tuple[Float[Array, ""], PyTree]:
    """The quadrature relative to the response, and what the lag adds to each array of a network with a potential.

    What of the gradient the response makes: the readout's own derivative neither lags nor feels the steps. And noise
    is as large in one quadrature as in the other.
    """
    noise_free = jax.tree.map(
        lambda q, p: jnp.sqrt(jnp.maximum(q**2 - jnp.nan_to_num(p) ** 2, 0)), quadrature, contamination
    )
    time = ratio(norm(noise_free), norm(responded))
    return time, jax.tree.map(lambda q: LAG * time * q, noise_free)


def solved_gradient_and_error(
    network: AbstractNetwork, inputs: Inputs, reading: Phasors, omega: Array
) -> tuple[Gradient, GradientError]:
    """The gradient in phasors that were solved for, and how right it is: pure, works under jit.

    Its contamination is what they leave of the equations of mean and response, which a signal that turns both ways
    mixes with each other.

    Args:
        network: the neurons.
        inputs: what they are shown.
        reading: their phasors.
        omega: the signal's angular frequency.
    """
    gradient, chi = reading.gradient(network, inputs), reading.response()
    of_mean, off = imbalance(network, inputs, reading, mean_residual(network, inputs, reading), omega)
    assert off is not None  # it is looked at where there is a frequency
    directions = [off, tuple(-1j * c for c in chi), chi]
    of_response, quadrature, responded = _each(lambda v: _along_response(network, inputs, reading, v), directions)
    contamination = jax.tree.map(jnp.hypot, _along_mean(network, inputs, reading, of_mean), of_response)
    none = jax.tree.map(jnp.zeros_like, of_response)
    _, lags = _lagging(quadrature, responded, none)
    if not network.symmetric:
        lags = norms(response_lag(network, inputs, held_potentials(network, inputs, reading.mean), omega))
    skew, sizes = asymmetry_norms(network, inputs, reading.mean), norms(gradient)
    image = ratio(sample_norm(off), sample_norm(chi))
    zero = jnp.zeros(image.shape, jnp.int32)
    return gradient, GradientError(
        **relative_parts(sizes, contamination, lags, none, skew),
        per_sample=image,
        rounding=jnp.zeros_like(image),
        change=jnp.zeros_like(image),
        kept=zero + 1,
        skipped=zero,
        amplitude=jnp.broadcast_to(jnp.abs(reading.teaching[reading.harmonics.index(1)]), image.shape),
        responding=ratio(norm(responded), norm(sizes)),
    )


class Suspected(NamedTuple):
    """Errors that the image and the equations point to, where the signal turns one way.

    Attributes:
        response: of the response: what the image says, and under noise what is left of the response's equation.
        mean: of $c_0$: its scatter, and what is left of the equation of the free equilibrium.
        image: of each sample, relative to its response.
    """

    response: list[Layers]
    mean: list[Layers]
    image: Float[Array, " batch"]


def _contaminated(
    system: System, inputs: Inputs, average: Average, reading: Phasors, suspected: Suspected | None, off: list[PyTree]
) -> tuple[PyTree, Float[Array, " batch"]]:
    """The contamination for each array of parameters, and the image of each sample, nan where it is the signal's.

    `off` is what the suspected errors of the response do to the gradient.
    """
    network = system.network
    if suspected is None:
        return _without_image(system, inputs, average, reading), jnp.full(len(average.count), jnp.nan, network.dtype)
    of_mean = _each(lambda v: _along_mean(network, inputs, reading, v), suspected.mean)
    contamination, image = jax.tree.map(jnp.hypot, _joined(off), _joined(of_mean)), suspected.image
    if system.teaching.one_way is None:  # only its samples tell
        one_way = reading.one_way
        without = _without_image(system, inputs, average, reading)
        contamination = jax.tree.map(lambda a, b: jnp.where(one_way, a, b), contamination, without)
        image = jnp.where(one_way, image, jnp.nan)
    return contamination, image


def _without_image(system: System, inputs: Inputs, average: Average, reading: Phasors) -> PyTree:
    """How the cycles differ, and what is left of the equations: a signal that turns both ways mixes its harmonics."""
    network = system.network
    away, omega = mean_residual(network, inputs, reading), 2 * jnp.pi / system.teaching.period
    of_mean, of_response = imbalance(network, inputs, reading, away, omega)
    assert of_response is not None  # it is looked at where there is a frequency
    left = _along_mean(network, inputs, reading, of_mean), _along_response(network, inputs, reading, of_response)
    return _joined([_from_contrast(network, inputs, average), jax.tree.map(jnp.hypot, *left)])


def _from_contrast(network: AbstractNetwork, inputs: Inputs, average: Average) -> PyTree:
    """How the cycles differ; nan where there are no two."""
    moved = jax.jvp(lambda r: r.gradient(network, inputs), (average.mean,), (average.contrast,))[1]
    known = jnp.all(average.count > 1)
    return jax.tree.map(lambda a: jnp.where(known, norm(a), jnp.nan), moved)


def _suspected(
    system: System, inputs: Inputs, average: Average, reading: Phasors, change: Float[Array, " batch"]
) -> Suspected:
    """What may be wrong with response and mean."""
    network, noisy = system.network, bool(system.noises)
    factor = jnp.asarray(mean_factor(system), network.dtype)
    measured = (average.count > 1) & system.plan.demodulator.independent
    ratio, away = reading.image_ratio(), mean_residual(network, inputs, reading)
    past = out_of_regime(ratio, rounding_ratio(reading), change) & (not noisy)
    factors = jnp.where(past, PAST, 1.0).astype(network.dtype)
    lost = astray(away, change) & (not noisy)  # what these samples add to the gradient is all wrong
    image, chi = image_response(reading), reading.response()
    of_image = tuple(
        jnp.where(per_sample(lost, a), b, per_sample(factors, a) * a) for a, b in zip(image, chi, strict=True)
    )
    # Strong noise moves mean and response for good, which averaging does not reveal. Without noise the mean alone is
    # looked at: past the radius, or where steps are too long, neurons may lock where they would not rest.
    shift, bias = imbalance(network, inputs, reading, away, 2 * jnp.pi / system.teaching.period if noisy else None)
    return Suspected(
        response=[of_image] if bias is None else [of_image, bias],
        mean=[mean_error(reading, average, measured, factor), shift],
        image=jnp.where(lost, 1.0, ratio).astype(network.dtype),
    )


def _each(norms_along: Callable[[Layers], PyTree], errors: list[Layers]) -> list[PyTree]:
    """The norms along each error, by one program for all."""
    found = jax.vmap(norms_along)(jax.tree.map(lambda *a: jnp.stack(a), *errors))
    return [jax.tree.map(lambda a, i=i: a[i], found) for i in range(len(errors))]


def _along_response(network: AbstractNetwork, inputs: Inputs, reading: Phasors, error: Layers) -> PyTree:
    """The size of what an error of the response does to the gradient."""
    return norms(response_gradient(network, inputs, reading[0], error, 0.0))


def _along_mean(network: AbstractNetwork, inputs: Inputs, reading: Phasors, error: Layers) -> PyTree:
    """The size of what an error of the mean activities does to the gradient."""
    chi = reading.response()
    moved = jax.jvp(lambda c_0: response_gradient(network, inputs, c_0, chi), (reading[0],), (error,))[1]
    return norms(moved)


def _joined(found: list[PyTree]) -> PyTree:
    """Scatter, and what is left of the equations where scatter does not explain it; array by array."""
    if len(found) == 1:
        return found[0]

    def both(scatter, left):
        return jnp.sqrt(scatter**2 + jnp.maximum(left**2 - (SCATTER * scatter) ** 2, 0))

    return jax.tree.map(both, *found)


def image_response(reading: Phasors) -> Layers:
    r"""$\overline{c_{-1}} / a_1$, what stands for an error of the response $\chi = c_1 / a_1$."""
    a_1 = reading.teaching[reading.harmonics.index(1)]
    return tuple(jnp.conj(c) / per_sample(a_1, c) for c in reading[-1])


def mean_error(reading: Phasors, average: Average, measured: Bool[Array, " batch"], factor: Array) -> Layers:
    r"""A sample of the error of $c_0$: the contrast of the cycles where it is known, else from the image.

    Real noise that is white down to zero frequency moves $c_0$ as much as twice the power of the image's real part.
    """
    from_image = (factor * math.sqrt(2) * c.real for c in reading[-1])
    pairs = zip(average.contrast.mean, from_image, strict=True)
    return tuple(jnp.where(per_sample(measured, d), d, c.astype(d.dtype)) for d, c in pairs)


ASTRAY, LOCKED = 0.1, 1e-2
"""Without noise a sample whose response changes by less than `LOCKED` rests where it is read, to `ASTRAY`; or else."""


def astray(away: Layers, change: Float[Array, " batch"]) -> Bool[Array, " batch"]:
    """Samples that have locked where their neurons would not rest: past the radius, or by steps that are too long.

    A solver with long steps has fixed points of its own, around which a run may lock without a trace in the image.
    """
    farthest = [jnp.max(jnp.abs(a).reshape(len(a), -1), axis=1) for a in away]
    return (jnp.max(jnp.stack(farthest), axis=0) > ASTRAY) & (change < LOCKED)


def mean_residual(network: AbstractNetwork, inputs: Inputs, reading: Phasors) -> Layers:
    r"""$\sigma(F(c_0)) - c_0$: zero where the mean is a free equilibrium."""
    held = network.activities(held_potentials(network, inputs, reading[0]))
    return jax.tree.map(lambda a, c: a - c.real, held, reading[0])


SWEEPS, SHORT = 3, 1.7
"""How often an imbalance is passed on through the network, and by how much that falls short of for ever."""


def imbalance(
    network: AbstractNetwork, inputs: Inputs, reading: Phasors, away: Layers, omega: Array | None
) -> tuple[Layers, Layers | None]:
    r"""How far mean and response are from what the equation asks of them: errors of $c_0$ and, under noise, of $\chi$.

    Without noise $c_0 = \sigma(F(c_0))$, and $\chi = \sigma'(F(c_0))\, v$ with

    $$(1 + i\omega\tau)\, v = \frac{\partial F}{\partial s} \chi + \frac{\partial F}{\partial\beta}.$$

    Strong noise is rectified by $\sigma$ and shifts both, by its second power and for good. What is left of the two
    equations, passed on through the network a few times, is about that shift.

    Args:
        network: the neurons.
        inputs: what they were shown.
        reading: their mean phasors.
        away: the `mean_residual` of these.
        omega: the signal's angular frequency; None leaves the response out.
    """
    zero = jnp.zeros((), complex_of(network.dtype))
    s = tuple(c.real.astype(c.dtype) for c in reading[0])

    def force(s, beta):
        return network.force(inputs.clamped, s, inputs.y, beta)

    u = to_complex(held_potentials(network, inputs, reading[0]))

    def passed_on(v, direct, omega):
        moved = jax.jvp(force, (s, zero), (v, jnp.full_like(zero, direct)))[1]
        if omega is not None:
            slow = (1 / (1 + 1j * omega * tau) for tau in network.time_constants)
            moved = tuple((m * k).astype(m.dtype) for m, k in zip(moved, slow, strict=True))
        return jax.jvp(network.activities, (u,), (moved,))[1]

    def summed(error, omega):
        def one(_, carry):
            total, v = carry
            v = passed_on(v, 0.0, omega)
            return jax.tree.map(jnp.add, total, v), v

        total, _ = lax.fori_loop(0, SWEEPS - 1, one, (error, error))
        return jax.tree.map(lambda a: SHORT * a, total)

    of_mean = summed(jax.tree.map(lambda a, b: a.astype(b.dtype), away, s), None)
    if omega is None:  # the steps and the lag are what the response is off by, and have parts of their own
        return of_mean, None
    chi = reading.response()
    return of_mean, summed(jax.tree.map(jnp.subtract, passed_on(chi, 1.0, omega), chi), omega)


def mean_factor(system: System) -> float | Array:
    r"""$\sqrt{S(0) / S(\omega)}$ of the noise on the potentials: for the error of $c_0$ in a single cycle.

    Complex noise has half its power in each quadrature of $c_{-1}$, and so has $c_0$: then $1 / \sqrt 2$ of that.
    """
    noises = system.noises
    forcings = [n for n in noises if isinstance(n, AbstractForcing)]
    if not noises:
        return 1.0
    complex_noise = all(n.quadratures != "real" for n in noises)
    share = math.sqrt(0.5) if complex_noise else 1.0
    if not forcings:
        return share
    omega, step = 2 * jnp.pi / system.teaching.period, system.teaching.period / (system.plan.steps_per_cycle or 1)

    def density(noise, omega):  # that of noise in discrete time is per step
        return jnp.asarray(noise.spectrum(omega), float) * (step if noise.discrete else 1)

    slow, at = (jnp.sum(jnp.stack([density(n, w) for n in forcings])) for w in (0.0, omega))
    return share * jnp.sqrt(jnp.where(at > 0, ratio(slow, at), 1.0))


def scatter(reading: Phasors, contrast: Phasors) -> Float[Array, " batch"]:
    """How much the images of the averaged cycles differ, by the response: much, where a start is not forgotten."""
    return ratio(sample_norm(contrast[-1]), sample_norm(reading[1]))


def rounding_ratio(reading: Phasors) -> Float[Array, " batch"]:
    """What rounding alone leaves of the response, relative: half a unit in the last place of the activities."""
    sizes = sample_norm(reading[1])
    eps = jnp.finfo(sizes.dtype).eps
    return ratio(eps * sample_norm(reading[0]), sizes)


def asymmetry_norms(network: AbstractNetwork, inputs: Inputs, c_0: Layers) -> PyTree:
    """The norm of what asymmetry leaves, per parameter array, at the state that the neurons rest in: 0 without any."""
    if network.symmetric:
        return jax.tree.map(lambda a: jnp.zeros((), a.dtype), parameters(network))
    held, clamped, s = network.anchored(inputs.clamped, c_0)
    shown = Inputs(inputs.x, inputs.y, clamped)
    found = asymmetry_error(held, shown, held_potentials(held, shown, s))
    return _as_parameters(network, jax.tree.map(lambda a, b: norm(a - b), found.read, found.exact))


def _as_parameters(network: AbstractNetwork, found: PyTree) -> PyTree:
    """What was found of the network with its anchor held, in the places of the network's own parameters."""
    return jax.tree.unflatten(jax.tree.structure(parameters(network)), jax.tree.leaves(found))


@eqx.filter_jit
def response_lag(network: AbstractNetwork, inputs: Inputs, u: Layers, omega: Array) -> Gradient:
    r"""What the lag does to the gradient at the state `u`: that read with $\chi(\omega)$ minus that with $\chi(0)$.

    A measured anchor is held at $\omega = 0$, so that what it is off by counts here.
    """
    s = network.activities(u)
    held, clamped, s_held = network.anchored(inputs.clamped, s)
    shown = Inputs(inputs.x, inputs.y, clamped)

    def read(net, inputs, u, s, omega):
        return gradient_read(net, inputs, s, linear_response(net, inputs, u, jnp.asarray(omega, net.dtype))[1])

    slow = read(held, shown, held_potentials(held, shown, s_held), s_held, 0.0)
    return jax.tree.map(jnp.subtract, read(network, inputs, u, s, omega), _as_parameters(network, slow))
