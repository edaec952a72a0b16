"""The oracles against what knows nothing of them, for every network, wrapper and cost, in float64.

Left out: quantised weights and activities. They are piecewise constant, so their derivative is that of the ideal by
decision and not that of the loss.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oscsim as osc
from oscsim import hardware
from oscsim.core.arrays import norm
from oscsim.equilibrium import resolvent
from oscsim.equilibrium.asymmetry import asymmetry_error
from oscsim.equilibrium.linear import gradient_read
from oscsim.equilibrium.vectors import as_layers, flat, flat_force, flat_time_constants
from oscsim.response import predict_gradient, susceptibility
from oscsim.response.expansion import Expansion
from oscsim.response.spread import _read_change
from tests.marks import slow_except

pytestmark = pytest.mark.usefixtures("x64")

COSTS = {"cross-entropy": osc.CrossEntropy(), "squared error": osc.SquaredError()}


class Ring(osc.AbstractNetwork):
    """A user's own network: neurons on a ring, coupled to their neighbours and by a cubic term."""

    coupling: jax.Array
    drive: jax.Array
    output: jax.Array
    cost: osc.AbstractCost
    activation = osc.Tanh()
    shapes = ((5,),)
    input_shape = (4,)
    outputs = 3

    def clamp(self, x):
        return osc.linear(self.drive, x)

    def phi(self, clamped, s, y, beta):
        (s,) = s
        pairs = jnp.sum(self.coupling * s * jnp.roll(s, 1)) + 0.05 * jnp.sum(s**3)
        output = osc.linear(self.output, s) if self.cost.readout else s[-3:]
        return jnp.sum(clamped * s) + pairs - beta * self.cost(output, y)


class Field(osc.AbstractNetwork):
    """A user's own network without a potential: each neuron hears all others, by weights of its own."""

    coupling: jax.Array
    drive: jax.Array
    output: jax.Array
    cost: osc.AbstractCost
    activation = osc.Tanh()
    shapes = ((5,),)
    input_shape = (4,)
    outputs = 3

    def clamp(self, x):
        return osc.linear(self.drive, x)

    def phi(self, clamped, s, y, beta):
        output = osc.linear(self.output, s[0]) if self.cost.readout else s[0][-3:]
        return jnp.sum(clamped * s[0]) - beta * self.cost(output, y)

    def directed(self, clamped, s, r, y, beta):
        return jnp.sum(s[0] * osc.linear(self.coupling, r[0]))


def own(kind, cost, key):
    keys = jax.random.split(key, 3)
    coupling = 0.3 * jax.random.normal(keys[0], (5,) if kind is Ring else (5, 5))
    output = jax.random.normal(keys[2], (3, 5)) if cost.readout else jnp.zeros((0, 0))
    return kind(coupling, jax.random.normal(keys[1], (5, 4)), output, cost)


def layered(cost, key):
    return osc.LayeredNetwork((4, 5, 4, 3), key=key, cost=cost)


def two_ways(net, key):
    """Feedback weights of their own, from the readout too."""
    keys = jax.random.split(key, len(net.weights))
    drawn = [jnp.std(w) * jax.random.normal(k, w.shape) for k, w in zip(keys, net.weights, strict=True)]
    return osc.OwnFeedback(net, [None, *drawn[1:]])


def convolutional(cost, key):
    stack = (
        osc.Convolution(2, kernel=3, pooling=osc.SoftmaxPooling(2, temperature=1.0)),
        osc.Convolution(2, kernel=2, padding="VALID"),
    )
    return osc.ConvolutionalNetwork(stack, (4, 4, 1), 3, key=key, cost=cost)


NETWORKS = {
    "layered": layered,
    "Hopfield": lambda cost, key: osc.HopfieldNetwork((4, 6, 3), key=key, cost=cost, scale=0.4),
    "convolutional": convolutional,
    "own": lambda cost, key: own(Ring, cost, key),
    "own directed": lambda cost, key: own(Field, cost, key),
    "unequal": lambda cost, key: hardware.spread(layered(cost, key), key, time_constant=0.3, gain=0.3),
    "mismatch": lambda cost, key: hardware.mismatch(layered(cost, key), key, deviation=0.5),
    "unequal mismatch": lambda cost, key: hardware.spread(
        hardware.mismatch(layered(cost, key), key, deviation=0.5), key, gain=0.3
    ),
    "unequal directed": lambda cost, key: hardware.spread(own(Field, cost, key), key, gain=0.3),
    "two ways": lambda cost, key: two_ways(layered(cost, key), key),
    "convolutional two ways": lambda cost, key: two_ways(convolutional(cost, key), key),
    "fixed ways": lambda cost, key: osc.FixedFeedback(layered(cost, key), angle=90.0, key=key),
    "corrected ways": lambda cost, key: osc.CorrectedNetwork(two_ways(layered(cost, key), key)),
    "corrected directed": lambda cost, key: osc.CorrectedNetwork(own(Field, cost, key)),
    "measured ways": lambda cost, key: osc.MeasuredCorrection(two_ways(layered(cost, key), key), filter_time=30.0),
}
SYMMETRIC = ("layered", "Hopfield", "convolutional", "own", "unequal")
CASES = {f"{kind}, {cost}": (kind, cost) for kind in NETWORKS for cost in COSTS}


def draw(name, seed=0):
    """A network of the case, with parameters at random, and three samples."""
    kind, cost = CASES[name]
    k_net, k_bias, k_x = jax.random.split(jax.random.key(seed), 3)
    net = NETWORKS[kind](COSTS[cost], k_net)
    # Biases start at 0, where a wrong gradient may go unseen.
    leaves, structure = jax.tree.flatten(osc.parameters(net))
    keys = jax.random.split(k_bias, len(leaves))
    moved = [a + 0.1 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    net = eqx.combine(jax.tree.unflatten(structure, moved), net)
    return net, jax.random.uniform(k_x, (3, *net.input_shape)), np.array([0, 2, 1])


def settled_losses(net, x, y, directions, steps):
    """The loss at the settled state, (directions, steps), along each direction in the space of all parameters."""
    flat, restore = jax.flatten_util.ravel_pytree(osc.parameters(net))
    start = osc.settle(net, x, y).potentials

    @jax.jit
    def losses(points, start):
        def at(point):
            other = eqx.combine(restore(point), net)
            inputs = osc.Inputs.of(other, x, y)
            plain = {"tolerance": 1e-14, "max_steps": 60, "method": "sweeps", "throw": False}
            free = osc.settle(other, x, y, start=start, **plain)
            return jnp.mean(other.loss(inputs.clamped, free.activities, inputs.y)), jnp.max(free.residual)

        return jax.vmap(at)(points)

    points = flat[None, None] + steps[None, :, None] * directions[:, None, :]
    found, residuals = losses(points.reshape(-1, flat.size), start)
    assert np.max(residuals) < 1e-12
    return found.reshape(points.shape[:2])


QUICK = ("mismatch, cross-entropy", "own directed, cross-entropy", "unequal mismatch, squared error")


@pytest.mark.parametrize("name", slow_except(QUICK, CASES))
def test_the_exact_gradient_is_that_of_the_settled_loss(name):
    net, x, y = draw(name)
    exact = osc.exact_gradient(net, x, y)
    flat, restore = jax.flatten_util.ravel_pytree(exact)
    random = jax.random.normal(jax.random.key(9), (3, flat.size))
    random /= jnp.linalg.norm(random, axis=1, keepdims=True)
    directions = jnp.concatenate([random, jnp.eye(flat.size)])
    h = 3e-4
    losses = settled_losses(net, x, y, directions, h * jnp.array([-2.0, -1.0, 1.0, 2.0]))
    slopes = losses @ jnp.array([1.0, -8.0, 8.0, -1.0]) / (12 * h)  # central differences, off by O(h^4)
    assert np.max(np.abs(slopes[:3] - random @ flat)) < 1e-6 * float(norm(exact))
    each = restore(slopes[3:])
    assert osc.relative_error(each, exact) < 1e-6
    assert max(float(found) for found in osc.per_layer(osc.relative_error, each, exact).values()) < 1e-6


FINE = {
    "integration": osc.Integration(stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-12)),
    "record": osc.PerCycle(neurons=0),
}


LOCKING = [name for name in CASES if "measured" not in name]
"""Those without filters, which would take many cycles to come to rest."""


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_except(("own directed, cross-entropy",), LOCKING))
def test_response_and_gradient_are_those_of_a_long_run(name):
    net, x, y = draw(name)
    run = osc.simulate(net, x, y, osc.Rotating(0.02, 128.0), cycles=4, start="settled", **FINE)
    a_1 = run.phasors.teaching[run.phasors.harmonics.index(1)][-1]
    read = [c[-1] / a_1 for c in run.phasors[1]]
    expected = susceptibility(net, x, y, 2 * np.pi / 128)
    assert osc.relative_error(read, list(expected)) < 1e-8
    # however far it is from the exact one, by its lag or for want of symmetry
    found = run.gradient(discard=3, tolerance=np.inf)
    assert osc.relative_error(found, predict_gradient(net, x, y, 128.0)) < 1e-8


# Forces without a potential.


def test_who_has_a_potential():
    for kind, cost in CASES.values():
        net = NETWORKS[kind](COSTS[cost], jax.random.key(0))
        assert net.symmetric == (kind in SYMMETRIC)


def test_a_field_reads_the_mean_of_what_is_heard_and_the_turning_of_what_is_emitted():
    net, x, y = draw("own directed, squared error")
    inputs = osc.Inputs.of(net, x, y)
    (s,), (r,) = ([jax.random.normal(jax.random.key(k), (3, 5), complex)] for k in (1, 2))
    found = net.plasticity(inputs.x, (s,), inputs.y, 0.3 + 0.1j, weight=1j, heard=(r,))
    np.testing.assert_allclose(found.coupling, (1j * s[:, :, None] * r[:, None]).mean(0).real, atol=1e-14)
    chi, c_0 = s, r.real
    np.testing.assert_allclose(
        gradient_read(net, inputs, (c_0,), (chi,)).coupling, -(chi[:, :, None] * c_0[:, None]).mean(0).real, atol=1e-14
    )


def test_a_force_that_is_not_holomorphic_in_what_is_heard_is_named():
    class Rectified(Field):
        def directed(self, clamped, s, r, y, beta):
            return jnp.sum(s[0] * osc.linear(self.coupling, r[0].real + 0j))

    net, x, y = draw("own directed, cross-entropy")
    assert {"psi in s[0]", "psi in r[0]", "psi in beta"} < set(osc.check_holomorphic(net, x, y, points=1))
    with pytest.raises(osc.NotHolomorphicError, match=r"psi in r\[0\] by"):
        osc.check_holomorphic(Rectified(net.coupling, net.drive, net.output, net.cost), x, y, points=1)


@pytest.mark.parametrize("name", ["mismatch, cross-entropy", "own directed, squared error"])
def test_what_is_read_moves_with_the_mean_that_is_heard(name):
    net, x, y = draw(name)
    inputs, size = osc.Inputs.of(net, x, y), sum(np.prod(shape) for shape in net.shapes)
    keys = jax.random.split(jax.random.key(4), 4)
    c_0, chi, mean, phasor = (jax.random.normal(k, (3, size), complex) for k in keys)
    nothing = (jnp.zeros(()),) * 3
    found = _read_change(net, inputs, Expansion(nothing, nothing, c_0, chi), mean, phasor)

    def read(step):
        moved = (as_layers(net, a + step * change) for a, change in ((c_0, mean), (chi, phasor)))
        return gradient_read(net, inputs, *moved)

    difference = jax.tree.map(lambda a, b: (a - b) / 2e-5, read(1e-5), read(-1e-5))
    assert osc.relative_error(found, difference) < 1e-8


# The settled points warn of what is measured here.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:gradient (good to|of no use, off by) .* the couplings are not symmetric")
@pytest.mark.parametrize("name", slow_except(("own directed, cross-entropy",), LOCKING))
def test_the_error_of_asymmetry(name):
    net, x, y = draw(name)
    inputs, free = osc.Inputs.of(net, x, y), osc.settle(net, x, y)
    found = asymmetry_error(net, inputs, free.potentials)
    assert np.max(found.residual) < 1e-11
    assert osc.relative_error(found.exact, osc.exact_gradient(net, x, y)) < 1e-9
    # settled points know of no linear system; the smallest radius among these networks is about 0.06
    assert osc.relative_error(found.read, osc.Phases(0.01, 12)(net, x, y).gradient) < 1e-8
    off = osc.relative_error(found.read, found.exact)
    assert off < 1e-11 if net.symmetric or "corrected" in name else off > 0.05


@pytest.mark.parametrize("at", slow_except(("at a frequency",), ("at rest", "at a frequency", "at a complex signal")))
@pytest.mark.parametrize("way", ["sweeps", "matrix", "no matrix"])
def test_the_resolvent_against_numpy(at, way, monkeypatch):
    net, x, y = draw("own directed, cross-entropy")
    inputs = osc.Inputs.of(net, x, y)
    beta = jnp.full(3, 0.02 + 0.01j) if at == "at a complex signal" else None
    u = osc.settle(net, x, y, 0.0 if beta is None else beta).potentials
    omega = jnp.asarray(0.3) if at == "at a frequency" else None
    kind = float if at == "at rest" else complex
    source = tuple(jax.random.normal(jax.random.key(i), a.shape, kind) for i, a in enumerate(u))
    monkeypatch.setattr(resolvent, "DENSE", 0 if way == "no matrix" else 1024)
    jax.clear_caches()  # what is compiled does not see the change
    tau = np.asarray(flat_time_constants(net))
    for transposed in (False, True):
        solver = resolvent.Resolvent(net, inputs, u, omega, beta, transposed)
        found, off = solver(source, 1e-12, 300 if way == "sweeps" else 1)
        assert np.max(off) < 1e-11
        for i in range(3):
            of_sample = tuple(a[i] for a in u)
            force = flat_force(net, jax.tree.map(lambda a, i=i: a[i], inputs.clamped), inputs.y[i])
            nudge = 0.0 if beta is None else beta[i]
            slope = jax.jacfwd(lambda v, f=force, b=nudge: f(v, b), holomorphic=beta is not None)(flat(of_sample))
            matrix = np.diag(1 + 1j * (0.3 if omega is not None else 0) * tau) - np.asarray(slope)
            right = np.asarray(flat(tuple(a[i] for a in source)))
            expected = np.linalg.solve(matrix.T if transposed else matrix, right)
            np.testing.assert_allclose(flat(tuple(a[i] for a in found)), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own directed, cross-entropy", "mismatch, squared error"])
def test_weights_in_the_equation_move_as_the_lock_in_reads(name):
    net, x, y = draw(name)
    inputs, rate = osc.Inputs.of(net, x, y), 1e-9
    integration = osc.Integration(diffrax.Heun(), steps_per_cycle=768, ticks=64)
    system = osc.System.of(net, osc.Rotating(0.02, 128.0), integration=integration)
    advance = eqx.filter_jit(osc.advance_plastic)
    state = osc.begin(system, inputs)
    for _ in range(6):
        state, moved, reading = advance(system, state, inputs, jnp.asarray(rate))
    drift = jax.tree.map(lambda a: -a / (rate * 128.0), moved)
    assert osc.relative_error(drift, reading.gradient(net, inputs)) < 1e-4


@pytest.mark.slow
def test_many_exact_gradients_at_once_end(x64):
    """Batched factorisations in one program lock up XLA's threads (jaxlib 0.10): they are made one by one."""
    x, y = jnp.ones((2, 6)) / 2, jnp.array([0, 1])

    def both(key):
        net = osc.LayeredNetwork((6, 250, 2), key=key, scale=0.3)
        first, second = osc.exact_gradient(net, x, y), osc.exact_gradient(net, 1 - x / 3, y)
        return osc.cosine(first, second)

    found = jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(0), 6))
    np.testing.assert_allclose(found[3], both(jax.random.split(jax.random.key(0), 6)[3]), rtol=1e-9)


def test_wide_networks_have_exact_gradients():
    """In float64 at the default tolerance: what is left is measured neuron by neuron, whatever their number."""
    for seed in range(6):
        net = osc.LayeredNetwork((20, 60, 40, 10), key=jax.random.key(seed))
        x, y = jax.random.normal(jax.random.key(100 + seed), (4, 20)), jnp.arange(4)
        points = osc.Phases(0.02, 12)(net, x, y)
        assert osc.relative_error(points.gradient, osc.exact_gradient(net, x, y)) < 1e-9


def test_points_of_activations_with_few_derivatives():
    net = osc.LayeredNetwork((6, 5, 4), activation=lambda u: 0.1 * jnp.maximum(u, 0) ** 1.5, key=jax.random.key(0))
    x, y = jax.random.uniform(jax.random.key(1), (3, 6)), jnp.array([0, 1, 2])
    read = osc.Phases(0.05, 2)(net, x, y).gradient
    assert osc.relative_error(read, osc.exact_gradient(net, x, y)) < 0.01
