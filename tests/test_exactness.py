"""The gradient against its oracles, in float64: implicit, backpropagation, finite differences, orders of errors."""

import itertools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oscsim as osc
from oscsim.core.arrays import norm
from tests.helpers import order, toy
from tests.marks import slow_except

pytestmark = pytest.mark.usefixtures("x64")

EQUAL_STEPS = {"integration": osc.Integration(diffrax.Heun(), steps_per_cycle=384, ticks=64)}


class Ring(osc.AbstractNetwork):
    """A user's own network: neurons on a ring, coupled to their neighbours and by a cubic term."""

    coupling: jax.Array
    drive: jax.Array
    readout_weights: jax.Array
    activation = osc.Tanh()
    cost = osc.CrossEntropy()
    shapes = ((5,),)
    input_shape = (3,)
    outputs = 2

    def clamp(self, x):
        return self.drive @ x

    def phi(self, clamped, s, y, beta):
        (s,) = s
        pairs = jnp.sum(self.coupling * s * jnp.roll(s, 1)) + 0.05 * jnp.sum(s**3)
        return jnp.sum(clamped * s) + pairs - beta * self.cost(osc.linear(self.readout_weights, s), y)


def ring():
    keys = jax.random.split(jax.random.key(5), 4)
    net = Ring(
        0.3 * jax.random.normal(keys[0], (5,)),
        jax.random.normal(keys[1], (5, 3)),
        jax.random.normal(keys[2], (2, 5)),
    )
    return net, jax.random.uniform(keys[3], (2, 3)), jnp.array([0, 1])


NETWORKS = {
    "layered, cross-entropy": toy,
    "layered, squared error": lambda: toy(cost=osc.SquaredError()),
    "layered, time constants": lambda: toy(time_constant=(1.0, jnp.array([1.0, 2.0, 0.5, 1.5]))),
    "Hopfield, cross-entropy": lambda: (
        osc.HopfieldNetwork((6, 5, 4), key=jax.random.key(7), scale=0.3),
        *toy()[1:],
    ),
    "Hopfield, squared error": lambda: (
        osc.HopfieldNetwork((6, 5, 4), key=jax.random.key(8), scale=0.3, cost=osc.SquaredError()),
        *toy()[1:],
    ),
    "a user's own": ring,
}


@pytest.fixture(params=slow_except(("layered, cross-entropy", "Hopfield, squared error"), NETWORKS))
def case(request, x64):
    return NETWORKS[request.param]()


def mean_loss(net, x, y):
    inputs = osc.Inputs.of(net, x, y)
    free = osc.settle(net, x, y)
    return float(jnp.mean(net.loss(inputs.clamped, free.activities, inputs.y)))


def test_implicit_gradient_equals_backpropagation_and_finite_differences(case):
    net, x, y = case
    implicit = osc.exact_gradient(net, x, y)
    assert osc.relative_error(implicit, osc.exact_gradient(net, x, y, "bptt")) < 1e-9

    leaves, structure = jax.tree.flatten(osc.parameters(net))
    directions = [jax.random.normal(jax.random.key(i), a.shape) for i, a in enumerate(leaves)]

    def along(step):
        moved = jax.tree.unflatten(structure, [a + step * d for a, d in zip(leaves, directions, strict=True)])
        return mean_loss(eqx.combine(moved, net), x, y)

    h = 1e-5
    difference = (along(h) - along(-h)) / (2 * h)
    slope = sum(jnp.sum(g * d) for g, d in zip(jax.tree.leaves(implicit), directions, strict=True))
    assert abs(difference - slope) < 1e-5 * norm(implicit)


@pytest.mark.slow
def test_each_parameter_against_central_differences():
    net, x, y = toy()
    implicit = osc.exact_gradient(net, x, y)
    leaves, structure = jax.tree.flatten(osc.parameters(net))
    h = 1e-5
    for i, leaf in enumerate(leaves):

        def loss_with(value, i=i):
            moved = jax.tree.unflatten(structure, [*leaves[:i], value, *leaves[i + 1 :]])
            return mean_loss(eqx.combine(moved, net), x, y)

        numeric = np.zeros(leaf.shape)
        for place in np.ndindex(leaf.shape):
            numeric[place] = (loss_with(leaf.at[place].add(h)) - loss_with(leaf.at[place].add(-h))) / (2 * h)
        exact = jax.tree.leaves(implicit)[i]
        assert np.linalg.norm(numeric - exact) < 1e-5 * np.linalg.norm(exact)


@pytest.mark.slow
def test_phases_error_falls_as_amplitude_to_the_points():
    net, x, y = toy()
    exact = osc.exact_gradient(net, x, y)
    for points in (2, 4, 8):
        amplitudes = np.array([0.2, 0.25, 0.3, 0.35])
        errors = [osc.relative_error(osc.Phases(a, points)(net, x, y).gradient, exact) for a in amplitudes]
        assert abs(order(errors, amplitudes) - points) < 0.1 * points, points
    for amplitude in (0.1, 0.3):
        errors = [float(osc.relative_error(osc.Phases(amplitude, n)(net, x, y).gradient, exact)) for n in (2, 4, 8, 30)]
        # Each step multiplies N by two or more: the error is squared, until what settling to 1e-12 leaves of dPhi / A.
        assert all(b < max(10 * a**1.5, 1e-11) for a, b in itertools.pairwise(errors))
        assert errors[-1] < 1e-11
    assert osc.relative_error(osc.Phases(0.3, 30)(net, x, y).gradient, exact) < 1e-9


@pytest.mark.slow
def test_conjugate_symmetry_saves_work_and_changes_nothing():
    net, x, y = toy()
    for points in (3, 4):
        settled = osc.Phases(0.3, points)(net, x, y).gradient
        all_points = osc.Phases(0.3, points, steps=(200, 200))(net, x, y).gradient
        assert osc.relative_error(settled, all_points) < 1e-10


@pytest.mark.slow
def test_classic_is_one_sided_and_phases_with_two_points_symmetric():
    net, x, y = toy()
    exact = osc.exact_gradient(net, x, y)
    amplitudes = np.array([0.01, 0.02, 0.04])
    one_sided = [osc.relative_error(osc.Classic(a)(net, x, y).gradient, exact) for a in amplitudes]
    symmetric = [osc.relative_error(osc.Phases(a, 2)(net, x, y).gradient, exact) for a in amplitudes]
    stepped = [osc.relative_error(osc.Classic(a, steps=(200, 200))(net, x, y).gradient, exact) for a in amplitudes]
    assert 0.9 < order(one_sided, amplitudes) < 1.1
    np.testing.assert_allclose(stepped, one_sided, rtol=1e-7)
    assert 1.9 < order(symmetric, amplitudes) < 2.1
    mirrored = jax.tree.map(
        lambda a, b: (a + b) / 2,
        osc.Classic(0.1)(net, x, y).gradient,
        osc.Classic(-0.1)(net, x, y).gradient,
    )
    assert osc.relative_error(mirrored, osc.Phases(0.1, 2)(net, x, y).gradient) < 1e-9


def test_lock_in_mean_is_the_free_equilibrium_at_any_amplitude():
    net, x, y = toy()
    free = osc.settle(net, x, y)
    for amplitude in (0.05, 0.4):
        run = osc.simulate(net, x, y, osc.Rotating(amplitude, 200.0), cycles=3, **EQUAL_STEPS)
        for mean, settled in zip(run.phasors[0], free.activities, strict=True):
            np.testing.assert_allclose(mean[-1], settled, atol=1e-9)
        assert run.equilibrium_residual < 1e-9


def test_lock_in_gradient_does_not_depend_on_amplitude_or_phase():
    net, x, y = toy()
    gradients = [
        osc.simulate(net, x, y, osc.Rotating(a, 200.0, phase), cycles=3, **EQUAL_STEPS).gradient(discard=2)
        for a, phase in ((0.05, 0.0), (0.1, 0.0), (0.4, 0.0), (0.4, 1.0))
    ]
    for gradient in gradients[1:]:
        assert osc.relative_error(gradient, gradients[0]) < 1e-8
    # To the adaptive solver's tolerance with adaptive steps
    adaptive = [osc.LockIn(osc.Rotating(a, 200.0))(net, x, y).gradient for a in (0.1, 0.4)]
    assert osc.relative_error(adaptive[1], adaptive[0]) < 1e-6


def test_harmonics_are_powers_of_the_amplitude_and_none_is_negative():
    net, x, y = toy()
    reader = osc.Boxcar(harmonics=(-2, -1, 0, 1, 2, 3))
    small, large = (
        osc.simulate(net, x, y, osc.Rotating(a, 200.0), cycles=3, demodulator=reader, **EQUAL_STEPS).phasors
        for a in (0.1, 0.2)
    )
    for n in (1, 2, 3):
        for a, b in zip(small[n], large[n], strict=True):
            np.testing.assert_allclose(b[-1], 2**n * a[-1], rtol=1e-7, atol=1e-13)
    for n in (-1, -2):
        for layer in large[n]:
            assert np.max(np.abs(layer[-1])) < 1e-12


def test_bias_is_second_order_in_frequency_and_fourth_when_extrapolated():
    net, x, y = toy()
    exact = osc.exact_gradient(net, x, y)
    periods = np.array([100, 200, 400])

    def errors(extrapolate):
        return [
            osc.relative_error(
                osc.LockIn(
                    osc.Rotating(0.2, float(period)),
                    extrapolate=extrapolate,
                    integration=osc.Integration(solver=diffrax.Tsit5(), steps_per_cycle=400),
                )(net, x, y).gradient,
                exact,
            )
            for period in periods
        ]

    assert 1.9 < order(errors(False), 1 / periods) < 2.1
    assert 3.8 < order(errors(True), 1 / periods) < 4.2


def test_staircase_is_the_n_point_estimate_in_time():
    net, x, y = toy()
    steps = osc.Integration(diffrax.Euler(), steps_per_cycle=8 * 120)
    run = osc.simulate(net, x, y, osc.Staircase(0.3, 8 * 120.0, 8), cycles=2, integration=steps)
    assert isinstance(run.phasors, osc.Points)
    settled = osc.Phases(0.3, 8)(net, x, y).gradient
    assert osc.relative_error(run.gradient(discard=1), settled) < 1e-9


def test_cosine_is_biased_by_the_square_of_its_amplitude():
    net, x, y = toy()
    limit = osc.simulate(net, x, y, osc.Rotating(0.1, 200.0), cycles=3, **EQUAL_STEPS).gradient(discard=2)
    amplitudes = np.array([0.1, 0.2, 0.4])
    errors = [
        osc.relative_error(
            osc.simulate(net, x, y, osc.Cosine(a, 200.0), cycles=3, **EQUAL_STEPS).gradient(discard=2), limit
        )
        for a in amplitudes
    ]
    assert 1.8 < order(errors, amplitudes) < 2.2


@pytest.mark.slow
def test_neuron_level_gradient_is_the_demodulated_synaptic_product(case):
    """Formula 3 of the design against what it stands for: -Re <dPhi/dtheta(t) exp(-i omega t)> / A, per synapse."""
    net, x, y = case
    # The product holds all harmonics of s, up to what the ticks resolve: 64 are plenty at A = 0.2
    teaching = osc.Rotating(0.2, 100.0)
    ticks = 64
    steps = osc.Integration(diffrax.Heun(), steps_per_cycle=4 * ticks, ticks=ticks)
    run = osc.simulate(net, x, y, teaching, cycles=8, integration=steps, record=osc.PerCycle(neurons=0))

    # One more cycle, by hand: every neuron of every sample at every tick, from the user's own loop over cycles.
    inputs = osc.Inputs.of(net, x, y)

    class Everything(osc.AbstractDemodulator):
        """Keeps the samples of one cycle."""

        def init(self, s, beta, ticks):
            return jax.tree.map(lambda a: jnp.zeros((ticks, *a.shape), a.dtype), osc.Points(s, beta))

        def begin(self, state, cycle):
            return state

        def update(self, state, s, beta, tick, ticks):
            return jax.tree.map(lambda kept, a: kept.at[tick].set(a), state, osc.Points(s, beta))

        def read(self, state):
            return state

    system = osc.System.of(net, teaching, integration=steps, demodulator=Everything())
    state = osc.begin(system, inputs, start=run.state.potentials)
    samples = jax.jit(lambda s, i: osc.advance(system, s, i)[1].reading)(state, inputs)

    reference = np.exp(-2j * np.pi * (np.arange(ticks) + 1) / ticks)
    plasticity = jax.jit(lambda s, beta, weight: net.plasticity(inputs.x, s, inputs.y, beta, weight=weight))
    total = None
    for tick in range(ticks):
        s = tuple(layer[tick] for layer in samples.activities)
        product = plasticity(s, samples.teaching[tick], reference[tick])
        total = product if total is None else jax.tree.map(jnp.add, total, product)
    synaptic = jax.tree.map(lambda a: -a / (ticks * 0.2), total)
    assert osc.relative_error(run.gradient(discard=7), synaptic) < 1e-10


def test_an_estimate_has_the_shape_of_the_parameters_and_the_loss_at_the_equilibrium(case):
    net, x, y = case
    for estimator in (osc.LockIn(osc.Rotating(0.1, 100.0)), osc.Phases(0.1, 4), osc.Classic(0.01), osc.Exact()):
        estimate = estimator(net, x, y)
        assert jax.tree.structure(estimate.gradient) == jax.tree.structure(osc.parameters(net))
        assert abs(float(estimate.loss) - mean_loss(net, x, y)) < 1e-6


def test_metrics():
    a = {"w": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
    b = {"w": jnp.array([0.0, 3.0]), "b": jnp.array([4.0])}
    assert float(osc.cosine(a, b)) == pytest.approx(16 / 25)
    assert float(osc.relative_error(a, b)) == pytest.approx(np.sqrt(18) / 5)
    assert float(osc.norm_ratio({"w": 2 * a["w"], "b": 2 * a["b"]}, a)) == pytest.approx(2)
    assert {k: float(v) for k, v in osc.per_layer(osc.cosine, a, b).items()} == {"['b']": 1.0, "['w']": 0.0}
