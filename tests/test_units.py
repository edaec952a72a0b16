"""Another unit of time, or of the potentials, changes nothing but the numbers that are in it.

Factors are powers of four: times, and the square roots of times that are in a noise's intensity, are then exact in
binary, and what has no hidden unit is the same to the last bit.
"""

import re
import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oscsim as osc
from tests.helpers import toy
from tests.marks import slow_except

FACTORS = (4.0**-5, 4.0**5)  # a thousandth, and a thousand
KEY = jax.random.key(0)
NET, X, Y = toy()


def timed(c, tau=(1.0, 2.0)):
    """The toy with its time constants times a number, and its data."""
    net = toy(time_constant=tuple(c * t for t in tau))[0]
    return net, X, Y


def turning(c):
    return osc.Rotating(0.2, 128.0 * c)


def run(c, noise=None, teaching=None, tau=(1.0, 2.0), **kwargs):
    """What a run has read, and how it was planned."""
    found = osc.simulate(
        *timed(c, tau), teaching or turning(c), cycles=3, noise=noise, key=None if noise is None else KEY, **kwargs
    )
    return found.phasors, found.lock_residual, found.effort, found.plan.ticks, found.plan.steps_per_cycle


def judged(c, noise=None, tau=(1.0, 2.0)):
    """How good a run says that its gradient is."""
    error = osc.simulate(*timed(c, tau), turning(c), cycles=3, noise=noise, key=noise and KEY).error(1)
    return error.contamination, error.lag, error.steps


def locked_in(c):
    estimate = osc.LockIn(osc.Rotating(0.2, 256.0 * c), extrapolate=True)(*timed(c))
    return estimate.gradient, estimate.loss


def tuned(c):
    signal = osc.Adaptive(128.0 * c, amplitude=4.0, highest=4.0)
    return osc.simulate(*timed(c), signal, cycles=4).state.tuning


def learned(c):
    found = osc.learn(*timed(c)[:1], (X, Y), turning(c), rate=1e-4 / c, cycles=3)
    return found.network.weights, found.loss, found.drift


def in_ensemble(c):
    lock_in = osc.LockIn(turning(c), noise=osc.WhiteNoise(0.01 * np.sqrt(c)))
    return osc.ensemble(lock_in, *timed(c), realisations=3, key=KEY).gradients


def suggested(c, **kwargs):
    found = osc.suggest(*timed(c), **kwargs)
    settings = (found.amplitude, found.period / c, found.discard, found.cycles, found.radius)
    return settings, found.slowest_time / c, found.error


def best(c):
    found = osc.response.optimal_amplitude(*timed(c), 128.0 * c, osc.WhiteNoise(0.1 * np.sqrt(c)), cycles=10)
    return found.amplitude, found.knee, found.bias, found.spread, found.period / c


def spread(c, noise):
    return osc.response.predict_spread(*timed(c), turning(c), noise, cycles=10)


def scales(c):
    found = osc.check_time_scales(*timed(c), turning(c), cycles_per_input=3, rate=1e-3 / c)
    times = (found.neurons, found.period, found.presentation, found.weights, found.swing)
    return [t / c for t in times], found.fastest_rate * c


def followed(c):
    """A network with weights so large that its neurons have to be followed in time."""
    net = eqx.tree_at(lambda n: n.weights, timed(c)[0], tuple(12 * w for w in NET.weights))
    found = osc.settle(net, X, Y, method="flow")
    return found.potentials, found.by_flow, osc.equilibria(net, X, Y, starts=8, key=KEY).counts


SAME_IN_ANOTHER_TIME = {
    "simulate": run,
    "equal steps": lambda c: run(c, integration=osc.Integration(diffrax.Heun(), steps_per_cycle=256)),
    "exponential": lambda c: run(c, demodulator=osc.Exponential(3.0)),
    "staircase": lambda c: run(c, teaching=osc.Staircase(0.2, 128.0 * c, 8)),
    "cosine": lambda c: run(c, teaching=osc.Cosine(0.2, 128.0 * c)),
    "white": lambda c: run(c, osc.WhiteNoise(0.1 * np.sqrt(c))),
    "euler": lambda c: run(c, osc.WhiteNoise(0.1 * np.sqrt(c)), integration=osc.Integration(diffrax.Euler())),
    "shark": lambda c: run(c, osc.WhiteNoise(0.1 * np.sqrt(c)), integration=osc.Integration(diffrax.ShARK())),
    "coloured": lambda c: run(c, osc.OrnsteinUhlenbeck(0.1 * np.sqrt(c), 3.0 * c)),
    "teaching": lambda c: run(c, osc.TeachingNoise(0.1, 0.1, correlation_time=3.0 * c)),
    "readout": lambda c: run(c, osc.ReadoutNoise(0.1)),
    "multiplicative": lambda c: run(c, osc.Multiplicative(0.1 * np.sqrt(c))),
    "step": lambda c: run(c, osc.StepNoise(0.1), tau=(1.0, 1.0)),
    "error": judged,
    "error, white": lambda c: judged(c, osc.WhiteNoise(0.1 * np.sqrt(c))),
    "error, step and coloured": lambda c: judged(
        c, (osc.StepNoise(0.1), osc.OrnsteinUhlenbeck(0.1 * np.sqrt(c), 3.0 * c)), tau=(1.0, 1.0)
    ),
    "LockIn": locked_in,
    "Adaptive": tuned,
    "learn": learned,
    "ensemble": in_ensemble,
    "exact_gradient": lambda c: [osc.exact_gradient(*timed(c), method=method) for method in ("implicit", "bptt")],
    "flow": followed,
    "suggest": suggested,
    "suggest for an accuracy": lambda c: suggested(c, accuracy=0.02, noise=osc.WhiteNoise(0.05 * np.sqrt(c))),
    "optimal_amplitude": best,
    "predict_spread": lambda c: spread(c, osc.WhiteNoise(0.1 * np.sqrt(c))),
    "predict_spread, coloured": lambda c: spread(c, osc.OrnsteinUhlenbeck(0.1 * np.sqrt(c), 3.0 * c)),
    "predict_bias": lambda c: osc.response.predict_bias(*timed(c), 128.0 * c),
    "susceptibility": lambda c: osc.response.susceptibility(*timed(c), 0.05 / c),
    "stability_map": lambda c: osc.response.stability_map(*timed(c), [0.1, 0.5j, 9j], steps=8).settled,
    "check_time_scales": scales,
}


ROUNDED = ("suggest for an accuracy", "optimal_amplitude")
"""Here eigenvalues are found, to rounding, and differences of them taken."""


@pytest.mark.parametrize(
    "name",
    slow_except(("white", "suggest", "check_time_scales", "predict_spread, coloured"), SAME_IN_ANOTHER_TIME),
)
def test_another_unit_of_time(name):
    of = SAME_IN_ANOTHER_TIME[name]
    expected = of(1.0)
    for c in FACTORS:
        found = of(c)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6 if name in ROUNDED else 0), found, expected
        )


class Slow(osc.AbstractNetwork):
    """A linear neuron that keeps nearly all of its potential."""

    time_constant: float = 1.0  # pyright: ignore[reportIncompatibleVariableOverride]
    weight: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(0.0))
    activation = osc.Identity()
    shapes = ((1,),)

    def clamp(self, x):
        return ()

    def phi(self, clamped, s, y, beta):
        return self.weight * jnp.sum(s[0] ** 2) / 2 - beta * jnp.sum(s[0])


@pytest.mark.parametrize("c", FACTORS)
def test_slow_modes_are_stable_in_any_unit_of_time(c):
    """A rate of 3e-5 time constants is far above the rounding of float32, in a large unit of time too."""
    for weight, stable in ((1 - 3e-5, True), (1 + 3e-5, False)):
        net = Slow(c, jnp.asarray(weight))
        assert bool(jnp.isfinite(osc.settle(net, X, Y, method="flow", throw=False).residual).all()) == stable


def test_times_in_a_table_have_the_unit_of_the_time_constants():
    def table(c):
        run = osc.simulate(*timed(c, (1.0, 1.0)), osc.Rotating(0.2, 64.0 * c), cycles=1)
        return run.to_xarray()

    ours, theirs = table(1.0), table(20.0)
    assert (ours.time.units, ours.time_unit) == ("tau", "tau")
    assert (theirs.time.units, theirs.time_unit) == ("time_constant", "time_constant")


# What is told. Of each message the numbers are the same, or have the unit of a time, a rate or a noise's intensity.


def refused(call):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    return str(caught.value)


def told(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return "\n".join(str(warning.message) for warning in caught)


def simulated(c, period=128.0, tau=(1.0, 2.0), steps=None, noise=None):
    signal, integration = osc.Rotating(0.2, period * c), osc.Integration(steps_per_cycle=steps)
    return osc.System.of(timed(c, tau)[0], signal, noise, integration)


MESSAGES = {
    "below 2 pi tau": lambda c: refused(lambda: simulated(c, period=8.0)),
    "below 50 tau": lambda c: told(lambda: simulated(c, period=64.0)),
    "long steps": lambda c: refused(lambda: simulated(c, steps=64)),
    "short correlation": lambda c: refused(
        lambda: simulated(c, steps=256, noise=osc.OrnsteinUhlenbeck(0.1, 0.125 * c)),
    ),
    "step noise": lambda c: refused(
        lambda: simulated(c, tau=(1.0, 1.0), steps=256, noise=osc.StepNoise(0.1)),
    ),
    "time scales": lambda c: told(
        lambda: print(osc.check_time_scales(*timed(c), osc.Rotating(0.2, 128.0 * c), 1, rate=10.0 / c)),
    ),
    "suggestion": lambda c: str(osc.suggest(*timed(c), accuracy=0.02, noise=osc.WhiteNoise(0.05 * np.sqrt(c)))),
}

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_in_another_unit_of_time(name, capsys):
    expected = MESSAGES[name](1.0)
    assert expected
    for c in FACTORS:
        found = MESSAGES[name](c)
        assert NUMBER.sub("#", found) == NUMBER.sub("#", expected)
        for a, b in zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True):
            ratio = float(a) / float(b)
            assert any(ratio == pytest.approx(unit, rel=0.06) for unit in (1.0, c, 1 / c)), f"{a} for {b} at {c}"


# Another unit of the potentials: weights, biases, thresholds, amplitudes and noise grow alike, and activities do not.
# The gradient of the readout does not either, so what weighs all gradients together, as an error does, may change.


def stretched(k):
    """The toy with potentials times a number, and its data."""
    net, x, y = toy(activation=osc.Logistic(slope=4.0 / k, centre=0.5 * k))
    *weights, readout = net.weights  # which is in no potential
    return eqx.tree_at(lambda n: n.weights, net, (*(k * w for w in weights), readout)), x, y


def oscillating(k, noise=None):
    signal = osc.Rotating(0.2 * k, 128.0)
    steps = osc.Integration(diffrax.Heun(), steps_per_cycle=512)
    found = osc.simulate(*stretched(k), signal, cycles=3, integration=steps, noise=noise, key=noise and KEY)
    return found.phasors[0], found.phasors[1], found.lock_residual, [a / k for a in found.state.potentials]


def recommended(k):
    found = osc.suggest(*stretched(k))
    assert found.amplitude == pytest.approx(0.4 * found.radius, rel=0.05)  # in two digits
    return found.radius / k, found.period, found.slowest_time, found.discard


def spread_of_weights(k):
    found = osc.response.predict_spread(*stretched(k), osc.Rotating(0.2 * k, 128.0), osc.WhiteNoise(0.1 * k), cycles=10)
    return *(k * w for w in found.weights[:-1]), found.weights[-1]


def mapped(k):
    grid = k * np.array([0.1, 0.5j, 9j])
    return osc.response.stability_map(*stretched(k), grid, steps=8).settled


SAME_IN_OTHER_POTENTIALS = {
    "simulate": oscillating,
    "white": lambda k: oscillating(k, osc.WhiteNoise(0.1 * k)),
    "settle": lambda k: osc.settle(*stretched(k), 0.1 * k).activities,
    "exact_gradient": lambda k: [k * w for w in osc.exact_gradient(*stretched(k)).weights[:-1]],
    "suggest": recommended,
    "predict_spread": spread_of_weights,
    "stability_map": mapped,
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", slow_except(("suggest",), SAME_IN_OTHER_POTENTIALS))
def test_another_unit_of_the_potentials(name):
    """In float64, where the tolerance of settling, which is absolute, is far below every potential."""
    of = SAME_IN_OTHER_POTENTIALS[name]
    expected = of(1.0)
    for k in FACTORS:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), of(k), expected)


def test_a_suggestion_in_millivolts():
    """A factor that is no power of the unit in which the radius is looked for: its estimate differs by that much."""
    radius, *rest = recommended(25.0)
    assert radius == pytest.approx(recommended(1.0)[0], rel=0.05)
    assert rest == pytest.approx(recommended(1.0)[1:], rel=1e-3)
