r"""The linear response of the free equilibrium: what a lock-in reads, and with how much noise, without time stepping.

With everything holomorphic and a teaching signal $\beta = a\, e^{i\omega t}$ that turns one way, harmonic $n$ of the
response depends on the harmonics below it alone. So the first one is $a \chi(\omega)$ at any amplitude, with the
linear susceptibility $\chi$; and to a small disturbance at one frequency the driven network answers at that frequency
and at those $n\omega$ above it, in proportion to $a^n$. Both follow from the Taylor series of the force along
the orbit, $u(\epsilon) = u_0 + \epsilon u_1 + \epsilon^2 u_2 + \dots$ with $\epsilon$ for $\beta$.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Complex, Float, Int

from oscsim._arrays import as_count, as_scalar, complex_of, describe, is_traced, norm, require_positive, to_complex
from oscsim.cycle import Cycle, check_drive
from oscsim.demodulation import FEWEST_TICKS
from oscsim.equilibrium import (
    Equilibrium,
    default_tolerance,
    exact_gradient,
    settle,
    settle_inputs,
)
from oscsim.errors import NotSettledError
from oscsim.networks.base import (
    AbstractNetwork,
    Layers,
    check_parameters,
    gradient_of,
    parameters,
    require_holomorphic,
)
from oscsim.networks.inputs import Inputs
from oscsim.noise import StepNoise, WhiteNoise
from oscsim.readings import Phasors, require_turning, signal_phasors
from oscsim.suggestion import fitted_radius
from oscsim.teaching import Rotating

DENSE = 1024
"""Neurons up to which one sample's system is solved as a matrix; above, by GMRES without one."""

SAFE = 0.5
"""Of the convergence radius: beyond, a start from rest may run away, and the predicted spread lacks terms."""


def susceptibility(net: AbstractNetwork, x: Any, y: Any, omega: Any) -> tuple[Complex[Array, "batch ..."], ...]:
    r"""The linear response of the activities to the teaching signal, $\chi(\omega) = c_1 / a_1$.

    With $F(u, \beta) = \partial\Phi/\partial s\,(\sigma(u), \beta)$ at the free equilibrium $u$,
    $(i\omega\tau + 1 - \partial F/\partial u)\, v = \partial F/\partial\beta$ and $\chi = \sigma'(u)\, v$. It is what
    a lock-in reads at any amplitude below the convergence radius; at $\omega = 0$ it is $ds/d\beta$.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        omega: angular frequency, $2\pi / T$, in radians per unit of time; any real number.

    Returns:
        One complex (batch, ...) array per layer, in activity per unit of beta.

    Raises:
        NotSettledError: the free network has no stable state, or the linear system was not solved.
        NotHolomorphicError: the network declares itself non-holomorphic.
        ValueError: bad inputs (see `Inputs.of`), or a frequency that is not finite.

    Source: Laborieux & Zenke (2022), section 4, for $\omega \to 0$.
    """
    omega = as_scalar(omega, "omega")
    inputs, free = _free_equilibrium(net, x, y)
    return _susceptibility(net, inputs, free, omega)


def predict_gradient(net: AbstractNetwork, x: Any, y: Any, period: Any) -> Any:
    r"""The gradient that an ideal lock-in reads at this period: `Phasors.gradient` of $c_0$ and $\chi(2\pi/T)$.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        period: $T$ of the teaching signal, in units of time.

    Returns:
        A pytree like `parameters(net)`.

    Raises:
        NotSettledError: the free network has no stable state.
        NotHolomorphicError: the network declares itself non-holomorphic.
        ValueError: bad inputs, or a period that is not positive or shorter than $2\pi\tau$.
    """
    check_drive(net, Rotating(1.0, period))
    inputs, free = _free_equilibrium(net, x, y)
    chi = _susceptibility(net, inputs, free, 2 * jnp.pi / as_scalar(period, "period"))
    return _read(net, inputs, free.activities, chi)


def predict_bias(net: AbstractNetwork, x: Any, y: Any, period: Any) -> Any:
    r"""What the finite period does to the gradient: `predict_gradient` minus `exact_gradient`.

    $\mathrm{Re}\,\chi(\omega)$ is even in $\omega$, so the bias falls as $1/T^2$. It does not depend on the amplitude.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        period: $T$ of the teaching signal, in units of time.

    Returns:
        A pytree like `parameters(net)`.

    Raises:
        NotSettledError: the free network, or the adjoint, does not settle.
        NotHolomorphicError: the network declares itself non-holomorphic.
        ValueError: bad inputs, or a period that is not positive or shorter than $2\pi\tau$.
    """
    return jax.tree.map(jnp.subtract, predict_gradient(net, x, y, period), exact_gradient(net, x, y))


def predict_spread(
    net: AbstractNetwork, x: Any, y: Any, teaching: Any, noise: Any, cycles: int, *, ticks: int | None = None
) -> Any:
    r"""The standard deviation of each parameter's estimate under weak additive noise on the potentials.

    The neurons obey $\tau\, du = (-u + \partial\Phi/\partial s)\, dt + q\, dW$ (white noise; any other of two-sided
    spectral density $S$ in place of $q^2$): real, independent for each neuron. The estimate is `Phasors.gradient` of
    the phasors averaged over $M$ locked cycles, read at $K$ ticks a cycle. With $R(\nu) = (i\nu\tau + 1 -
    \partial F/\partial u)^{-1}$ and $g$ the gradient that the lock-in reads, to first order in the noise,

    $$\mathrm{var}\, g = \frac{1}{MT} \sum_j \Bigl[ \frac{S(\omega)}{2} \Bigl| \frac{X_j}{A} + A \bar Z_j \Bigr|^2
    + S(0) \Bigl( \frac{\partial g}{\partial I_j} \Bigr)^2 \Bigr]$$

    - $X_j = -\partial^2\Phi/\partial\theta\partial s \cdot \sigma' R(\omega) e_j$: noise at $\omega$ on the phasor;
    - $I_j$, a static current into neuron $j$: slow noise moves the equilibrium, and $\chi$ with it;
    - $Z_j$: noise at $-\omega$, which the drive carries up to $0$ and $\omega$. With $X_j$ it leaves a term that is
      free of the amplitude like the one before, of either sign.

    Complex noise, in both quadratures alike, is independent at $\omega$ and $-\omega$: $|X_j/A|^2 + |A Z_j|^2$ stands
    in the first term, and $\frac12 S(0) |Y_j|^2$ in place of the second, with the complex $Y_j$ that has
    $\partial g/\partial I_j$ as its real part.

    Left out are terms of $O(A^4)$, of higher order in the noise (they also bias the mean), and those smaller by the
    slowest time constant over $MT$. Sampling folds noise at $\nu + kK\omega$ onto $\nu$: each term is summed over $k$.
    Of a real signal, such as `Cosine`, only the first term is complete.

    Costs four gradients per neuron and sample and holds a few (neurons, neurons) matrices; with noise that is shared
    over the batch, six per neuron and folded frequency, and those matrices for all samples at once.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        teaching: the signal; $A$ is the size of its first Fourier coefficient, half the amplitude for `Cosine`.
        noise: additive, such as `WhiteNoise` or `OrnsteinUhlenbeck`. Has `spectrum(omega)`, $S$ at an angular
            frequency, and `shared_over_batch`: whether all samples see one noise, which adds up, or each its own,
            which averages; and `quadratures`, unless it is real.
        cycles: $M$, how many are averaged.
        ticks: $K$, how often the demodulator reads in each; by default as often as `simulate` has it read under noise.

    Returns:
        A pytree like `parameters(net)` of standard deviations.

    Raises:
        NotSettledError: the free network has no stable state.
        NotHolomorphicError: the network declares itself non-holomorphic.
        TypeError: `noise` has no spectrum, is not additive, or acts in discrete time.
        ValueError: bad inputs or counts, a spectrum that is negative or not finite, a signal that does not turn, is
            read as points, or whose period the neurons cannot follow.
    """
    check_drive(net, teaching)
    cycles, ticks = as_count("cycles", cycles), _ticks(net, teaching.period, ticks)
    amplitude = _first_coefficient(net, teaching)
    spectra = _Spectra.of(net, noise, float(teaching.period), ticks)
    inputs, free = _free_equilibrium(net, x, y)
    weights = jnp.array([1 / amplitude, 1.0, amplitude], net.dtype)
    variance = _variance(net, inputs, free, spectra, weights, bool(noise.shared_over_batch))
    return jax.tree.map(lambda v: jnp.sqrt(v / (cycles * teaching.period)).astype(v.dtype), variance)


class OptimalAmplitude(eqx.Module):
    """What `optimal_amplitude` found; the errors are root mean squares over the norm of the exact gradient.

    Attributes:
        amplitude: where the predicted total error is least, `SAFE` times the radius at most.
        knee: where the noise on the phasor, which falls with the amplitude, equals all other errors together, which
            do not: a larger amplitude gains less than a factor of two in the squared error. May lie beyond the radius.
        bias: error that the finite period causes.
        spread: error that the noise causes at `amplitude`.
        radius: estimate of the convergence radius.
        period: of the teaching signal.
    """

    amplitude: float
    knee: float
    bias: float
    spread: float
    radius: float
    period: float

    @property
    def error(self) -> float:
        """Bias and spread together."""
        return math.hypot(self.bias, self.spread)

    @property
    def teaching(self) -> Rotating:
        """The signal with this amplitude."""
        return Rotating(self.amplitude, self.period)

    def __str__(self) -> str:
        return (
            f"amplitude={self.amplitude:.3g} (knee {self.knee:.3g}, convergence radius about {self.radius:.3g}), "
            f"relative error {self.error:.2g} (bias {self.bias:.2g}, spread {self.spread:.2g})"
        )


def optimal_amplitude(
    net: AbstractNetwork,
    x: Any,
    y: Any,
    period: Any,
    noise: Any,
    cycles: int,
    *,
    points: Any = None,
    ticks: int | None = None,
) -> OptimalAmplitude:
    r"""The amplitude of a rotating signal that makes the predicted error of the gradient least.

    Summed over the parameters the squared error is $E^2(A) = b^2 + a_{-2} A^{-2} + a_0 + a_2 A^2$, with the bias $b$ of
    `predict_bias` and the variance of `predict_spread`. The first noise term falls with the amplitude, so the least
    error often lies at the largest amplitude that is safe. How much of that is worth having is what `knee` says.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        period: $T$ of the teaching signal, in units of time.
        noise: as in `predict_spread`.
        cycles: how many are averaged.
        points: amplitudes to choose among, an array; by default any.
        ticks: how often the demodulator reads in each cycle, as in `predict_spread`.

    Raises:
        NotSettledError: the free network has no stable state.
        NotHolomorphicError: the network declares itself non-holomorphic.
        TypeError: `noise` has no spectrum, is not additive, or acts in discrete time.
        ValueError: bad inputs or counts, no point below `SAFE` times the radius, a bad period or spectrum.
    """
    check_drive(net, Rotating(1.0, period))
    period = float(as_scalar(period, "period"))
    cycles, ticks = as_count("cycles", cycles), _ticks(net, period, ticks)
    spectra = _Spectra.of(net, noise, period, ticks)
    inputs, free = _free_equilibrium(net, x, y)
    radius = fitted_radius(net, inputs, free.potentials, default_tolerance(net.dtype))
    limit = SAFE * radius
    candidates = None if points is None else _candidates(points, limit)
    exact = exact_gradient(net, x, y)
    scale = float(norm(exact))
    chi = _susceptibility(net, inputs, free, jnp.asarray(2 * np.pi / period))
    read = _read(net, inputs, free.activities, chi)
    bias = float(norm(jax.tree.map(jnp.subtract, read, exact))) / scale

    def total(*weights: float) -> float:
        variance = _variance(net, inputs, free, spectra, jnp.array(weights, net.dtype), bool(noise.shared_over_batch))
        return sum(float(jnp.sum(v)) for v in jax.tree.leaves(variance)) / (cycles * period * scale**2)

    falling, rising = total(1.0, 0.0, 0.0), total(0.0, 0.0, 1.0)
    # Both at equal size, so that the term between them is not lost to rounding.
    balance = (falling / rising) ** 0.25 if falling > 0 and rising > 0 else limit
    flat = total(1 / balance, 1.0, balance) - falling / balance**2 - rising * balance**2

    def spread(amplitude: Any) -> Any:
        return np.sqrt(np.maximum(falling / amplitude**2 + flat + rising * amplitude**2, 0.0))

    if candidates is None:
        amplitude = min(balance, limit) if rising > 0 else limit
    else:
        amplitude = float(candidates[np.argmin(spread(candidates))])
    rest = bias**2 + flat
    denominator = rest + math.sqrt(rest**2 + 4 * falling * rising)
    knee = math.sqrt(2 * falling / denominator) if denominator > 0 else math.inf if falling > 0 else 0.0
    return OptimalAmplitude(amplitude, knee, bias, float(spread(amplitude)), radius, period)


def convergence_radius(net: AbstractNetwork, x: Any, y: Any) -> float:
    r"""An estimate of the convergence radius: the distance of the nearest singularity of $s(\beta)$ from $\beta = 0$.

    From the decay of the Fourier coefficients of settled points, $|c_n| \sim n^{-3/2} (A/R)^n$, as at the square-root
    branch point where two equilibria meet. Amplitudes below it give exact gradients. 100 or more means none was found.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...); the radius is the least over the batch.
        y: targets, (batch,) labels or (batch, classes).

    Raises:
        NotSettledError: the free network has no stable state.
        NotHolomorphicError: the network declares itself non-holomorphic.
        ValueError: bad inputs.
    """
    inputs, free = _free_equilibrium(net, x, y)
    return fitted_radius(net, inputs, free.potentials, default_tolerance(net.dtype))


class StabilityMap(eqx.Module):
    r"""Which points of the complex plane of $\beta$ the free equilibrium continues to; made by `stability_map`.

    Attributes:
        grid: $\beta$, as given.
        settled: whether every sample is on that sheet.
        residual: the largest change of a potential in one more step, (..., batch); where it was lost, the last one.
        activities: $s(\beta)$, one complex (..., batch, neurons) array per layer; nan where the sample was lost.
    """

    grid: Complex[Array, "*grid"]
    settled: Bool[Array, "*grid"]
    residual: Float[Array, "*grid batch"]
    activities: Layers

    @property
    def radius(self) -> Float[Array, ""]:
        """The smallest modulus among points that are not settled: the convergence radius or more, to a step; or inf."""
        return jnp.min(jnp.where(self.settled, jnp.inf, jnp.abs(self.grid)), initial=jnp.inf)


def stability_map(net: AbstractNetwork, x: Any, y: Any, grid: Any, *, steps: int = 64) -> StabilityMap:
    r"""Follow the free equilibrium along rays to points of the complex plane of $\beta$, as in the paper's Fig. 2b.

    Every point is approached from 0 in equal steps, each settled from the line through the two states before. A sample
    is lost where it does not settle, or settles away from that line by more than half of the step: it then has
    passed a singularity within about one step, or jumped to another sheet. So behind each branch point there is a
    radial slit, about as wide as a step; elsewhere the state is the one that the power series in $\beta$ continues to.
    Whether neurons that are put there stay is another question: the state may be unstable in time.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        grid: $\beta$, a complex array of any shape; all points and samples are settled as one batch.
        steps: how many to each point.

    Raises:
        NotSettledError: the free network has no stable state.
        NotHolomorphicError: the network declares itself non-holomorphic.
        TypeError: the grid holds no numbers.
        ValueError: bad inputs, a grid that is empty or not finite, `steps` below 1.

    Source: Laborieux & Zenke (2022), Fig. 2b.
    """
    steps = as_count("steps", steps)
    values = np.asarray(grid)
    if not np.issubdtype(values.dtype, np.number):
        raise TypeError(f"grid={grid!r}: use an array of complex numbers")
    if values.size == 0 or not np.all(np.isfinite(values)):
        raise ValueError(f"grid of shape {values.shape} is empty or not finite: use finite complex numbers")
    inputs, free = _free_equilibrium(net, x, y)
    tolerance = default_tolerance(net.dtype)
    beta = jnp.asarray(values, complex_of(net.dtype))
    velocity, _, _ = _linear_response(net, inputs, free.potentials, jnp.zeros((), net.dtype))
    activities, residual, lost = _follow(
        net, inputs, free.potentials, velocity, beta.reshape(-1), jnp.asarray(steps), jnp.asarray(tolerance, net.dtype)
    )
    shaped = tuple(a.reshape(*values.shape, *a.shape[1:]) for a in activities)
    return StabilityMap(beta, ~jnp.any(lost, axis=1).reshape(values.shape), residual.reshape(*values.shape, -1), shaped)


# What the functions above share: the free equilibrium, the response of the potentials, the reading.


def _free_equilibrium(net: AbstractNetwork, x: Any, y: Any) -> tuple[Inputs, Equilibrium]:
    """Checked inputs and the settled state at beta = 0."""
    check_parameters(net)
    require_holomorphic(net, "the response to a complex signal")
    return Inputs.of(net, x, y), settle(net, x, y)


def _susceptibility(net: AbstractNetwork, inputs: Inputs, free: Equilibrium, omega: Array) -> Layers:
    _, chi, residual = _linear_response(net, inputs, free.potentials, jnp.asarray(omega, net.dtype))
    if not is_traced(residual) and not bool(jnp.all(residual <= 1e4 * default_tolerance(net.dtype))):
        raise NotSettledError(
            f"the response at omega={float(omega):.4g} of sample {int(jnp.argmax(residual))} is off by "
            f"{float(jnp.max(residual)):.3g} of its source: the free network is close to instability; use a smaller "
            "scale or slope"
        )
    return chi


@eqx.filter_jit
def _read(net: AbstractNetwork, inputs: Inputs, c_0: Layers, chi: Layers) -> Any:
    """The gradient from the free activities and the response to a signal of amplitude 1."""
    one = jnp.ones((), complex_of(net.dtype))
    return Phasors((to_complex(c_0), chi), (0 * one, one), (0, 1)).gradient(net, inputs)


def _flat(layers: Layers) -> Array:
    """The layers of one sample as one vector."""
    return jnp.concatenate([layer.reshape(-1) for layer in layers])


def _layers(net: AbstractNetwork, vector: Array) -> Layers:
    """The vectors (..., all neurons) as layers (..., neurons)."""
    ends = np.cumsum([math.prod(shape) for shape in net.shapes])[:-1]
    parts = jnp.split(vector, ends, axis=-1)
    return tuple(part.reshape(*vector.shape[:-1], *shape) for part, shape in zip(parts, net.shapes, strict=True))


def _flat_time_constants(net: AbstractNetwork) -> Array:
    return _flat(
        tuple(jnp.broadcast_to(tau, (1, *shape)) for tau, shape in zip(net.time_constants, net.shapes, strict=True))
    )


def _flat_force(net: AbstractNetwork, clamped: Any, y: Array) -> Callable[[Array, Any], Array]:
    r"""$F(u, \beta)$ of one sample, on vectors of all its neurons."""
    clamped, y = jax.tree.map(lambda a: a[None], (clamped, y))

    def force(u: Array, beta: Any) -> Array:
        return _flat(net.force(clamped, net.activities(_layers(net, u[None])), y, beta))

    return force


@eqx.filter_jit
def _linear_response(
    net: AbstractNetwork, inputs: Inputs, u: Layers, omega: Array
) -> tuple[Layers, Layers, Float[Array, " batch"]]:
    r"""The response of the potentials and of the activities, and the relative residual of each sample."""
    tau = _flat_time_constants(net)
    zero = jnp.zeros((), net.dtype)

    def one(sample):
        clamped, y, layers = sample
        u = _flat(layers)
        force = _flat_force(net, clamped, y)
        source = jax.jvp(lambda beta: force(u, beta), (zero,), (zero + 1,))[1]

        def apply(v):  # the Jacobian is real: it acts on each part alone
            real, imag = v
            slopes = [jax.jvp(lambda u: force(u, zero), (u,), (part,))[1] for part in v]
            return real - slopes[0] - omega * tau * imag, imag - slopes[1] + omega * tau * real

        right = (source, jnp.zeros_like(source))
        if u.size <= DENSE:
            jacobian = jax.jacfwd(lambda u: force(u, zero))(u)
            matrix = jnp.diag(1 + 1j * omega * tau) - jacobian
            v = lx.linear_solve(lx.MatrixLinearOperator(matrix), source.astype(matrix.dtype), lx.LU()).value
            v = (v.real, v.imag)
        else:
            operator = lx.FunctionLinearOperator(apply, jax.eval_shape(lambda: right))
            level = 30 * float(jnp.finfo(net.dtype).eps)
            solver = lx.GMRES(rtol=level, atol=level, restart=50, stagnation_iters=50)
            v = lx.linear_solve(operator, right, solver, throw=False).value
        off = norm(jax.tree.map(jnp.subtract, apply(v), right))
        residual = off / jnp.maximum(norm(right), jnp.finfo(net.dtype).tiny)
        return _layers(net, lax.complex(*v)), residual

    # One sample after another, and so below: batched factorisations inside a larger program can lock up XLA's CPU
    # thread pool for ever (jaxlib 0.10, two threads).
    v, residual = lax.map(one, (inputs.clamped, inputs.y, u))
    return v, jax.jvp(net.activities, (to_complex(u),), (v,))[1], residual


# The spread.


def _first_coefficient(net: AbstractNetwork, teaching: Any) -> float:
    """The modulus of the signal's own first Fourier coefficient."""
    if getattr(teaching, "points", None) is not None:
        raise ValueError(
            f"{describe(teaching)} is read as points on its plateaus, not as phasors: use Rotating or Cosine"
        )
    phasors = signal_phasors(teaching, net.dtype)
    require_turning(teaching, phasors)
    return float(jnp.abs(phasors.teaching[1]))


def _ticks(net: AbstractNetwork, period: Any, ticks: int | None) -> int:
    """The ticks given, or those of a run under noise."""
    if ticks is not None:
        return as_count("ticks", ticks, FEWEST_TICKS)
    return Cycle().plan(Rotating(1.0, period), net.dtype, WhiteNoise(1.0), net.time_constants).ticks


class _Spectra(eqx.Module):
    r"""The noise's spectral density where a lock-in listens: at $k K\omega + m\omega$ for $m = -1, 0, 1$.

    `density` holds $k = 0, \dots,$ `folds`, in a buffer that need not grow with every change of the period; beyond,
    where $R(\nu) \approx 1 / (i\nu\tau)$, `tail` holds the sums of $S(\nu) / \nu^2$ over both signs of $k$ for
    $m = 0$ and $m = 1$.
    """

    omega: Float[Array, ""]
    sampling: Float[Array, ""]
    folds: Int[Array, ""]
    density: Float[Array, "buffer 3"]
    tail: Float[Array, "2"]
    real: bool = eqx.field(static=True)

    @staticmethod
    def of(net: AbstractNetwork, noise: Any, period: float, ticks: int) -> "_Spectra":
        if not callable(getattr(noise, "spectrum", None)):
            raise TypeError(
                f"noise={noise!r} has no `spectrum(omega)` to predict from: use one noise on the potentials, such as "
                "WhiteNoise (independent noises add in variance)"
            )
        if isinstance(noise, StepNoise):
            raise TypeError(
                f"noise={describe(noise)} is noise in discrete time, which has no spectrum above its steps: use "
                "WhiteNoise(standard_deviation * sqrt(time constant)), the same at low frequencies"
            )
        if hasattr(noise, "amplitude") and noise.amplitude(net.activities(net.rest(1))) is not None:
            raise TypeError(f"noise={describe(noise)} depends on the activities: only additive noise can be predicted")
        if not isinstance(getattr(noise, "shared_over_batch", None), (bool, np.bool_)):
            raise TypeError(
                f"noise={noise!r} does not say whether it is shared_over_batch: give it that attribute, True or False"
            )
        fastest = min(float(jnp.min(tau)) for tau in net.time_constants)
        omega = 2 * np.pi / period
        sampling = ticks * omega
        folds = math.ceil(16 / (sampling * fastest))
        buffer = max(32, 2 ** (folds + 1).bit_length())
        near = sampling * np.arange(buffer)[:, None] + omega * np.array([-1, 0, 1])
        far = sampling * np.arange(folds + 1, folds + 4097)
        far = np.stack([np.concatenate([far, -far]), np.concatenate([far, -far]) + omega])
        frequencies = np.concatenate([near.ravel(), far.ravel()])
        density = np.asarray(jax.vmap(lambda nu: jnp.asarray(noise.spectrum(nu)))(jnp.asarray(frequencies)), float)
        if density.shape != frequencies.shape or not np.all((density >= 0) & np.isfinite(density)):
            raise ValueError(
                f"noise={noise!r} has a spectrum of shape {density.shape[1:]} or with values that are negative or not "
                "finite: `spectrum(omega)` returns one finite power spectral density"
            )
        tail = np.sum((density[near.size :] / frequencies[near.size :] ** 2).reshape(far.shape), axis=1)
        values = (omega, sampling, folds, density[: near.size].reshape(near.shape), tail)
        return _Spectra(*(jnp.asarray(a) for a in values), real=getattr(noise, "quadratures", "real") == "real")


class _Orbit(eqx.Module):
    r"""One sample's periodic orbit as a power series in the signal.

    Attributes:
        jacobians: $J_0, J_1, J_2$ of $\partial F/\partial u$ along it.
        slopes: $D_0, D_1, D_2$ of $\sigma'$ along it.
        c_0: the free activities.
        chi: the response of the activities.
    """

    jacobians: tuple[Array, Array, Array]
    slopes: tuple[Array, Array, Array]
    c_0: Array
    chi: Array


def _series(function: Callable[[Array], Array], zero: Array) -> tuple[Array, Array, Array]:
    """The first three Taylor coefficients at zero of a function of one real number."""

    def first(e):
        return jax.jvp(function, (e,), (jnp.ones_like(e),))

    (value, slope), (_, curvature) = jax.jvp(first, (zero,), (jnp.ones_like(zero),))
    return value, slope, curvature / 2


def _orbit(net: AbstractNetwork, clamped: Any, y: Array, layers: Layers, omega: Array) -> _Orbit:
    u = to_complex(_flat(layers))
    tau = _flat_time_constants(net)
    force = _flat_force(net, clamped, y)
    zero = jnp.zeros((), net.dtype)

    def jacobian(u, e):
        return jax.jacfwd(lambda u: force(u, to_complex(e)), holomorphic=True)(u)

    def solve(n, right):
        return jnp.linalg.solve(jnp.diag(1 + 1j * n * omega * tau) - jacobian(u, zero), right)

    u_1 = solve(1, jax.jvp(lambda e: force(u, to_complex(e)), (zero,), (zero + 1,))[1])
    u_2 = solve(2, _series(lambda e: force(u + e * u_1, to_complex(e)), zero)[2])

    def along(e):
        return u + e * u_1 + e**2 * u_2

    def activities(u):
        return _flat(net.activities(_layers(net, u[None])))

    def slope(u):
        return jax.jvp(activities, (u,), (jnp.ones_like(u),))[1]

    slopes = _series(lambda e: slope(along(e)), zero)
    return _Orbit(_series(lambda e: jacobian(along(e), e), zero), slopes, activities(u), slopes[0] * u_1)


def _columns(
    net: AbstractNetwork, orbit: _Orbit, spectra: _Spectra, fold: Array, weights: Float[Array, "3"]
) -> Float[Array, "parts columns"]:
    r"""What independent unit noises do to the reading of one sample, at the frequencies of one $k$ and of $-k$.

    The reading is $(\delta c_0, \delta\chi)$, complex; as a real vector its real parts, then its imaginary parts. Each
    column is the root of a variance, so the reading's covariance times $MT$ is the sum of their outer products.
    """
    tau = _flat_time_constants(net)
    (j_0, j_1, j_2), (d_0, d_1, d_2) = orbit.jacobians, (d[:, None] for d in orbit.slopes)
    on_phasor, on_mean, from_below = weights

    def resolvent(m):
        nu = fold * spectra.sampling + m * spectra.omega
        return jnp.linalg.inv(jnp.diag(1 + 1j * nu.astype(net.dtype) * tau) - j_0)

    def answers(at, above, two_above):
        """Activities at the frequency of the noise, at that plus omega, and at that plus 2 omega."""
        w_0 = at
        w_1 = above @ (j_1 @ w_0)
        w_2 = two_above @ (j_1 @ w_1 + j_2 @ w_0)
        return d_0 * w_0, d_0 * w_1 + d_1 * w_0, d_0 * w_2 + d_1 * w_1 + d_2 * w_0

    def reading(mean, phasor):
        return jnp.concatenate([mean, phasor])

    below, here, above = (resolvent(m) for m in (-1, 0, 1))
    nothing = jnp.zeros_like(here)
    pairs = []
    # Real noise at -nu is the conjugate of that at nu, so those two act together.
    for sign, density in ((1, spectra.density[fold, 2]), (-1, spectra.density[fold, 0])):
        up, down = (above, below) if sign == 1 else (below.conj(), above.conj())
        centre = here if sign == 1 else here.conj()
        direct = on_phasor * reading(nothing, d_0 * up)  # at k K omega + omega
        _, mean, phasor = answers(up.conj(), centre.conj(), down.conj())  # at minus that
        pairs.append((direct, from_below * reading(mean, phasor), density))
    plus = on_mean * reading(*answers(here, above, nothing)[:2])  # at k K omega and minus that
    minus = on_mean * reading(*answers(here.conj(), below.conj(), nothing)[:2])
    pairs.append((plus, minus, spectra.density[fold, 1]))

    # Re(a xi + b conj(xi)) with a circular xi of unit power has the variance |a + conj(b)|^2 / 2; with another xi in
    # place of its conjugate, (|a|^2 + |b|^2) / 2. At k = 0 the two signs are one and the same.
    share = jnp.where(fold == 0, 0.25, 0.5)
    parts = [
        jnp.sqrt(share * density).astype(net.dtype) * _as_real(part)
        for a, b, density in pairs
        for part in ((a + b, -1j * (a - b)) if spectra.real else (a, -1j * a, b, -1j * b))
    ]
    return jnp.concatenate(parts, axis=1)


def _tail_columns(
    net: AbstractNetwork, orbit: _Orbit, spectra: _Spectra, weights: Float[Array, "3"]
) -> Float[Array, "parts columns"]:
    r"""The same for all higher $k$ at once, where the neurons' inertia is all that is left."""
    d_0, d_1, _ = (jnp.diag(d / _flat_time_constants(net)) for d in orbit.slopes)
    phasor = weights[0] * jnp.concatenate([jnp.zeros_like(d_0), d_0])
    mean = weights[1] * jnp.concatenate([d_0, d_1])
    root_mean, root_phasor = jnp.sqrt(spectra.tail / 2).astype(net.dtype)
    # Of k and -k together only the real part moves the mean.
    means = [math.sqrt(2) * mean] if spectra.real else [mean, -1j * mean]
    parts = [root_mean * _as_real(part) for part in means]
    parts += [root_phasor * _as_real(part) for part in (phasor, -1j * phasor)]
    return jnp.concatenate(parts, axis=1)


def _as_real(columns: Array) -> Array:
    return jnp.concatenate([columns.real, columns.imag])


@eqx.filter_jit
def _variance(
    net: AbstractNetwork, inputs: Inputs, free: Equilibrium, spectra: _Spectra, weights: Float[Array, "3"], shared: bool
) -> Any:
    r"""The variance of each parameter's estimate times $MT$.

    `weights` are those of noise on the phasor, on the mean and from $-\omega$: $(1/A, 1, A)$.
    """
    batch = inputs.x.shape[0]
    nothing = jax.tree.map(jnp.zeros_like, parameters(net))

    def orbit_of(sample):
        inputs, u = sample
        return _orbit(net, inputs.clamped, inputs.y, u, spectra.omega.astype(net.dtype))

    def squares(inputs, orbit, columns):
        """The sum over columns (columns, batch, parts) of the squared gradients."""

        def one(column):
            half = column.shape[-1] // 2
            mean, phasor = jnp.split(lax.complex(column[:, :half], column[:, half:]), 2, axis=1)
            return _read_change(net, inputs, orbit, mean, phasor)

        def add(total, group):
            changes = jax.vmap(one)(group)
            return jax.tree.map(lambda t, c: t + jnp.sum(c**2, axis=0), total, changes), None

        neurons = orbit.c_0.shape[-1]
        return lax.scan(add, nothing, columns.reshape(neurons, -1, *columns.shape[1:]))[0]

    if shared:
        orbits = lax.map(orbit_of, (inputs, free.potentials))

        def add_fold(fold, total):
            columns = lax.map(lambda orbit: _columns(net, orbit, spectra, fold, weights), orbits)
            return jax.tree.map(jnp.add, total, squares(inputs, orbits, jnp.moveaxis(columns, 2, 0)))

        tail = lax.map(lambda orbit: _tail_columns(net, orbit, spectra, weights), orbits)
        return lax.fori_loop(0, spectra.folds + 1, add_fold, squares(inputs, orbits, jnp.moveaxis(tail, 2, 0)))

    def of_sample(total, sample):
        orbit = orbit_of(sample)
        tail = _tail_columns(net, orbit, spectra, weights)

        def add_fold(fold, covariance):
            columns = _columns(net, orbit, spectra, fold, weights)
            return covariance + columns @ columns.T

        covariance = lax.fori_loop(0, spectra.folds + 1, add_fold, tail @ tail.T)
        values, vectors = jnp.linalg.eigh(covariance)  # four columns per neuron stand for those of all frequencies
        columns = (vectors * jnp.sqrt(jnp.maximum(values, 0))[None]).T
        inputs, orbit = jax.tree.map(lambda a: a[None], (sample[0], orbit))
        return jax.tree.map(jnp.add, total, squares(inputs, orbit, columns[:, None])), None

    total = lax.scan(of_sample, nothing, (inputs, free.potentials))[0]
    return jax.tree.map(lambda t: t / batch**2, total)


def _read_change(net: AbstractNetwork, inputs: Inputs, orbit: _Orbit, mean: Array, phasor: Array) -> Any:
    r"""The derivative of the gradient that is read along a change of $c_0$ and of $\chi$, (batch, neurons) each."""
    c_0, chi, mean_layers, phasor_layers = (_layers(net, a) for a in (orbit.c_0, orbit.chi, mean, phasor))

    def slope(network, clamped):
        def along(c_0, chi, mean, phasor, clamped, y):
            zero = jnp.zeros((), c_0[0].dtype)

            def reading(c_0, chi):
                phi = lambda s, beta: network.phi(clamped, s, y, beta)  # noqa: E731
                return jax.jvp(phi, (c_0, zero), (chi, jnp.ones_like(zero)))[1]

            return jax.jvp(reading, (c_0, chi), (mean, phasor))[1].real

        return -jnp.mean(jax.vmap(along)(c_0, chi, mean_layers, phasor_layers, clamped, inputs.y))

    return gradient_of(slope, net, inputs.x)


# The map.


@eqx.filter_jit
def _follow(
    net: AbstractNetwork,
    inputs: Inputs,
    u: Layers,
    velocity: Layers,
    grid: Complex[Array, " points"],
    steps: Any,
    tolerance: Any,
) -> tuple[Layers, Float[Array, "points batch"], Bool[Array, "points batch"]]:
    """Activities, residuals and which samples were lost, at the end of each ray."""
    batch, points = len(u[0]), len(grid)
    beta = jnp.repeat(grid, batch)

    def per_sample(a, like):
        return a.reshape(-1, *(1,) * (like.ndim - 1))

    def size(layers):
        return jnp.sqrt(sum(jnp.sum(jnp.abs(a.reshape(points * batch, -1)) ** 2, axis=1) for a in layers))

    clamped, y, u, velocity = jax.tree.map(
        lambda a: jnp.tile(a, (points, *(1,) * (a.ndim - 1))), (inputs.clamped, inputs.y, u, velocity)
    )
    tiled = Inputs(jnp.zeros((points * batch, 0), net.dtype), y, clamped)  # the force needs no more than the clamped x
    u = to_complex(u)
    before = tuple(a - v * per_sample(beta / steps, v) for a, v in zip(u, velocity, strict=True))
    none = jnp.zeros(points * batch, bool)
    carry = (jnp.zeros((), jnp.int32), u, before, jnp.zeros_like(beta), jnp.zeros_like(beta.real), none)

    def advance(carry):
        step, u, before, reached, residual, lost = carry
        # What is lost stays at the last point where it settled, so that the others need not wait for it.
        aim = jnp.where(lost, reached, beta * ((step + 1) / steps).astype(net.dtype))
        guess = tuple(jnp.where(per_sample(lost, a), a, 2 * a - b) for a, b in zip(u, before, strict=True))
        found = settle_inputs(net, tiled, aim, tolerance, 300, start=guess)
        moved = size(jax.tree.map(jnp.subtract, found.potentials, u))
        missed = size(jax.tree.map(jnp.subtract, found.potentials, guess))
        kept = (found.residual <= tolerance) & (missed <= 0.5 * moved + 1e3 * tolerance) & ~lost
        residual = jnp.where(lost, residual, found.residual)
        new = tuple(jnp.where(per_sample(kept, a), a, b) for a, b in zip(found.potentials, u, strict=True))
        return step + 1, new, u, jnp.where(kept, aim, reached), residual, ~kept

    _, u, _, _, residual, lost = lax.while_loop(lambda carry: carry[0] < steps, advance, carry)
    activities = tuple(
        jnp.where(per_sample(lost, a), jnp.nan, a).reshape(points, batch, *a.shape[1:]) for a in net.activities(u)
    )
    return activities, residual.reshape(points, batch), lost.reshape(points, batch)


def _candidates(points: Any, limit: float) -> np.ndarray:
    """The amplitudes on offer that are safe."""
    values = np.atleast_1d(np.asarray(points, float))
    for value in values.ravel():
        require_positive("points", value)
    safe = values[values <= limit].ravel()
    if safe.size == 0:
        raise ValueError(
            f"points: none of {values.size} amplitudes is at most {SAFE:g} of the convergence radius, {limit:.3g}: "
            "offer smaller ones"
        )
    return safe
