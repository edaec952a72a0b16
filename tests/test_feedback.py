"""Networks without symmetry: two ways, homeostasis, and the oscillation that is exact all the same."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oscsim as osc
from oscsim.core.arrays import norm
from oscsim.equilibrium.linear import response_gradient
from oscsim.equilibrium.vectors import as_layers, flat
from oscsim.estimators.homeostasis import closed_form_pull, drawn_pull
from oscsim.response import anchor_rates, convergence_radius, predict_gradient, susceptibility
from tests.helpers import order

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
X, Y = np.random.default_rng(0).random((3, 6)), np.array([0, 1, 2])
FINE = osc.Integration(stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-13))


def deep(**kwargs):
    return osc.LayeredNetwork((6, 5, 4, 3), key=KEY, **({"cost": osc.SquaredError()} | kwargs))


def two_ways(angle=60.0, **kwargs):
    return osc.OwnFeedback(deep(**kwargs), angle=angle, key=jax.random.key(1))


def images(**kwargs):
    stack = (osc.Convolution(2, pooling=osc.SoftmaxPooling(2)), osc.Convolution(2, kernel=2, padding="VALID"))
    return osc.ConvolutionalNetwork(stack, (4, 4, 1), 3, key=KEY, **kwargs)


def couplings(net, sample=0):
    """K and sigma' of one sample at its free equilibrium, as jax's own Jacobian has them; of all neurons."""
    inputs, free = osc.Inputs.of(net, X, Y), osc.settle(net, X, Y)
    one = jax.tree.map(lambda a: a[sample : sample + 1], (inputs.clamped, inputs.y))
    s, u = (flat(tuple(a[sample] for a in layers)) for layers in (free.activities, free.potentials))
    k = jax.jacrev(lambda s: flat(tuple(a[0] for a in net.force(one[0], as_layers(net, s[None]), one[1], 0.0))))(s)
    slope = jnp.diag(jax.jacrev(lambda u: flat(tuple(a[0] for a in net.activities(as_layers(net, u[None])))))(u))
    return np.asarray(k), np.asarray(slope)


# Two ways.


@pytest.mark.parametrize(("net", "x"), [(deep(), X), (images(), X.reshape(-1)[:16].reshape(1, 4, 4, 1))])
def test_two_ways_that_agree_are_the_symmetric_network(net, x):
    net = jax.tree.map(lambda a: a.astype(float) if eqx.is_inexact_array(a) else a, net)
    y = Y[: len(x)]
    own = osc.OwnFeedback(net)
    assert set(own.angles) == {f"weights[{place}]" for place in range(1, len(net.shapes))}
    whole, parts = osc.exact_gradient(net, x, y), osc.exact_gradient(own, x, y)
    together = [w if b is None else w + b for w, b in zip(parts.network.weights, parts.feedback, strict=True)]
    assert osc.relative_error(together, list(whole.weights)) < 1e-12
    assert osc.relative_error(list(parts.network.biases), list(whole.biases)) < 1e-12
    assert float(norm(parts.feedback)) > 0.01


def test_the_start_is_at_the_angle_that_is_asked_for():
    wide = osc.LayeredNetwork((3, 200, 200), cost=osc.SquaredError(), key=KEY)
    for angle in (0.0, 30.0, 60.0, 90.0):
        own = osc.OwnFeedback(wide, angle=angle, key=jax.random.key(2))
        # a random matrix of n numbers is orthogonal to another up to 1 / sqrt(n)
        assert abs(float(own.angles["weights[1]"]) - angle) < 4 * math.degrees(1 / 200)
        assert float(norm(own.feedback[1]) / norm(wide.weights[1])) == pytest.approx(1, abs=0.02)


def test_what_is_fixed_is_not_learned():
    own, fixed = two_ways(), osc.FixedFeedback(deep(), angle=60.0, key=jax.random.key(1))
    estimates = [osc.Exact()(net, X, Y).gradient for net in (own, fixed)]
    assert osc.relative_error(estimates[0].network, estimates[1].network) < 1e-14
    assert estimates[1].fixed_feedback == (None, None, None)
    assert len(jax.tree.leaves(estimates[0])) == len(jax.tree.leaves(estimates[1])) + 2


def test_a_readout_may_have_its_own_way_back():
    net = deep(cost=osc.CrossEntropy())
    back = jax.random.normal(jax.random.key(3), net.weights[-1].shape)
    own = osc.OwnFeedback(net, [None, None, back])
    inputs, free = osc.Inputs.of(own, X, Y), osc.settle(net, X, Y)
    nudged = own.force(inputs.clamped, free.activities, inputs.y, 1.0)
    output = free.activities[-1] @ net.weights[-1].T + net.biases[-1][None]
    error = jax.nn.softmax(output) - jax.nn.one_hot(Y, 3)
    unnudged = own.force(inputs.clamped, free.activities, inputs.y, 0.0)
    np.testing.assert_allclose(nudged[-1] - unnudged[-1], -error @ back, atol=1e-12)
    # the loss, and so the exact gradient, does not know of it
    assert osc.relative_error(osc.exact_gradient(own, X, Y).network, osc.exact_gradient(net, X, Y)) < 1e-12


def test_what_a_plain_lock_in_reads():
    own = two_ways()
    chi = susceptibility(own, X, Y, 0.0)
    inputs, free = osc.Inputs.of(own, X, Y), osc.settle(own, X, Y)
    slopes = jax.grad(lambda s: jnp.sum(own.loss(inputs.clamped, s, inputs.y)))(free.activities)
    for sample in range(3):
        k, d = couplings(own, sample)
        p = np.diag(1 / d) - k
        adjoint = np.linalg.solve(p.T, flat(tuple(a[sample] for a in slopes)))
        expected = -np.linalg.solve(p, p.T @ adjoint)
        np.testing.assert_allclose(flat(tuple(c[sample] for c in chi)).real, expected, atol=1e-8)


# The exact oscillation.


def corrected_networks():
    recurrent = Recurrent(*(0.3 * jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(SHAPES)))
    return {"two ways": two_ways(), "vector field": recurrent}


SHAPES = ((4, 6), (4, 4), (3, 4))


class Recurrent(osc.AbstractDirectedNetwork):
    weights: jax.Array
    coupling: jax.Array
    out: jax.Array
    cost = osc.CrossEntropy()
    activation = osc.Tanh()
    shapes = ((4,),)

    def clamp(self, x):
        return osc.linear(self.weights, x)

    def drive(self, clamped, s):
        return (clamped + osc.linear(self.coupling, s[0]),)

    def output(self, s):
        return osc.linear(self.out, s[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two ways", "vector field"])
def test_the_corrected_lock_in_is_exact_as_the_period_grows(name):
    net = corrected_networks()[name]
    corrected = osc.CorrectedNetwork(net)
    exact = osc.exact_gradient(net, X, Y)
    radius = float(convergence_radius(corrected, X, Y))

    def read(amplitude, period, **kwargs):
        lock_in = osc.LockIn(osc.Rotating(amplitude, period), start="locked", cycles=1, integration=FINE, **kwargs)
        return lock_in(corrected, X, Y, tolerance=math.inf).gradient

    periods = np.array([100.0, 200.0, 400.0])
    errors = [float(osc.relative_error(read(0.3 * radius, t).network, exact)) for t in periods]
    assert abs(order(errors, 1 / periods) - 2) < 0.1
    few, many = read(0.05 * radius, 100.0), read(0.9 * radius, 100.0)
    assert osc.relative_error(few, many) < 1e-8
    better = [float(osc.relative_error(read(0.3 * radius, t, extrapolate=True).network, exact)) for t in periods]
    assert abs(order(better, 1 / periods) - 4) < 0.2
    plain = osc.LockIn(osc.Rotating(0.05, 400.0))(net, X, Y, tolerance=math.inf).gradient
    assert osc.relative_error(plain, exact) > 0.05


def test_without_a_way_back_it_backpropagates_by_oscillating():
    net = osc.LayeredNetwork((6, 5, 4, 3), key=KEY)
    twin = osc.FeedForwardNetwork((6, 5, 4, 3), key=KEY, activation=osc.Logistic())
    ahead = osc.FixedFeedback(net, [None, np.zeros((4, 5)), None])
    found = osc.Orbit(period=1e6)(osc.CorrectedNetwork(ahead), X, Y).gradient.network.network
    expected = osc.Backpropagation()(twin, X, Y).gradient
    assert osc.relative_error(list(found.weights), list(expected.weights)) < 1e-8
    assert osc.relative_error(list(found.biases), list(expected.biases)) < 1e-8
    plain = osc.Orbit(period=1e6)(ahead, X, Y, tolerance=math.inf).gradient.network
    assert osc.relative_error(list(plain.weights), list(expected.weights)) > 0.1


def test_the_bias_of_a_measured_anchor():
    own = two_ways()
    free = osc.settle(own, X, Y)
    at = (*free.potentials, *free.activities)  # neurons and filters; how far off it is, is checked

    def bias(period, filter_time):
        frozen = predict_gradient(osc.CorrectedNetwork(own), X, Y, period).network
        measured = predict_gradient(osc.MeasuredCorrection(own, filter_time), X, Y, period, at=at).network
        return float(osc.relative_error(measured, frozen))

    turns = np.array([10.0, 20.0, 40.0])  # omega kappa, where tau / kappa is nothing
    slow = [bias(2 * np.pi * 1e4, turn * 1e4) for turn in turns]
    assert abs(order(slow, 1 / turns) - 2) < 0.1
    times = np.array([400.0, 800.0, 1600.0])  # kappa / tau, where 1 / (omega kappa)^2 is little
    fast = [bias(2 * np.pi * 1.0, kappa) for kappa in times]
    assert abs(order(fast, 1 / times) - 1) < 0.1


def turning(strength):
    """Four neurons at rest at 0, of symmetric couplings and antisymmetric ones of this strength."""
    a, b = (np.random.default_rng(seed).normal(size=(4, 4)) for seed in (1, 2))
    coupling = 0.1 * (a + a.T) + strength * (b - b.T)
    return Recurrent(jnp.zeros((4, 6)), jnp.asarray(coupling), jnp.ones((3, 4)))


def test_where_a_measured_anchor_runs_away():
    def full(strength):
        """The largest growth rate of neurons and filters together, by numpy, from the Jacobian of the force."""
        net = osc.MeasuredCorrection(turning(strength), 1000.0)
        clamped, y = jnp.zeros((1, 4)), jnp.array([0])
        force = lambda u: flat(net.force(clamped, net.activities(as_layers(net, u[None])), y, 0.0))  # noqa: E731
        tau = np.concatenate([np.broadcast_to(t, 4) for t in net.time_constants])
        return np.linalg.eigvals((jax.jacrev(force)(jnp.zeros(8)) - np.eye(8)) / tau[:, None]).real.max()

    def told(strength):
        return -float(anchor_rates(osc.MeasuredCorrection(turning(strength), 1000.0), X[:1], Y[:1]).real.min())

    def threshold(growth):
        low, high = 0.05, 2.0
        assert growth(low) < 0 < growth(high)
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if growth(middle) < 0 else (low, middle)
        return low

    found, expected = threshold(told), threshold(full)
    assert found == pytest.approx(expected, rel=0.05)
    k = np.asarray(turning(found).coupling)
    symmetric = np.eye(4) - (k + k.T) / 2
    assert np.min(np.linalg.eigvalsh(symmetric)) > 0
    assert np.max(np.abs(np.linalg.eigvals(np.linalg.solve(symmetric, (k - k.T) / 2)))) == pytest.approx(1, abs=1e-4)
    # and a network past it is refused before it runs away
    osc.settle(osc.MeasuredCorrection(turning(0.95 * found), 50.0), X[:1], Y[:1])
    with pytest.raises(osc.NotSettledError):
        osc.settle(osc.MeasuredCorrection(turning(1.05 * found), 50.0), X[:1], Y[:1])


def test_a_corrected_network_settles_at_its_anchor():
    """Large weights leave several states; swept from rest, others of them were found."""
    x = jax.random.uniform(jax.random.key(3), (20, 6))
    net = osc.LayeredNetwork((6, 8, 7, 3), cost=osc.SquaredError(), key=KEY, scale=1.5)
    own = osc.OwnFeedback(net, angle=60.0, key=jax.random.key(1))
    free, y = osc.settle(own, x, np.zeros(20, int)), np.zeros(20, int)
    corrected = osc.settle(osc.CorrectedNetwork(own), x, y)
    for found, expected in zip(corrected.potentials, free.potentials, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_an_anchor_that_is_no_state_is_no_number():
    """Under jit nothing can be raised, and states are not followed: an anchor is in balance there, or nan."""
    wild = turning(0.0)
    wild = eqx.tree_at(
        lambda n: n.coupling, wild, jnp.asarray([[2.0, -9.0, 0, 0], [9.0, 2.0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    )
    corrected = osc.CorrectedNetwork(wild)  # two neurons that chase each other
    with pytest.raises(osc.NotSettledError):
        osc.Inputs.of(corrected, X, Y)
    inner, (anchor,) = jax.jit(lambda x: corrected.clamped(x))(X)
    (force,) = wild.force(inner, (anchor,), jnp.array(Y), 0.0)
    (moved,) = wild.activities((force,))
    assert bool(jnp.all(jnp.isnan(anchor) | (jnp.abs(moved - anchor) < 1e-9)))


# Homeostasis.


def test_drawn_homeostasis_has_the_mean_of_the_closed_form():
    own = two_ways()
    inputs, free = osc.Inputs.of(own, X, Y), osc.settle(own, X, Y)
    expected = closed_form_pull(own, inputs)
    keys = jax.random.split(jax.random.key(5), 100)
    drawn = jax.vmap(lambda key: drawn_pull(own, inputs, free.activities, key, 334))(keys)  # of 3 samples: 1e5 in all
    for found, mean in zip(jax.tree.leaves(drawn), jax.tree.leaves(expected), strict=True):
        deviation = np.std(found, axis=0, ddof=1) / 10
        assert np.all(np.abs(np.mean(found, axis=0) - mean) <= 4.5 * deviation + 1e-15)  # each of some 90 numbers
    total = np.concatenate([np.ravel(np.mean(a, axis=0)) for a in jax.tree.leaves(drawn)])
    whole = np.concatenate([np.ravel(a) for a in jax.tree.leaves(expected)])
    along = whole / np.linalg.norm(whole)
    each = np.stack([np.concatenate([np.ravel(a[i]) for a in jax.tree.leaves(drawn)]) @ along for i in range(100)])
    assert abs(total @ along - np.linalg.norm(whole)) < 3 * np.std(each, ddof=1) / 10


def test_the_closed_form_is_that_of_the_jacobian():
    own = two_ways()
    k, _ = couplings(own)
    ways = zip(own.network.weights[1:], own.feedback[1:], strict=True)
    assert np.sum((k - k.T) ** 2) / 24 == pytest.approx(sum(float(norm(w - b)) ** 2 for w, b in ways) / 12, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [None, 4])
def test_homeostasis_brings_the_ways_together(samples):
    estimator = osc.Homeostatic(osc.Phases(0.1, points=4), strength=20.0, samples=samples)
    x = np.random.default_rng(1).random((30, 6))
    y = np.argmax(x[:, :3], axis=1)
    monitor = osc.Monitor(probe=10, progress=False)
    settings = {"epochs": 8, "batch_size": 10, "key": KEY, "monitor": monitor}
    trained = osc.train(two_ways(90.0), (x, y), estimator, optax.sgd(0.05), **settings)
    first, last = trained.history[0], trained.history[-1]
    for name in ("angle/weights[1]", "angle/weights[2]", "antisymmetric", "asymmetry_error"):
        assert last[name] < 0.5 * first[name]
    assert last["loss"] < first["loss"]


def test_networks_without_dense_ways_draw():
    field = turning(0.1)
    with pytest.raises(osc.BadValue, match="samples=0 for Recurrent"):
        osc.Homeostatic(osc.Exact(), samples=0)(field, X, Y)
    pull = jax.tree.map(
        jnp.subtract,
        osc.Homeostatic(osc.Exact(), 1.0, samples=400)(field, X, Y, KEY).gradient,
        osc.exact_gradient(field, X, Y),
    )
    k = np.asarray(field.coupling)
    # of |K - K^T|^2 / (2 n)
    np.testing.assert_allclose(pull.coupling, 2 * (k - k.T) / 4, atol=0.03)


# How right it is, and what is compared with it.


@pytest.mark.slow
@pytest.mark.parametrize("angle", [5.0, 30.0, 60.0, 90.0])
def test_the_asymmetry_is_told(angle):
    for seed in range(3):
        net = osc.LayeredNetwork((6, 5, 4, 3), cost=osc.SquaredError(), key=jax.random.key(seed))
        own = osc.OwnFeedback(net, angle=angle, key=jax.random.key(seed + 10))
        estimate = osc.LockIn(osc.Rotating(0.05, 100.0), cycles=2, start="settled")(own, X, Y, tolerance=math.inf)
        true = float(osc.relative_error(estimate.gradient, osc.exact_gradient(own, X, Y)))
        size = float(norm(estimate.gradient) / norm(osc.exact_gradient(own, X, Y)))
        assert 0.5 < float(estimate.error.asymmetry) * size / true < 2
        ideal = float(osc.relative_error(estimate.gradient, predict_gradient(own, X, Y, 1e9)))
        assert 0.3 < float(estimate.error.lag) / ideal < 4


def test_coupled_learning_holds_the_outputs():
    net = deep()
    inputs, free = osc.Inputs.of(net, X, Y), osc.settle(net, X, Y)
    directions = []
    for sample in range(3):
        k, d = couplings(net, sample)
        response = np.linalg.inv(np.diag(1 / d) - k)
        wanted = np.eye(3)[Y[sample]] - np.asarray(free.activities[-1][sample])
        directions.append(response[:, -3:] @ np.linalg.solve(response[-3:, -3:], wanted))
    direction = as_layers(net, jnp.asarray(directions))
    complex_of = lambda layers: tuple(a.astype(complex) for a in layers)  # noqa: E731
    expected = response_gradient(net, inputs, complex_of(free.activities), complex_of(direction), direct=0.0)
    steps = np.array([0.02, 0.01])
    errors = [float(osc.relative_error(osc.CoupledLearning(step)(net, X, Y).gradient, expected)) for step in steps]
    assert abs(order(errors, steps) - 1) < 0.1
    assert errors[-1] < 0.02


class Short(Recurrent):
    def drive(self, clamped, s):
        return (jnp.sum(s[0], keepdims=True),)


@pytest.mark.slow
def test_a_measured_anchor_is_told_of():
    """What the filters are off by is part of the error bar, and slow filters are settled with at once."""
    own = two_ways()
    for filter_time in (300.0, 2000.0, 20_000.0):
        measured = osc.MeasuredCorrection(own, filter_time)
        estimate = osc.LockIn(osc.Rotating(0.02, 100.0), cycles=2, start="settled")(measured, X, Y)
        true = float(osc.relative_error(estimate.gradient, osc.exact_gradient(measured, X, Y)))
        assert float(estimate.error.asymmetry) < 1e-3  # at the mean that was read, which is off by the contamination
        assert 0.5 < float(estimate.error.total) / true < 2
    pulled = [
        osc.Homeostatic(osc.Orbit(100.0), 3.0)(net, X, Y, tolerance=math.inf).gradient
        for net in (osc.CorrectedNetwork(own), osc.MeasuredCorrection(own, 1e6))
    ]
    assert osc.relative_error(pulled[1].network, pulled[0].network) < 1e-4


def test_what_cannot_be():
    with pytest.raises(osc.BadType, match=r"network=.*LayeredNetwork or a ConvolutionalNetwork"):
        osc.OwnFeedback(osc.HopfieldNetwork((6, 5, 4), key=KEY, cost=osc.CrossEntropy()))
    with pytest.raises(osc.BadType, match=r"key is None, and feedback at angle=60"):
        osc.OwnFeedback(deep(), angle=60.0)
    with pytest.raises(osc.BadValue, match=r"angle=60.0: the feedback is given"):
        osc.OwnFeedback(deep(), [None, None, None], angle=60.0)
    with pytest.raises(osc.BadValue, match=r"feedback has 2 entries.*give 3 entries"):
        osc.OwnFeedback(deep(), [None, np.zeros((4, 5))])
    with pytest.raises(osc.BadValue, match=r"feedback\[1\] has shape \(5, 4\): .* transposed"):
        osc.FixedFeedback(deep(), [None, np.zeros((5, 4)), None])
    corrected = osc.CorrectedNetwork(two_ways())
    with pytest.raises(osc.BadType, match=r"net is a CorrectedNetwork, .* x moves within the cycle: use MeasuredCorr"):
        osc.simulate(corrected, osc.Moving(lambda t, cycle: X), Y, osc.Rotating(0.1, 100.0), cycles=1)
    with pytest.raises(osc.BadType, match=r"net is a CorrectedNetwork, .* its weights move in every step"):
        osc.learn(corrected, (X, Y), osc.Rotating(0.1, 100.0), rate=1e-4, cycles=1, progress=False)
    measured, rng = osc.MeasuredCorrection(two_ways(), 100.0), jax.random.key(2)
    for refused in (osc.Phases(0.1, 4), osc.Classic(0.1)):
        with pytest.raises(osc.BadType, match=r"net is a MeasuredCorrection, .* use CorrectedNetwork"):
            refused(measured, X, Y)
    for refused in (osc.suggest, convergence_radius):
        with pytest.raises(osc.BadType, match=r"net is a MeasuredCorrection, .* use CorrectedNetwork"):
            refused(measured, X, Y)
    with pytest.raises(osc.BadType, match=r"network is a CorrectedNetwork: correct last"):
        osc.hardware.spread(corrected, rng, gain=0.1)
    with pytest.raises(osc.BadType, match=r"network is a MeasuredCorrection: correct last"):
        osc.CorrectedNetwork(measured)
    with pytest.raises(osc.BadType, match=r"net is a OwnFeedback, around a network .* spread that first"):
        osc.hardware.spread(two_ways(), rng, time_constant=0.1)
    with pytest.raises(osc.BadType, match=r"net is a CorrectedNetwork: correct last"):
        osc.CoupledLearning(0.5)(corrected, X, Y)
    with pytest.raises(osc.BadValue, match=r"drive of Short returns .*\(1,\).* for neurons of .*\(4,\)"):
        osc.settle(Short(jnp.zeros((4, 6)), jnp.zeros((4, 4)), jnp.ones((3, 4))), X, Y)
    with pytest.raises(osc.BadValue, match=r"feedback\[1\] holds values that are not finite"):
        osc.FixedFeedback(deep(), [None, np.full((4, 5), np.nan), None])
    with pytest.raises(osc.BadValue, match=r"feedback has 3 entries, or something in the first place"):
        osc.OwnFeedback(deep(), [np.zeros((5, 6)), None, None])
    with pytest.raises(osc.BadType, match=r"net=.*use MeasuredCorrection\(net, filter_time\)"):
        anchor_rates(osc.CorrectedNetwork(two_ways()), X, Y)
    with pytest.raises(osc.BadValue, match=r"filter_time=-1"):
        osc.MeasuredCorrection(two_ways(), -1.0)
    with pytest.raises(osc.BadValue, match=r"strength=-1"):
        osc.Homeostatic(osc.Exact(), -1.0)
    with pytest.raises(osc.BadValue, match=r"samples=-1"):
        osc.Homeostatic(osc.Exact(), samples=-1)
    with pytest.raises(osc.BadValue, match=r"step=1.5"):
        osc.CoupledLearning(1.5)
    with pytest.raises(osc.BadType, match=r"net is a LayeredNetwork without two layers of neurons"):
        osc.CoupledLearning(0.5)(osc.LayeredNetwork((6, 5, 4), key=KEY), X, Y)


@pytest.mark.parametrize("kind", ["own", "fixed", "corrected", "measured", "field"])
def test_files_hold_them(kind, tmp_path):
    net = {
        "own": two_ways(),
        "fixed": osc.FixedFeedback(deep(), angle=60.0, key=KEY),
        "corrected": osc.CorrectedNetwork(two_ways()),
        "measured": osc.MeasuredCorrection(two_ways(), 100.0),
        "field": turning(0.1),
    }[kind]
    osc.register(Recurrent)
    osc.core.checkpoint.save(net, tmp_path / "net.osc")
    again = osc.load(tmp_path / "net.osc")
    assert jax.tree.structure(again) == jax.tree.structure(net)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(net), strict=True))
