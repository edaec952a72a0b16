"""Inputs that move within the cycle, and noise that somebody measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from scipy.integrate import solve_ivp

import oscsim as osc
from oscsim.signals.recorded_noise import Place
from tests.helpers import toy

pytestmark = pytest.mark.usefixtures("x64")

SIGNAL = osc.Rotating(0.2, 64.0)


def steps(per_cycle=64):
    return osc.Integration(steps_per_cycle=per_cycle)


def lone(neurons):
    """Neurons that hear nothing but noise."""
    return osc.LayeredNetwork((1, neurons, 2), weights=[np.zeros((neurons, 1)), np.zeros((2, neurons))])


def test_moving_inputs_obey_the_equation():
    """Against SciPy, with complex potentials, over two cycles with a jump of the input between them."""
    net, x, y = toy()
    period = 50.0

    def moving(t, cycle):
        return x * (1 + 0.5 * jnp.sin(6 * jnp.pi * t / period) + 0.1 * cycle)

    @jax.jit
    def rates(t, u, cycle):
        layers = tuple(u[None] if u.ndim == 1 else u)
        clamped = jax.vmap(net.clamp)(moving(t, cycle))
        force = net.force(clamped, net.activities(layers), y, 0.2 * jnp.exp(2j * jnp.pi * t / period))
        return jnp.stack(force) - u

    signal = osc.Rotating(0.2, period)
    run = osc.simulate(net, osc.Moving(moving), y, signal, cycles=2)
    shape = np.stack(run.state.potentials).shape
    u = np.zeros(shape, complex).ravel()
    for cycle in (0, 1):
        solution = solve_ivp(
            lambda t, u, cycle=cycle: np.asarray(rates(t, u.reshape(shape), cycle)).ravel(),
            (0, period),
            u,
            rtol=1e-8,
            atol=1e-10,
        )
        u = solution.y[:, -1]
    np.testing.assert_allclose(np.stack(run.state.potentials).ravel(), u, atol=1e-7)
    np.testing.assert_allclose(run.inputs_in(1).x, 1.1 * x, atol=1e-12)  # the mean of that cycle


def test_a_series_is_linear_between_its_samples_from_cycle_to_cycle():
    net, x, y = toy()
    values = np.stack([x * f for f in (1.0, 0.5, 0.8, 0.9, 0.7)])
    film = osc.TimeSeries(values, interval=32.0)

    def line(t, cycle):
        place = (t + 64.0 * cycle) / 32.0
        low = jnp.minimum(jnp.floor(place).astype(int), 3)
        a, b = jnp.asarray(values)[low], jnp.asarray(values)[low + 1]
        return a + (place - low) * (b - a)

    runs = [osc.simulate(net, moving, y, SIGNAL, cycles=2, integration=steps()) for moving in (film, osc.Moving(line))]
    np.testing.assert_allclose(runs[0].phasors[1][0], runs[1].phasors[1][0], atol=1e-12)
    half = osc.simulate(net, film, y, SIGNAL, cycles=1, integration=steps())
    on = osc.simulate(net, film, y, SIGNAL, cycles=1, integration=steps(), start=half)
    np.testing.assert_array_equal(on.phasors[1][0][0], runs[0].phasors[1][0][1])
    with pytest.raises(
        osc.BadValue, match=r"cycles=2 of period 64 last to time 192.*ends at 128: run 1 cycles, or give"
    ):
        osc.simulate(net, film, y, SIGNAL, cycles=2, start=half)
    assert np.all(np.isnan(film.at(jnp.asarray(1.0), 2, jnp.asarray(64.0))))  # past its end


def test_a_repeated_series_keeps_its_place_in_float32():
    with jax.enable_x64(False):
        series = osc.TimeSeries(np.arange(1000.0), interval=0.5, repeat=True)
        cycle, t = 1_000_003, 10.25
        place = (200.0 * cycle + t) / 0.5 % 1000
        value = series.at(jnp.asarray(t), jnp.asarray(cycle, jnp.int32), jnp.asarray(200.0))
        np.testing.assert_allclose(value, place, rtol=1e-6)


def test_weights_in_the_equation_follow_moving_inputs():
    net, x, y = toy()
    still = osc.learn(net, (x, y), SIGNAL, rate=1e-3, cycles=2, integration=steps(), throw=False)
    same = osc.learn(
        net, (osc.Moving(lambda t, n: x), y), SIGNAL, rate=1e-3, cycles=2, integration=steps(), throw=False
    )
    for a, b in zip(*map(jax.tree.leaves, (still.network, same.network)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    swinging = osc.Moving(lambda t, n: x + 0.2 * jnp.cos(2 * jnp.pi * t / 64))
    moved = osc.learn(net, (swinging, y), SIGNAL, rate=1e-3, cycles=2, integration=steps(), throw=False)
    assert osc.relative_error(osc.parameters(moved.network), osc.parameters(still.network)) > 1e-4


def test_what_moves_is_refused_where_one_batch_is_meant():
    net, x, y = toy()
    for moving in (osc.Moving(lambda t, n: x), lambda n: x):
        with pytest.raises(osc.BadType, match="changes in time, which simulate and learn take"):
            osc.exact_gradient(net, moving, y)
    with pytest.raises(osc.BadType, match=r"function\(t, cycle\) cannot be called with traced numbers"):
        osc.simulate(net, osc.Moving(lambda t, n: np.asarray(x) * float(t)), y, SIGNAL, cycles=1)
    with pytest.raises(osc.BadValue, match="record=Mean"):
        osc.simulate(net, osc.Moving(lambda t, n: x), y, SIGNAL, cycles=2, record=osc.Mean())


def test_a_trace_is_integrated_over_each_step():
    """Against the trapezoidal rule on a fine grid, for steps shorter and longer than the interval, over the end too."""
    trace = np.random.default_rng(0).normal(size=500) + 1
    noise = osc.RecordedNoise(osc.TimeSeries(trace, 0.3, repeat=True))
    start = Place(jnp.array([490, 3]), jnp.array(0.25))
    for intervals in (0.4, 1.7, 30.3):
        step = jnp.array(0.3 * intervals)
        moved = noise.draw((start,), None, step, area=False).increment.real[0]
        grid = 0.25 + np.linspace(0, intervals, 200_001)
        values = [np.interp((i + grid) % 500, np.arange(501), [*trace, trace[0]]) for i in (490, 3)]
        np.testing.assert_allclose(moved, 0.3 * np.trapezoid(values, grid), atol=1e-7)


def test_a_trace_plays_as_it_was_recorded():
    """A neuron that hears nothing but a slow sine follows it by the closed form."""
    net, omega = lone(2), 2 * np.pi / 16
    times = np.arange(0, 129, 0.05)
    current = osc.TimeSeries(0.3 * np.sin(omega * times), 0.05)
    noise = osc.RecordedNoise((current,), random_start=False)
    record = osc.PerCycle(neurons="all", potentials=True, every_cycle=True)
    key = jax.random.key(0)
    settings = {"noise": noise, "key": key, "record": record, "integration": steps(512)}
    run = osc.simulate(net, np.zeros((1, 1)), [0], SIGNAL, cycles=2, **settings)
    t = np.asarray(run.to_xarray().time)
    h = 1 / (1 + omega**2)
    expected = 0.3 * h * (np.sin(omega * t) - omega * np.cos(omega * t) + omega * np.exp(-t))
    seen = np.asarray(run.watched.potentials[0])[..., 0, 1].ravel()
    np.testing.assert_allclose(seen, expected, atol=1e-3)
    with pytest.raises(osc.BadValue, match=r"cycles=4 of period 64 last to time 256.*ends at 128"):
        osc.simulate(net, np.zeros((1, 1)), [0], SIGNAL, cycles=4, noise=noise, key=key)
    assert np.isnan(noise.spectrum(0.1))
    half = osc.simulate(net, np.zeros((1, 1)), [0], SIGNAL, cycles=1, **settings)
    on = osc.simulate(net, np.zeros((1, 1)), [0], SIGNAL, cycles=1, start=half, **settings)
    np.testing.assert_array_equal(on.state.potentials[0], run.state.potentials[0])


def test_neurons_that_start_at_random_places_have_the_spectrum_of_the_trace():
    """A trace of an Ornstein-Uhlenbeck process: its spectrum, and the variance of lone neurons that hear it."""
    interval, correlation_time, q = 0.25, 5.0, 0.1
    decay = np.exp(-interval / correlation_time)
    kicks = q * np.sqrt((1 - decay**2) / (2 * correlation_time)) * np.random.default_rng(0).normal(size=2**16)
    trace = scipy.signal.lfilter([1], [1, -decay], kicks)
    noise = osc.RecordedNoise(osc.TimeSeries(trace, interval, repeat=True))
    frequencies = np.linspace(0.02, 2, 200)
    ratio = noise.spectrum(frequencies) / osc.OrnsteinUhlenbeck(q, correlation_time).spectrum(frequencies)
    assert abs(np.median(ratio) - 1) < 0.05

    run = osc.simulate(
        lone(200), np.zeros((100, 1)), np.zeros(100, int), SIGNAL, cycles=1, noise=noise, key=jax.random.key(1)
    )
    omega = 2 * np.pi * np.fft.fftfreq(trace.size, interval)
    power = np.abs(np.fft.fft(trace) / trace.size) ** 2 * np.sinc(omega * interval / 2 / np.pi) ** 4
    expected = np.sum((power / (1 + omega**2))[1:])
    np.testing.assert_allclose(np.var(run.state.potentials[0].real), expected, rtol=0.04)  # 20,000 neurons, one trace


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: osc.TimeSeries(np.ones(1), 1.0), "two samples in time at least"),
        (lambda: osc.TimeSeries([1.0, np.nan], 1.0), "values holds values that are not finite"),
        (lambda: osc.TimeSeries([1.0, 2.0], -1.0), "interval=-1"),
        (lambda: osc.RecordedNoise(np.ones(5)), "use TimeSeries"),
        (lambda: osc.RecordedNoise(osc.TimeSeries([1.0, 2.0], 1.0)), "repeat=True"),
    ],
)
def test_recordings_that_cannot_be(unchecked, make, words):
    with pytest.raises((osc.BadValue, osc.BadType), match=words):
        make()
