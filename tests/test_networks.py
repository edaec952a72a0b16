"""Activations, costs and networks: the Cauchy-Riemann equations, and derivatives against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import oscsim as osc
from oscsim.networks.activations import tangent

HOLOMORPHIC = {
    "Logistic": (osc.Logistic(4.0, 0.5), lambda u: scipy.special.expit(4 * (u - 0.5))),
    "HoloTanh 1": (
        osc.HoloTanh(4.0, 1.0),
        lambda u: u / (1 + np.exp(-4 * u)) + (1 - u) / (1 + np.exp(-4 * (u - 1))),
    ),
    "HoloTanh 2": (
        osc.HoloTanh(4.0, 2.0),
        lambda u: 0.5 * u / (1 + np.exp(-4 * u)) + (1 - 0.5 * u) / (1 + np.exp(-4 * (u - 2))),
    ),
    "SiLU": (osc.SiLU(), lambda u: u / (1 + np.exp(-u))),
    "Tanh": (osc.Tanh(), np.tanh),
    "RaisedCosine": (osc.RaisedCosine(0.75), lambda u: (1 - np.cos(0.75 * np.pi * u)) / 2),
    "Identity": (osc.Identity(), lambda u: u),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_holomorphic_activations(name, precision):
    activation, formula = HOLOMORPHIC[name]
    osc.check_holomorphic(activation)
    x = np.linspace(-3, 4, 41)
    tolerance = 1e-12 if precision == "float64" else 3e-6
    np.testing.assert_allclose(activation(jnp.asarray(x, precision)), formula(x), atol=tolerance)
    complex_u = jnp.asarray(x + 0.15j * np.cos(x), jnp.promote_types(precision, jnp.complex64))
    on_complex = activation(complex_u)
    assert on_complex.dtype == complex_u.dtype
    if name != "Logistic":  # scipy's expit knows real numbers alone
        np.testing.assert_allclose(on_complex, formula(np.asarray(complex_u, complex)), atol=tolerance)
    else:
        expected = 1 / (1 + np.exp(-4 * (np.asarray(complex_u, complex) - 0.5)))
        np.testing.assert_allclose(on_complex, expected, atol=tolerance)


def test_tangent(precision):
    y = np.concatenate([np.linspace(-10, 10, 10_001), np.linspace(-1e4, 1e4, 10_001)]).astype(precision)
    found = tangent(jnp.asarray(y))
    expected = np.tan(y.astype(np.float64))
    # An error of y of one rounding is one of y (1 + tan^2) in the tangent: near the poles nothing better can be asked.
    rounding = np.finfo(precision).eps * (4 * np.abs(expected) + np.abs(expected * y) + 1)
    assert np.all(np.abs(found - expected) < rounding)
    far = tangent(jnp.asarray([0.0, 1e8, -1e12, np.nan], precision))
    assert far[0] == 0
    assert np.all(np.isfinite(far[:3]))
    assert np.isnan(far[3])


@pytest.mark.usefixtures("x64")
def test_derivatives_of_the_logistic():
    u = jnp.asarray([0.3 + 0.2j, -0.7 + 2.9j, 2.0 - 1.5j, -5.0 + 40.0j])
    s = 1 / (1 + np.exp(-np.asarray(u)))
    _, slope = jax.jvp(osc.Logistic(1.0, 0.0), (u,), (jnp.ones_like(u),))
    np.testing.assert_allclose(slope, s * (1 - s), rtol=1e-12)
    _, curvature = jax.jvp(lambda z: jax.jvp(osc.Logistic(1.0, 0.0), (z,), (jnp.ones_like(z),))[1], (u,), (1j * slope,))
    np.testing.assert_allclose(curvature, 1j * slope * s * (1 - s) * (1 - 2 * s), rtol=1e-11)


def test_logistic_does_not_overflow(precision):
    far = jnp.asarray([-1e4 + 1j, 1e4 - 2j, -90 + 0.3j, 90 + 0.3j], jnp.promote_types(precision, jnp.complex64))
    np.testing.assert_allclose(osc.Logistic(4.0, 0.5)(far), [0, 1, 0, 1], atol=1e-6)
    pole = osc.Logistic(1.0, 0.0)(jnp.asarray(1j * np.pi, far.dtype))  # pi as rounded: beside the pole, not on it
    assert abs(pole) > 1e6


@pytest.mark.parametrize("activation", [osc.HardTanh(1.0), osc.ReLU()])
def test_comparison_activations_say_what_they_are(activation):
    x = jnp.linspace(-2, 2, 9)
    expected = np.clip(x, 0, 1) if isinstance(activation, osc.HardTanh) else np.maximum(x, 0)
    np.testing.assert_allclose(activation(x), expected)
    np.testing.assert_allclose(activation(x + 0j), expected)
    assert not activation.holomorphic
    with pytest.raises(osc.NotHolomorphicError, match=type(activation).__name__):
        osc.check_holomorphic(activation)


@pytest.mark.usefixtures("x64")
def test_cross_entropy_and_squared_error():
    output = jnp.array([0.3, -1.0, 2.0])
    one_hot = jnp.array([0.0, 0.0, 1.0])
    entropy = osc.CrossEntropy()
    assert float(entropy(output, jnp.asarray(2))) == pytest.approx(-float(jax.nn.log_softmax(output)[2]))
    assert float(entropy(output, one_hot)) == pytest.approx(float(entropy(output, jnp.asarray(2))))
    soft = jnp.array([0.2, 0.5, 0.3])
    assert float(entropy(output, soft)) == pytest.approx(-float(jnp.sum(soft * jax.nn.log_softmax(output))))
    assert np.isfinite(entropy(1e3 * output, jnp.asarray(1)))
    squared = osc.SquaredError()
    assert float(squared(output, one_hot)) == pytest.approx(0.5 * (0.09 + 1 + 1))
    assert float(squared(output, jnp.asarray(2))) == pytest.approx(float(squared(output, one_hot)))
    for cost in (entropy, squared):
        osc.check_holomorphic(lambda z, cost=cost: cost(z, one_hot), shape=(3,))


NETWORKS = [
    osc.LayeredNetwork((5, 4, 3), key=jax.random.key(0)),
    osc.LayeredNetwork((5, 4, 4, 3), key=jax.random.key(0), cost=osc.SquaredError(), activation=osc.HoloTanh()),
    osc.HopfieldNetwork((5, 6, 3), key=jax.random.key(0)),
    osc.HopfieldNetwork((5, 6, 3), key=jax.random.key(0), cost=osc.SquaredError(), activation=osc.Tanh()),
]


@pytest.mark.parametrize("net", NETWORKS, ids=lambda n: f"{type(n).__name__}-{type(n.cost).__name__}")
def test_networks_are_holomorphic(net):
    violations = osc.check_holomorphic(net)
    assert "phi in beta" in violations
    assert max(violations.values()) < 1e-4


def test_layered_force_is_the_one_of_the_paper():
    net = osc.LayeredNetwork((5, 4, 6, 3), key=jax.random.key(1))
    inputs = osc.Inputs.of(net, np.ones((2, 5)), np.array([0, 2]))
    s = (jnp.full((2, 4), 0.3 + 0.1j), jnp.full((2, 6), 0.2 - 0.2j))
    beta = 0.3 + 0.4j
    first, second = net.force(inputs.clamped, s, inputs.y, beta)
    (w0, w1, w2), (b0, b1, b2) = net.weights, net.biases
    np.testing.assert_allclose(first, inputs.x @ w0.T + b0[None] + s[1] @ w1, rtol=1e-5)
    softmax = jax.nn.softmax((s[1] @ w2.T + b2[None]), axis=1)
    expected = s[0] @ w1.T + b1[None] + beta * (jnp.eye(3)[jnp.array([0, 2])] - softmax) @ w2
    np.testing.assert_allclose(second, expected, rtol=1e-5)


def test_one_beta_per_sample():
    net = NETWORKS[0]
    inputs = osc.Inputs.of(net, np.ones((2, 5)), np.array([0, 2]))
    s = (jnp.full((2, 4), 0.3 + 0.1j),)
    (both,) = net.force(inputs.clamped, s, inputs.y, jnp.array([0.1j, 0.5]))
    for i, beta in enumerate((0.1j, 0.5)):
        (alone,) = net.force(inputs.clamped, s, inputs.y, beta)
        np.testing.assert_allclose(both[i], alone[i], rtol=1e-6)


def test_hopfield_coupling_is_symmetric_without_self_connection():
    net = NETWORKS[2]
    inputs = osc.Inputs.of(net, np.zeros((1, 5)), np.array([0]))

    def force(s):
        return net.force(inputs.clamped, (s[None],), inputs.y, 0.0)[0][0]

    coupling = np.asarray(jax.jacobian(force)(jnp.full(6, 0.4)))
    np.testing.assert_allclose(coupling, coupling.T, atol=1e-7)
    np.testing.assert_allclose(np.diag(coupling), 0, atol=1e-7)
    assert np.abs(coupling).max() > 0.1


def test_readout_scores_are_log_probabilities():
    net = NETWORKS[0]
    x = np.random.default_rng(0).random((7, 5))
    inputs = osc.Inputs.of(net, x, np.zeros(7, int))
    s = osc.settle(net, x, np.zeros(7, int)).activities
    logits = s[0] @ net.weights[1].T + net.biases[1][None]
    np.testing.assert_allclose(net.readout(inputs.clamped, s), jax.nn.log_softmax(logits, axis=1), atol=1e-5)


def test_parameters_leave_settings_out():
    net = osc.LayeredNetwork((5, 4, 3), key=jax.random.key(0), time_constant=(jnp.ones(4),))
    parameters = osc.parameters(net)
    assert parameters.activation.slope is None
    assert parameters.time_constant == (None,)
    assert len(jax.tree.leaves(parameters)) == 4


@pytest.mark.slow
def test_time_constants_leave_the_equilibrium_and_its_gradient_alone():
    x, y = np.full((2, 5), 0.4), np.array([0, 1])
    one = osc.LayeredNetwork((5, 4, 3), key=jax.random.key(0))
    many = osc.LayeredNetwork((5, 4, 3), key=jax.random.key(0), time_constant=(jnp.array([0.5, 1.0, 2.0, 1.0]),))
    assert osc.relative_error(osc.exact_gradient(many, x, y), osc.exact_gradient(one, x, y)) < 1e-6
    a, b = (osc.simulate(net, x, y, osc.Rotating(0.2, 200.0), cycles=2) for net in (one, many))
    np.testing.assert_allclose(a.phasors[0][0][-1], b.phasors[0][0][-1], atol=1e-4)
    assert np.abs(a.phasors[1][0][-1] - b.phasors[1][0][-1]).max() > 1e-4  # they lag differently


def test_initial_weights():
    net = osc.LayeredNetwork((400, 300, 10), key=jax.random.key(0))
    weights = np.asarray(net.weights[0])
    assert abs(weights.std() - 0.8796 / 20) < 1e-3
    assert np.abs(weights).max() <= 2 / 20
    assert all(not np.any(b) for b in net.biases)
    scaled = osc.LayeredNetwork((400, 300, 10), key=jax.random.key(0), scale=0.05)
    np.testing.assert_allclose(scaled.weights[0], weights, rtol=1e-5)


def test_digits():
    x, y = osc.datasets.load("digits")
    x_test, y_test = osc.datasets.load("digits", split="test")
    assert (x.shape, y.shape, x_test.shape) == ((1437, 64), (1437,), (360, 64))
    assert x.dtype == np.float32
    assert x.min() == 0
    assert x.max() == 1
    assert set(y) == set(y_test) == set(range(10))


@pytest.mark.slow
def test_step_noise():
    """Phases with noise: unbiased around the noiseless estimate; the spread falls with the number of runs."""
    net = osc.LayeredNetwork((5, 4, 3), key=jax.random.key(0))
    x, y = np.full((2, 5), 0.4), np.array([0, 1])
    quiet = osc.Phases(0.5, 4, steps=(40, 40))(net, x, y).gradient
    noisy = osc.Phases(0.5, 4, steps=(40, 40), noise=osc.StepNoise(0.01))
    runs = [noisy(net, x, y, key=jax.random.key(i)).gradient for i in range(64)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *runs)
    mean = jax.tree.map(lambda a: jnp.mean(a, axis=0), stacked)
    spread = jax.tree.map(lambda a: jnp.std(a, axis=0, ddof=1) / 8, stacked)
    z = jnp.concatenate(
        [
            jnp.ravel((m - q) / s)
            for m, q, s in zip(jax.tree.leaves(mean), jax.tree.leaves(quiet), jax.tree.leaves(spread), strict=True)
        ]
    )
    assert 0.5 < float(jnp.sqrt(jnp.mean(z**2))) < 1.6
    zero = osc.Phases(0.5, 4, steps=(40, 40), noise=osc.StepNoise(0.0))(net, x, y, key=jax.random.key(0)).gradient
    assert osc.relative_error(zero, quiet) == 0
    shared = osc.StepNoise(1.0, shared_over_batch=True)((jnp.zeros((3, 4)),), jax.random.key(0))[0]
    assert np.all(np.asarray(shared) == np.asarray(shared)[:1])
