"""The orbit without stepping: against long simulations, closed forms, and what it must refuse."""

import warnings

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

import oscsim as osc
from oscsim.core.arrays import norm
from oscsim.equilibrium.vectors import flat, flat_force, flat_time_constants
from tests.helpers import COST, Quadratic, order, toy
from tests.marks import slow_except

PRECISE = osc.Integration(diffrax.Dopri8(), diffrax.PIDController(1e-11, 1e-11), ticks=96)


class Distorted(osc.AbstractTeaching):
    """A rotating signal with a tone of its own at twice the frequency, and one that turns the other way."""

    amplitude: float
    period: float

    def __call__(self, t, cycle=0):
        turn = jnp.exp(2j * jnp.pi * t / self.period)
        return self.amplitude * (turn + 0.3 * turn**2 + 0.2 * turn.conj())


KEY, SILENT = jax.random.key(0), osc.Monitor(progress=False)


def convolutional():
    layers = osc.Convolution(2, pooling=osc.SoftmaxPooling(2, temperature=0.5)), osc.Convolution(3, 2)
    net = osc.ConvolutionalNetwork(layers, (8, 8, 1), 3, key=jax.random.key(0))
    return net, jax.random.normal(jax.random.key(1), (2, 8, 8, 1)), jnp.array([0, 2])


def hopfield():
    net = osc.HopfieldNetwork((6, 5, 4), key=jax.random.key(2), scale=0.4)
    return net, jax.random.uniform(jax.random.key(3), (3, 6)), jnp.array([0, 2, 3])


NETWORKS = {
    "layered": toy,
    "two time constants": lambda: toy(cost=osc.SquaredError(), time_constant=(1.0, 2.0, 0.5)),
    "hopfield": hopfield,
    "convolutional": convolutional,
}
# Up to 0.87 of the smallest radius, 0.31. Nearer to it, in a slow turn, 96 ticks are too few for the simulation: its
# demodulator takes harmonic 96 for the mean.
SIGNALS = {
    "rotating": lambda period: osc.Rotating(0.27, period, phase=0.4),
    "cosine": lambda period: osc.Cosine(0.3, period),
    "distorted": lambda period: Distorted(0.2, period),
}
CASES = slow_except(
    ((30.0, "rotating", "layered"),),
    [(period, signal, network) for network in NETWORKS for signal in SIGNALS for period in (30.0, 100.0, 1000.0)],
)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_the_orbit_is_where_a_long_simulation_ends(case):
    period, signal, network = case
    net, x, y = NETWORKS[network]()
    teaching = SIGNALS[signal](period)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the period is short on purpose
        settled = osc.simulate(net, x, y, teaching, cycles=200 if period < 200 else 30, integration=PRECISE)
    orbit = osc.periodic_orbit(net, x, y, teaching)
    for n in (0, 1):
        for found, stepped in zip(orbit.phasors[n], settled.phasors[n], strict=True):
            assert norm(found - stepped[-1]) < 1e-8 * norm(stepped[-1])
    at_start = zip(orbit.potentials_at(0.0), settled.state.potentials, strict=True)
    assert all(norm(u - v) < 1e-7 * norm(v) for u, v in at_start)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_near_the_radius_every_harmonic_is_exact_by_itself():
    """At nine tenths of the radius, where what is left out is large."""
    net, x, y = toy()
    radius = float(osc.suggest(net, x, y).radius)
    teaching = osc.Rotating(0.9 * radius, 60.0)
    settled = osc.simulate(net, x, y, teaching, cycles=60, integration=PRECISE)
    orbit = osc.periodic_orbit(net, x, y, teaching, harmonics=16, throw=False)
    for n in (0, 1):
        for found, stepped in zip(orbit.phasors[n], settled.phasors[n], strict=True):
            assert norm(found - stepped[-1]) < 1e-8 * norm(stepped[-1])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_quadratic_neuron_against_its_recursion(share):
    r"""$(1 + in\omega\tau - 2 w u_0)\, u_n = w \sum_{k=1}^{n-1} u_k u_{n-k} - c A [n = 1]$."""
    b, w, period = 0.3, 0.5, 40.0
    radius = abs(b - 1 / (4 * w)) / COST
    amplitude, omega = share * radius, 2 * np.pi / period
    expected = [(1 - np.sqrt(1 - 4 * w * b)) / (2 * w)]
    for n in range(1, 13):
        products = sum(expected[k] * expected[n - k] for k in range(1, n))
        expected.append((w * products - COST * amplitude * (n == 1)) / (1 + 1j * n * omega - 2 * w * expected[0]))
    net = Quadratic(jnp.array([b]), jnp.array(w))
    orbit = osc.periodic_orbit(
        net, jnp.zeros((1, 1)), jnp.zeros((1, 1)), osc.Rotating(amplitude, period), harmonics=12, throw=False
    )
    assert np.allclose(orbit.potentials[0][:, 0, 0], expected, rtol=1e-12, atol=1e-12 * abs(expected[1]))


@pytest.mark.usefixtures("x64")
def test_truncation_falls_as_a_power_of_the_amplitude():
    net, x, y = toy()
    amplitudes, kept = np.array([0.05, 0.1, 0.2]), 4
    left = [osc.periodic_orbit(net, x, y, osc.Rotating(a, 100.0), harmonics=kept).residual.max() for a in amplitudes]
    assert order(left, amplitudes) == pytest.approx(kept, abs=0.3)


def slow_network():
    """Two layers whose slowest mode takes more than three time constants."""
    net = osc.LayeredNetwork((6, 5, 5, 4), key=jax.random.key(3), scale=0.5, time_constant=(1.0, 1.2))
    return net, jax.random.uniform(jax.random.key(1), (2, 6)), jnp.array([0, 2])


def one_sample(net, x, y):
    """The force on a vector of all neurons of one sample, and their time constants."""
    inputs = osc.Inputs.of(net, x[None], y[None])
    return flat_force(net, inputs.clamped[0], inputs.y[0]), np.asarray(flat_time_constants(net))


def nearest(found, expected):
    """The distance from each of `found` to the next of `expected`."""
    return np.min(np.abs(np.subtract.outer(found, expected)), axis=1)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", slow_except(((8.0, 0.5),), [(t, a) for t in (8.0, 15.0) for a in (0.1, 0.5, 0.9)]))
def test_a_turning_signal_leaves_the_modes_of_the_free_state(case):
    r"""Multipliers are $e^{\lambda_j T}$ at any amplitude below the radius."""
    period, share = case
    net, x, y = slow_network()
    radius, free = float(osc.suggest(net, x, y).radius), osc.settle(net, x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the period is short on purpose
        orbit = osc.periodic_orbit(net, x, y, osc.Rotating(share * radius, period))
    slowest = 0.0
    for sample, found in enumerate(orbit.multipliers()):
        force, tau = one_sample(net, x[sample], y[sample])
        u = flat(tuple(a[sample] for a in free.potentials))
        modes = np.linalg.eigvals((np.asarray(jax.jacfwd(force)(u, 0.0)) - np.eye(len(u))) / tau[:, None])
        slowest = max(slowest, -1 / max(modes.real))
        kept = found[np.abs(found) > 1e-8]
        assert len(kept) > 5
        assert np.all(nearest(np.log(np.abs(kept)) / period, modes.real) < 1e-6 * np.abs(np.log(np.abs(kept)) / period))
        assert np.all(nearest(kept, np.exp(modes * period)) < 1e-5 * np.abs(kept))
    assert slowest > 3


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("amplitude", slow_except((0.4,), (0.05, 0.4, 1.5)))
def test_multipliers_under_a_cosine_against_the_variational_equation(amplitude):
    net, x, y = slow_network()
    period = 10.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the period is short on purpose
        orbit = osc.periodic_orbit(net, x, y, osc.Cosine(amplitude, period))
    force, tau = one_sample(net, x[0], y[0])
    size = len(tau)

    @jax.jit
    def velocity(t, state):
        u, moved = state[:size], state[size:].reshape(size, size)
        beta = amplitude * jnp.cos(2 * jnp.pi * t / period)
        pushed = jax.vmap(lambda v: jax.jvp(lambda u: force(u, beta), (u,), (v,))[1], 1, 1)(moved)
        return jnp.concatenate([(force(u, beta) - u) / tau, ((pushed - moved) / tau[:, None]).reshape(-1)])

    start = np.concatenate([flat(tuple(a[0].real for a in orbit.potentials_at(0.0))), np.eye(size).reshape(-1)])
    exact = solve_ivp(velocity, (0, period), start, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    assert np.allclose(exact[:size], start[:size], atol=1e-9)
    expected = np.linalg.eigvals(exact[size:].reshape(size, size))
    found = orbit.multipliers()[0]
    kept = found[np.abs(found) > 1e-5]
    assert np.all(nearest(kept, expected) < 1e-6 * np.abs(kept))
    free = np.abs(osc.periodic_orbit(net, x, y, osc.Cosine(1e-4, period)).multipliers()[0, 0])
    assert abs(np.abs(found[0]) - free) > 1e-4 * amplitude**2  # unlike those of a turning signal


@pytest.mark.slow
def test_a_signal_that_turns_both_ways_is_told_by_its_error():
    net, x, y = toy()
    orbit = osc.periodic_orbit(net, x, y, osc.Cosine(0.3, 200.0))
    off = osc.relative_error(orbit.gradient(), osc.exact_gradient(net, x, y))
    assert off / 3 < orbit.error().total < 3 * off


@pytest.mark.slow
def test_where_there_is_no_orbit_it_is_said():
    net, x, y = toy()
    far = osc.Rotating(20.0, 100.0)
    with pytest.raises(osc.NotSettledError, match=r"no orbit was found for sample \d under Rotating.*lower it"):
        osc.periodic_orbit(net, x, y, far)
    orbit = osc.periodic_orbit(net, x, y, far, throw=False)
    assert not jnp.any(orbit.residual <= 0.1)
    with pytest.raises(osc.NotSettledError, match="no orbit was found"):
        osc.simulate(net, x, y, far, cycles=1, start="locked")


def test_what_has_no_few_harmonics_is_refused():
    net, x, y = toy()
    with pytest.raises(ValueError, match=r"teaching=Staircase.*moves in steps"):
        osc.periodic_orbit(net, x, y, osc.Staircase(0.2, 100.0, 8))
    with pytest.raises(ValueError, match=r"harmonics=0"):
        osc.periodic_orbit(net, x, y, osc.Rotating(0.2, 100.0), harmonics=0)
    moving = osc.Moving(lambda t, cycle: x * (1 + 0.1 * jnp.sin(t)))
    with pytest.raises(ValueError, match="start='locked' with inputs that move"):
        osc.simulate(net, moving, y, osc.Rotating(0.2, 100.0), cycles=1, start="locked")


@pytest.mark.parametrize("teaching", [osc.Rotating(0.3, 100.0), osc.Adaptive(100.0, 0.3), osc.Cosine(0.3, 100.0)])
def test_started_on_the_orbit_one_cycle_is_as_good_as_ten(teaching):
    net, x, y = toy()
    locked = osc.simulate(net, x, y, teaching, cycles=1, start="locked")
    from_rest = osc.simulate(net, x, y, teaching, cycles=10)
    for n in (0, 1):
        pairs = zip(locked.phasors[n], from_rest.phasors[n], strict=True)
        assert all(norm(a[0] - b[-1]) < 1e-5 * norm(b[-1]) for a, b in pairs)


@pytest.mark.slow
def test_started_on_the_orbit_under_jit():
    net, x, y = toy()
    lock_in = osc.LockIn(osc.Rotating(0.3, 100.0), cycles=1, start="locked")
    gradient = jax.jit(lambda net: lock_in(net, x, y).gradient)(net)
    assert osc.relative_error(gradient, osc.periodic_orbit(net, x, y, osc.Rotating(0.3, 100.0)).gradient()) < 1e-4


@pytest.mark.slow
def test_noise_disturbs_from_the_mean_orbit():
    """With noise of no size the reading is that of the orbit; with some, its spread is that of later cycles."""
    net, x, y = toy()
    teaching, keys = osc.Rotating(0.3, 100.0), jax.random.split(jax.random.key(0), 64)

    def gradients(start):
        lock_in = osc.LockIn(teaching, cycles=1, discard=0, start=start, noise=osc.WhiteNoise(0.02))
        return jax.vmap(lambda key: lock_in(net, x, y, key).gradient)(keys)

    expected = osc.periodic_orbit(net, x, y, teaching).gradient()
    mean = jax.tree.map(lambda a: a.mean(axis=0), gradients("locked"))
    spread = jax.tree.map(lambda a: a.std(axis=0), gradients("locked"))
    assert norm(jax.tree.map(jnp.subtract, mean, expected)) < 3 * norm(spread) / 8


class TestEstimator:
    @pytest.mark.slow
    def test_reads_what_a_lock_in_reads(self):
        net, x, y = toy()
        stepped = osc.LockIn(osc.Rotating(0.2, 60.0), cycles=20, discard=19)(net, x, y)
        estimate = osc.Orbit(60.0)(net, x, y)
        assert osc.relative_error(estimate.gradient, stepped.gradient) < 1e-4
        assert estimate.error.lag == pytest.approx(float(stepped.error.lag), rel=0.01)
        assert estimate.valid

    @pytest.mark.slow
    @pytest.mark.usefixtures("x64")
    def test_its_bias_falls_with_the_period(self):
        net, x, y = toy()
        exact, periods = osc.exact_gradient(net, x, y), np.array([100.0, 200.0, 400.0])
        for extrapolate, expected in ((False, -2), (True, -4)):
            estimates = [osc.Orbit(period, extrapolate=extrapolate)(net, x, y) for period in periods]
            off = [osc.relative_error(e.gradient, exact) for e in estimates]
            assert order(off, periods) == pytest.approx(expected, abs=0.1)
            told = [float(e.error.total) for e in estimates]
            assert np.all((np.array(off) / 2 < told) & (told < 5 * np.array(off))), (off, told)

    @pytest.mark.slow
    def test_learns_as_exact_gradients_do(self):
        net, x, y = toy()
        losses = []
        for estimator in (osc.Orbit(200.0), osc.Exact()):
            trained = osc.train(
                net, (x, y), estimator, optax.sgd(0.05), epochs=20, batch_size=3, key=KEY, monitor=SILENT
            )
            losses.append(float(osc.evaluate(trained.network, x, y)["loss"]))
        assert losses[0] == pytest.approx(losses[1], rel=1e-2)

    def test_says_what_it_could_not_solve(self):
        net, x, y = toy()
        estimate = jax.jit(lambda net: osc.Orbit(100.0, tolerance=1e-30)(net, x, y))(net)
        assert not estimate.valid
        assert osc.RESULTS[estimate.result].startswith("the neurons did not settle")

    def test_refuses_what_it_cannot_follow(self):
        net, x, y = toy()
        with pytest.raises(ValueError, match="period=3"):
            osc.Orbit(3.0)(net, x, y)
        with pytest.raises(ValueError, match="period=5"):
            osc.Orbit(10.0, extrapolate=True)(net, x, y)
        with pytest.raises(ValueError, match="tolerance=0"):
            osc.Orbit(100.0, tolerance=0)
