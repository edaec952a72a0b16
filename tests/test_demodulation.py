"""Demodulators against signals of which everything is known, and the solver against an independent one."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import oscsim as osc
from tests.helpers import toy
from tests.marks import slow_except

UNEQUAL = (1.0, jnp.array([1.0, 2.0, 0.5, 1.5]))

pytestmark = pytest.mark.usefixtures("x64")

TICKS = 32
COEFFICIENTS = {0: 0.7 + 0.1j, 1: 0.2 - 0.3j, 2: 0.05j, 3: 0.01}


def signal(t):
    """A periodic signal of known coefficients, one layer of one sample and two neurons; t in cycles."""
    value = sum(c * np.exp(2j * np.pi * n * t) for n, c in COEFFICIENTS.items())
    return (jnp.asarray([[value, 2 * value]]),)


def stream(demodulator, cycles, of=signal):
    beta = lambda t: jnp.asarray(0.4 * np.exp(2j * np.pi * t))  # noqa: E731
    state = demodulator.init(of(0.0), beta(0.0), TICKS)
    for cycle in range(cycles):
        state = demodulator.begin(state, jnp.asarray(cycle))
        for tick in range(TICKS):
            t = cycle + (tick + 1) / TICKS
            state = demodulator.update(state, of(t), beta(t), jnp.asarray(tick), TICKS)
    return demodulator.read(state)


@pytest.mark.parametrize("demodulator", [osc.Boxcar((0, 1, 2, 5)), osc.Hann(3, (0, 1, 2, 5))])
def test_coefficients_of_a_known_signal(demodulator):
    phasors = stream(demodulator, 5)
    for n in (0, 1, 2, 5):
        expected = COEFFICIENTS.get(n, 0) * np.array([[1, 2]])
        np.testing.assert_allclose(phasors[n][0], expected, atol=1e-12)
    np.testing.assert_allclose(phasors.teaching, [0, 0.4, 0, 0], atol=1e-12)


def test_aliases_are_the_harmonics_one_plus_m_ticks():
    above = lambda t: (jnp.asarray([[np.exp(2j * np.pi * (1 + TICKS) * t)]]),)  # noqa: E731
    np.testing.assert_allclose(stream(osc.Boxcar(), 1, above)[1][0], 1, atol=1e-10)
    other = lambda t: (jnp.asarray([[np.exp(2j * np.pi * (2 + TICKS) * t)]]),)  # noqa: E731
    np.testing.assert_allclose(stream(osc.Boxcar(), 1, other)[1][0], 0, atol=1e-10)


def test_exponential_is_a_first_order_low_pass():
    kappa, cycles = 4.0, 7
    phasors = stream(osc.Exponential(kappa), cycles)
    times = (np.arange(cycles * TICKS) + 1) / TICKS
    weights = np.exp(-(times[-1] - times) / kappa)
    samples = np.array([signal(t)[0][0, 0] for t in times])
    for n in (0, 1):
        expected = np.sum(weights * samples * np.exp(-2j * np.pi * n * times)) / np.sum(weights)
        np.testing.assert_allclose(phasors[n][0][0, 0], expected, rtol=1e-10)


@pytest.mark.slow
def test_exponential_approaches_the_coefficient_as_its_time_constant_grows():
    errors = [abs(stream(osc.Exponential(k), 60)[1][0][0, 0] - COEFFICIENTS[1]) for k in (2.0, 4.0, 8.0)]
    slopes = np.diff(np.log(errors)) / np.log(2)
    assert np.all((slopes > -1.2) & (slopes < -0.8))


def test_hann_suppresses_a_drift_better_than_a_boxcar():
    drifting = lambda t: (signal(t)[0] * np.exp(-t / 3),)  # noqa: E731
    times = np.arange(4 * TICKS) / TICKS + 1 / TICKS + 4

    window = 1 - np.cos(2 * np.pi * (times - 4) / 4)
    samples = np.array([drifting(t)[0][0, 0] for t in times])
    expected = np.sum(window * samples * np.exp(-2j * np.pi * times)) / np.sum(window)
    np.testing.assert_allclose(stream(osc.Hann(4), 8, drifting)[1][0][0, 0], expected, rtol=1e-10)


@pytest.mark.slow
def test_a_window_cut_off_is_not_read():
    net, x, y = toy(2, time_constant=UNEQUAL)
    signal, hann = osc.Rotating(0.2, 100.0), osc.Hann(3)
    with pytest.raises(ValueError, match=r"discard=1: the first 2 readings of Hann\(cycles=3.* use discard=2 or more"):
        osc.LockIn(signal, demodulator=hann)
    run = osc.simulate(net, x, y, signal, cycles=4, demodulator=hann)
    with pytest.raises(ValueError, match=r"discard=0: the first 2 readings of Hann\(cycles=3.* use discard=2 or more"):
        run.gradient()
    exact = osc.exact_gradient(net, x, y)
    for gradient in (
        run.gradient(discard=2),
        osc.LockIn(signal, cycles=4, discard=2, demodulator=hann)(net, x, y).gradient,
    ):
        assert osc.relative_error(gradient, exact) < 5e-3
    more = osc.simulate(net, x, y, signal, cycles=1, demodulator=hann, start=run)
    assert osc.relative_error(more.gradient(), exact) < 5e-3


def test_plateaus_keep_the_last_cycle():
    points = stream(osc.Plateaus(), 2)
    for tick in (0, 5, TICKS - 1):
        np.testing.assert_allclose(points.activities[0][tick], signal((tick + 1) / TICKS)[0], atol=1e-12)


@pytest.fixture(scope="module")
def reference():
    """Two cycles from rest by scipy, in complex numbers, with the network written out by hand."""
    with jax.enable_x64(True):
        net, x, y = toy(2, time_constant=UNEQUAL)
    w, b = [[np.asarray(a) for a in part] for part in (net.weights, net.biases)]
    x, target = np.asarray(x), np.eye(4)[np.asarray(y)]
    tau = np.concatenate([np.ones(4), [1.0, 2.0, 0.5, 1.5]])
    amplitude, period = 0.4, 120.0

    def velocity(t, flat):
        u = flat.reshape(2, 8)
        s = 1 / (1 + np.exp(-4 * (u - 0.5)))
        s1, s2 = s[:, :4], s[:, 4:]
        logits = s2 @ w[2].T + b[2]
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        beta = amplitude * np.exp(2j * np.pi * t / period)
        force = np.concatenate(
            [x @ w[0].T + b[0] + s2 @ w[1], s1 @ w[1].T + b[1] + beta * (target - softmax) @ w[2]], axis=1
        )
        return ((force - u) / tau).ravel()

    solution = solve_ivp(velocity, (0, 2 * period), np.zeros(16, complex), method="DOP853", rtol=1e-12, atol=1e-13)
    return solution.y[:, -1].reshape(2, 8)


# The tolerance asked: a low order takes so many small steps at a tight one that their local errors add up.
ADAPTIVE = {
    "Heun": (diffrax.Heun(), 1e-5),
    "Bosh3": (diffrax.Bosh3(), 1e-6),
    "Tsit5": (diffrax.Tsit5(), 1e-8),
    "Dopri5": (diffrax.Dopri5(), 1e-8),
    "Dopri8": (diffrax.Dopri8(), 1e-8),
}
FIXED = {"Euler": (diffrax.Euler(), 1), "Midpoint": (diffrax.Midpoint(), 2), "Ralston": (diffrax.Ralston(), 2)}


def last_potentials(integration):
    net, x, y = toy(2, time_constant=UNEQUAL)
    run = osc.simulate(
        net, x, y, osc.Rotating(0.4, 120.0), cycles=2, record=osc.PerCycle(neurons=0), integration=integration
    )
    return np.concatenate(run.state.potentials, axis=1)


@pytest.mark.parametrize("name", slow_except(("Heun", "Tsit5"), ADAPTIVE))
def test_adaptive_solvers_against_scipy(name, reference):
    solver, tolerance = ADAPTIVE[name]
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    ours = last_potentials(osc.Integration(solver, controller))
    np.testing.assert_allclose(ours, reference, atol=10 * tolerance)


@pytest.mark.parametrize("name", slow_except(("Midpoint",), FIXED))
def test_fixed_steps_converge_to_scipy_at_their_order(name, reference):
    solver, order = FIXED[name]
    steps = np.array([1280, 2560])
    errors = [
        np.max(np.abs(last_potentials(osc.Integration(solver, steps_per_cycle=int(n))) - reference)) for n in steps
    ]
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.1
