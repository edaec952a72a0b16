"""Noise: its statistics against theory, the orders of the solvers, and that it is the same however a run is cut."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import oscsim as osc
from oscsim.estimators import lock_in
from oscsim.signals.noise import Draw, Increment
from tests.marks import slow_except

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


@pytest.fixture
def quick():
    """What is compiled here runs once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


SOLVERS = {"Euler": diffrax.Euler(), "Heun": diffrax.Heun(), "ShARK": diffrax.ShARK(), "SRA1": diffrax.SRA1()}


def linear(time_constant=(1.0, 2.0)):
    """Three and two linear neurons, coupled both ways."""
    return osc.LayeredNetwork(
        (2, 3, 2),
        activation=osc.Identity(),
        cost=osc.SquaredError(),
        time_constant=time_constant,
        key=jax.random.key(3),
    )


def alone():
    """Eight linear neurons that feel nothing but themselves."""
    return osc.LayeredNetwork((2, 8, 2), activation=osc.Identity(), key=KEY, scale=0.0)


def undriven(noise, samples, *, period=64.0, cycles=1, start="rest", **settings):
    """A run of `alone()` that nothing but noise moves."""
    settings = {"record": osc.PerCycle(neurons=0)} | settings
    return osc.simulate(
        alone(),
        np.zeros((samples, 2)),
        np.zeros(samples, int),
        osc.Constant(0.0, period),
        cycles=cycles,
        noise=noise,
        start=start,
        key=KEY,
        **settings,
    )


def toy():
    net = osc.LayeredNetwork((4, 5, 4, 3), key=jax.random.key(1))
    return net, np.array([[0.2, 0.9, 0.4, 0.6], [0.8, 0.1, 0.5, 0.3]]), np.array([0, 2])


def within(measured, expected, standard_error, errors=3.0):
    """Every number within so many standard errors of what is expected."""
    z = np.abs(np.asarray(measured) - np.asarray(expected)) / np.asarray(standard_error)
    assert np.max(z) < errors, f"off by {np.max(z):.2f} standard errors"


def stacked(u):
    """Samples of all neurons, (samples, neurons); the imaginary parts must be zero."""
    u = np.concatenate([np.asarray(layer) for layer in u], axis=1)
    assert not np.any(u.imag)
    return u.real


# White noise against the Lyapunov equation.


def drift(net, beta=0.0):
    """The Jacobian of the velocity, and 1/tau of each neuron."""
    w, rates = np.asarray(net.weights[1]), np.repeat([1.0, 0.5], [3, 2])
    coupling = np.block([[np.zeros((3, 3)), w.T], [w, -beta * np.eye(2)]])
    return rates[:, None] * (coupling - np.eye(5)), rates


@pytest.mark.slow
def test_white_noise_has_the_covariance_of_the_lyapunov_equation():
    """In steps of 0.25 tau, so that the equation is the discrete one of the very scheme; it is near the continuous."""
    net, q, n = linear(), 0.3, 5_000
    run = osc.simulate(
        net,
        np.zeros((n, 2)),
        np.zeros((n, 2)),
        osc.Constant(0.1, 100.0),
        cycles=1,
        noise=osc.WhiteNoise(q),
        key=KEY,
        integration=osc.Integration(steps_per_cycle=400),
        record=osc.PerCycle(neurons=0),
    )
    a, rates = drift(net, 0.1)
    expected = q**2 * discrete_covariance(net, diffrax.Heun(), 0.25)
    continuous = scipy.linalg.solve_continuous_lyapunov(a, -np.diag((q * rates) ** 2))
    np.testing.assert_allclose(expected, continuous, atol=0.02 * np.max(continuous))
    u = stacked(run.state.potentials)
    size = np.sqrt(np.diag(expected))
    assert np.abs(expected[0, 3]) > 0.05 * size[0] * size[3]  # the layers do correlate
    standard_error = np.sqrt((np.outer(size**2, size**2) + expected**2) / n)
    within(np.cov(u.T), expected, standard_error)
    within(u.mean(axis=0), 0, size / np.sqrt(n))


@pytest.mark.parametrize("quadratures", [pytest.param("both", marks=pytest.mark.slow), "circular"])
def test_quadratures_and_spectrum(quadratures):
    """The spectrum is the power in both quadratures, so a lone neuron has the variance S / 2 tau in both together."""
    noise = osc.WhiteNoise(0.5, quadratures=quadratures)
    n = 1_000
    run = undriven(noise, n, integration=osc.Integration(solver=diffrax.ShARK(), steps_per_cycle=128))
    z = 0.5
    scheme = 2 * z * (1 - z / 2) ** 2 * (1 + z**2 / 12) / (1 - (1 - z + z**2 / 2) ** 2)  # ShARK's part of the variance
    u = np.asarray(run.state.potentials[0])
    real, imag = np.mean(u.real**2), np.mean(u.imag**2)
    per_quadrature = {"real": (1, 0), "both": (1, 1), "circular": (0.5, 0.5)}[quadratures]
    for measured, share in zip((real, imag), per_quadrature, strict=True):
        expected = scheme * share * 0.25 / 2
        within(measured, expected, max(expected, 1e-12) * np.sqrt(2 / u.size))
    whole = scheme * noise.spectrum(0.3) / 2
    within(real + imag, whole, whole * np.sqrt(2 / u.size))
    assert abs(np.mean(u.real * u.imag)) < 3 * np.sqrt(max(real * imag, 1e-20) / u.size)
    np.testing.assert_allclose(noise.spectrum(jnp.array([0.0, 1.0])), noise.spectrum(0.3))


def test_the_first_coefficient_fluctuates_as_predicted():
    """E|c_1|^2 of a lone neuron, from the very scheme: an autoregression sampled at every tick."""
    n, q, steps, period = 1_000, 0.2, 128, 64.0
    run = undriven(osc.WhiteNoise(q), n, period=period, cycles=2, integration=osc.Integration(steps_per_cycle=steps))
    assert run.plan.ticks == steps
    z = period / steps
    decay, gain = 1 - z + z**2 / 2, 1 - z / 2  # of Heun's method
    variance = q**2 * z * gain**2 / (1 - decay**2)
    lags = np.subtract.outer(np.arange(steps), np.arange(steps))
    turn = np.exp(2j * np.pi * lags / steps)
    expected = np.sum(variance * decay ** np.abs(lags) * turn).real / steps**2
    power = np.abs(np.asarray(run.phasors[1][0])[1]) ** 2
    within(power.mean(), expected, power.std() / np.sqrt(power.size))
    # ... which is q^2 |R(omega)|^2 / T up to the edges of the window. Nothing is folded where every step is read: the
    # scheme holds no power above its own rate.
    omega = 2 * np.pi / period
    assert expected == pytest.approx(q**2 / (1 + omega**2) / period, rel=0.02)


# The orders of the solvers.


class Recorded(osc.AbstractForcing):
    """A given path: increments and areas, one (batch, neurons) array per step and layer."""

    increments: tuple
    areas: tuple

    shared_over_batch = False

    def check(self, solver, step, time_constants):
        pass

    def init(self, key, u):
        return jnp.zeros((), jnp.int32)

    def random(self, key, u, area):
        return ()

    def draw(self, state, random, step, area):
        increment, area_of_it = (
            Increment(tuple(a[state] for a in path), None) for path in (self.increments, self.areas)
        )
        return Draw(state + 1, increment, area_of_it if area else None)

    def amplitude(self, s):
        return None

    def spectrum(self, omega):
        return jnp.ones(jnp.shape(omega))


def coarser(w, h, factor):
    """Increments and areas of a path over steps so many times longer, exactly."""
    w, h = (a.reshape(-1, factor, *a.shape[1:]) for a in (w, h))
    before = np.cumsum(w, axis=1) - w
    total = w.sum(axis=1)
    return total, np.mean(before + w / 2 + h, axis=1) - total / 2


@eqx.filter_jit
def moved(net, inputs, solver, step, steps, potentials, noise):
    """The potentials after so many steps, 8 to a cycle, under a constant signal; one program for every step length."""
    teaching = osc.Constant(0.1, 8 * step)
    system = osc.System.of(net, teaching, noise, osc.Integration(solver, steps_per_cycle=8, ticks=8))
    state = osc.begin(system, inputs, key=KEY, start=potentials)

    def one(_, state):
        return osc.advance(system, state, inputs, key=KEY)[0]

    return stacked_in_jax(jax.lax.fori_loop(0, steps // 8, one, state).potentials)


def stacked_in_jax(u):
    return jnp.concatenate([layer.real for layer in u], axis=1)


def recorded(w, h):
    """The noise of increments and areas (steps, batch, 5), for the layers of three and two."""
    return Recorded(*(tuple(jnp.asarray(a[..., part]) for part in (slice(3), slice(3, 5))) for a in (w, h)))


@functools.cache
def strong_errors(name):
    """Root mean square distance from a far finer solution on the same path, at step after step."""
    n, time, finest, q = 16, 8.0, 4096, 1.0
    net = osc.LayeredNetwork(
        (2, 3, 2), activation=osc.Logistic(4.0, 0.2), cost=osc.SquaredError(), key=jax.random.key(2), scale=1.5
    )
    inputs = osc.Inputs.of(net, np.full((n, 2), 0.3), np.zeros(n, int))
    rng = np.random.default_rng(0)
    w = rng.normal(size=(finest, n, 5)) * q * np.sqrt(time / finest)
    h = rng.normal(size=(finest, n, 5)) * q * np.sqrt(time / finest / 12)

    def final(solver, steps):
        path = [np.zeros_like(w), np.zeros_like(h)]  # padded, so that all lengths run the same program
        for full, part in zip(path, coarser(w, h, finest // steps), strict=True):
            full[:steps] = part
        return moved(net, inputs, solver, jnp.asarray(time / steps), np.int32(steps), net.rest(n), recorded(*path))

    reference = final(diffrax.ShARK(), finest)
    steps = np.array([64, 128, 256, 512])
    errors = [float(jnp.sqrt(jnp.mean((final(SOLVERS[name], count) - reference) ** 2))) for count in steps]
    return steps, np.array(errors)


@pytest.mark.parametrize(
    ("name", "order"),
    [("Euler", 1.0), ("Heun", 1.0), ("ShARK", 1.5), pytest.param("SRA1", 1.5, marks=pytest.mark.slow)],
)
def test_strong_order(name, order):
    """On the same Brownian path, refined, in a network that is anything but linear.

    Those of order 3/2 show 2 here: the part of their error of order 3/2 is small. Without the areas they would show 1.
    """
    steps, errors = strong_errors(name)
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    print(name, slope, errors)
    assert slope > order - 0.1
    assert order == 1.5 or slope < order + 0.1


def one_step(net, solver, step):
    """The linear map of one step: of the potentials, of the increments and of the areas, each (neurons, neurons).

    Read from the code itself, with unit vectors in place of samples. Eight steps are one cycle, and the noise comes in
    the last of them: u -> M^8 u + N w.
    """
    unit, none = np.eye(5), np.zeros((5, 5))
    inputs = osc.Inputs.of(net, np.zeros((15, 2)), np.zeros((15, 2)))
    w, h = np.zeros((8, 15, 5)), np.zeros((8, 15, 5))
    w[-1, 5:10], h[-1, 10:] = unit, unit
    u = np.concatenate([unit, none, none])
    after = moved(
        net,
        inputs,
        solver,
        jnp.asarray(step),
        np.int32(8),
        (jnp.asarray(u[:, :3]), jnp.asarray(u[:, 3:])),
        recorded(w, h),
    )
    of_u, of_w, of_h = np.split(np.asarray(after), 3)
    return of_u.T, of_w.T, of_h.T


def discrete_covariance(net, solver, step):
    """The stationary covariance of the very scheme at q = 1."""
    eight, of_w, of_h = one_step(net, solver, step)
    one = scipy.linalg.fractional_matrix_power(eight, 1 / 8).real
    np.testing.assert_allclose(np.linalg.matrix_power(one, 8), eight, atol=1e-12)
    noise = step * (of_w @ of_w.T + of_h @ of_h.T / 12)
    return scipy.linalg.solve_discrete_lyapunov(one, noise)


@pytest.mark.parametrize(
    ("name", "order"),
    [("Euler", 1.0), ("Heun", 2.0), ("ShARK", 2.0), pytest.param("SRA1", 2.0, marks=pytest.mark.slow)],
)
def test_weak_order(name, order):
    """The stationary covariance of the very scheme, by its discrete Lyapunov equation, against the continuous one."""
    net = linear()
    a, rates = drift(net, 0.1)
    exact = scipy.linalg.solve_continuous_lyapunov(a, -np.diag(rates**2))
    steps = [0.2, 0.1, 0.05, 0.025]
    errors = [np.linalg.norm(discrete_covariance(net, SOLVERS[name], step) - exact) for step in steps]
    slopes = np.diff(np.log(errors)) / np.diff(np.log(steps))
    print(name, slopes, errors / np.linalg.norm(exact))
    assert slopes[-1] == pytest.approx(order, abs=0.1)


# Coloured noise.


def test_ornstein_uhlenbeck_is_exact_at_any_step():
    """One step of h and two of h/2 have the same law: every mean and covariance of (eta, integral of eta)."""
    noise = osc.OrnsteinUhlenbeck(0.7, 1.3)

    def law(step, count):
        """Mean of (eta', integral) per unit of eta, and their covariance, from the linear map that `draw` is."""
        of_eta, of_random, total = np.array([1.0]), np.zeros((1, 0)), np.zeros((2, 1))
        rows = np.array([[1.0], [0.0]])  # eta and the integral, in terms of the first eta and all random numbers
        for _ in range(count):
            columns = []
            for eta, xi in ((1.0, (0.0, 0.0)), (0.0, (1.0, 0.0)), (0.0, (0.0, 1.0))):
                random = [(jnp.full((1, 1), a),) for a in xi]
                drawn = noise.draw(((jnp.full((1, 1), eta),),), random, jnp.asarray(step), False)
                columns.append([drawn.state[0][0].item(), drawn.increment.real[0].item()])
            of_eta, of_random = np.array(columns).T[:, 0], np.array(columns).T[:, 1:]
            total = rows[1:] * 1.0
            rows = np.concatenate([np.outer(of_eta, rows[0]), of_random], axis=1)
            rows[1, : total.shape[1]] += total[0]
        return rows[:, 0], rows[:, 1:] @ rows[:, 1:].T

    for step in (1e-3, 0.05, 0.129, 0.131, 1.0, 5.0):
        for whole, halves in zip(law(step, 1), law(step / 2, 2), strict=True):
            np.testing.assert_allclose(whole, halves, rtol=1e-8)
        mean, covariance = law(step, 1)
        x, c = step / 1.3, 1.3
        np.testing.assert_allclose(mean, [np.exp(-x), c * -np.expm1(-x)], rtol=1e-12)
        np.testing.assert_allclose(covariance[0, 0], 0.49 / (2 * c) * -np.expm1(-2 * x), rtol=1e-12)
        np.testing.assert_allclose(covariance[0, 1], 0.49 / 2 * np.expm1(-x) ** 2, rtol=1e-10)
    assert law(50_000.0, 1)[1][1, 1] == pytest.approx(0.49 * 50_000.0, rel=1e-4)  # white over long times


@pytest.mark.slow
def test_ornstein_uhlenbeck_autocorrelation_across_cycles():
    n, q, t_c, period = 4_000, 0.4, 40.0, 64.0
    noise = osc.OrnsteinUhlenbeck(q, t_c)
    runs = ["rest"]
    for _ in range(3):
        how = osc.Integration(steps_per_cycle=128)
        runs.append(undriven(noise, n, period=period, start=runs[-1], integration=how))
    del runs[0]
    eta = [np.asarray(run.state.noise[0][0][0]).ravel() for run in runs]
    variance, count = q**2 / (2 * t_c), n * 8
    for lag in (0, 1, 2):
        rho = np.exp(-lag * period / t_c)
        within(np.mean(eta[0] * eta[lag]), variance * rho, variance * np.sqrt((1 + rho**2) / count))
    # What it does to a lone neuron: u and eta in the stationary state, to the step's (h/tau)^2
    u = np.asarray(runs[-1].state.potentials[0]).real.ravel()
    expected = q**2 / (2 * (1 + t_c))
    within(np.mean(u**2), expected, expected * np.sqrt(2 / count))
    np.testing.assert_allclose(noise.spectrum(jnp.array([0.0, 1 / t_c])), [q**2, q**2 / 2])


@pytest.mark.filterwarnings("ignore:period=8 is below 50 tau")  # no gradient is read
def test_multiplicative_noise_is_of_the_equation_it_says():
    """ln|u| of du = -u dt + q u dW drifts by -1 in Stratonovich's sense, and by -1 - q^2/2 in Ito's."""
    n, q, period, steps = 500, 0.3, 8.0, 256
    net = alone()
    inputs = osc.Inputs.of(net, np.zeros((n, 2)), np.zeros(n, int))
    teaching = osc.Constant(0.0, period)
    for noise, solver, drift_of_log in (
        (osc.Multiplicative(q), diffrax.Heun(), -1.0),
        (osc.Multiplicative(q, interpretation="ito"), diffrax.Euler(), -1.0 - q**2 / 2),
    ):
        system = osc.System.of(net, teaching, noise, osc.Integration(solver, steps_per_cycle=steps, ticks=8))
        state = osc.begin(system, inputs, key=KEY, start=(jnp.ones((n, 8)),))
        state, _ = eqx.filter_jit(osc.advance)(system, state, inputs, key=KEY)
        log = np.log(np.asarray(state.potentials[0]).real)
        h = period / steps
        allowed = {diffrax.Heun: h**2, diffrax.Euler: h / 2}[type(solver)] * period  # the scheme's own drift error
        standard_error = q * np.sqrt(period / log.size)
        assert abs(log.mean() - drift_of_log * period) < 3 * standard_error + allowed
        assert q**2 / 2 * period > 2 * (3 * standard_error + allowed)  # the other equation would be seen


# The lock-in.


def flat(gradient):
    return np.concatenate([np.asarray(a).reshape(len(a), -1) for a in jax.tree.leaves(gradient)], axis=1)


@pytest.mark.slow
def test_the_lock_in_is_unbiased_to_first_order_and_spreads_in_proportion():
    net, x, y = toy()
    teaching = osc.Rotating(0.2, 64.0)
    settings = {"integration": osc.Integration(diffrax.Heun(), steps_per_cycle=128, ticks=128)}
    ideal = osc.LockIn(teaching, cycles=3, **settings)(net, x, y).gradient
    ideal = np.concatenate([np.ravel(a) for a in jax.tree.leaves(ideal)])
    spreads = []
    for q in (0.001, 0.004):  # what is of second order is below the scatter of the mean
        noisy = osc.LockIn(teaching, cycles=(3, 3), discard=1, noise=osc.WhiteNoise(q), **settings)
        found = osc.ensemble(noisy, net, x, y, realisations=200, key=KEY)
        assert not found.diverged.any()
        gradients = flat(found.gradients)
        spread = gradients.std(axis=0, ddof=1)
        moving = spread > 1e-12  # the weights of no input do not move
        z = (gradients.mean(axis=0) - ideal)[moving] / spread[moving] * np.sqrt(200)
        assert np.max(np.abs(z)) < 4  # of 59 parameters
        spreads.append(np.linalg.norm(spread))
    assert np.linalg.norm(spreads[0]) < np.linalg.norm(ideal)
    assert spreads[1] / spreads[0] == pytest.approx(4, rel=0.1)


# One key, one noise: however a run is cut, batched or mapped.

NOISES = {
    "all": (
        osc.WhiteNoise(0.02),
        osc.WhiteNoise(0.02, quadratures="circular"),
        osc.OrnsteinUhlenbeck(0.1, 3.0, quadratures="both"),
        osc.Multiplicative(0.1),
        osc.TeachingNoise(0.1, 0.1, correlation_time=5.0),
        osc.ReadoutNoise(0.05, quadratures="both"),
    ),
    "shared": (osc.WhiteNoise(0.05, shared_over_batch=True), osc.OrnsteinUhlenbeck(0.1, 3.0, shared_over_batch=True)),
    "steps": osc.StepNoise(0.05),
}


def noisy(noise, **kwargs):
    net, x, y = toy()
    x, y = kwargs.pop("x", x), kwargs.pop("y", y)
    return osc.simulate(net, x, y, osc.Rotating(0.2, 64.0), noise=noise, key=kwargs.pop("key", KEY), **kwargs)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all", pytest.param("steps", marks=pytest.mark.slow)])
def test_a_resumed_run_is_the_whole_one_bit_for_bit(name):
    whole = noisy(NOISES[name], cycles=4)
    first = noisy(NOISES[name], cycles=2)
    second = noisy(NOISES[name], cycles=2, start=first)
    assert_equal(whole.state, second.state)
    assert_equal(whole.phasors, jax.tree.map(lambda a, b: np.concatenate([a, b]), first.phasors, second.phasors))
    # ... with noise in it, another one in each cycle
    c_1 = [np.asarray(a) for a in whole.phasors[1]]
    assert all(np.min(np.abs(np.diff(a, axis=0))) > 1e-7 for a in c_1)
    assert "noise" in str(whole)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["all"])
def test_a_sample_does_not_feel_its_batch(name):
    _, x, y = toy()
    three = noisy(NOISES[name], cycles=1, x=np.concatenate([x, x[:1]]), y=np.concatenate([y, y[:1]]))
    two = noisy(NOISES[name], cycles=1)
    for a, b in zip(three.state.potentials, two.state.potentials, strict=True):
        np.testing.assert_allclose(a[:2], b, rtol=0, atol=1e-12)
        assert np.min(np.abs(a[2] - a[0])) > 1e-4  # the same sample in another place has noise of its own


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_shared_noise_is_the_same_for_all_samples():
    _, x, y = toy()
    twice = {"x": np.repeat(x[:1], 2, axis=0), "y": np.repeat(y[:1], 2), "cycles": 1}
    multiplicative, teaching = (
        osc.Multiplicative(0.05, shared_over_batch=True),
        osc.TeachingNoise(0.1, correlation_time=1.0),
    )
    for noise in ((*NOISES["shared"], multiplicative, teaching), osc.StepNoise(0.05, shared_over_batch=True)):
        for layer in noisy(noise, **twice).state.potentials:
            np.testing.assert_allclose(layer[0], layer[1], rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_lanes_of_vmap_differ_and_are_the_runs_of_their_keys():
    net, x, y = toy()
    inputs, noise = osc.Inputs.of(net, x, y), (*NOISES["shared"], *NOISES["all"][3:])
    system = osc.System.of(net, osc.Rotating(0.2, 64.0), noise)

    @eqx.filter_jit
    def phasor(key):
        return osc.advance(system, osc.begin(system, inputs, key=key), inputs, key=key)[1].reading[1][0]

    keys = jax.random.split(KEY, 3)
    lanes = np.asarray(jax.vmap(phasor)(keys))
    assert np.min(np.abs(lanes[0] - lanes[1])) > 1e-6
    for lane, key in zip(lanes, keys, strict=True):
        np.testing.assert_allclose(lane, phasor(key), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_gradient_passes_through_a_noisy_run():
    net, x, y = toy()
    inputs, teaching = osc.Inputs.of(net, x, y), osc.Rotating(0.2, 64.0)

    def response(q):
        system = osc.System.of(net, teaching, osc.WhiteNoise(q))
        cycle = osc.advance(system, osc.begin(system, inputs, key=KEY), inputs, key=KEY)[1]
        return jnp.sum(cycle.reading[1][0].real)

    slope = float(jax.jit(jax.grad(response))(0.1))
    response = jax.jit(response)
    assert slope == pytest.approx(float(response(0.1 + 1e-5) - response(0.1 - 1e-5)) / 2e-5, rel=1e-6)


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_an_ensemble_is_the_runs_of_its_keys_whatever_the_chunk():
    net, x, y = toy()
    lock_in = osc.LockIn(osc.Rotating(0.2, 64.0), cycles=1, discard=0, noise=NOISES["shared"])
    five = osc.ensemble(lock_in, net, x, y, realisations=5, key=KEY, chunk=2)
    whole = osc.ensemble(lock_in, net, x, y, realisations=5, key=KEY)
    for a, b in zip(jax.tree.leaves(five.gradients), jax.tree.leaves(whole.gradients), strict=True):
        assert len(a) == 5
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    one = lock_in(net, x, y, key=jax.random.fold_in(KEY, 3)).gradient
    for a, b in zip(jax.tree.leaves(whole.gradients), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a[3], b, rtol=0, atol=1e-12)
    assert "Ensemble of 5 realisations" in str(five)


@pytest.mark.slow
def test_noise_of_no_strength_is_none():
    still = osc.Integration(diffrax.Heun(), steps_per_cycle=256, ticks=128)  # the default under noise
    net, x, y = toy()
    ideal = osc.simulate(net, x, y, osc.Rotating(0.2, 64.0), cycles=2, integration=still)
    nothing = (
        osc.WhiteNoise(0.0, quadratures="both"),
        osc.OrnsteinUhlenbeck(0.0, 1.0),
        osc.Multiplicative(0.0),
        osc.TeachingNoise(correlation_time=1.0),
        osc.ReadoutNoise(0.0, quadratures="circular"),
    )
    assert_equal(noisy(nothing, cycles=2).phasors, ideal.phasors)


@pytest.mark.slow
def test_step_noise_is_the_papers_iteration():
    net, x, y = toy()
    teaching = osc.Rotating(0.2, 64.0)
    still = osc.simulate(
        net, x, y, teaching, cycles=2, integration=osc.Integration(solver=diffrax.Euler(), steps_per_cycle=64)
    )
    assert_equal(noisy(osc.StepNoise(0.0), cycles=2).phasors, still.phasors)
    n = 2_000
    run = undriven(osc.StepNoise(0.3), n)
    u = np.asarray(run.state.potentials[0]).real
    within(np.var(u), 0.3**2, 0.3**2 * np.sqrt(2 / u.size))
    # and slow fluctuations are those of the white noise behind it, q = sigma sqrt(tau)
    power = np.abs(np.asarray(run.phasors[0][0])[0]) ** 2
    expected = osc.StepNoise(0.3).spectrum(0.0) / 64
    within(power.mean(), expected, power.std() / np.sqrt(power.size))


@pytest.mark.parametrize("readings", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_step_noise_in_the_two_phases_of_classic(readings):
    """Of lone neurons: the bias's gradient is the difference of two noises over A, each the mean of its readings."""
    x, y = np.ones((1, 2)), np.zeros(1, int)
    classic = osc.Classic(0.5, steps=(3, 3), noise=osc.StepNoise(0.3), readings=readings)
    keys = jax.random.split(KEY, 1_000)
    gradients = np.asarray(jax.vmap(lambda key: classic(alone(), x, y, key).gradient.biases[0])(keys))
    expected = 2 * (0.3 / 0.5) ** 2 / readings
    within(np.var(gradients), expected, expected * np.sqrt(2 / gradients.size))


def test_readout_noise_reaches_the_reading_and_not_the_neurons():
    still = noisy(osc.ReadoutNoise(0.0), cycles=2)
    run = noisy(osc.ReadoutNoise(0.1), cycles=2)
    assert_equal(run.state.potentials, still.state.potentials)
    difference = np.concatenate([np.ravel(a - b) for a, b in zip(run.phasors[1], still.phasors[1], strict=True)])
    expected = 0.1**2 / run.plan.ticks
    power = np.abs(difference) ** 2
    within(power.mean(), expected, expected / np.sqrt(power.size))


def test_teaching_noise_has_its_deviations():
    """Of a rotating signal in amplitude and phase; of a real one it shifts time, which leaves it real."""
    noise, key = osc.TeachingNoise(0.1, 0.2, correlation_time=5.0), jax.random.key(4)
    states = jax.vmap(lambda k: noise.init(k, (jnp.zeros((1, 1)),)))(jax.random.split(key, 4_000))
    moved = noise.draw(states, jax.random.normal(jax.random.key(5), states.shape), jnp.asarray(1.0))
    teaching, real = osc.Rotating(0.4, 64.0), osc.Cosine(0.4, 64.0)
    t = jnp.asarray(7.0)
    ratio = jax.vmap(lambda s: noise.signal(s, teaching, t, teaching.period))(moved) / teaching(t)
    within(np.std(np.abs(ratio)), 0.1, 0.1 / np.sqrt(8_000))
    within(np.std(np.angle(ratio)), 0.2, 0.2 / np.sqrt(8_000))
    rho = np.exp(-1 / 5)
    within(np.mean(states * moved, axis=0), rho, np.sqrt((1 + rho**2) / 4_000))
    one = noise.signal(moved[0], real, t, real.period)
    assert not jnp.iscomplexobj(one)
    np.testing.assert_allclose(one, noise.signal(moved[0], teaching, t, teaching.period).real, rtol=1e-12)
    # the demodulator sees the signal that acts
    c_1 = noisy(osc.TeachingNoise(0.3, correlation_time=1000.0), cycles=1).phasors.teaching[1]
    assert abs(np.asarray(c_1)[0] - 0.2) > 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_extrapolation_uses_steps_of_one_size_and_noise_of_its_own(monkeypatch):
    seen, (net, x, y) = [], toy()

    averaged = lock_in.averaged

    def watching(system, *args, key, **how):
        seen.append((float(system.teaching.period) / system.plan.steps_per_cycle, key is KEY))
        return averaged(system, *args, key=key, **how)

    monkeypatch.setattr(lock_in, "averaged", watching)
    estimator = osc.LockIn(osc.Rotating(0.2, 129.0), noise=osc.WhiteNoise(0.01), extrapolate=True)
    estimate = estimator(net, x, y, key=KEY)
    assert osc.cosine(estimate.gradient, osc.exact_gradient(net, x, y)) > 0.99
    (long, one), (short, other) = seen
    assert long == short
    assert one
    assert not other


# What the docstrings promise, at the default settings: to 2 %.

Q, MEMORY, SLOPE = 0.5, 2.0, 0.5
ITO = 2 - Q**2 * SLOPE**2
MEAN = Q**2 * SLOPE / ITO
SQUARE = Q**2 * (1 + 3 * SLOPE * MEAN) / (2 - 2 * Q**2 * SLOPE**2)


def multiplicative(interpretation):
    return osc.Multiplicative(Q, lambda s: 1 + SLOPE * s, interpretation)


PROMISED = {  # of a lone neuron with a time constant of 1: the noise, the mean squares of both parts, the solvers
    "white": (osc.WhiteNoise(Q), (Q**2 / 2, 0), SOLVERS),
    "white, both": (osc.WhiteNoise(Q, quadratures="both"), (Q**2 / 2, Q**2 / 2), ["Heun"]),
    "white, circular": (osc.WhiteNoise(Q, quadratures="circular"), (Q**2 / 4, Q**2 / 4), SOLVERS),
    "coloured": (osc.OrnsteinUhlenbeck(Q, MEMORY), (Q**2 / (2 * (1 + MEMORY)), 0), ["Euler", "Heun"]),
    "coloured, short": (osc.OrnsteinUhlenbeck(Q, 0.25), (Q**2 / 2.5, 0), ["Euler", "Heun"]),
    "coloured, circular": (
        osc.OrnsteinUhlenbeck(Q, MEMORY, quadratures="circular"),
        (Q**2 / (4 * (1 + MEMORY)), Q**2 / (4 * (1 + MEMORY))),
        ["Heun"],
    ),
    "step": (osc.StepNoise(Q), (Q**2, 0), ["Euler"]),
    "multiplicative, Ito": (multiplicative("ito"), (Q**2 / ITO, 0), ["Euler"]),
    "multiplicative, Stratonovich": (multiplicative("stratonovich"), (SQUARE, 0), ["Heun"]),
}


@pytest.mark.filterwarnings("ignore:period=16 is below 50 tau")  # no gradient is read
@pytest.mark.parametrize(
    "name",
    slow_except(
        ("step, Euler",), [f"{name}, {solver}" for name, (_, _, solvers) in PROMISED.items() for solver in solvers]
    ),
)
def test_a_lone_neuron_fluctuates_as_promised(name):
    name, solver = name.rsplit(", ", 1)
    noise, expected, _ = PROMISED[name]
    n = 12_500 if name == "step" else 100_000  # samples of eight neurons
    run = undriven(noise, n, period=16.0, integration=osc.Integration(SOLVERS[solver]))
    u = np.asarray(run.state.potentials[0])
    found = np.mean(u.real**2), np.mean(u.imag**2)
    print(f"{name}, {solver}, {run.plan.steps_per_cycle / 16:g} steps per time constant: {found} for {expected}")
    np.testing.assert_allclose(found, expected, rtol=0.02)


@pytest.mark.parametrize("quadratures", ["real", "both", "circular"])
def test_readout_noise_leaves_what_it_promises(quadratures):
    n, ticks = 12_500, 8
    run = undriven(osc.ReadoutNoise(Q, quadratures=quadratures), n, integration=osc.Integration(ticks=ticks))
    power = {"real": 1, "both": 2, "circular": 1}[quadratures] * Q**2 / ticks
    for harmonic in (0, 1):
        np.testing.assert_allclose(np.mean(np.abs(run.phasors[harmonic][0]) ** 2), power, rtol=0.02)


def test_teaching_noise_has_the_deviations_it_promises():
    noise, n, step, signal = osc.TeachingNoise(0.1, 0.2, correlation_time=3.0), 100_000, 0.25, osc.Rotating(1.0, 100.0)
    u, keys = (jnp.zeros((1, 1)),), jax.random.split(KEY, n)

    def later(key):
        state = noise.init(key, u)
        for number in range(4):
            state = noise.draw(state, noise.random(jax.random.fold_in(key, number), u, False), jnp.asarray(step))
        return noise.signal(state, signal, jnp.asarray(0.0), signal.period)

    beta = np.asarray(jax.vmap(later)(keys))
    np.testing.assert_allclose(np.var(np.abs(beta)), 0.1**2, rtol=0.02)
    np.testing.assert_allclose(np.var(np.angle(beta)), 0.2**2, rtol=0.02)


@pytest.mark.slow
def test_the_phasor_fluctuates_as_predicted_in_the_default_steps():
    """Of a lone neuron: the spectrum at the signal's frequency, and what its ticks fold onto it."""
    n, period, q = 12_500, 64.0, 0.2
    run = undriven(osc.WhiteNoise(q), n, period=period, cycles=2)
    omega = 2 * np.pi / period
    folded = omega + run.plan.ticks * omega * np.arange(-1000, 1001)
    expected = q**2 / period * np.sum(1 / (1 + folded**2))
    np.testing.assert_allclose(np.mean(np.abs(run.phasors[1][0][1]) ** 2), expected, rtol=0.02)


def test_defaults_of_a_noisy_run():
    def plan(period=64.0, time_constant=1.0, signal=None, **kwargs):
        signal = osc.Rotating(0.2, period) if signal is None else signal
        return osc.System.of(linear(time_constant), signal, osc.WhiteNoise(0.1), osc.Integration(**kwargs)).plan

    default = plan(time_constant=(1.0, 0.5))
    assert isinstance(default.solver, diffrax.Heun)
    assert default.steps_per_cycle == 512  # a quarter of the fastest
    assert default.ticks == 256  # half of the fastest
    assert plan(101.0).steps_per_cycle == 408
    assert plan(100.0, solver=diffrax.Euler()).steps_per_cycle == 3200
    assert plan(100.0, steps_per_cycle=100).ticks == 100
    assert plan(100.0, steps_per_cycle=2000).ticks == 200
    assert plan(100.0, ticks=60).steps_per_cycle == 420
    stairs = plan(signal=osc.Staircase(0.2, 100.0, 6))
    assert (stairs.ticks, stairs.steps_per_cycle) == (6, 402)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_another_noise_starts_afresh_on_going_on():
    net, x, y = toy()
    first = osc.simulate(
        net, x, y, osc.Rotating(0.2, 64.0), cycles=1, integration=osc.Integration(steps_per_cycle=128, ticks=128)
    )
    second = noisy(NOISES["shared"], cycles=1, start=first)
    assert second.first_cycle == 1
    assert second.state.noise[0] is None
    assert second.state.noise[1] is not None
    still = osc.simulate(
        net,
        x,
        y,
        osc.Rotating(0.2, 64.0),
        cycles=1,
        start=second,
        integration=osc.Integration(steps_per_cycle=128, ticks=128),
    )
    assert still.state.noise is None


# What is refused.


def sim(noise, key=KEY, teaching=None, net=None, **kwargs):
    toy_net, x, y = toy()
    teaching = osc.Rotating(0.2, 64.0) if teaching is None else teaching
    net, integration = toy_net if net is None else net, osc.Integration(**kwargs)
    return osc.simulate(net, x, y, teaching, cycles=1, noise=noise, integration=integration, key=key)


REFUSED = {
    "negative intensity": (lambda: osc.WhiteNoise(-0.1), "intensity=-0.1: use a finite number that is not negative"),
    "infinite intensity": (lambda: osc.OrnsteinUhlenbeck(float("inf"), 1.0), "intensity=inf: use a finite number"),
    "nan": (lambda: osc.Multiplicative(float("nan")), "intensity=nan: use a finite number"),
    "negative deviation": (lambda: osc.ReadoutNoise(-1), "standard_deviation=-1: use a finite number"),
    "negative jitter": (lambda: osc.TeachingNoise(phase=-1, correlation_time=1.0), "phase=-1: use a finite number"),
    "negative step noise": (lambda: osc.StepNoise(-1), "standard_deviation=-1: use a finite number"),
    "no correlation time": (lambda: osc.OrnsteinUhlenbeck(0.1, 0.0), "correlation_time=0: use a positive"),
    "no correlation time of jitter": (lambda: osc.TeachingNoise(0.1, correlation_time=0), "correlation_time=0"),
    "quadratures": (lambda: osc.WhiteNoise(0.1, quadratures="complex"), "quadratures='complex': use 'real', 'both'"),
    "interpretation": (lambda: osc.Multiplicative(0.1, interpretation="Ito"), "interpretation='Ito': use 'strat"),
    "short correlation": (
        lambda: sim(osc.OrnsteinUhlenbeck(0.1, 0.2)),
        "correlation_time=0.2 is below the step of 0.25: take more steps_per_cycle, or use white noise",
    ),
    "short jitter": (lambda: sim(osc.TeachingNoise(0.1, correlation_time=0.2)), "correlation_time=0.2 is below"),
    "adaptive steps": (
        lambda: sim(osc.WhiteNoise(0.1), stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3)),
        "stepsize_controller=PIDController() with noise, whose orders hold for equal steps: leave it out",
    ),
    "no key": (lambda: sim(osc.WhiteNoise(0.1), key=None), "key is None: noise needs a random key, such as jax.random"),
    "no key for LockIn": (
        lambda: osc.LockIn(osc.Rotating(0.2, 64.0), noise=osc.WhiteNoise(0.1))(*toy()),
        "key is None: noise needs a random key",
    ),
    "no key for an ensemble": (
        lambda: osc.ensemble(
            osc.LockIn(osc.Rotating(0.2, 64.0), noise=osc.WhiteNoise(0.1)), *toy(), realisations=2, key=None
        ),
        "key is None: noise needs a random key",
    ),
    "ensemble of nothing": (
        lambda: osc.ensemble(osc.LockIn(osc.Rotating(0.2, 64.0)), *toy(), realisations=2, key=KEY),
        "lock_in.noises=(): without noise all realisations are equal",
    ),
    "a solver without an order": (
        lambda: sim(osc.WhiteNoise(0.1), solver=diffrax.Tsit5()),
        "solver=Tsit5() has no proven order under noise: use one of diffrax.Euler(), diffrax.Heun()",
    ),
    "areas of coloured noise": (
        lambda: sim(osc.OrnsteinUhlenbeck(0.1, 2.0), solver=diffrax.ShARK()),
        "solver=ShARK() with OrnsteinUhlenbeck",
    ),
    "areas of multiplicative noise": (
        lambda: sim(osc.Multiplicative(0.1), solver=diffrax.SRA1()),
        "solver=SRA1() is for additive noise, Multiplicative is not: use diffrax.Heun()",
    ),
    "Stratonovich by Euler": (
        lambda: sim(osc.Multiplicative(0.1), solver=diffrax.Euler()),
        "solver=Euler() does not converge to the equation of interpretation='stratonovich': use diffrax.Heun()",
    ),
    "Ito by Heun": (
        lambda: sim(osc.Multiplicative(0.1, interpretation="ito")),
        "solver=Heun() does not converge to the equation of interpretation='ito': use diffrax.Euler()",
    ),
    "a stochastic solver without noise": (
        lambda: sim(None, solver=diffrax.ShARK(), steps_per_cycle=64),
        "solver=ShARK() is for noise, and there is none",
    ),
    "a stochastic solver without noise on the neurons": (
        lambda: sim(osc.ReadoutNoise(0.1), solver=diffrax.ShARK()),
        "solver=ShARK() is for noise on the potentials, and there is none",
    ),
    "step noise by Heun": (
        lambda: sim(osc.StepNoise(0.1), solver=diffrax.Heun()),
        "solver=Heun() with StepNoise, which is defined by Euler steps: use diffrax.Euler()",
    ),
    "step noise in other steps": (
        lambda: sim(osc.StepNoise(0.1), steps_per_cycle=128),
        "a step of 0.5 with StepNoise, whose step is the time constant 1: use steps_per_cycle = period / time",
    ),
    "step noise in a broken period": (
        lambda: sim(osc.StepNoise(0.1), teaching=osc.Rotating(0.2, 64.5)),
        "with StepNoise, whose step is the time constant 1: use steps_per_cycle = period / time constant, and a period",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    assert message in str(caught.value)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_noise():
    for noise in (0.1, (osc.WhiteNoise(0.1), 0.1), osc.WhiteNoise):
        with pytest.raises(TypeError, match="use an instance of a noise, such as WhiteNoise"):
            sim(noise)
        with pytest.raises(TypeError, match="use an instance of a noise"):
            osc.LockIn(osc.Rotating(0.2, 64.0), noise=noise)


def test_a_traced_period_needs_steps():
    net, x, y = toy()
    inputs = osc.Inputs.of(net, x, y)

    def power(period, steps=None):
        integration = osc.Integration(steps_per_cycle=steps)
        system = osc.System.of(net, osc.Rotating(0.2, period), osc.WhiteNoise(0.1), integration)
        return osc.advance(system, osc.begin(system, inputs, key=KEY), inputs, key=KEY)[1].reading[1][0]

    with pytest.raises(ValueError, match="steps_per_cycle is None"):
        jax.jit(power)(64.0)
    assert np.all(np.isfinite(jax.jit(lambda period: power(period, 128))(64.0)))


def watched_whole(net, batch, noise, integration, *, period, cycles, start="rest"):
    """A run of `linear` neurons without a signal, and all that moves in it."""
    return osc.simulate(
        net,
        np.ones((batch, 2)),
        np.zeros((batch, 2)),
        osc.Constant(0.0, period),
        cycles=cycles,
        noise=noise,
        record=osc.PerCycle("all", "all", potentials=True, every_cycle=True, noise=True),
        integration=integration,
        start=start,
        key=KEY,
    )


def test_recorded_noise_is_what_moved_the_neurons():
    """Each step of Euler is the force, the recorded noise, and nothing else."""
    net = linear()
    noises = osc.WhiteNoise(0.3), osc.Multiplicative(0.2, lambda s: 1 + s / 2, "ito")
    integration = osc.Integration(diffrax.Euler(), steps_per_cycle=256, ticks=256)
    run = watched_whole(net, 3, noises, integration, period=128.0, cycles=2)
    u, noise = ([a.reshape(512, *a.shape[2:]) for a in kept] for kept in (run.watched.potentials, run.watched.noise))
    force = jax.vmap(lambda *u: net.force(run.inputs.clamped, net.activities(u), run.inputs.y, 0.0))(*u)
    for now, pushed, pull, tau in zip(u, noise, force, (1.0, 2.0), strict=True):
        step = 0.5 * (pull[:-1] - now[:-1] + pushed[1:]) / tau
        np.testing.assert_allclose(now[1:], now[:-1] + step, rtol=0, atol=1e-12)
    data = run.to_xarray()
    np.testing.assert_array_equal(data.noise_2.values, noise[1])


def test_recorded_noise_has_the_drift_of_stratonovich():
    """What moved the neurons beside the mean force, on average: it does not vanish with the step."""
    net, off = linear((1.0, 1.0)), []
    for steps in (256, 1024):
        integration = osc.Integration(steps_per_cycle=steps, ticks=steps)
        run = watched_whole(net, 2, osc.Multiplicative(0.5), integration, period=64.0, cycles=20, start="settled")
        u, noise = (a[0].reshape(20 * steps, *a[0].shape[2:]) for a in (run.watched.potentials, run.watched.noise))
        s = [a.reshape(20 * steps, *a.shape[2:]) for a in run.watched.activities]
        force = jax.vmap(lambda *s, shown=run.inputs: net.force(shown.clamped, s, shown.y, 0.0)[0])(*s) - u
        moved = (u[1:] - u[:-1]) * steps / 64 - (force[1:] + force[:-1]) / 2
        drift = 0.5**2 / 2 * s[0][:-1]  # of g(s) = s with a slope of 1
        off.append(np.abs((moved - noise[1:]).mean(0)).max() / np.abs(drift.mean(0)).max())
    assert off[1] < off[0] / 3
    assert off[1] < 0.1


def test_recorded_noise_is_its_mean_over_a_tick():
    """A recorded series, straight between its samples, with four of them to a tick."""
    values = np.random.default_rng(0).normal(size=257)
    noise = osc.RecordedNoise(osc.TimeSeries(values, 0.25), random_start=False)
    integration = osc.Integration(steps_per_cycle=256, ticks=64)
    run = undriven(noise, 2, record=osc.PerCycle("all", noise=True), integration=integration)
    mean = ((values[:-1] + values[1:]) / 2).reshape(64, 4).mean(axis=1)
    np.testing.assert_allclose(run.watched.noise[0][0, :, 0, 3].real, mean, rtol=1e-10, atol=1e-12)


def test_noise_that_is_not_there_cannot_be_recorded():
    record = osc.PerCycle(noise=True)
    with pytest.raises(ValueError, match="noise=True in the record: there is no noise on the potentials"):
        undriven((), 2, record=record)
