"""The linear response against runs, closed forms and a Monte Carlo of its own, in float64."""

import math
from functools import partial

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oscsim as osc
from oscsim.core.arrays import norm
from oscsim.response import (
    convergence_radius,
    optimal_amplitude,
    predict_bias,
    predict_gradient,
    predict_spread,
    stability_map,
    susceptibility,
)
from oscsim.response.amplitude import SAFE
from tests.helpers import order, toy
from tests.marks import slow_except

pytestmark = pytest.mark.usefixtures("x64")


class Noise(osc.AbstractForcing):
    """White noise of an intensity, or with a correlation time; only to predict from: no run can be disturbed by it."""

    intensity: float
    correlation_time: float = 0.0
    shared_over_batch: bool = False

    def check(self, solver, step, time_constants):
        raise NotImplementedError

    def init(self, key, u):
        raise NotImplementedError

    def random(self, key, u, area):
        raise NotImplementedError

    def draw(self, state, random, step, area):
        raise NotImplementedError

    def amplitude(self, s):
        return None

    def spectrum(self, omega):
        return self.intensity**2 / (1 + (omega * self.correlation_time) ** 2)


class Fold(osc.AbstractNetwork):
    r"""One neuron with $u = x + b + a u^2 - \beta$, so $u = (1 - \sqrt{1 - 4a (x + b - \beta)}) / (2a)$; cost $u$."""

    bias: jax.Array
    curvature: float = eqx.field(static=True)
    activation = osc.Identity()
    shapes = ((1,),)
    input_shape = (1,)

    def clamp(self, x):
        return x

    def phi(self, clamped, s, y, beta):
        return jnp.sum((clamped + self.bias) * s[0] + self.curvature * s[0] ** 3 / 3) - beta * jnp.sum(s[0])


def fold(curvature=0.5):
    """The branch points are at beta = -0.3 and -0.4 (curvature 0.5)."""
    return Fold(jnp.zeros(1), curvature), jnp.array([[0.2], [0.1]]), jnp.array([0, 0])


UNEQUAL = (1.0, jnp.array([1.0, 2.0, 0.5, 1.5]))


def hopfield():
    net = osc.HopfieldNetwork((6, 5, 4), key=jax.random.key(7), scale=0.3, cost=osc.SquaredError())
    return net, *toy()[1:]


CASES = {"layered, cross-entropy": lambda: toy(time_constant=UNEQUAL), "Hopfield, squared error": hopfield}
ACCURATE = {
    "integration": osc.Integration(stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-11)),
    "record": osc.PerCycle(neurons=0),
}


@pytest.fixture(params=slow_except(("layered, cross-entropy",), CASES))
def case(request, x64):
    return CASES[request.param]()


def largest(a, b):
    return max(float(jnp.max(jnp.abs(p - q))) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# The susceptibility.


def test_susceptibility_is_the_phasor_of_a_locked_run(case):
    net, x, y = case
    period, amplitude = 100.0, 0.1
    run = osc.simulate(net, x, y, osc.Rotating(amplitude, period), cycles=3, start="settled", **ACCURATE)
    chi = susceptibility(net, x, y, 2 * np.pi / period)
    assert [c.shape for c in chi] == [(3, *shape) for shape in net.shapes]
    assert largest(chi, tuple(c[-1] / amplitude for c in run.phasors[1])) < 1e-8
    assert largest(chi, susceptibility(net, x, y, 0.0)) > 1e-3  # the lag is far above what is allowed


def test_static_susceptibility_is_the_slope_of_the_equilibrium(case):
    net, x, y = case
    radius, n = 0.02, 8  # the first coefficient over a small circle: the slope up to radius^8
    points = radius * np.exp(2j * np.pi * np.arange(n) / n)
    settled = [osc.settle(net, x, y, complex(beta)).activities for beta in points]
    slope = tuple(sum(s[i] / (n * b) for s, b in zip(settled, points, strict=True)) for i in range(len(net.shapes)))
    assert largest(susceptibility(net, x, y, 0.0), slope) < 1e-9
    forth, back = susceptibility(net, x, y, 0.3), susceptibility(net, x, y, -0.3)
    assert largest(forth, tuple(c.conj() for c in back)) < 1e-14  # real neurons


@pytest.mark.slow
def test_susceptibility_of_many_neurons_solves_the_system_without_its_matrix():
    sizes = (6, 1020, 8, 4)
    net = osc.LayeredNetwork(sizes, key=jax.random.key(0), scale=0.03)
    x, y, omega = jax.random.uniform(jax.random.key(1), (1, 6)), jnp.array([1]), 0.7
    free = osc.settle(net, x, y)
    chi = susceptibility(net, x, y, omega)
    _, weight, readout = (np.asarray(w) for w in net.weights)
    s = [np.asarray(layer[0]) for layer in free.activities]
    slope = [4 * a * (1 - a) for a in s]
    scores = np.exp(readout @ s[1])  # the biases are zero
    source = readout.T @ (np.eye(4)[1] - scores / scores.sum())
    n_1, n_2 = sizes[1:3]
    jacobian = np.block([[np.zeros((n_1, n_1)), weight.T * slope[1]], [weight * slope[0], np.zeros((n_2, n_2))]])
    v = np.linalg.solve((1 + 1j * omega) * np.eye(n_1 + n_2) - jacobian, np.concatenate([np.zeros(n_1), source]))
    expected = np.concatenate(slope) * v
    found = np.concatenate([np.asarray(layer[0]) for layer in chi])
    assert np.max(np.abs(found - expected)) < 1e-12 * np.max(np.abs(expected))


# Gradient and bias.


def test_predicted_bias_is_that_of_the_lock_in():
    net, x, y = toy(time_constant=UNEQUAL)
    exact = osc.exact_gradient(net, x, y)
    for period in (100.0, 200.0):
        run = osc.simulate(net, x, y, osc.Rotating(0.2, period), cycles=3, start="settled", **ACCURATE)
        estimate = run.gradient(discard=2)
        bias = predict_bias(net, x, y, period)
        assert largest(bias, jax.tree.map(jnp.subtract, estimate, exact)) < 1e-8
        assert largest(predict_gradient(net, x, y, period), estimate) < 1e-8
        assert norm(bias) > 1e-4


def test_bias_falls_as_the_square_of_the_frequency():
    net, x, y = toy(time_constant=UNEQUAL)
    periods = np.array([400.0, 800.0, 1600.0])
    assert abs(order([norm(predict_bias(net, x, y, period)) for period in periods], 1 / periods) - 2) < 0.01


# The spread.


@partial(jax.jit, static_argnames=("shared", "runs"))
def realisations(net, inputs, start, amplitude, period, noise, key, *, ticks, substeps, cycles, shared, runs):
    """Gradients from `runs` independent runs by stochastic Heun steps, read at every `substeps`-th step.

    The Euler-Maruyama rule is off by h / (2 tau) in the variance of what is read at few ticks, Heun's by its square.
    """
    h = period / (ticks * substeps)
    omega = 2 * jnp.pi / period
    memory = noise.correlation_time

    def one(key):
        def step(i, carry):
            u, noises, c_0, c_1 = carry
            fresh = []
            for layer, k in zip(u, jax.random.split(jax.random.fold_in(key, i), len(u)), strict=True):
                shape = (1, *layer.shape[1:]) if shared else layer.shape
                fresh.append(noise.intensity * jax.random.normal(k, shape) / jnp.sqrt(h) + jnp.zeros(layer.shape))
            noises = tuple(
                jnp.where(memory > 0, old + h / jnp.maximum(memory, h) * (new - old), new)
                for old, new in zip(noises, fresh, strict=True)
            )

            def velocity(u, t):
                beta = amplitude * jnp.exp(1j * omega * t)
                force = net.force(inputs.clamped, net.activities(u), inputs.y, beta)
                return tuple(
                    (f - a + n) / tau for a, f, n, tau in zip(u, force, noises, net.time_constants, strict=True)
                )

            first = velocity(u, i * h)
            second = velocity(jax.tree.map(lambda a, v: a + h * v, u, first), (i + 1) * h)
            u = jax.tree.map(lambda a, v, w: a + h * (v + w) / 2, u, first, second)
            counts = ((i + 1) % substeps == 0) & (i >= ticks * substeps)  # after the first cycle
            s, turn = net.activities(u), jnp.exp(-1j * omega * (i + 1) * h)
            c_0 = jax.tree.map(lambda c, a: c + jnp.where(counts, a, 0), c_0, s)
            c_1 = jax.tree.map(lambda c, a: c + jnp.where(counts, a * turn, 0), c_1, s)
            return u, noises, c_0, c_1

        zeros = jax.tree.map(jnp.zeros_like, start)
        quiet = jax.tree.map(lambda a: jnp.zeros(a.shape), start)
        _, _, c_0, c_1 = lax.fori_loop(0, (cycles + 1) * ticks * substeps, step, (start, quiet, zeros, zeros))
        c_0, c_1 = jax.tree.map(lambda a: a / (ticks * cycles), (c_0, c_1))
        signal = jnp.asarray(amplitude, complex)
        return osc.Phasors((c_0, c_1), (0 * signal, signal), (0, 1)).gradient(net, inputs)

    return jax.vmap(one)(jax.random.split(key, runs))


RUNS = 300
MONTE_CARLO = {
    # amplitude over radius, cycles, noise, ticks, steps per tick
    "small amplitude": (0.05, 4, Noise(0.02), 320, 1),
    "large amplitude": (0.7, 4, Noise(0.02), 320, 1),
    "more cycles": (0.3, 8, Noise(0.02), 320, 1),
    "few ticks, correlated": (0.3, 4, Noise(0.02, correlation_time=1.0), 30, 20),
    "few ticks, shared": (0.3, 4, Noise(0.02, shared_over_batch=True), 30, 20),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_except(("few ticks, correlated",), MONTE_CARLO))
def test_predicted_spread_is_that_of_noisy_runs(name):
    fraction, cycles, noise, ticks, substeps = MONTE_CARLO[name]
    net, x, y = toy(time_constant=UNEQUAL)
    period, amplitude = 100.0, fraction * 1.19  # where two equilibria meet
    inputs = osc.Inputs.of(net, x, y)
    start = tuple(u.astype(complex) for u in osc.settle(net, x, y).potentials)
    gradients = realisations(
        net,
        inputs,
        start,
        amplitude,
        period,
        noise,
        jax.random.key(0),
        ticks=ticks,
        substeps=substeps,
        cycles=cycles,
        shared=noise.shared_over_batch,
        runs=RUNS,
    )
    measured = jax.tree.map(lambda g: jnp.std(g, axis=0, ddof=1), gradients)
    predicted = predict_spread(net, x, y, osc.Rotating(amplitude, period), noise, cycles, ticks=ticks)
    assert jax.tree.structure(predicted) == jax.tree.structure(osc.parameters(net))
    # Chance moves the standard deviation of one parameter by 4 %, and few of them are independent.
    assert abs(float(norm(measured) / norm(predicted)) - 1) < 0.05
    for a, b in zip(jax.tree.leaves(measured), jax.tree.leaves(predicted), strict=True):
        assert abs(float(norm(a) / norm(b)) - 1) < 0.1


@pytest.mark.parametrize("quadratures", ["real", "circular", "both"])
def test_spread_of_one_neuron_in_closed_form(quadratures):
    """Slow drive, fine ticks: du = G(beta) I, so noise at omega, 0 and -omega acts by G_0, G_1 and G_2."""
    net, x, y = fold()
    period, cycles, q = 4000.0, 7, 0.03
    for amplitude in (0.001, 0.1, 0.25):
        teaching = osc.Rotating(amplitude, period)
        noise = osc.WhiteNoise(q, quadratures=quadratures)
        found = predict_spread(net, x[:1], y[:1], teaching, noise, cycles, ticks=int(period / 0.02))
        d, step = 1 - 4 * 0.5 * 0.2, 4 * 0.5  # G = (d + step beta)^(-1/2)
        g_0, g_1, g_2 = d**-0.5, -0.5 * step * d**-1.5, 0.375 * step**2 * d**-2.5
        variance = {
            "real": 0.5 * (g_0 / amplitude + amplitude * g_2) ** 2 + g_1**2,
            "circular": 0.5 * ((g_0 / amplitude) ** 2 + (amplitude * g_2) ** 2 + g_1**2),
            "both": (g_0 / amplitude) ** 2 + (amplitude * g_2) ** 2 + g_1**2,
        }[quadratures]
        expected = q * math.sqrt(variance / (cycles * period))
        assert float(found.bias[0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("ticks", [8, 20, 64])
def test_noise_above_the_sampling_rate_folds_back(ticks):
    """A linear neuron read every Delta: sum_k 1 / (1 + (omega + k Omega)^2) has a closed form."""
    net, x, y = fold(0.0)
    period, cycles, amplitude, q = 60.0, 5, 0.1, 0.03
    found = predict_spread(net, x[:1], y[:1], osc.Rotating(amplitude, period), Noise(q), cycles, ticks=ticks)
    delta = period / ticks
    folded = delta / 2 * np.sinh(delta) / (np.cosh(delta) - np.cos(2 * np.pi / ticks))
    expected = q / amplitude * math.sqrt(folded / (2 * cycles * period))
    assert float(found.bias[0]) == pytest.approx(expected, rel=1e-4)
    assert folded > 1.05  # more than twenty times what the test allows


@pytest.mark.slow
def test_spread_scales_with_noise_cycles_and_amplitude():
    net, x, y = toy(time_constant=UNEQUAL)
    teaching = osc.Rotating(0.2, 100.0)
    base = predict_spread(net, x, y, teaching, Noise(0.1), 10)
    louder = predict_spread(net, x, y, teaching, Noise(0.3), 10)
    assert osc.relative_error(louder, jax.tree.map(lambda a: 3 * a, base)) < 1e-12
    halved = predict_spread(net, x, y, teaching, Noise(0.1), 40)
    assert osc.relative_error(jax.tree.map(lambda a: 2 * a, halved), base) < 1e-12
    amplitudes = np.array([0.001, 0.002, 0.004])
    spreads = [norm(predict_spread(net, x, y, osc.Rotating(a, 100.0), Noise(0.1), 10)) for a in amplitudes]
    assert abs(order(spreads, amplitudes) + 1) < 1e-3
    # A third of the way to the radius the terms that do not fall with the amplitude are seen.
    assert norm(predict_spread(net, x, y, osc.Rotating(0.4, 100.0), Noise(0.1), 10)) > 1.01 * spreads[0] / 400


def test_independent_noise_averages_over_the_batch_and_shared_noise_does_not():
    """Two ways to sum: over the eigenvectors of each sample's covariance, and over frequencies and neurons."""
    net, x, y = toy(time_constant=UNEQUAL)
    alike, labels = jnp.repeat(x[:1], 3, axis=0), jnp.repeat(y[:1], 3)
    teaching = osc.Rotating(0.3, 100.0)
    for memory in (0.0, 3.0):
        independent = predict_spread(net, alike, labels, teaching, Noise(0.1, memory), 10, ticks=30)
        shared = predict_spread(net, alike, labels, teaching, Noise(0.1, memory, True), 10, ticks=30)
        assert osc.relative_error(jax.tree.map(lambda a: math.sqrt(3) * a, independent), shared) < 1e-10


def test_spread_takes_the_signals_own_first_coefficient():
    net, x, y = toy(time_constant=UNEQUAL)
    base = predict_spread(net, x, y, osc.Rotating(0.1, 100.0), Noise(0.1), 10)
    for same in (osc.Rotating(0.1, 100.0, 0.7), osc.Cosine(0.2, 100.0), osc.Onset(osc.Rotating(0.1, 100.0), 2.0)):
        assert osc.relative_error(predict_spread(net, x, y, same, Noise(0.1), 10), base) < 1e-12


# The amplitude.


def test_optimal_amplitude_makes_the_predicted_error_least():
    net, x, y = toy(time_constant=UNEQUAL)
    period, noise, cycles = 200.0, Noise(0.05), 10
    scale = norm(osc.exact_gradient(net, x, y))
    bias = float(norm(predict_bias(net, x, y, period)) / scale)

    def spread(amplitude):
        return float(norm(predict_spread(net, x, y, osc.Rotating(amplitude, period), noise, cycles)) / scale)

    best = optimal_amplitude(net, x, y, period, noise, cycles)
    assert best.bias == pytest.approx(bias, rel=1e-9)
    assert best.spread == pytest.approx(spread(best.amplitude), rel=1e-9)
    assert best.error == pytest.approx(math.hypot(bias, best.spread), rel=1e-9)
    safe = SAFE * best.radius
    errors = [math.hypot(bias, spread(a)) for a in np.linspace(0.05, 1, 8) * safe]
    assert best.amplitude <= safe
    assert best.error <= min(errors) * (1 + 1e-9)
    assert errors[0] > 2 * best.error
    # At the knee, the part that falls with the amplitude is half of the whole.
    falling = (spread(1e-5) * 1e-5 / best.knee) ** 2
    assert falling == pytest.approx((bias**2 + spread(best.knee) ** 2) / 2, rel=1e-6)

    chosen = optimal_amplitude(net, x, y, period, noise, cycles, points=[0.1, 0.3, 5.0])
    assert chosen.amplitude == 0.3
    assert chosen.teaching.amplitude == 0.3
    assert chosen.spread == pytest.approx(spread(0.3), rel=1e-9)
    assert str(chosen).startswith("amplitude=0.3 (knee")


# The map and the radius.


def test_stability_map_of_one_neuron_is_the_plane_without_a_slit():
    net, x, y = fold()
    axis = np.linspace(-1, 1, 9)
    grid = axis + 1j * axis[:, None]
    found = stability_map(net, x, y, grid)
    slit = (grid.imag == 0) & (grid.real < -0.3)
    assert np.array_equal(found.settled, ~slit)
    assert float(found.radius) == 0.5  # the first point of the grid behind the branch point
    exact = 1 - np.sqrt(1 - 2 * (np.asarray(x)[:, 0] - grid[..., None]))
    state = np.asarray(found.activities[0])[..., 0]
    assert found.residual.shape == state.shape == (9, 9, 2)
    assert np.max(np.abs(state - exact)[~slit]) < 1e-10
    assert np.all(np.isnan(state[slit][:, 0]))
    assert np.all(np.isfinite(state[..., 1]) == ~(slit & (grid.real < -0.4)))  # each sample has its own branch point
    assert np.all(np.asarray(found.residual)[~slit] <= 1e-12)

    line = -np.linspace(0.25, 0.35, 81).reshape(9, 9)
    assert 0.3 - 0.35 / 64 < float(stability_map(net, x, y, line).radius) <= 0.301


def test_radius_is_the_distance_of_the_branch_point():
    net, x, y = fold()
    assert convergence_radius(net, x[:1], y[:1]) == pytest.approx(0.3, rel=0.01)
    net, x, y = toy(time_constant=UNEQUAL)
    radius = convergence_radius(net, x, y)
    circle = np.exp(1j * np.linspace(0, np.pi, 17))
    inside, outside = stability_map(net, x, y, 0.9 * radius * circle), stability_map(net, x, y, 1.05 * radius * circle)
    assert bool(jnp.all(inside.settled))
    assert math.isinf(inside.radius)
    assert not bool(outside.settled[0])
    assert bool(jnp.all(outside.settled[1:]))
    # Well inside, the state is the one that settles from rest.
    followed = stability_map(net, x, y, 0.5 * radius * circle)
    there = osc.settle(net, x, y, complex(followed.grid[5])).activities
    assert largest(there, tuple(a[5] for a in followed.activities)) < 1e-10


# What is refused.


@pytest.mark.usefixtures("unchecked")
def test_errors_name_the_argument_and_the_remedy():
    net, x, y = toy(time_constant=UNEQUAL)
    teaching, noise = osc.Rotating(0.1, 100.0), Noise(0.1)
    with pytest.raises(ValueError, match="omega=inf"):
        susceptibility(net, x, y, np.inf)
    for period, message in ((3.0, "shorter than 2 pi tau"), (0.0, "period=0")):
        for predict in (predict_gradient, predict_bias):
            with pytest.raises(ValueError, match=message):
                predict(net, x, y, period)
        with pytest.raises(ValueError, match=message):
            optimal_amplitude(net, x, y, period, noise, 10)
    with pytest.raises(ValueError, match="cycles=0"):
        predict_spread(net, x, y, teaching, noise, 0)
    with pytest.raises(ValueError, match="ticks=4"):
        predict_spread(net, x, y, teaching, noise, 10, ticks=4)
    for wrong, message in (
        (None, "no `spectrum"),
        ((noise, noise), "no `spectrum"),
        (osc.StepNoise(0.1), "discrete time"),
        (osc.Multiplicative(0.1), "only additive noise"),
    ):
        with pytest.raises(TypeError, match=message):
            predict_spread(net, x, y, teaching, wrong, 10)
    with pytest.raises(ValueError, match="negative or not finite"):
        predict_spread(net, x, y, teaching, Noise(np.inf), 10)
    with pytest.raises(ValueError, match="read as points"):
        predict_spread(net, x, y, osc.Staircase(0.1, 100.0, 10), noise, 10)
    with pytest.raises(ValueError, match="no first harmonic"):
        predict_spread(net, x, y, osc.Constant(0.1, 100.0), noise, 10)
    with pytest.raises(ValueError, match="points: none of 2 amplitudes"):
        optimal_amplitude(net, x, y, 100.0, noise, 10, points=[2.0, 3.0])
    with pytest.raises(ValueError, match="points=-1"):
        optimal_amplitude(net, x, y, 100.0, noise, 10, points=[-1.0])
    settled = osc.LayeredNetwork((6, 3, 2), key=jax.random.key(0), cost=osc.SquaredError())
    reached = osc.settle(settled, x, jnp.zeros((3, 2))).activities[-1]
    with pytest.raises(ValueError, match="the exact gradient is zero"):
        optimal_amplitude(settled, x, reached, 100.0, noise, 10)
    with pytest.raises(ValueError, match="grid of shape"):
        stability_map(net, x, y, [])
    with pytest.raises(TypeError, match="complex numbers"):
        stability_map(net, x, y, ["1"])
    with pytest.raises(ValueError, match="steps=0"):
        stability_map(net, x, y, [0.1], steps=0)


def test_networks_without_an_answer_are_refused():
    _, x, y = toy()
    hard = osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(2), activation=osc.HardTanh())
    wild = osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(2), scale=9.0, activation=osc.Identity())  # runs off
    questions = (
        lambda net: susceptibility(net, x, y, 0.1),
        lambda net: predict_gradient(net, x, y, 100.0),
        lambda net: predict_spread(net, x, y, osc.Rotating(0.1, 100.0), Noise(0.1), 10),
        lambda net: predict_spread(net, x, y, osc.Cosine(0.1, 100.0), Noise(0.1), 10),
        lambda net: stability_map(net, x, y, [0.1]),
        lambda net: convergence_radius(net, x, y),
    )
    for ask in questions:
        with pytest.raises(osc.NotHolomorphicError, match="HardTanh is not holomorphic"):
            ask(hard)
        with pytest.raises(osc.NotSettledError, match="did not settle at beta=0"):
            ask(wild)


# The prediction against measurement, over a grid.


def paper_toy():
    """The network of the paper's Fig. 2: 6-4-4-4, one sample."""
    net = osc.LayeredNetwork(
        (6, 4, 4, 4), activation=osc.Logistic(slope=4.0, centre=0.5), scale=0.5, key=jax.random.key(2)
    )
    x = jax.random.normal(jax.random.key(2), (1, 6))
    return net, x / jnp.max(x), [1]


def digits():
    x, y = osc.datasets.load("digits")
    return osc.LayeredNetwork((64, 32, 10), key=jax.random.key(0)), x[:4], y[:4]


GRID = {"amplitude": [0.03, 0.06, 0.12], "intensity": [0.01, 0.02, 0.04], "period": [64.0, 128.0], "cycles": [3, 5, 9]}


@pytest.mark.slow
@pytest.mark.parametrize(("network", "seeds"), [(paper_toy, 2048), (digits, 256)])
def test_bias_spread_and_scaling_over_a_grid(network, seeds):
    net, x, y = network()
    key = jax.random.key(0)
    study = osc.studies.gradient_quality(net, x, y)
    quiet = osc.sweep(
        study, {"amplitude": [0.03, 0.12], "period": GRID["period"], "cycles": 4, "discard": 3}, seeds=1, key=key
    )
    bias = osc.summarise(quiet).relative_error.sel(statistic="average")
    np.testing.assert_allclose(bias, quiet.predicted_bias, rtol=1e-3)

    noisy = osc.sweep(study, GRID, seeds=seeds, key=key, block=9)
    still = osc.sweep(study, GRID | {"intensity": [0.0]}, seeds=1, key=key)  # the bias at the same, coarser steps
    square = osc.summarise(noisy, average="rms").relative_error.sel(statistic="average") ** 2
    spread = np.sqrt(square - still.relative_error.sel(seed=0, intensity=0.0) ** 2)
    ratio = spread / noisy.predicted_spread
    least, most = float(ratio.min()), float(ratio.max())
    print(f"spread over prediction: {least:.3f} to {most:.3f}, mean {float(ratio.mean()):.3f}")
    assert 0.9 < least < most < 1.1
    for name, power in {"amplitude": -1.0, "intensity": 1.0, "cycles": -0.5}.items():
        place = noisy.cycles - 1 if name == "cycles" else noisy[name]
        values = np.log(spread).transpose(name, ...).values.reshape(3, -1)
        slope = np.polyfit(np.log(place.values), values, 1)[0].mean()
        print(f"scaling exponent of {name}: {slope:.3f}")
        assert abs(slope / power - 1) < 0.05
