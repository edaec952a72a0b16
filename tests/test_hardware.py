"""Imperfect hardware: nothing at zero strength, and what each imperfection does otherwise."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oscsim as osc
from oscsim import hardware

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
STEPS = {"integration": osc.Integration(diffrax.Euler(), steps_per_cycle=64), "cycles": 2}
T = jnp.asarray(7.0)


def toy(**kwargs):
    net = osc.LayeredNetwork((4, 5, 4, 3), key=jax.random.key(1), **kwargs)
    return net, np.array([[0.2, 0.9, 0.4, 0.6], [0.8, 0.1, 0.5, 0.3]]), np.array([0, 2])


def some(net, x):
    """Activities at random, and the rest of what a force needs."""
    keys = jax.random.split(jax.random.key(2), 2 * len(net.shapes))
    normal = [jax.random.normal(k, (len(x), *shape)) for k, shape in zip(keys, 2 * net.shapes, strict=True)]
    half = len(net.shapes)
    return tuple(jax.lax.complex(a, b) for a, b in zip(normal[:half], normal[half:], strict=True))


@pytest.mark.slow
def test_everything_at_zero_strength_is_the_ideal_bit_for_bit():
    net, x, y = toy()
    teaching = osc.Rotating(0.2, 64.0)
    ideal = osc.simulate(net, x, y, teaching, **STEPS)
    quantised, _, _ = toy(activation=hardware.Quantised(osc.Logistic(), 0.0))
    built = hardware.spread(hardware.mismatch(hardware.quantise(quantised, 0.0), KEY, deviation=0.0), KEY)
    # ... and the wrapper of gains itself, which `spread` leaves out
    built = hardware.UnequalGains(built, tuple(jnp.ones(shape) for shape in net.shapes))
    run = osc.simulate(
        built,
        x,
        y,
        hardware.DistortedTeaching(teaching, (0.0, 0.0)),
        **STEPS,
        demodulator=hardware.ImperfectDemodulator(osc.Boxcar()),
    )
    for a, b in zip(jax.tree.leaves(run.phasors), jax.tree.leaves(ideal.phasors), strict=True):
        np.testing.assert_array_equal(a, b)
    gradient = run.gradient(1).network.network
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(ideal.gradient(1)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_spread_of_time_constants_and_gains():
    net, x, y = toy(time_constant=(1.0, 2.0))
    wide = osc.LayeredNetwork((4, 4_000, 3), key=KEY, time_constant=2.0)
    tau = np.log(np.asarray(hardware.spread(wide, KEY, time_constant=0.1).time_constants[0]) / 2)
    assert abs(tau.mean()) < 3 * 0.1 / np.sqrt(tau.size)
    assert tau.std() == pytest.approx(0.1, abs=3 * 0.1 / np.sqrt(2 * tau.size))
    unequal = hardware.spread(net, KEY, time_constant=0.2, gain=0.3)
    assert [t.shape for t in unequal.time_constants] == [(1, 5), (1, 4)]
    # what is learned is what was learned before, and the settled gradient of the unequal network is its own
    assert len(jax.tree.leaves(osc.parameters(unequal))) == len(jax.tree.leaves(osc.parameters(net)))
    points = osc.Phases(0.1, 12)(unequal, x, y).gradient
    assert osc.relative_error(points, osc.exact_gradient(unequal, x, y)) < 1e-8
    assert osc.relative_error(points.network, osc.exact_gradient(net, x, y)) > 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_exact_gradient_under_mismatch_is_the_ideal_one_with_one_layer_of_neurons_only():
    _, x, y = toy()
    for hidden, same in (((5,), True), ((5, 4), False)):
        net = osc.LayeredNetwork((x.shape[1], *hidden, 3), key=KEY)
        other = hardware.mismatch(net, KEY, deviation=0.5)
        off = osc.relative_error(osc.exact_gradient(other, x, y).network, osc.exact_gradient(net, x, y))
        assert off < 1e-9 if same else off > 0.01


@pytest.mark.slow
def test_mismatch_changes_what_flows_back_and_nothing_else():
    net, x, y = toy()
    other = hardware.mismatch(net, KEY, deviation=0.5)
    s, beta = some(net, x), jnp.asarray(0.3 + 0.2j)
    inputs = osc.Inputs.of(net, x, y)
    ideal, found = (n.force(inputs.clamped, s, inputs.y, beta) for n in (net, other))
    (delta, delta_out), (_, w, w_out) = other.imperfection, net.weights
    error = jax.nn.softmax(s[1] @ w_out.T) - jax.nn.one_hot(y, 3)
    np.testing.assert_allclose(found[0] - ideal[0], s[1] @ delta, atol=1e-12)
    np.testing.assert_allclose(found[1] - ideal[1], -beta * (error @ delta_out), atol=1e-12)
    assert np.std(delta) == pytest.approx(0.5 * np.sqrt(np.mean(w**2)), rel=0.4)
    # the same reading holds the same gradient: a synapse sees the forward path
    plain, mixed = (n.plasticity(inputs.x, s, inputs.y, beta) for n in (net, other))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(mixed.network), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-14)
    reading = osc.Phasors((s, some(net, 0.1 * x)), (jnp.zeros((), complex), beta), (0, 1))
    for a, b in zip(
        jax.tree.leaves(reading.gradient(net, inputs)), jax.tree.leaves(reading.gradient(other, inputs)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_quantised_weights_and_activities():
    net, _, _ = toy()
    coarse = hardware.quantise(net, 0.125)
    for a, b in zip(coarse.weights, net.weights, strict=True):
        np.testing.assert_array_equal(a / 0.125, np.round(b / 0.125))
        assert np.any(np.asarray(a) != np.asarray(b))
    s = hardware.Quantised(osc.Logistic(), 0.01)
    u = jnp.asarray([0.3 + 0.2j, -0.4 - 0.1j])
    np.testing.assert_allclose(s(u), np.round(np.asarray(osc.Logistic()(u)) / 0.01) * 0.01, atol=1e-15)
    assert s.holomorphic
    assert not hardware.Quantised(osc.ReLU(), 0.01).holomorphic
    slope = jax.grad(lambda v: s(v))(0.3)
    assert slope == pytest.approx(jax.grad(lambda v: osc.Logistic()(v))(0.3))


def coefficients(signal, harmonics):
    t = np.arange(64) / 64 * 64.0
    beta = np.asarray(jax.vmap(signal)(jnp.asarray(t)))
    return [np.mean(beta * np.exp(-2j * np.pi * n * t / 64.0)) for n in harmonics]


def test_distorted_teaching_has_the_coefficients_it_says():
    signal = hardware.DistortedTeaching(osc.Rotating(0.4, 64.0), (0.1, 0.05), phase=0.3, image=0.02)
    expected = 0.4 * np.exp(0.3j) * np.array([1, 0.1, 0.05, 0.02, 0])
    np.testing.assert_allclose(coefficients(signal, (1, 2, 3, -1, -2)), expected, atol=1e-12)
    real = hardware.DistortedTeaching(osc.Cosine(0.4, 64.0), (0.1,), phase=0.3)
    assert not jnp.iscomplexobj(real(T))
    np.testing.assert_allclose(coefficients(real, (1, 2)), [0.2 * np.exp(0.3j), 0.02 * np.exp(0.6j)], atol=1e-12)
    onset = hardware.DistortedTeaching(osc.Onset(osc.Rotating(0.4, 64.0), 2.0), phase=0.3)
    np.testing.assert_allclose(onset(T, 5), onset(T), rtol=1e-12)
    assert abs(onset(jnp.asarray(0.0), 0)) == 0
    assert hardware.DistortedTeaching(osc.Staircase(0.4, 64.0, 8)).points == 8


def test_an_imperfect_demodulator():
    s, beta = (jnp.asarray([[0.234 + 0.051j]]),), jnp.asarray(0.3 + 0.1j)
    ideal, seen = osc.Boxcar(), hardware.ImperfectDemodulator(osc.Boxcar(), resolution=0.1, phase=0.2)
    assert seen.fewest_ticks == ideal.fewest_ticks
    states = [d.init(s, beta, 8) for d in (ideal, seen)]
    one, other = (d.update(state, s, beta, jnp.asarray(2), 8) for d, state in zip((ideal, seen), states, strict=True))
    np.testing.assert_allclose(other[0][0] * 8, [[0.2 + 0.1j]], rtol=1e-12)
    np.testing.assert_allclose(other.teaching[1], one.teaching[1] * np.exp(0.2j), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hardware.spread(toy()[0], KEY, gain=-1), ValueError, "gain=-1: use a finite number"),
        (lambda: hardware.spread(toy()[0], KEY, time_constant=-1), ValueError, "time_constant=-1"),
        (lambda: hardware.mismatch(toy()[0], KEY, deviation=-1), ValueError, "deviation=-1"),
        (lambda: hardware.quantise(toy()[0], -1), ValueError, "resolution=-1"),
        (lambda: hardware.Quantised(osc.Logistic(), -1), ValueError, "resolution=-1"),
        (lambda: hardware.ImperfectDemodulator(osc.Boxcar(), -1), ValueError, "resolution=-1"),
        (lambda: hardware.DistortedTeaching(osc.Rotating(1, 64), phase=float("nan")), ValueError, "phase=nan"),
        (
            lambda: hardware.mismatch(osc.HopfieldNetwork((4, 5, 3), key=KEY), KEY, deviation=0.1),
            TypeError,
            "net=HopfieldNetwork: use a LayeredNetwork",
        ),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
